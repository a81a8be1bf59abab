//! Rescues posts whose publishing got stuck. Every post that is on its way has a deadline, `rescue_at`; whatever should have
//! moved the post on and did not, leaves it in the past, and this task finds it there.
//!
//! For each such post: take a lease (move the deadline on) → ask Trigger.dev how its run is → have the publishing task started
//! with a key made of post and attempt → confirm, unless something else moved the post meanwhile. Killed between any two of
//! these, the next tick does the same again, and the same key starts nothing twice. What may have been published already is
//! never repeated: it is parked for a person to look at.

mod decide;
mod posts;
mod runs;
mod tally;

use decide::{Decision, decide};
use posts::Post;
use psn_plugin::{Timestamp, prelude::*};
use runs::{Refusal, Runs};
use serde::Deserialize;
use tally::Tally;

/// Posts per claim: a statement of milliseconds, and rows that fit any memory limit.
const BATCH: u32 = 100;
/// Milliseconds that a tick may work. The rest of its minute is for what is in flight then.
const TIME_BUDGET_MS: i64 = 45_000;
/// Calls to Trigger.dev per tick: it takes 1,500 a minute from everything that uses the environment's key.
const CALL_BUDGET: u32 = 1_000;
/// Confirmed attempts before a post counts as failed, unless watchdog.max_attempts says otherwise.
const MOST_ATTEMPTS: u32 = 5;

struct Watchdog;

psn_plugin::export_task!(Watchdog);

/// A schedule's payload says when it ran; the database's clock decides anyway.
#[derive(Deserialize)]
struct Tick {}

impl Task for Watchdog {
    type Payload = Tick;
    type Output = Tally;

    fn run(_: Invocation<Tick>) -> Result<Tally, Failure> {
        Round::begin().run()
    }
}

/// One tick.
struct Round {
    runs: Runs,
    most_attempts: u32,
    started_at: Timestamp,
    tally: Tally,
    /// Trigger.dev does not know the publishing task: no use asking for it again in this tick.
    task_is_missing: bool,
}

/// Why a tick ends before everything due is looked at. Leases run out, and the next tick goes on.
enum Stop {
    OutOfTime,
    OutOfCalls,
    TriggerUnavailable,
}

impl Stop {
    fn reason(&self) -> &'static str {
        match self {
            Self::OutOfTime => "out-of-time",
            Self::OutOfCalls => "out-of-calls",
            Self::TriggerUnavailable => "trigger-unavailable",
        }
    }
}

impl Round {
    fn begin() -> Self {
        let most_attempts = context::setting("watchdog.max_attempts").and_then(|text| text.parse().ok());
        Self {
            runs: Runs::of_task(context::setting_or("watchdog.task", "publish-post")),
            most_attempts: most_attempts.unwrap_or(MOST_ATTEMPTS),
            started_at: context::now(),
            tally: Tally::default(),
            task_is_missing: false,
        }
    }

    /// Batch by batch, until one is not full: what is due is then all claimed.
    fn run(mut self) -> Result<Tally, Failure> {
        loop {
            let batch = posts::claim(BATCH)?;
            let full = batch.len() == BATCH as usize;
            self.tally.claim(&batch);
            if let Some(stop) = self.rescue_all(&batch)? {
                log::warn!("The tick ends early; the next one goes on"; reason = stop.reason());
                break;
            }
            if !full || self.out_of_time() {
                break;
            }
        }
        Ok(self.tally)
    }

    fn rescue_all(&mut self, batch: &[Post]) -> Result<Option<Stop>, Failure> {
        for (index, post) in batch.iter().enumerate() {
            let stop = match self.limit() {
                Some(stop) => Some(stop),
                None => self.rescue(post)?,
            };
            if let Some(stop) = stop {
                self.tally.skip(stop.reason(), batch.len() - index);
                return Ok(Some(stop));
            }
            self.tally.checked += 1;
            progress(self.tally.checked, self.tally.claimed, "Looking after stuck posts");
        }
        Ok(None)
    }

    fn rescue(&mut self, post: &Post) -> Result<Option<Stop>, Failure> {
        let run = match self.runs.state(post.run_id.as_deref()) {
            Ok(run) => run,
            Err(refusal) => return self.refused(post, refusal),
        };
        match decide(post, run, self.most_attempts) {
            Decision::Wait => {
                let moved = posts::extend(post, posts::EXTENSION_S)?;
                self.tally.count(moved, |tally| &mut tally.rescheduled);
            }
            Decision::Park(reason) => {
                let moved = posts::park(post, reason)?;
                log::warn!("Parked a post: {}", reason; post = post.id);
                self.tally.count(moved, |tally| &mut tally.parked);
            }
            Decision::Fail => {
                let moved = posts::fail(post)?;
                log::warn!("Gave a post up after {} attempts", post.attempt; post = post.id);
                self.tally.count(moved, |tally| &mut tally.failed);
            }
            Decision::Trigger if self.task_is_missing => self.leave_for_the_task(post)?,
            Decision::Trigger => match self.runs.trigger(post) {
                Ok(triggered) => {
                    posts::confirm(post, &triggered.run_id)?;
                    let counter =
                        if triggered.is_cached { &mut self.tally.deduplicated } else { &mut self.tally.retriggered };
                    *counter += 1;
                }
                Err(refusal) => return self.refused(post, refusal),
            },
        }
        Ok(None)
    }

    fn refused(&mut self, post: &Post, refusal: Refusal) -> Result<Option<Stop>, Failure> {
        match refusal {
            Refusal::Unavailable(error) => {
                log::warn!("Trigger.dev is away or busy"; reason = error);
                Ok(Some(Stop::TriggerUnavailable))
            }
            Refusal::TaskMissing => {
                let task = self.runs.task();
                log::warn!("Trigger.dev has no task {}: is it deployed? Stuck posts wait for it, and lose no attempt", task; task = task);
                self.task_is_missing = true;
                self.leave_for_the_task(post)?;
                Ok(None)
            }
            Refusal::Refused(error) => {
                log::warn!("Trigger.dev refused a post's run"; post = post.id, reason = error);
                posts::extend(post, posts::EXTENSION_S)?;
                self.tally.skip("trigger-refused", 1);
                Ok(None)
            }
            Refusal::Key(failure) => Err(failure),
        }
    }

    /// A task that is not deployed is nothing that a post did: it keeps its attempts.
    fn leave_for_the_task(&mut self, post: &Post) -> Result<(), Failure> {
        posts::extend(post, posts::MISSING_TASK_S)?;
        self.tally.skip("task-missing", 1);
        Ok(())
    }

    fn limit(&self) -> Option<Stop> {
        if self.out_of_time() {
            return Some(Stop::OutOfTime);
        }
        // Two more: a post's run may be asked about and then started.
        (self.runs.calls() + 2 > CALL_BUDGET).then_some(Stop::OutOfCalls)
    }

    fn out_of_time(&self) -> bool {
        context::now().millis_since(self.started_at) >= TIME_BUDGET_MS
    }
}

#[cfg(test)]
mod tests;
