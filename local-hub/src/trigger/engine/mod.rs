//! The run engine: one loop that does what is due and hands ready runs to workers.
//!
//! At least once: a run whose engine died is started again. Each write of an attempt carries its lease's token, so a worker that was
//! given up for dead cannot overwrite what came after it.
pub(crate) mod queue;
pub(crate) mod retry;
mod scheduler;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::store;
use crate::runner::TaskRunner;
use queue::Claimant;
use worker::Worker;

/// Runs executing at once. A local hub shares one machine with its user.
const CONCURRENCY: usize = 4;
/// The longest sleep. Whatever changes the queue in this process wakes the loop; this is for everything else.
const MAX_IDLE: Duration = Duration::from_secs(5);
/// The shortest sleep, so that something due that cannot be done does not spin.
const MIN_IDLE: Duration = Duration::from_millis(20);
/// Between two looks at what is due by itself, while runs come and go faster than that.
const HOUSEKEEPING: Duration = Duration::from_millis(50);
/// After an error, which is nearly always a control database that restarts.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// How handlers reach the engine.
#[derive(Clone, Default)]
pub(crate) struct EngineHandle {
    wake: Arc<Notify>,
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl EngineHandle {
    /// Something may be due.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Stops a run that is executing here; its row was changed before.
    pub(crate) fn cancel(&self, run: &str) {
        if let Some(token) = self.lock().get(run) {
            token.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        // Nothing that panics happens under this lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a run off the list of running ones however its worker ends.
struct Registered {
    handle: EngineHandle,
    run: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.handle.lock().remove(&self.run);
    }
}

struct Engine {
    db: PgPool,
    handle: EngineHandle,
    presence: Presence,
    worker: Arc<Worker>,
    workers: JoinSet<()>,
    /// When what is due by itself was last done.
    kept: Option<Instant>,
}

/// The task ends after `shutdown`, when the last run has ended or has been put back.
pub(crate) async fn start(
    db: PgPool,
    origin: Arc<str>,
    runner: Arc<dyn TaskRunner>,
    shutdown: CancellationToken,
) -> Result<(EngineHandle, JoinHandle<()>), sqlx::Error> {
    let mut presence = Presence::new();
    presence.hold(&db).await?;
    let handle = EngineHandle::default();
    let worker = Arc::new(Worker { db: db.clone(), origin, runner, shutdown });
    let engine = Engine { db, handle: handle.clone(), presence, worker, workers: JoinSet::new(), kept: None };
    Ok((handle, tokio::spawn(engine.run())))
}

impl Engine {
    async fn run(mut self) {
        let shutdown = self.worker.shutdown.clone();
        while !shutdown.is_cancelled() {
            let idle = match self.tick().await {
                Ok(idle) => idle,
                Err(error) => {
                    tracing::warn!(%error, "the run engine could not reach the control database");
                    ERROR_PAUSE
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.handle.wake.notified() => {}
                () = sleep(idle) => {}
                Some(_) = self.workers.join_next() => {}
            }
        }
        while self.workers.join_next().await.is_some() {}
    }

    /// Does everything that is due, and says how long nothing will be.
    async fn tick(&mut self) -> Result<Duration, sqlx::Error> {
        while self.workers.try_join_next().is_some() {}
        let since = self.kept.map(|kept| kept.elapsed());
        if let Some(rest) = since.and_then(|since| HOUSEKEEPING.checked_sub(since)) {
            self.fill().await?;
            return Ok(rest.max(MIN_IDLE));
        }
        // First: without its lock this engine would take its own runs for a dead one's.
        self.presence.hold(&self.db).await?;
        // What was just triggered does not wait for the rest.
        self.fill().await?;
        let recovered = queue::recover(&self.db).await?;
        if recovered > 0 {
            tracing::info!(recovered, "runs of an engine that died are queued again");
        }
        let promoted = queue::promote_delayed(&self.db).await?;
        queue::expire(&self.db).await?;
        let fired = scheduler::fire_due(&self.db).await?;
        queue::park(&self.db).await?;
        store::deployments::time_out(&self.db).await?;
        if recovered > 0 || promoted > 0 || fired > 0 {
            self.fill().await?;
        }
        self.kept = Some(Instant::now());
        Ok(queue::until_due(&self.db).await?.map_or(MAX_IDLE, |due| due.clamp(MIN_IDLE, MAX_IDLE)))
    }

    /// Gives each free place a run, for as long as there is one that may start.
    async fn fill(&mut self) -> Result<(), sqlx::Error> {
        loop {
            let free = CONCURRENCY.saturating_sub(self.workers.len());
            if free == 0 {
                return Ok(());
            }
            let claimed = queue::claim(&self.db, Claimant::Engine(self.presence.number), free).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            for run in claimed {
                self.spawn(run);
            }
        }
    }

    fn spawn(&mut self, claimed: queue::Claimed) {
        // Registered before the run is begun: a cancellation between the two finds it either here or in its row.
        let cancelled = CancellationToken::new();
        let registered = Registered { handle: self.handle.clone(), run: claimed.id.clone() };
        self.handle.lock().insert(claimed.id.clone(), cancelled.clone());
        let worker = self.worker.clone();
        self.workers.spawn(async move {
            let _registered = registered;
            worker.attempt(claimed, cancelled).await;
        });
    }
}

/// Shows other engines that this one lives: an advisory lock on a connection of its own.
struct Presence {
    number: i32,
    connection: Option<PgConnection>,
}

impl Presence {
    fn new() -> Self {
        // Positive: pg_locks shows the number as an unsigned one.
        let number = i32::try_from(getrandom::u32().unwrap_or_else(|_| std::process::id()) >> 1).unwrap_or(i32::MAX);
        Self { number, connection: None }
    }

    async fn hold(&mut self, db: &PgPool) -> Result<(), sqlx::Error> {
        if let Some(connection) = &mut self.connection
            && connection.ping().await.is_ok()
        {
            return Ok(());
        }
        self.connection = None;
        let mut connection = db.connect_options().connect().await?;
        sqlx::query("SELECT pg_advisory_lock($1, $2)")
            .bind(queue::PRESENCE_LOCK_CLASS)
            .bind(self.number)
            .execute(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(())
    }
}
