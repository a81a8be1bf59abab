//! One attempt of one run, from its claim to its end.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::envvars::PLATFORM_NAMES;
use super::super::tasks::unpack;
use super::ends::Ends;
use super::queue::{self, Claimed, Ending, HEARTBEAT, LEASE, Lease};
use super::retry::{self, Next, RetryPolicy};
use crate::runner::{RunOutcome, TaskRun, TaskRunner};

/// What a runner gets to stop after its token fired; then it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// What runs get to end by themselves when the engine stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Between two tries to store how an attempt ended. They go on for as long as the lease lasts.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Timers cannot wait longer; a run without a limit waits this long, which is for ever.
const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);

pub(crate) struct Worker {
    pub(crate) db: PgPool,
    pub(crate) origin: Arc<str>,
    pub(crate) runner: Arc<dyn TaskRunner>,
    pub(crate) shutdown: CancellationToken,
    pub(super) ends: Ends,
}

enum End {
    /// The runner said so, or panicked.
    Outcome(RunOutcome),
    /// Somebody cancelled the run; its row says so already.
    Cancelled,
    LeaseLost,
    Shutdown,
}

impl Worker {
    /// `cancelled` fires when a caller cancels the run. True when it is to be tried again later.
    pub(crate) async fn attempt(&self, claimed: Claimed, cancelled: CancellationToken) -> bool {
        let lease = Lease { run: claimed.id.clone(), token: claimed.lease_token };
        let env = match self.prepare(&claimed, &lease).await {
            Ok(Some(env)) => env,
            Ok(None) => return false,
            Err(error) => {
                // The lease runs out, and the run is taken up again.
                tracing::warn!(run = %claimed.id, %error, "a run could not be started");
                return false;
            }
        };
        let policy = RetryPolicy::parse(claimed.retry.as_ref());
        let max_attempts = policy.attempts(claimed.max_attempts);
        let counted = claimed.attempt - claimed.stalls;
        let limit = claimed.max_duration.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let ending = match self.execute(task_run(claimed, env, limit), &lease, limit, cancelled).await {
            End::Cancelled | End::LeaseLost => return false,
            End::Shutdown => Ending::Released,
            End::Outcome(RunOutcome::Completed { output }) => Ending::Completed { output: output.to_string() },
            End::Outcome(outcome) => match retry::next(&outcome, &policy, counted, max_attempts, random()) {
                Some(Next::Retry { after, error }) => Ending::Again { after, error },
                Some(Next::End { status, error }) => Ending::Failed { status, error },
                None => return false,
            },
        };
        self.store(&lease, &ending).await;
        matches!(ending, Ending::Again { .. })
    }

    /// The run's environment, `None` when the run was cancelled since its claim.
    async fn prepare(&self, claimed: &Claimed, lease: &Lease) -> Result<Option<BTreeMap<String, String>>, sqlx::Error> {
        let Some(mut env) = queue::begin(&self.db, lease).await? else {
            return Ok(None);
        };
        let platform = [claimed.api_key.as_str(), &self.origin, claimed.project_ref.as_str()];
        for (name, value) in PLATFORM_NAMES.iter().zip(platform) {
            env.insert((*name).to_owned(), value.to_owned());
        }
        Ok(Some(env))
    }

    async fn execute(&self, run: TaskRun, lease: &Lease, limit: Option<Duration>, cancelled: CancellationToken) -> End {
        let stop = CancellationToken::new();
        let (runner, token) = (self.runner.clone(), stop.clone());
        // A task of its own: a panic of the runner ends this attempt and nothing else.
        let mut task = tokio::spawn(async move { runner.run(run, token).await });
        let mut beat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = sleep(limit.unwrap_or(NO_LIMIT).min(NO_LIMIT));
        let drained = async {
            self.shutdown.cancelled().await;
            sleep(DRAIN).await;
        };
        tokio::pin!(deadline, drained);
        let end = loop {
            tokio::select! {
                biased;
                outcome = &mut task => return End::Outcome(settled(outcome)),
                () = cancelled.cancelled() => break End::Cancelled,
                () = &mut deadline => break End::Outcome(RunOutcome::TimedOut),
                () = &mut drained => break End::Shutdown,
                _ = beat.tick() => match queue::heartbeat(&self.db, lease).await {
                    Ok(true) => {}
                    Ok(false) => break End::LeaseLost,
                    Err(error) => tracing::warn!(run = %lease.run, %error, "a heartbeat failed"),
                },
            }
        };
        stop.cancel();
        match timeout(STOP_GRACE, &mut task).await {
            // It was done in the same moment: what it did counts, unless the row says otherwise.
            Ok(Ok(outcome @ RunOutcome::Completed { .. })) if !matches!(end, End::Cancelled | End::LeaseLost) => {
                End::Outcome(outcome)
            }
            Ok(_) => end,
            Err(_) => {
                tracing::warn!(run = %lease.run, "the runner did not stop when told to; dropped");
                task.abort();
                end
            }
        }
    }

    async fn store(&self, lease: &Lease, ending: &Ending) {
        let started = Instant::now();
        let mut written = self.ends.write(&self.db, lease, ending).await;
        loop {
            match written {
                Ok(true) => return,
                Ok(false) => {
                    tracing::info!(run = %lease.run, "an attempt ended after its lease: its result is dropped");
                    return;
                }
                Err(error) if started.elapsed() < LEASE => {
                    tracing::warn!(run = %lease.run, %error, "the end of an attempt could not be stored; trying again");
                    sleep(STORE_PAUSE).await;
                    // Alone: what cannot be written of one must not keep the others from being written.
                    written = queue::end(&self.db, lease, ending).await;
                }
                Err(error) => {
                    tracing::error!(run = %lease.run, %error, "the end of an attempt could not be stored; it will be repeated");
                    return;
                }
            }
        }
    }
}

fn task_run(claimed: Claimed, env: BTreeMap<String, String>, max_duration: Option<Duration>) -> TaskRun {
    TaskRun {
        payload: unpack(&claimed.payload, &claimed.payload_type).unwrap_or_default(),
        run_id: claimed.id,
        task: claimed.task,
        file_path: claimed.file_path,
        scheduled_at: claimed.scheduled_at,
        attempt: claimed.attempt.unsigned_abs(),
        env,
        max_duration,
    }
}

fn settled(outcome: Result<RunOutcome, JoinError>) -> RunOutcome {
    outcome.unwrap_or_else(|error| RunOutcome::Crashed { message: format!("the runner failed: {error}") })
}

/// From 0 to 1, for jitter.
fn random() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
