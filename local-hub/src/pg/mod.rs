//! Real Postgres servers, supervised: found, made, started, attached to, repaired, stopped.
//!
//! ```text
//! server.rs      attach, start, repair, stop one server
//! init.rs        a data folder: initdb once, then copies
//! config.rs      postgresql.conf, pg_hba.conf          tls.rs     the certificate
//! place.rs       the folder of a cluster               port.rs    free and taken ports
//! binaries.rs    which Postgres                        scram.rs   password verifiers
//! account.rs     which account                         process.rs who runs
//! pooler.rs      the pooled port: pgbouncer       home.rs    all clusters at once
//! forward.rs     the pooled port without it
//! ```
mod account;
mod binaries;
mod config;
mod error;
mod forward;
mod home;
mod init;
mod place;
mod pooler;
pub(crate) mod port;
mod process;
mod scram;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio_util::sync::CancellationToken;

use crate::files::{self, FileLock};
use account::Account;
pub use binaries::Layer;
use binaries::Search;
use config::Network;
pub use error::PgError;
use forward::Forward;
use home::{DELETED, lock, remove_deleted, stop_all, superuser_password};
pub(crate) use home::{
    pooler_version, recorded_ports, remove_outside, renew_taken_ports, stop_home, summaries, superuser_file,
};
use init::{Init, blocking};
use place::{Place, Record};
pub use pooler::PoolerChoice;
pub(crate) use process::{alive, signal};
pub use scram::scram_verifier;
use server::Running;
use tls::Tls;

/// The superuser of every cluster, as on Neon. It can log in over the private socket only.
pub const SUPERUSER: &str = "cloud_admin";
/// The cluster of the services' own state. No project can have this name: it has a character that theirs may not.
pub const CONTROL: &str = "_control";
const LOCKS: &str = "locks";
/// Only a part of the name of the control cluster's socket.
const CONTROL_PORT: u16 = 5432;
/// Covers an initdb on a slow disk and a crash recovery by the holder.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(300);
/// Choosing and recording a port takes no time.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);
/// A stranger can take a free port between choosing it and listening on it.
const PORT_TRIES: usize = 5;
/// How soon a killed server is started again. Looking costs a few file reads.
const SUPERVISION: Duration = Duration::from_secs(2);
/// How often the certificate's age is looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(24 * 60 * 60);

/// What may be chosen when opening the clusters of a Home.
#[derive(Clone, Debug, Default)]
pub struct PgOptions {
    /// The folder with `postgres` and `initdb`. Without it PSN_PG_BIN, then what the system has.
    pub bin: Option<PathBuf>,
    pub pooler: PoolerChoice,
}

/// The clusters of one Home. Cheap to clone.
#[derive(Clone)]
pub struct Clusters {
    inner: Arc<Inner>,
}

struct Inner {
    pg_dir: PathBuf,
    locks: PathBuf,
    tls_dir: PathBuf,
    account: Option<Account>,
    password: Arc<str>,
    options: PgOptions,
    running: Mutex<BTreeMap<String, ClusterInfo>>,
    /// Recorded pooled ports that no pooler has now, by cluster.
    forwards: Mutex<BTreeMap<String, Forward>>,
    /// All were stopped for good: what still works in the background must not start one again.
    closed: AtomicBool,
}

/// The Postgres that a new cluster would be made with: the folder of its programs, and its version. Starts nothing.
pub fn available(options: &PgOptions, pg_dir: &Path) -> Result<(PathBuf, String), PgError> {
    let account = Account::for_servers(pg_dir)?;
    let found = Search::new(options.bin.clone(), account).find("a new database cluster", None)?;
    Ok((found.dir, found.version))
}

