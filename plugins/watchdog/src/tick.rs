//! One tick, within its budgets.

use std::collections::BTreeSet;

use psn_plugin::{Timestamp, db, prelude::*};

use crate::{
    decide::{Decision, MISSING_TASK_S, QUEUED_S, decide},
    posts::{self, Post},
    runs,
    runs::{Refusal, Runs},
    tally::Tally,
};

/// Posts per claim: a statement of milliseconds, and rows that fit any memory limit.
pub(crate) const BATCH: u32 = 100;
/// Milliseconds that a tick may work. The rest of its minute is for what is in flight then.
const TIME_BUDGET_MS: i64 = 45_000;
/// Calls to Trigger.dev per tick: it takes 1,500 a minute from everything that uses the environment's key.
pub(crate) const CALL_BUDGET: u32 = 1_000;
/// Runs started per tick: a wave of them is a load of its own on platforms and on Trigger.dev's queue.
pub(crate) const TRIGGER_BUDGET: u32 = 500;
/// Milliseconds that one statement may take before the tick leaves the database alone: it takes a few.
const SLOW_MS: i64 = 2_000;
/// Refusals in a row after which Trigger.dev is not asked again in this tick.
const REFUSALS: u32 = 5;
/// Seconds that a tick's claim holds: its longest life, and some.
const CLAIM_S: u32 = 75;
/// How far the gauges count.
pub(crate) const GAUGE_CAP: u32 = 10_000;
/// Dead letters that are told of per tick.
const NOTIFY: u32 = 200;
/// Old records deleted per tick, of each kind.
const PRUNE: u32 = 1_000;
/// A progress event after so many posts.
const PROGRESS: u32 = 10;

pub(crate) struct Round {
    runs: Runs,
    started_at: Timestamp,
    tally: Tally,
    /// Tasks that Trigger.dev does not know: no use asking for them again in this tick.
    missing: BTreeSet<String>,
    /// A person was told in this tick.
    told_of_version: bool,
    refusals: u32,
    triggered: u32,
}

/// Why a tick ends before everything due is looked at. Leases run out, and the next tick goes on.
enum Stop {
    OutOfTime,
    OutOfCalls,
    OutOfTriggers,
    TriggerUnavailable,
    TriggerRefuses,
    SlowDatabase,
}

impl Stop {
    fn reason(&self) -> &'static str {
        match self {
            Self::OutOfTime => "out-of-time",
            Self::OutOfCalls => "out-of-calls",
            Self::OutOfTriggers => "out-of-triggers",
            Self::TriggerUnavailable => "trigger-unavailable",
            Self::TriggerRefuses => "trigger-refuses",
            Self::SlowDatabase => "slow-database",
        }
    }
}

/// What became of one post's turn.
enum Turn {
    Next,
    /// The post is left to the next tick, like all after it.
    Stop(Stop),
    /// The post had its turn; those after it are left to the next tick.
    StopAfter(Stop),
}

enum Broken {
    Database(db::Error),
    Whole(Failure),
}

impl From<db::Error> for Broken {
    fn from(error: db::Error) -> Self {
        Self::Database(error)
    }
}

impl Round {
    pub(crate) fn begin() -> Self {
        Self {
            runs: runs(),
            started_at: context::now(),
            tally: Tally::default(),
            missing: BTreeSet::new(),
            told_of_version: false,
            refusals: 0,
            triggered: 0,
        }
    }

    pub(crate) fn run(mut self) -> Result<Tally, Failure> {
        let Some(tick) = posts::begin_tick(CLAIM_S)? else {
            log::info!("Another tick is at work; this one leaves it to that");
            self.tally.skip("another-tick", 1);
            return Ok(self.tally);
        };
        let worked = self.work();
        // A claim that cannot be given back runs out by itself.
        let ended = posts::end_tick(&tick);
        worked?;
        ended?;
        Ok(self.tally)
    }

    fn work(&mut self) -> Result<(), Failure> {
        self.rescue_all()?;
        self.notify()?;
        self.tally.pruned = posts::prune(PRUNE)?;
        self.tally.gauges = Some(posts::gauges(GAUGE_CAP)?);
        Ok(())
    }

