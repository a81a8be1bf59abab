//! What a tick did, as its result says it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::posts::Post;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Posts about which something was decided.
    pub checked: u32,
    /// Posts that were leased; more than `checked` where the tick ended early.
    pub claimed: u32,
    pub retriggered: u32,
    /// Had been started before, by a tick that was killed before it could say so.
    pub deduplicated: u32,
    /// Their run is alive: looked at again later.
    pub rescheduled: u32,
    pub parked: u32,
    pub failed: u32,
    /// Seconds since the most overdue of them was due.
    pub oldest_lag_s: u64,
    pub skipped: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub(crate) fn claim(&mut self, batch: &[Post]) {
        self.claimed += batch.len() as u32;
        let lags = batch.iter().map(|post| post.lag_s.max(0.0) as u64);
        self.oldest_lag_s = lags.fold(self.oldest_lag_s, u64::max);
    }

    pub(crate) fn skip(&mut self, reason: &'static str, posts: usize) {
        *self.skipped.entry(reason).or_default() += posts;
    }

    /// A post that something else moved in the meantime was not changed here, and does not count as if it were.
    pub(crate) fn count(&mut self, moved: bool, counter: impl FnOnce(&mut Self) -> &mut u32) {
        if moved {
            *counter(self) += 1;
        } else {
            self.skip("changed-meanwhile", 1);
        }
    }
}
