//! What is due by itself: schedules, delays, times to live, runs of engines that died. It goes on beside the handing out of runs,
//! which would wait for it otherwise.
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::store;
use super::{ERROR_PAUSE, EngineHandle, Presence, queue, scheduler};

/// The longest sleep. Whatever changes what is due in this process ends it; this is for everything else.
const MAX_IDLE: Duration = Duration::from_secs(5);
/// Between two rounds, while runs come and go faster than that.
const MIN_IDLE: Duration = Duration::from_millis(50);

pub(super) struct Housekeeper {
    pub(super) db: PgPool,
    pub(super) handle: EngineHandle,
    pub(super) presence: Presence,
    pub(super) shutdown: CancellationToken,
}

impl Housekeeper {
    /// Until `shutdown`. Answers the lock that shows that the engine lives.
    pub(super) async fn run(mut self) -> Presence {
        while !self.shutdown.is_cancelled() {
            let idle = match self.round().await {
                Ok(idle) => idle,
                Err(error) => {
                    tracing::warn!(%error, "the run engine could not reach the control database");
                    ERROR_PAUSE
                }
            };
            // What became due may start now.
            self.handle.ready.notify_one();
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = sleep(MIN_IDLE) => {}
            }
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                () = self.handle.due.notified() => {}
                () = sleep(idle.saturating_sub(MIN_IDLE)) => {}
            }
        }
        self.presence
    }

    /// Does everything that is due, and says how long nothing will be.
    async fn round(&mut self) -> Result<Duration, sqlx::Error> {
        // First: without its lock this engine would take its own runs for a dead one's.
        self.presence.hold(&self.db).await?;
        let recovered = queue::recover(&self.db).await?;
        if recovered > 0 {
            tracing::info!(recovered, "runs of an engine that died are queued again");
        }
        queue::promote_delayed(&self.db).await?;
        queue::expire(&self.db).await?;
        scheduler::fire_due(&self.db).await?;
        queue::park(&self.db).await?;
        store::deployments::time_out(&self.db).await?;
        Ok(queue::until_due(&self.db).await?.map_or(MAX_IDLE, |due| due.min(MAX_IDLE)))
    }
}
