//! What can go wrong with Postgres on this machine, each with what to do about it.
use std::io;
use std::path::{Path, PathBuf};

#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum PgError {
    #[error("no Postgres server of version {min} or later was found (looked in: {})", list(looked))]
    NoPostgres { min: u32, looked: Vec<String> },
    #[error("{} holds no usable Postgres: {reason}", dir.display())]
    BinUnusable { dir: PathBuf, reason: String },
    #[error("{what} was made by Postgres {need}, but {} here; its data is untouched", found(have))]
    WrongMajor { what: String, need: u32, have: Vec<String> },
    #[error("psn runs as root, Postgres refuses to, and none of the accounts {} exists", list(tried))]
    NoAccount { tried: Vec<String> },
    #[error("{} (mode {mode:o}) cannot be entered by account {uid}, which runs Postgres because psn runs as root", path.display())]
    NotEnterable { path: PathBuf, mode: u32, uid: u32 },
    #[error("the pooler of {id} did not start; its log says: {log}")]
    PoolerFailed { id: String, log: String },
    #[error("port {port} of {what} is taken{}", holder.as_deref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortTaken { what: String, port: u16, holder: Option<String> },
    #[error("no free port between {from} and {to} on 127.0.0.1")]
    NoFreePort { from: u16, to: u16 },
    #[error("{} cannot be the folder of a Postgres cluster: {reason}", path.display())]
    UnusablePath { path: PathBuf, reason: &'static str },
    #[error("{id:?} is no name for a cluster (a-z, 0-9 and '-', at most {max} characters)")]
    BadId { id: String, max: usize },
    #[error("there is no cluster {id}")]
    NoCluster { id: String },
    #[error("{} exists but holds no Postgres cluster; it was not touched", path.display())]
    NotACluster { path: PathBuf },
    #[error("{} is not a private folder of account {uid}; it was not used", path.display())]
    SocketDir { path: PathBuf, uid: u32 },
    #[error("{tool} failed ({status}): {output}")]
    Tool { tool: &'static str, status: String, output: String },
    #[error("Postgres of {id} ended while starting ({status}); its log says: {log}")]
    StartFailed { id: String, status: String, log: String },
    #[error("Postgres of {id} was not ready after {seconds} s; its log says: {log}")]
    StartTimeout { id: String, seconds: u64, log: String },
    #[error("Postgres of {id} (process {pid}) does not stop")]
    StopTimeout { id: String, pid: u32 },
    #[error("another psn has held {} for more than {seconds} s", path.display())]
    Busy { path: PathBuf, seconds: u64 },
    #[error("Postgres of {id} was not started: the local hub ends")]
    Closed { id: String },
    #[error("the generated certificate could not be made: {0}")]
    Tls(#[from] rcgen::Error),
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn list(items: &[String]) -> String {
    items.join(", ")
}

fn found(have: &[String]) -> String {
    if have.is_empty() { "no Postgres server is".into() } else { format!("only {} is", have.join(", ")) }
}

impl PgError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PgError {
        move |source| PgError::Io { doing, path: path.to_owned(), source }
    }

    /// Stable; documented in docs/errors.md.
    pub fn code(&self) -> &'static str {
        match self {
            PgError::NoPostgres { .. } => "local.postgres-missing",
            PgError::BinUnusable { .. } => "local.postgres-unusable",
            PgError::WrongMajor { .. } => "local.postgres-wrong-major",
            PgError::NoAccount { .. } => "local.no-account",
            PgError::NotEnterable { .. } => "local.folder-not-enterable",
            PgError::PoolerFailed { .. } => "local.pooler-start",
            PgError::PortTaken { .. } => "local.port-taken",
            PgError::NoFreePort { .. } => "local.no-free-port",
            PgError::UnusablePath { .. } => "local.path-unusable",
            PgError::BadId { .. } => "local.cluster-name",
            PgError::NoCluster { .. } => "local.no-cluster",
            PgError::NotACluster { .. } => "local.not-a-cluster",
            PgError::SocketDir { .. } => "local.socket-folder",
            PgError::Tool { .. } => "local.postgres-init",
            PgError::StartFailed { .. } => "local.postgres-start",
            PgError::StartTimeout { .. } => "local.postgres-start-timeout",
            PgError::StopTimeout { .. } => "local.postgres-stop-timeout",
            PgError::Busy { .. } => "local.busy",
            PgError::Closed { .. } => "local.ends",
            PgError::Tls(_) => "local.certificate",
            PgError::Io { .. } => "local.io",
        }
    }

    /// What a person can do, most likely first. Commands are exactly as typed.
    pub fn fix(&self) -> Vec<String> {
        let s = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect();
        match self {
            PgError::NoPostgres { .. } => vec![
                install_line().to_owned(),
                "PSN_PG_BIN=/path/to/postgres/bin psn local up".to_owned(),
                "psn run setup --hub cloud".to_owned(),
            ],
            PgError::BinUnusable { .. } => vec![
                "PSN_PG_BIN=/path/to/postgres/bin psn local up".to_owned(),
                "env -u PSN_PG_BIN psn local up".to_owned(),
                install_line().to_owned(),
            ],
            PgError::WrongMajor { need, .. } => vec![
                install_major(*need),
                "PSN_PG_BIN=/path/to/postgres/bin psn local up".to_owned(),
                "psn local reset".to_owned(),
            ],
            PgError::NoAccount { .. } => s(&["useradd --system psn", "run psn as an ordinary user"]),
            PgError::NotEnterable { .. } => s(&["PSN_HOME=/var/lib/psn psn local up"]),
            PgError::PoolerFailed { .. } => s(&["psn local logs", "PSN_PGBOUNCER=off psn local up"]),
            PgError::PortTaken { .. } => s(&["psn local up --new-ports"]),
            PgError::NoFreePort { .. } => s(&["psn local down", "psn local up"]),
            PgError::UnusablePath { .. } | PgError::SocketDir { .. } => {
                s(&["PSN_HOME=/path/to/another/folder psn local up"])
            }
            PgError::BadId { .. } | PgError::NoCluster { .. } => s(&["psn local status"]),
            PgError::NotACluster { .. } => s(&["psn local reset"]),
            PgError::StartFailed { .. } | PgError::StartTimeout { .. } | PgError::StopTimeout { .. } => {
                s(&["psn local logs", "psn local down", "psn local up"])
            }
            PgError::Busy { .. } => s(&["psn local status", "psn local down"]),
            PgError::Closed { .. } => s(&["psn local up"]),
            PgError::Tool { .. } | PgError::Tls(_) | PgError::Io { .. } => {
                s(&["psn local logs", "df -h", "PSN_HOME=/path/to/another/folder psn local up"])
            }
        }
    }
}

fn install_line() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if Path::new("/usr/bin/dnf").exists() {
        "dnf install postgresql-server"
    } else {
        "apt install postgresql"
    }
}

fn install_major(major: u32) -> String {
    if cfg!(target_os = "macos") {
        format!("brew install postgresql@{major}")
    } else if Path::new("/usr/bin/dnf").exists() {
        format!("dnf install postgresql{major}-server")
    } else {
        format!("apt install postgresql-{major}")
    }
}
