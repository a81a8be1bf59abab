//! A real hub's database, the real watchdog component in a real host, and the double of Trigger.dev at the edge.
use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use psn::capabilities::Deadline;
use psn::capabilities::http::ServiceMap;
use psn::capabilities::hub_facts::{FactError, FactSource};
use psn::events::{EventSink, Recorder};
use psn::hub::{self, TlsRoots};
use psn::pipeline::environment::{Environment, Notes};
use psn::plugins::Registry;
use psn::redact::Redactor;
use psn::runtime::{Loaded, Runtime, RuntimeOptions};
use psn::secret::{MemoryBackend, Secret, Secrets};
use psn_local_hub::pg::{ClusterInfo, Clusters, PgOptions};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::platform::World;

pub struct Hub {
    home: tempfile::TempDir,
    clusters: Clusters,
    info: ClusterInfo,
    pub db: PgPool,
    pub world: Arc<World>,
    environment: Environment,
    loaded: Loaded,
}

struct NoFacts;

#[async_trait::async_trait]
impl FactSource for NoFacts {
    async fn facts(&self, _: &str) -> Result<Value, FactError> {
        Err(FactError::Unknown)
    }
}

/// Ends the future at its n-th poll, as a killed process would: nothing after that point happens.
struct Killed<F> {
    work: Pin<Box<F>>,
    polls: u32,
}

impl<F: Future> Future for Killed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.work.as_mut().poll(cx).map(Some)
    }
}

