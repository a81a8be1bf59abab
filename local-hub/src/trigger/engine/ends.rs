//! The ends of attempts, written together where several come at once: each has to be on disk, and one wait for it serves all.
use std::mem;
use std::sync::{Mutex, PoisonError};

use sqlx::PgPool;
use tokio::sync::oneshot;

use super::queue::{self, Ending, Lease};

/// Whether the lease was still there.
type Written = Result<bool, sqlx::Error>;

struct Waiting {
    lease: Lease,
    ending: Ending,
    answer: oneshot::Sender<Written>,
}

#[derive(Default)]
pub(super) struct Ends {
    waiting: Mutex<Vec<Waiting>>,
    /// Whoever has it writes for all that wait.
    turn: tokio::sync::Mutex<()>,
}

impl Ends {
    /// An error is that of all that were written together; each tries again by itself then.
    pub(super) async fn write(&self, db: &PgPool, lease: &Lease, ending: &Ending) -> Written {
        let (answer, mut written) = oneshot::channel();
        self.waiting().push(Waiting { lease: lease.clone(), ending: ending.clone(), answer });
        let turn = self.turn.lock().await;
        if let Ok(written) = written.try_recv() {
            return written;
        }
        let all = mem::take(&mut *self.waiting());
        let ends: Vec<_> = all.iter().map(|one| (&one.lease, &one.ending)).collect();
        let ended = queue::end_all(db, &ends).await;
        for one in all {
            let written = match &ended {
                Ok(ended) => Ok(ended.contains(&one.lease.token)),
                Err(error) => Err(sqlx::Error::Protocol(error.to_string())),
            };
            // Whoever does not listen any more has stopped.
            let _ = one.answer.send(written);
        }
        drop(turn);
        // Whoever wrote for this one was stopped in the middle of it.
        written.await.unwrap_or_else(|_| Err(sqlx::Error::Protocol("the end of an attempt was not written".to_owned())))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        // Nothing that panics happens under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