    /// Batch by batch, until one is not full: what is due is then all claimed.
    fn rescue_all(&mut self) -> Result<(), Failure> {
        loop {
            let asked_at = context::now();
            let batch = posts::lease(BATCH)?;
            let slow = context::now().millis_since(asked_at) > SLOW_MS;
            let full = batch.len() == BATCH as usize;
            self.tally.claim(&batch);
            let stop = self.rescue_batch(&batch)?.or(slow.then_some(Stop::SlowDatabase));
            if let Some(stop) = stop {
                log::warn!("The tick ends early; the next one goes on"; reason = stop.reason());
                return Ok(());
            }
            if !full || self.out_of_time() {
                return Ok(());
            }
        }
    }

    fn rescue_batch(&mut self, batch: &[Post]) -> Result<Option<Stop>, Failure> {
        for (index, post) in batch.iter().enumerate() {
            let turn = match self.limit() {
                Some(stop) => Turn::Stop(stop),
                None => self.turn(post)?,
            };
            let (had_its_turn, stop) = match turn {
                Turn::Next => (true, None),
                Turn::StopAfter(stop) => (true, Some(stop)),
                Turn::Stop(stop) => (false, Some(stop)),
            };
            self.tally.checked += u32::from(had_its_turn);
            if let Some(stop) = stop {
                self.tally.skip(stop.reason(), batch.len() - index - usize::from(had_its_turn));
                return Ok(Some(stop));
            }
            if self.tally.checked.is_multiple_of(PROGRESS) {
                progress(self.tally.checked, self.tally.claimed, "Looking after stuck posts");
            }
        }
        Ok(None)
    }

    /// What one post's values make the database refuse must not keep the others waiting.
    fn turn(&mut self, post: &Post) -> Result<Turn, Failure> {
        match self.rescue(post) {
            Ok(turn) => Ok(turn),
            Err(Broken::Whole(failure)) => Err(failure),
            Err(Broken::Database(error)) if is_about_one(&error) => {
                log::error!("The database refuses what is to be written about a post"; post = post.id, reason = error);
                self.tally.skip("database-refused", 1);
                Ok(Turn::Next)
            }
            Err(Broken::Database(error)) => Err(error.into()),
        }
    }

    fn rescue(&mut self, post: &Post) -> Result<Turn, Broken> {
        if let Some(reason) = &post.unknown {
            // Once for all of them: there may be a million.
            if !self.tally.skipped.contains_key(reason) {
                log::warn!("Posts of a kind or for a platform that this hub does not know are left alone"; post = post.id, reason = reason);
            }
            self.tally.skip(reason, 1);
            return Ok(Turn::Next);
        }
        let run = match self.runs.state(post) {
            Ok(run) => run,
            Err(refusal) => return self.refused(post, refusal),
        };
        match decide(post, run) {
            Decision::Wait { reason, seconds, working } => {
                if reason == "deployment-missing" && !self.told_of_version {
                    self.told_of_version = true;
                    log::error!("Runs wait for a version of their task that is not deployed: psn run trigger-provision"; post = post.id);
                }
                posts::postpone(post, seconds, working)?;
                self.tally.skip(reason, 1);
            }
            Decision::Reschedule => return self.reschedule(post),
            Decision::Record(external_id) => {
                let moved = posts::finish(post, &external_id)?;
                self.tally.count(moved, |tally| &mut tally.recorded);
            }
            Decision::Park(reason) => {
                let moved = posts::park(post, &format!("Parked by the watchdog: {reason}"))?;
                self.tally.count(moved, |tally| &mut tally.parked);
            }
            Decision::Fail => {
                let moved = posts::fail(post, &format!("Given up by the watchdog after {} attempts", post.attempt))?;
                self.tally.count(moved, |tally| &mut tally.failed);
            }
            Decision::Trigger { .. } if self.missing.contains(self.runs.task_of(post)) => {
                self.leave_for_the_task(post)?;
            }
            Decision::Trigger { ended } => return self.trigger(post, ended),
        }
        self.refusals = 0;
        Ok(Turn::Next)
    }

