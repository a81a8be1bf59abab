//! What a tick did, as its result says it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::posts::{Gauges, Post};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Posts about which something was decided.
    pub checked: u32,
    /// Posts that were leased; more than `checked` where the tick ended early.
    pub claimed: u32,
    pub retriggered: u32,
    /// Had been started before, by a tick that was killed before it could say so.
    pub deduplicated: u32,
    /// Their run was kept for later than they are, and starts now.
    pub rescheduled: u32,
    /// Were out already; only the record was missing.
    pub recorded: u32,
    pub parked: u32,
    pub failed: u32,
    /// Seconds since the most overdue of them was due.
    pub oldest_lag_s: u64,
    pub skipped: BTreeMap<String, u32>,
    /// Dead letters of which a person was told.
    pub notified: u32,
    /// Records past their time that were deleted.
    pub pruned: u32,
    /// How things are after the tick.
    pub gauges: Option<Gauges>,
}

impl Tally {
    pub(crate) fn claim(&mut self, batch: &[Post]) {
        self.claimed += batch.len() as u32;
        let lags = batch.iter().map(|post| post.lag_s.max(0.0) as u64);
        self.oldest_lag_s = lags.fold(self.oldest_lag_s, u64::max);
    }

    pub(crate) fn skip(&mut self, reason: &str, posts: usize) {
        *self.skipped.entry(reason.to_owned()).or_default() += posts as u32;
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
