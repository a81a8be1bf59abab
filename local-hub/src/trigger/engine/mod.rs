//! The run engine: one loop hands ready runs to workers, another does what is due by itself.
//!
//! At least once: a run whose engine died is started again. Each write of an attempt carries its lease's token, so a worker that was
//! given up for dead cannot overwrite what came after it.
mod ends;
mod housekeeper;
pub(crate) mod queue;
pub(crate) mod retry;
mod scheduler;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::runner::TaskRunner;
use ends::Ends;
use housekeeper::Housekeeper;
use queue::Claimant;
use worker::Worker;

/// Runs executing at once: two for each processor, since tasks mostly wait for databases and services. Not fewer than a small plan of
/// the vendor's has; not more than leave the control database's connections to everything else.
const SLOTS_PER_PROCESSOR: usize = 2;
const SLOTS: std::ops::RangeInclusive<usize> = 4..=16;

/// Of this machine.
pub(crate) fn slots() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors * SLOTS_PER_PROCESSOR).clamp(*SLOTS.start(), *SLOTS.end())
}

/// After an error, which is nearly always a control database that restarts.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// How handlers reach the engine.
#[derive(Clone, Default)]
pub(crate) struct EngineHandle {
    /// Something may be ready to start.
    ready: Arc<Notify>,
    /// Something may be due earlier than it was.
    due: Arc<Notify>,
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl EngineHandle {
    /// Something was queued that may start now, and nothing else.
    pub(crate) fn wake_ready(&self) {
        self.ready.notify_one();
    }

    /// Something was queued, or put off, or is to be done.
    pub(crate) fn wake(&self) {
        self.ready.notify_one();
        self.due.notify_one();
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
    /// Of its presence lock.
    number: i32,
    worker: Arc<Worker>,
    /// Each answers whether its run is to be tried again later.
    workers: JoinSet<bool>,
    slots: usize,
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
    let number = presence.number;
    let keeper = Housekeeper { db: db.clone(), handle: handle.clone(), presence, shutdown: shutdown.clone() };
    let worker = Arc::new(Worker { db: db.clone(), origin, runner, shutdown, ends: Ends::default() });
    let engine = Engine { db, handle: handle.clone(), number, worker, workers: JoinSet::new(), slots: slots() };
    Ok((handle, tokio::spawn(engine.run(keeper))))
}

impl Engine {
    async fn run(mut self, keeper: Housekeeper) {
        let shutdown = self.worker.shutdown.clone();
        let mut keeper = tokio::spawn(keeper.run());
        while !shutdown.is_cancelled() {
            if let Err(error) = self.fill().await {
                tracing::warn!(%error, "the run engine could not reach the control database");
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = sleep(ERROR_PAUSE) => {}
                }
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                // Without it runs would wait for ever: the engine ends, and so does who depends on it.
                _ = &mut keeper => return while self.workers.join_next().await.is_some() {},
                () = self.handle.ready.notified() => {}
                Some(again) = self.workers.join_next() => self.ended(again),
            }
        }
        while self.workers.join_next().await.is_some() {}
        // Only now: with its lock gone, another engine would take the runs that were still ending.
        drop(keeper.await);
    }

    /// Gives each free place a run, for as long as there is one that may start.
    async fn fill(&mut self) -> Result<(), sqlx::Error> {
        loop {
            // Whoever ended while the last claim was made has left a place too: one claim for several is cheaper than one for each.
            while let Some(again) = self.workers.try_join_next() {
                self.ended(again);
            }
            let free = self.slots.saturating_sub(self.workers.len());
            if free == 0 {
                return Ok(());
            }
            let claimed = queue::claim(&self.db, Claimant::Engine(self.number), free).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            for run in claimed {
                self.spawn(run);
            }
        }
    }

    fn ended(&self, again: Result<bool, JoinError>) {
        // A worker that panicked has left its lease to run out.
        if again.unwrap_or(true) {
            self.handle.due.notify_one();
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
            worker.attempt(claimed, cancelled).await
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