    fn trigger(&mut self, post: &Post, ended: Option<&str>) -> Result<Turn, Broken> {
        match self.runs.trigger(post) {
            Ok(triggered) => {
                let asked_at = context::now();
                posts::confirm(post, &triggered.run_id, ended)?;
                self.triggered += 1;
                self.refusals = 0;
                let counter =
                    if triggered.is_cached { &mut self.tally.deduplicated } else { &mut self.tally.retriggered };
                *counter += 1;
                let slow = context::now().millis_since(asked_at) > SLOW_MS;
                Ok(if slow { Turn::StopAfter(Stop::SlowDatabase) } else { Turn::Next })
            }
            Err(refusal) => self.refused(post, refusal),
        }
    }

    fn reschedule(&mut self, post: &Post) -> Result<Turn, Broken> {
        match self.runs.reschedule(post.run_id.as_deref().unwrap_or_default()) {
            Ok(moved) => {
                posts::postpone(post, QUEUED_S, false)?;
                self.refusals = 0;
                self.tally.count(moved, |tally| &mut tally.rescheduled);
                Ok(Turn::Next)
            }
            Err(refusal) => self.refused(post, refusal),
        }
    }

    fn refused(&mut self, post: &Post, refusal: Refusal) -> Result<Turn, Broken> {
        match refusal {
            Refusal::Unavailable(error) => {
                log::warn!("Trigger.dev is away or busy"; reason = error);
                Ok(Turn::Stop(Stop::TriggerUnavailable))
            }
            Refusal::TaskMissing => {
                let task = self.runs.task_of(post).to_owned();
                log::error!("Trigger.dev has no task {}: is it deployed? Stuck posts wait for it, and lose no attempt", task; task = task);
                self.missing.insert(task);
                self.leave_for_the_task(post)?;
                Ok(Turn::Next)
            }
            Refusal::Refused(error) => {
                log::warn!("Trigger.dev refuses what is asked about a post, or answers nonsense"; post = post.id, reason = error);
                posts::postpone(post, QUEUED_S, false)?;
                self.tally.skip("trigger-refused", 1);
                self.refusals += 1;
                Ok(if self.refusals < REFUSALS { Turn::Next } else { Turn::StopAfter(Stop::TriggerRefuses) })
            }
            Refusal::Key(failure) => Err(Broken::Whole(failure)),
        }
    }

    /// A task that is not deployed is nothing that a post did: it keeps its attempts.
    fn leave_for_the_task(&mut self, post: &Post) -> Result<(), Broken> {
        posts::postpone(post, MISSING_TASK_S, false)?;
        self.tally.skip("task-missing", 1);
        Ok(())
    }

    /// One event per post and state: told, then marked. A tick that dies in between tells again.
    fn notify(&mut self) -> Result<(), Failure> {
        let letters = posts::unnotified(NOTIFY)?;
        for letter in &letters {
            let fix = format!("psn posts show {}", letter.post);
            log::error!("A post needs a person: {}", letter.cause; post = letter.post, state = letter.state, fix = fix);
        }
        if !letters.is_empty() {
            posts::notified(&letters)?;
        }
        self.tally.notified = letters.len() as u32;
        Ok(())
    }

    fn limit(&self) -> Option<Stop> {
        if self.out_of_time() {
            return Some(Stop::OutOfTime);
        }
        if self.triggered >= TRIGGER_BUDGET {
            return Some(Stop::OutOfTriggers);
        }
        // Two more: a post's run may be asked about and then started.
        (self.runs.calls() + 2 > CALL_BUDGET).then_some(Stop::OutOfCalls)
    }

    fn out_of_time(&self) -> bool {
        context::now().millis_since(self.started_at) >= TIME_BUDGET_MS
    }
}

/// Data that does not fit (class 22) or breaks a constraint (23).
fn is_about_one(error: &db::Error) -> bool {
    error.sqlstate.as_deref().is_some_and(|state| state.starts_with("22") || state.starts_with("23"))
}
