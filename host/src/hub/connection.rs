//! Connections to the hub's database.
use std::path::PathBuf;

use sqlx::PgConnection;

use crate::capabilities::Deadline;
use crate::secret::Secrets;

/// Whom a database server's certificate must come from.
#[derive(Clone, Debug)]
pub enum TlsRoots {
    WebPki,
    Pem(PathBuf),
}

/// What a connection is for: decides the role, and the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    OwnerDirect,
    App,
    Plugin(String),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0} is not set")]
    NoUrl(String),
}

pub async fn connect(purpose: &Purpose, secrets: &Secrets, tls: &TlsRoots, deadline: Deadline) -> Result<PgConnection, ConnectError> {
    let _ = (purpose, secrets, tls, deadline);
    todo!()
}
