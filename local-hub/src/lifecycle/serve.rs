//! The daemon: the control cluster, the two services, until it is told to end.
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use chrono::Utc;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::http::{self, Health, RequestLog};
use super::records::{Holder, HubFile, Ports};
use super::services::{self, Parts};
use super::{Endpoints, Home, HubError, ServeOptions};
use crate::TaskRunner;
use crate::files::FileLock;
use crate::pg::{self, ClusterInfo, Clusters, superuser_file};
use crate::tokens;

const DATABASE: &str = "psn_hub";
/// Of the 50 that a cluster allows: the rest is for the services' own listeners and for a person's psql.
const POOL_SIZE: u32 = 20;
/// A connection that was used within this time is not asked whether it still works: the cluster is this process's own child.
const POOL_TRUST: Duration = Duration::from_secs(1);
/// The control cluster is on this machine and up; longer means that the pool is exhausted.
const POOL_PATIENCE: Duration = Duration::from_secs(15);
/// Requests that run when the end comes get this long.
const DRAIN_REQUESTS: Duration = Duration::from_secs(5);
/// Runs get a moment from the engine itself; this is for an engine that hangs.
const DRAIN: Duration = Duration::from_secs(30);
/// A stranger can take a free port between choosing it and listening on it.
const PORT_TRIES: usize = 5;
/// A daemon that was killed a moment ago holds its ports until the last of its threads is gone; longer, and it is somebody else.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// Between two looks at such a port.
const PREDECESSOR_POLL: Duration = Duration::from_millis(20);

pub(super) async fn serve(home: Home, runner: Arc<dyn TaskRunner>, opts: ServeOptions) -> Result<(), HubError> {
    home.prepare()?;
    let result = locked(&home, runner, &opts).await;
    if let Err(error) = &result {
        tracing::error!(code = error.code(), "{error}");
        // For `up`, which waits for this process and cannot see its error otherwise.
        home.write_startup_error(error)?;
    }
    result
}

async fn locked(home: &Home, runner: Arc<dyn TaskRunner>, opts: &ServeOptions) -> Result<(), HubError> {
    let file = home.daemon_lock();
    let lock = FileLock::try_acquire(&file).map_err(HubError::io("could not lock", &file))?;
    let Some(mut lock) = lock else {
        return Err(HubError::AlreadyRunning { pid: home.holder().map(|h| h.pid) });
    };
    let holder = Holder { pid: std::process::id(), version: opts.version.clone(), since: Utc::now() };
    let text = serde_json::to_string(&holder).expect("numbers and strings are JSON");
    lock.describe(&text).map_err(HubError::io("could not write", &file))?;
    home.remove_hub_file()?;

    let shutdown = opts.shutdown.child_token();
    let signals = end_on_signals(shutdown.clone()).map_err(HubError::io("could not handle signals for", &file))?;
    let clusters = Clusters::open(home.path(), opts.pg.clone())?;
    let result = tokio::select! {
        // A start can be told to end as well; what was begun is stopped below.
        () = shutdown.cancelled() => Ok(()),
        started = start(home, &clusters, runner, opts, &shutdown) => match started {
            Ok(daemon) => daemon.run(home, &shutdown).await,
            Err(e) => Err(e),
        },
    };
    signals.abort();
    let stopped = if opts.keep_postgres { Ok(false) } else { clusters.stop_all().await };
    let removed = home.remove_hub_file();
    lock.describe("").map_err(HubError::io("could not write", &file))?;
    result?;
    stopped?;
    removed
}

/// SIGTERM and SIGINT end the daemon; SIGHUP, which a closing terminal may send, does not.
fn end_on_signals(shutdown: CancellationToken) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
            }
        }
        shutdown.cancel();
    }))
}

struct Daemon {
    hub: HubFile,
    db: PgPool,
    tasks: JoinSet<()>,
}

async fn start(
    home: &Home,
    clusters: &Clusters,
    runner: Arc<dyn TaskRunner>,
    opts: &ServeOptions,
    shutdown: &CancellationToken,
) -> Result<Daemon, HubError> {
    let credentials = home.ensure_credentials()?;
    let (neon_listener, trigger_listener, ports) = listen(home).await?;
    let origin = |port: u16| Url::parse(&format!("http://127.0.0.1:{port}")).expect("an address and a port are a URL");
    let (neon_origin, trigger_origin) = (origin(ports.0), origin(ports.1));

    // Of a daemon that was killed: attached to where their cluster runs, ended where nobody will.
    clusters.end_orphans().await;
    let control = clusters.control().await?;
    let db = control_database(home, &control).await?;
    let parts = Parts {
        db: db.clone(),
        clusters: clusters.clone(),
        credentials,
        runner,
        neon_origin: neon_origin.clone(),
        test_token: opts.test_token.clone(),
        trigger_origin: trigger_origin.clone(),
        shutdown: shutdown.clone(),
    };
    let services = services::assemble(parts).await?;

    let hub = HubFile {
        endpoints: Endpoints {
            neon: neon_origin.join("/api/v2").expect("a path on an origin is a URL"),
            trigger: trigger_origin,
            ca_pem: clusters.ca_pem(),
            pid: std::process::id(),
            version: opts.version.clone(),
        },
        started_at: Utc::now(),
        instance: tokens::generate("", 24),
    };
    let log = home.request_log();
    let log = Arc::new(RequestLog::open(&log).map_err(HubError::io("could not open", &log))?);
    let health =
        Health { pid: hub.endpoints.pid, version: hub.endpoints.version.clone(), instance: hub.instance.clone() };
    let mut tasks = JoinSet::new();
    let fronts =
        [("neon", ports.0, services.neon, neon_listener), ("trigger", ports.1, services.trigger, trigger_listener)];
    for (service, port, router, listener) in fronts {
        let router = http::front(service, port, router, health.clone(), log.clone());
        tasks.spawn(answer(listener, router, shutdown.clone()));
    }
    tasks.spawn(watch(services.engine, shutdown.clone()));
    tasks.spawn(clusters.clone().supervise(shutdown.clone()));
    Ok(Daemon { hub, db, tasks })
}

