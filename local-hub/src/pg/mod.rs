//! Real Postgres servers, supervised: found, made, started, attached to, repaired, stopped.
mod error;
mod scram;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

pub use error::PgError;
pub use scram::scram_verifier;

/// The superuser of every cluster, as on Neon. It can log in over the private socket only.
pub const SUPERUSER: &str = "cloud_admin";

/// What may be chosen when opening the clusters of a Home.
#[derive(Clone, Debug, Default)]
pub struct PgOptions {
    /// The folder with `postgres` and `initdb`. Without it PSN_PG_BIN, then what the system has.
    pub bin: Option<PathBuf>,
}

/// The clusters of one Home. Cheap to clone.
#[derive(Clone)]
pub struct Clusters {
    _inner: Arc<()>,
}

/// A running cluster.
#[derive(Clone)]
pub struct ClusterInfo {
    pub id: String,
    /// On 127.0.0.1 with TLS; of the control cluster only the suffix of the socket's name.
    pub port: u16,
    pub socket_dir: PathBuf,
    pub major: u32,
    pub pid: u32,
    superuser_password: Arc<str>,
}

impl ClusterInfo {
    /// The services' own connection, over the private socket.
    pub fn superuser_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(self.port)
            .username(SUPERUSER)
            .password(&self.superuser_password)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("psn")
    }
}

impl Clusters {
    /// Prepares the folders and the certificate under `home`; starts nothing.
    pub fn open(home: &Path, options: PgOptions) -> Result<Clusters, PgError> {
        let _ = (home, options);
        todo!()
    }
    /// The cluster of the services' own state: private socket only, no TCP. Made at first, then attached to or started.
    pub async fn control(&self) -> Result<ClusterInfo, PgError> {
        todo!()
    }
    /// Idempotent: makes the cluster when there is none, and starts it with TLS on its own port.
    pub async fn create(&self, id: &str) -> Result<ClusterInfo, PgError> {
        let _ = id;
        todo!()
    }
    /// Attaches when it runs, else starts it, repairing what a kill -9 left behind.
    pub async fn start(&self, id: &str) -> Result<ClusterInfo, PgError> {
        let _ = id;
        todo!()
    }
    pub async fn stop(&self, id: &str) -> Result<(), PgError> {
        let _ = id;
        todo!()
    }
    /// Stops it and deletes its folder.
    pub async fn remove(&self, id: &str) -> Result<(), PgError> {
        let _ = id;
        todo!()
    }
    /// A cluster that was started or attached to through this value and still runs.
    pub fn info(&self, id: &str) -> Option<ClusterInfo> {
        let _ = id;
        todo!()
    }
    /// The certificate to verify the servers with.
    pub fn ca_pem(&self) -> PathBuf {
        todo!()
    }
}
