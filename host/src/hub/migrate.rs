//! Migrations.
use serde::Serialize;

use super::connection::TlsRoots;
use crate::capabilities::Deadline;
use crate::events::{Check, EventSink};
use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

#[derive(Clone, Debug, Default)]
pub struct MigrateReport {
    pub applied: Vec<i64>,
    pub pending_before: Vec<i64>,
    pub roles_made: Vec<String>,
    pub grants_changed: Vec<String>,
    pub checks: Vec<Check>,
}

impl MigrateReport {
    /// Whether anything was done.
    pub fn changed(&self) -> bool {
        !(self.applied.is_empty() && self.roles_made.is_empty() && self.grants_changed.is_empty())
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct MigrationFacts {
    pub applied: Vec<(i64, String)>,
    pub pending: Vec<(i64, String)>,
    pub changed: Vec<(i64, String)>,
    /// What would be done besides, in words.
    pub roles: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Connect(#[from] super::connection::ConnectError),
}

pub async fn migrate(secrets: &Secrets, tls: &TlsRoots, plugins: &[Manifest], events: &EventSink, deadline: Deadline) -> Result<MigrateReport, MigrateError> {
    let _ = (secrets, tls, plugins, events, deadline);
    todo!()
}

pub async fn inspect_migrations(secrets: &Secrets, tls: &TlsRoots, plugins: &[Manifest], deadline: Deadline) -> Result<MigrationFacts, MigrateError> {
    let _ = (secrets, tls, plugins, deadline);
    todo!()
}
