//! The hub's database, as the plugin's own role.
//!
//! Two walls: Postgres, where the role has the manifest's grants and nothing else, and [`policy`], which lets through only
//! statements that it understands as a whole.
//!
//! What crosses the border, besides what has the same name on both sides: `numeric` and `date` come out as text, arrays as JSON,
//! `timestamp` without a zone counts as UTC. A parameter has the type that Postgres infers for it, and takes any value that can be
//! one: text becomes a uuid, a time, JSON or a number, a JSON array becomes an array. For other types, `$1::text::numeric`.
mod allowed;
mod columns;
mod fault;
mod host;
#[cfg(feature = "full")]
pub(crate) mod invariants;
mod numeric;
mod parse;
mod policy;
mod session;
#[cfg(test)]
mod tests;
mod values;

use fault::Fault;
use policy::Policy;
use session::{Begin, Session};

use super::Deadline;
use crate::hub::{Patience, TlsRoots};
use crate::plugins::manifest::Manifest;
use crate::secret::Secret;

/// Connections of one call: its statements', and those of transactions and cursors that it holds open meanwhile. Three calls of one
/// plugin fit its role's connection limit.
const MAX_CONNECTIONS: usize = 3;

/// How the plugin's role is reached, if it is there yet.
pub struct DbAccess {
    url: Option<Secret>,
    tls: TlsRoots,
}

impl DbAccess {
    pub fn new(url: Option<Secret>, tls: TlsRoots) -> Self {
        Self { url, tls }
    }
}

/// One call's access to the database. Connects when first used; what is open closes with it.
pub struct Db {
    access: DbAccess,
    policy: Policy,
    idle: Option<Session>,
    /// Handed out with open transactions and cursors.
    in_use: usize,
    /// Of these, transactions: while there is one, no HTTP call is made.
    transactions: usize,
}

impl Db {
    pub fn new(manifest: &Manifest, access: DbAccess) -> Self {
        Self {
            access,
            policy: Policy::new(&manifest.db).with_withheld(&manifest.withheld),
            idle: None,
            in_use: 0,
            transactions: 0,
        }
    }

    /// A session with a fresh transaction. Nothing has run in it, so a connection that goes away meanwhile is replaced.
    async fn begin(&mut self, begin: Begin, deadline: Deadline) -> Result<Session, Fault> {
        let mut patience = Patience::within(deadline);
        loop {
            match self.try_begin(begin, deadline).await {
                Err(Fault::Lost(_)) if patience.again().await => {}
                ended => return ended,
            }
        }
    }

    async fn try_begin(&mut self, begin: Begin, deadline: Deadline) -> Result<Session, Fault> {
        if let Some(mut session) = self.idle.take() {
            match session.begin(begin, deadline).await {
                Ok(()) => return Ok(session),
                // The server may have closed it while it was idle. Nothing has run, so another connection is as good.
                Err(Fault::Lost(_)) => {}
                Err(e) => return Err(e),
            }
        }
        if self.in_use >= MAX_CONNECTIONS {
            let words =
                format!("{MAX_CONNECTIONS} transactions and cursors are open already: finish or drop one first");
            return Err(Fault::Denied(words));
        }
        let mut session = Session::open(&self.access, deadline).await?;
        session.begin(begin, deadline).await?;
        Ok(session)
    }

    /// Takes a session back whose transaction is over.
    fn release(&mut self, session: Session) {
        self.idle = Some(session);
    }
}