impl Daemon {
    async fn run(mut self, home: &Home, shutdown: &CancellationToken) -> Result<(), HubError> {
        home.write_hub_file(&self.hub)?;
        home.forget_startup_error()?;
        let Endpoints { neon, trigger, .. } = &self.hub.endpoints;
        tracing::info!(%neon, %trigger, version = %self.hub.endpoints.version, "the local hub is ready");
        shutdown.cancelled().await;
        tracing::info!("the local hub ends");
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            self.tasks.shutdown().await;
        }
        // The services' own tasks have seen `shutdown` too and may still be writing.
        let _ = tokio::time::timeout(DRAIN_REQUESTS, self.db.close()).await;
        Ok(())
    }
}

async fn answer(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let cut_off = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_REQUESTS).await;
    };
    tokio::select! {
        served = served.into_future() => if let Err(e) = served {
            tracing::error!("a service ended: {e}");
            shutdown.cancel();
        },
        () = cut_off => {}
    }
}

/// A daemon whose engine is gone would take runs and never do them: it ends, and the next `up` starts a whole one.
async fn watch(engine: JoinHandle<()>, shutdown: CancellationToken) {
    let ended = engine.await;
    if !shutdown.is_cancelled() {
        tracing::error!(panicked = ended.is_err(), "the run engine ended; so does the local hub");
        shutdown.cancel();
    }
}

/// The recorded ports, or free ones that are recorded now.
async fn listen(home: &Home) -> Result<(TcpListener, TcpListener, (u16, u16)), HubError> {
    let recorded = home.ports()?;
    let reserved = pg::recorded_ports(&home.path().join("pg"));
    let neon = listen_on(home, "the Neon service", recorded.neon, &reserved).await?;
    let trigger = listen_on(home, "the Trigger.dev service", recorded.trigger, &reserved).await?;
    let ports = Ports { neon: Some(neon.1), trigger: Some(trigger.1) };
    if ports != recorded {
        home.write_ports(&ports)?;
    }
    Ok((neon.0, trigger.0, (neon.1, trigger.1)))
}

async fn listen_on(
    home: &Home,
    what: &str,
    recorded: Option<u16>,
    reserved: &std::collections::BTreeSet<u16>,
) -> Result<(TcpListener, u16), HubError> {
    let mut tries = 0;
    let since = Instant::now();
    loop {
        let port = match recorded {
            Some(port) => port,
            None => pg::port::free(reserved)?,
        };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok((listener, port)),
            Err(e) if e.kind() != std::io::ErrorKind::AddrInUse => {
                return Err(HubError::io("could not listen for", home.path())(e));
            }
            Err(_) if recorded.is_none() && tries < PORT_TRIES => tries += 1,
            Err(_) if recorded.is_some() && since.elapsed() < PREDECESSOR => tokio::time::sleep(PREDECESSOR_POLL).await,
            Err(_) => return Err(pg::port::taken(what, port).into()),
        }
    }
}

/// The pool of the control database, which is made when it is missing.
async fn control_database(home: &Home, control: &ClusterInfo) -> Result<PgPool, HubError> {
    let code = |e: &sqlx::Error| e.as_database_error().and_then(|d| d.code().map(|c| c.into_owned()));
    let maintenance = control.superuser_options("postgres").disable_statement_logging();
    let mut connection: PgConnection = maintenance.connect().await.map_err(|e| match code(&e).as_deref() {
        Some("28P01") => HubError::SecretMismatch { path: superuser_file(home.path()) },
        _ => e.into(),
    })?;
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !there {
        let sql = format!("CREATE DATABASE {DATABASE}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    connection.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(POOL_SIZE)
        .acquire_timeout(POOL_PATIENCE)
        // Asking each time would be a second round trip for each statement.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > POOL_TRUST {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(control.superuser_options(DATABASE).disable_statement_logging())
        .await?;
    Ok(pool)
}