/// A running cluster. No Debug: it holds the superuser's password.
#[derive(Clone)]
pub struct ClusterInfo {
    pub id: String,
    /// On 127.0.0.1 with TLS; of the control cluster only a part of the socket's name.
    pub port: u16,
    /// Of the pooler in front of it, where there is one.
    pub pooler_port: Option<u16>,
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
    /// Prepares the folders and the certificate under `home`; starts nothing. Opened twice at once it does no harm, but
    /// the daemon's lock sees to it that one psn at a time does.
    pub fn open(home: &Path, options: PgOptions) -> Result<Clusters, PgError> {
        let dir = home.join("pg");
        files::make_dir(&dir, 0o711).map_err(PgError::io("could not make", &dir))?;
        let tls_dir = home.join("tls");
        files::make_dir(&tls_dir, 0o755).map_err(PgError::io("could not make", &tls_dir))?;
        // The same cluster must look the same to every psn, whichever link it came through.
        let pg_dir = fs::canonicalize(&dir).map_err(PgError::io("could not look at", &dir))?;
        let tls_dir = fs::canonicalize(&tls_dir).map_err(PgError::io("could not look at", &tls_dir))?;
        let locks = pg_dir.join(LOCKS);
        files::make_dir(&locks, 0o700).map_err(PgError::io("could not make", &locks))?;
        let account = Account::for_servers(&pg_dir)?;
        Tls::ensure(&tls_dir, account)?;
        let password = superuser_password(home, &pg_dir)?;
        remove_deleted(&pg_dir)?;
        let (running, forwards, closed) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let inner = Inner { pg_dir, locks, tls_dir, account, password, options, running, forwards, closed };
        Ok(Clusters { inner: Arc::new(inner) })
    }

    /// The cluster of the services' own state: private socket only, no TCP. Made at first, then attached to or started.
    pub async fn control(&self) -> Result<ClusterInfo, PgError> {
        self.bring_up(CONTROL, true).await
    }

    /// Idempotent: makes the cluster when there is none, and starts it with TLS on its own port.
    pub async fn create(&self, id: &str) -> Result<ClusterInfo, PgError> {
        place::check_id(id)?;
        self.bring_up(id, true).await
    }

    /// Attaches when it runs, else starts it, repairing what a kill -9 left behind.
    pub async fn start(&self, id: &str) -> Result<ClusterInfo, PgError> {
        place::check_id(id)?;
        self.bring_up(id, false).await
    }

    /// Nothing running is fine.
    pub async fn stop(&self, id: &str) -> Result<(), PgError> {
        let place = self.place(id)?;
        let _lock = self.lock(id).await?;
        self.running().remove(id);
        self.stop_forward(id).await;
        pooler::stop(&place).await;
        server::stop(&place).await?;
        Ok(())
    }

    /// Stops it and deletes its folder. Nothing there is fine.
    pub async fn remove(&self, id: &str) -> Result<(), PgError> {
        place::check_id(id)?;
        let place = self.place(id)?;
        let lock = self.lock(id).await?;
        self.running().remove(id);
        self.stop_forward(id).await;
        if place.dir.exists() {
            pooler::stop(&place).await;
            server::stop(&place).await?;
            let pg_dir = self.inner.pg_dir.clone();
            blocking(move || {
                // Renamed first: a crash while deleting must not leave half a cluster under its name.
                let doomed = pg_dir.join(format!("{DELETED}{}-{}", place.id, std::process::id()));
                fs::rename(&place.dir, &doomed).map_err(PgError::io("could not rename", &place.dir))?;
                place.remove_outside()?;
                files::remove_dir(&doomed).map_err(PgError::io("could not delete", &doomed))
            })
            .await?;
        }
        lock.remove().map_err(PgError::io("could not delete the lock of", &self.inner.locks))
    }

    /// A cluster that was started or attached to through this value and still runs.
    pub fn info(&self, id: &str) -> Option<ClusterInfo> {
        let info = self.running().get(id).cloned()?;
        alive(info.pid).then_some(info)
    }

    /// The certificate to verify the servers with.
    pub fn ca_pem(&self) -> PathBuf {
        self.inner.tls_dir.join("ca.pem")
    }

    /// Ends the poolers of a daemon that was killed whose clusters are gone, or do not run. Those of running clusters are attached to.
    pub async fn end_orphans(&self) -> usize {
        pooler::end_orphans(&self.inner.pg_dir).await
    }

