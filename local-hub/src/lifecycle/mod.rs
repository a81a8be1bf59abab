//! The daemon and what a person does with it: up, attach, down, status, reset, logs.
mod control;
mod error;
mod home;
mod http;
mod records;
mod report;
mod serve;
mod services;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::TaskRunner;
use crate::pg::PgOptions;
pub use error::{CODES, HubError};
pub use home::Home;

/// Where the services of a running daemon are.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `http://127.0.0.1:P/api/v2`
    pub neon: Url,
    /// `http://127.0.0.1:Q`, the origin without a path.
    pub trigger: Url,
    /// The certificate to verify the databases with.
    pub ca_pem: PathBuf,
    pub pid: u32,
    pub version: String,
}

/// The keys of the one local account, made at first start. No Debug: it holds secrets.
#[derive(Serialize, Deserialize, Clone)]
pub struct Credentials {
    pub neon_api_key: String,
    pub trigger_access_token: String,
}

/// The command that runs [`serve`] for a Home: `psn local serve --home DIR`.
#[derive(Clone, Debug)]
pub struct DaemonCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Added to the inherited environment.
    pub env: Vec<(OsString, OsString)>,
}

#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Gives every recorded port that a stranger holds a new number. Connection strings with the old one stop working.
    pub new_ports: bool,
    /// A running daemon of another version is restarted.
    pub version: String,
}

#[derive(Clone)]
pub struct ServeOptions {
    /// Leaves the Postgres servers running when the daemon ends.
    pub keep_postgres: bool,
    /// What [`Endpoints::version`] says.
    pub version: String,
    pub pg: PgOptions,
    /// Lets a test that knows it ask for faults of the Neon service ([`crate::neon::faults`]). None in every hub that people use.
    pub test_token: Option<String>,
    /// Ends the daemon as SIGTERM does.
    pub shutdown: CancellationToken,
}

/// What is there and what runs.
#[derive(Serialize, Clone, Debug)]
pub struct Status {
    pub home: PathBuf,
    pub state: State,
    pub endpoints: Option<Endpoints>,
    pub started_at: Option<DateTime<Utc>>,
    pub clusters: Vec<ClusterStatus>,
    /// What answers on the pooled ports, such as `PgBouncer 1.18.0`. Null where there is no pgbouncer: pooled connection strings then
    /// lead to the database itself, and what breaks behind a pooler is not seen here.
    pub pooler: Option<String>,
    /// Runs that the engine executes at once on this machine.
    pub run_slots: usize,
}

#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing was ever made here.
    Absent,
    Stopped,
    /// A daemon holds the lock but does not answer yet, or no longer.
    Unready,
    Running,
}

#[derive(Serialize, Clone, Debug)]
pub struct ClusterStatus {
    pub id: String,
    pub major: Option<u32>,
    pub port: Option<u16>,
    /// Null where the pooled address is the direct one.
    pub pooler_port: Option<u16>,
    pub running: bool,
}

/// One line of one of the logs.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// `hub`, `requests`, `postgres/<cluster>` or `pgbouncer/<cluster>`.
    pub source: String,
    pub at: Option<DateTime<Utc>>,
    pub text: String,
}

/// Runs the daemon until SIGTERM, SIGINT or `opts.shutdown`.
pub async fn serve(home: Home, runner: Arc<dyn TaskRunner>, opts: ServeOptions) -> Result<(), HubError> {
    serve::serve(home, runner, opts).await
}

/// Attaches to the running daemon, or starts one and waits until it is ready. Ten at once start one.
pub async fn up(home: &Home, daemon: &DaemonCommand, opts: &UpOptions) -> Result<Endpoints, HubError> {
    control::up(home, daemon, opts).await
}

/// The endpoints, when a daemon of this Home runs and answers.
pub async fn attach(home: &Home) -> Result<Option<Endpoints>, HubError> {
    control::attach(home).await
}

/// Stops the daemon and its Postgres servers; says whether anything ran.
pub async fn down(home: &Home) -> Result<bool, HubError> {
    control::down(home).await
}

pub async fn status(home: &Home) -> Status {
    report::status(home).await
}

/// Stops everything and deletes the Home. A folder that is no Home is left alone.
pub async fn reset(home: &Home) -> Result<(), HubError> {
    control::reset(home).await
}

/// The last `lines` lines of all logs, oldest first.
pub fn logs(home: &Home, lines: usize) -> Result<Vec<LogLine>, HubError> {
    report::logs(home, lines)
}

/// The keys of the local account; [`HubError::NotRunning`] before the first start made them.
pub fn credentials(home: &Home) -> Result<Credentials, HubError> {
    home.credentials()?.ok_or(HubError::NotRunning)
}
