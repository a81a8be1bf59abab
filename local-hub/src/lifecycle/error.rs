//! The errors of the local hub as the host reports them.
use std::io;
use std::path::{Path, PathBuf};

use crate::pg::PgError;

/// Every code that [`HubError::code`] can give.
pub const CODES: &[&str] = &[
    "local.already-running",
    "local.busy",
    "local.certificate",
    "local.cluster-name",
    "local.daemon-died",
    "local.daemon-spawn",
    "local.daemon-stuck",
    "local.daemon-timeout",
    "local.damaged",
    "local.database",
    "local.database-password",
    "local.ends",
    "local.folder-not-enterable",
    "local.io",
    "local.no-account",
    "local.no-cluster",
    "local.no-free-port",
    "local.not-a-cluster",
    "local.not-a-home",
    "local.not-owner",
    "local.not-running",
    "local.path-unusable",
    "local.pooler-start",
    "local.port-taken",
    "local.postgres-init",
    "local.postgres-missing",
    "local.postgres-start",
    "local.postgres-start-timeout",
    "local.postgres-stop-timeout",
    "local.postgres-unusable",
    "local.postgres-wrong-major",
    "local.socket-folder",
];

#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum HubError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("the control database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the control database refuses the password kept in {}", path.display())]
    SecretMismatch { path: PathBuf },
    #[error("the local hub already runs{}", pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    AlreadyRunning { pid: Option<u32> },
    #[error("the local hub is not running")]
    NotRunning,
    #[error("{} is not a folder of the local hub: {reason}", path.display())]
    NotAHome { path: PathBuf, reason: &'static str },
    #[error("{} belongs to account {owner}, and psn runs as {me}", path.display())]
    NotOwner { path: PathBuf, owner: u32, me: u32 },
    #[error("the local hub could not be started with {}: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    /// The daemon said why it ended, before it was ready.
    #[error("{message}")]
    Daemon { code: &'static str, message: String, fix: Vec<String> },
    #[error("the local hub ended while starting ({status}); its log says: {log}")]
    DaemonDied { status: String, log: String },
    #[error("the local hub was not ready after {seconds} s; its log says: {log}")]
    DaemonTimeout { seconds: u64, log: String },
    #[error("the local hub (process {pid}) does not stop")]
    DaemonStuck { pid: u32 },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("another psn has been starting or stopping the local hub for more than {seconds} s")]
    Busy { seconds: u64 },
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl HubError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
        move |source| HubError::Io { doing, path: path.to_owned(), source }
    }

    /// Stable; documented in docs/errors.md.
    pub fn code(&self) -> &'static str {
        match self {
            HubError::Postgres(e) => e.code(),
            HubError::Database(_) => "local.database",
            HubError::SecretMismatch { .. } => "local.database-password",
            HubError::AlreadyRunning { .. } => "local.already-running",
            HubError::NotRunning => "local.not-running",
            HubError::NotAHome { .. } => "local.not-a-home",
            HubError::NotOwner { .. } => "local.not-owner",
            HubError::Spawn { .. } => "local.daemon-spawn",
            HubError::Daemon { code, .. } => code,
            HubError::DaemonDied { .. } => "local.daemon-died",
            HubError::DaemonTimeout { .. } => "local.daemon-timeout",
            HubError::DaemonStuck { .. } => "local.daemon-stuck",
            HubError::Damaged { .. } => "local.damaged",
            HubError::Busy { .. } => "local.busy",
            HubError::Io { .. } => "local.io",
        }
    }

    pub fn message(&self) -> String {
        self.to_string()
    }

    /// What a person can do, most likely first. Commands are exactly as typed.
    pub fn fix(&self) -> Vec<String> {
        let s = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect();
        match self {
            HubError::Postgres(e) => e.fix(),
            HubError::Daemon { fix, .. } => fix.clone(),
            HubError::Database(_) => s(&["psn local logs", "psn local down", "psn local up"]),
            HubError::SecretMismatch { .. } | HubError::Damaged { .. } => s(&["psn local down", "psn local reset"]),
            HubError::AlreadyRunning { .. } | HubError::Busy { .. } => s(&["psn local status", "psn local down"]),
            HubError::NotRunning => s(&["psn local up"]),
            HubError::NotAHome { .. } => s(&["PSN_HOME=/path/to/another/folder psn local up"]),
            HubError::NotOwner { path, owner, .. } => vec![
                format!("run psn as account {owner}"),
                format!("PSN_HOME=/path/to/another/folder psn local up  # leaves {} alone", path.display()),
            ],
            HubError::Spawn { .. } | HubError::DaemonDied { .. } | HubError::DaemonTimeout { .. } => {
                s(&["psn local logs", "psn local up"])
            }
            HubError::DaemonStuck { pid } => {
                vec![format!("kill -9 {pid}"), "psn local down".into()]
            }
            HubError::Io { .. } => s(&["df -h", "PSN_HOME=/path/to/another/folder psn local up"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_of_codes_is_complete_and_sorted() {
        let sources = [include_str!("error.rs"), include_str!("../pg/error.rs")];
        // The arms that give a code.
        let given: BTreeSet<&str> = sources
            .iter()
            .flat_map(|source| source.split("=> \"local.").skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let listed: Vec<&str> = CODES.iter().map(|c| c.strip_prefix("local.").unwrap()).collect();
        assert_eq!(listed, given.into_iter().collect::<Vec<_>>());
    }
}