    /// From now on nothing is started through this value, and it listens nowhere.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.forwards().clear();
    }

    /// Stops every cluster of the Home, the control cluster last, for good. Says whether anything ran.
    pub async fn stop_all(&self) -> Result<bool, PgError> {
        // Whoever brings one up now holds its lock, which is waited for; whoever gets the lock later sees this.
        self.close();
        self.running().clear();
        stop_all(&self.inner.pg_dir).await
    }

    /// Starts again what died without being told to, until `shutdown`; renews the certificate in time.
    pub async fn supervise(self, shutdown: CancellationToken) {
        let mut certificate = tokio::time::interval(CERTIFICATE_CHECK);
        let mut servers = tokio::time::interval(SUPERVISION);
        loop {
            let renew = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = certificate.tick() => true,
                _ = servers.tick() => false,
            };
            let pools = |info: &ClusterInfo| {
                info.pooler_port.is_none() || self.place(&info.id).is_ok_and(|place| pooler::runs(&place))
            };
            let running: Vec<ClusterInfo> = self.running().values().cloned().collect();
            let known: Vec<(String, bool)> =
                running.iter().map(|info| (info.id.clone(), alive(info.pid) && pools(info))).collect();
            for (id, alive) in known {
                if alive && !renew {
                    continue;
                }
                if !alive {
                    tracing::warn!(cluster = %id, "Postgres or its pooler is gone; starting it again");
                }
                // Attaching also makes a running server load a renewed certificate.
                if let Err(e) = self.bring_up_known(&id).await {
                    tracing::error!(cluster = %id, code = e.code(), "{e}");
                }
            }
        }
    }

    /// As `bring_up`, unless it was stopped or removed on purpose meanwhile.
    async fn bring_up_known(&self, id: &str) -> Result<(), PgError> {
        let lock = self.lock(id).await?;
        if self.running().contains_key(id) {
            self.bring_up_locked(id, false, &lock).await?;
        }
        Ok(())
    }

    async fn bring_up(&self, id: &str, make: bool) -> Result<ClusterInfo, PgError> {
        let lock = self.lock(id).await?;
        self.bring_up_locked(id, make, &lock).await
    }

    async fn bring_up_locked(&self, id: &str, make: bool, _lock: &FileLock) -> Result<ClusterInfo, PgError> {
        let inner = &self.inner;
        if inner.closed.load(Ordering::SeqCst) {
            return Err(PgError::Closed { id: id.to_owned() });
        }
        let place = self.place(id)?;
        let major = place.major()?;
        if major.is_none() && !make {
            return Err(PgError::NoCluster { id: id.to_owned() });
        }
        files::make_dir(&place.dir, 0o711).map_err(PgError::io("could not make", &place.dir))?;
        let tls = {
            let _short = self.short_lock("tls.lock").await?;
            Tls::ensure(&inner.tls_dir, inner.account)?
        };
        let network = |port| match id {
            CONTROL => Network::None { port: CONTROL_PORT },
            _ => Network::Loopback { port, tls: &tls },
        };
        let recorded = place.record()?;
        if let (Some(major), Some(running)) =
            (major, server::attach(&place, network(recorded.map_or(0, |r| r.port))).await?)
        {
            return self.pooled(&place, &tls, running, major).await;
        }

        let search = Search::new(inner.options.bin.clone(), inner.account);
        let what = format!("the database cluster {id}");
        let binaries = blocking(move || search.find(&what, major)).await?;
        if major.is_none() {
            let init = Init {
                pg_dir: &inner.pg_dir,
                locks: &inner.locks,
                binaries: &binaries,
                account: inner.account,
                password: &inner.password,
            };
            init.make(&place.dir).await?;
        }
        let mut tries = 0;
        let running = loop {
            let port = match place.record()? {
                Some(record) => record.port,
                None if id == CONTROL => CONTROL_PORT,
                None => self.record_port(&place).await?,
            };
            match server::start(&place, network(port), &binaries, inner.account).await {
                // Nobody was told this port yet, so another one is as good.
                Err(PgError::PortTaken { .. }) if recorded.is_none() && tries < PORT_TRIES => {
                    tries += 1;
                    self.record_port(&place).await?;
                }
                other => break other?,
            }
        };
        self.pooled(&place, &tls, running, binaries.major).await
    }

    /// A cluster whose pooler does not start is of use without it: its pooled address is then the direct one, and a pooled port that
    /// was given out before leads to it too.
    async fn pooled(&self, place: &Place, tls: &Tls, running: Running, major: u32) -> Result<ClusterInfo, PgError> {
        let program = if place.id == CONTROL { None } else { pooler::find(&self.inner.options.pooler) };
        if program.is_some() {
            self.stop_forward(&place.id).await;
        }
        let pooler_port = match program {
            None => {
                pooler::stop(place).await;
                None
            }
            Some(program) => match self.pool(&program, place, tls, running.port).await {
                Ok(port) => Some(port),
                // Only a person can free the port, and connection strings with it are dead until then.
                Err(error @ PgError::PortTaken { .. }) => return Err(error),
                Err(error) => {
                    tracing::error!(cluster = %place.id, code = error.code(), "{error}");
                    None
                }
            },
        };
        if pooler_port.is_none() {
            self.forward(place, running.port).await?;
        }
        Ok(self.remember(place, running, pooler_port, major))
    }

    async fn forward(&self, place: &Place, to: u16) -> Result<(), PgError> {
        let Some(from) = place.record()?.and_then(|record| record.pooler_port) else { return Ok(()) };
        if self.forwards().get(&place.id).is_some_and(|forward| forward.is(from, to)) {
            return Ok(());
        }
        self.stop_forward(&place.id).await;
        if !port::is_free(from) {
            return Err(port::taken(format!("the pooled port of {}", place.id), from));
        }
        let forward = Forward::start(from, to).await.map_err(PgError::io("could not listen for", &place.dir))?;
        tracing::info!(cluster = %place.id, from, to, "the pooled port leads to the server directly");
        self.forwards().insert(place.id.clone(), forward);
        Ok(())
    }

    async fn stop_forward(&self, id: &str) {
        let forward = self.forwards().remove(id);
        if let Some(forward) = forward {
            forward.stop().await;
        }
    }

    async fn pool(&self, program: &Path, place: &Place, tls: &Tls, server_port: u16) -> Result<u16, PgError> {
        let mut tries = 0;
        loop {
            let recorded = place.record()?.and_then(|record| record.pooler_port);
            let port = match recorded {
                Some(port) => port,
                None => self.record_pooler_port(place, server_port).await?,
            };
            let pooled = pooler::Pooled {
                place,
                tls,
                account: self.inner.account,
                server_port,
                port,
                password: &self.inner.password,
            };
            match pooler::ensure(program, &pooled).await {
                // Nobody was told this port yet, so another one is as good.
                Err(PgError::PortTaken { .. }) if recorded.is_none() && tries < PORT_TRIES => {
                    tries += 1;
                    place.write_record(Record { port: server_port, pooler_port: None })?;
                }
                other => return other.map(|()| port),
            }
        }
    }

    async fn record_pooler_port(&self, place: &Place, server_port: u16) -> Result<u16, PgError> {
        let _short = self.short_lock("ports.lock").await?;
        let port = port::free(&recorded_ports(&self.inner.pg_dir))?;
        place.write_record(Record { port: server_port, pooler_port: Some(port) })?;
        Ok(port)
    }

    /// The cluster that has this port, direct or pooled; it need not run.
    pub(crate) fn id_of_port(&self, port: u16) -> Option<String> {
        let has = |place: &Place| place.record().ok().flatten().is_some_and(|record| record.ports().any(|p| p == port));
        place::all(&self.inner.pg_dir).into_iter().find(|place| place.id != CONTROL && has(place)).map(|place| place.id)
    }

    async fn record_port(&self, place: &Place) -> Result<u16, PgError> {
        let _short = self.short_lock("ports.lock").await?;
        let port = port::free(&recorded_ports(&self.inner.pg_dir))?;
        place.write_record(Record { port, pooler_port: None })?;
        Ok(port)
    }

    fn remember(&self, place: &Place, running: Running, pooler_port: Option<u16>, major: u32) -> ClusterInfo {
        let info = ClusterInfo {
            id: place.id.clone(),
            port: running.port,
            pooler_port,
            socket_dir: place.socket_dir(),
            major,
            pid: running.pid,
            superuser_password: self.inner.password.clone(),
        };
        self.running().insert(info.id.clone(), info.clone());
        info
    }

    fn place(&self, id: &str) -> Result<Place, PgError> {
        if id != CONTROL {
            place::check_id(id)?;
        }
        Place::new(&self.inner.pg_dir, id)
    }

    async fn lock(&self, id: &str) -> Result<FileLock, PgError> {
        lock(&self.inner.locks.join(format!("{id}.lock")), CLUSTER_PATIENCE).await
    }

    async fn short_lock(&self, name: &str) -> Result<FileLock, PgError> {
        lock(&self.inner.locks.join(format!("_{name}")), SHORT_PATIENCE).await
    }

    fn forwards(&self) -> MutexGuard<'_, BTreeMap<String, Forward>> {
        self.inner.forwards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, ClusterInfo>> {
        // A map of finished values: a panic elsewhere leaves it whole.
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