impl Hub {
    pub async fn start(seed: u64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let home = tempfile::Builder::new().prefix("psn-model-").tempdir().expect("a folder");
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("its own folder");
        let clusters = Clusters::open(home.path(), PgOptions::default()).expect("a home of clusters");
        let info = clusters.create("hub").await.expect("a cluster");
        let db = pool(&info).await;
        sqlx::raw_sql("CREATE ROLE hub_owner LOGIN SUPERUSER PASSWORD 'owner-password'")
            .execute(&db)
            .await
            .expect("an owner");

        let world = World::start(seed).await;
        let redactor = Arc::new(Redactor::new());
        let url = format!("postgresql://hub_owner:owner-password@127.0.0.1:{}/postgres", info.port);
        let secret = |value: &str| Secret::new(value.to_owned());
        let values = BTreeMap::from([
            ("DATABASE_URL".to_owned(), secret(&url)),
            ("DATABASE_URL_DIRECT".to_owned(), secret(&url)),
            ("TRIGGER_SECRET_KEY".to_owned(), secret("tr_prod_model_key_of_no_worth")),
        ]);
        let secrets =
            Secrets::open(Box::new(MemoryBackend(Mutex::new(values))), Arc::clone(&redactor)).expect("secrets");
        let secrets = Arc::new(secrets);
        let tls = TlsRoots::Pem(clusters.ca_pem());
        let project = home.path().join("project");
        std::fs::create_dir_all(project.join("config")).expect("a folder");
        let registry = Registry::open(&project, psn::pipeline::FIRST_PARTY);
        let installed = registry.get("watchdog").expect("the watchdog is psn's own");
        let events = Arc::new(Recorder::default());
        let sink = EventSink::new(Arc::clone(&events));
        let deadline = Deadline::after(Duration::from_secs(120));
        let report = hub::migrate(
            &hub::Migrations::embedded(),
            &secrets,
            &tls,
            std::slice::from_ref(&installed.manifest),
            &sink,
            deadline,
        )
        .await;
        let report = report.unwrap_or_else(|e| panic!("{e}"));
        for check in &report.checks {
            assert_eq!(check.status, psn::events::CheckStatus::Pass, "{check:?}");
        }
        let runtime = Runtime::new(RuntimeOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let mut services = ServiceMap::vendors();
        services.set("trigger-env", world.origin());
        let environment = Environment {
            hub_id: "7f3a0c1d".to_owned(),
            settings: BTreeMap::from([("hub.id".into(), "7f3a0c1d".into()), ("hub.kind".into(), "local".into())]),
            secrets,
            redactor,
            services,
            tls,
            notes: Notes::Memory,
            facts: Arc::new(NoFacts),
            cwd: home.path().to_owned(),
            runtime: Arc::new(runtime),
            events: sink,
            run_id: "model".into(),
        };
        let loaded = environment.runtime.load(&installed).await.unwrap_or_else(|e| panic!("{e}"));
        Self { home, clusters, info, db, world, environment, loaded }
    }

    /// One run of the component. `None` where it was killed at that poll; otherwise its result, or the code of its failure.
    pub async fn tick_until(&self, polls: Option<u32>) -> Option<Result<Value, String>> {
        self.run(json!({}), polls).await
    }

    pub async fn tick(&self) -> Value {
        self.run(json!({}), None).await.expect("not killed").unwrap_or_else(|code| panic!("the tick failed: {code}"))
    }

    /// A tick's result, or its failure's code, and the most bytes of memory that it had.
    pub async fn tick_and_memory(&self) -> (Result<Value, String>, u64) {
        let capabilities = self.environment.capabilities(self.loaded.manifest()).expect("its capabilities");
        let call = self.environment.call(&self.loaded, 1);
        let outcome = self.environment.runtime.run_task(&self.loaded, capabilities, call, "{}".into(), None).await;
        (answered(outcome.result), outcome.usage.memory_peak)
    }

    pub async fn run(&self, payload: Value, polls: Option<u32>) -> Option<Result<Value, String>> {
        let capabilities = self.environment.capabilities(self.loaded.manifest()).expect("its capabilities");
        let call = self.environment.call(&self.loaded, 1);
        let work = async {
            let outcome =
                self.environment.runtime.run_task(&self.loaded, capabilities, call, payload.to_string(), None).await;
            answered(outcome.result)
        };
        Killed { work: Box::pin(work), polls: polls.unwrap_or(u32::MAX) }.await
    }

    pub async fn sql(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&self.db)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub async fn number(&self, sql: &str) -> i64 {
        let answer = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&self.db).await;
        answer.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Time passes, or the clock is set back: everything that is remembered moves the other way.
    pub async fn passes(&self, minutes: i64) {
        self.sql(&format!(
            "UPDATE posts SET rescue_at = rescue_at - {minutes} * interval '1 minute', scheduled_at = scheduled_at - {minutes} * interval '1 minute'
                 WHERE rescue_at IS NOT NULL;
             UPDATE psn.post_attempts SET triggered_at = triggered_at - {minutes} * interval '1 minute', alive_at = alive_at - {minutes} * interval '1 minute';
             UPDATE psn.watchdog SET tick_until = CASE WHEN isfinite(tick_until) THEN tick_until - {minutes} * interval '1 minute' ELSE tick_until END"
        ))
        .await;
    }

    /// Ticks that died leave their claim behind; the next one would wait for it. And overlapping ticks are let in.
    pub async fn overlapping(&self) {
        self.sql(
            "CREATE OR REPLACE FUNCTION psn.begin_tick(seconds integer) RETURNS uuid LANGUAGE sql
             SET search_path = pg_catalog, pg_temp AS 'SELECT gen_random_uuid()'",
        )
        .await;
    }

    pub async fn restart_database(&mut self) {
        self.db.close().await;
        self.clusters.stop("hub").await.expect("it stops");
        self.info = self.clusters.start("hub").await.expect("it starts");
        self.db = pool(&self.info).await;
    }
}

fn answered(result: Result<Result<Value, psn::runtime::Failure>, psn::runtime::CallError>) -> Result<Value, String> {
    match result {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(failure)) => Err(failure.code),
        Err(error) => Err(error.into_coded("watchdog").code),
    }
}

async fn pool(info: &ClusterInfo) -> PgPool {
    PgPoolOptions::new().max_connections(8).connect_with(info.superuser_options("postgres")).await.expect("a database")
}

impl Drop for Hub {
    fn drop(&mut self) {
        let home = self.home.path().to_owned();
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let clusters = Clusters::open(&home, PgOptions::default()).expect("its clusters");
            runtime.block_on(clusters.stop_all()).is_ok()
        });
        let stopped = stopped.join().unwrap_or(false);
        assert!(stopped || std::thread::panicking(), "the server was not stopped");
    }
}
