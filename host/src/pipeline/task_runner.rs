//! Runs of the local hub's engine: the same components, through the same host, with the environment that the platform gives.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use psn_local_hub::lifecycle::{self, Endpoints, Home};
use psn_local_hub::{RunOutcome, TaskRun, TaskRunner};
use tokio::sync::OnceCell;
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;

use super::component_store::ComponentStore;
use super::environment::{Environment, NoFacts, Notes};
use super::home;
use super::kept_ready::{KeptReady, NotReady};
use crate::capabilities::Deadline;
use crate::capabilities::http::ServiceMap;
use crate::error::CodedError;
use crate::events::{Event, EventSink, Sink};
use crate::hub::TlsRoots;
use crate::redact::Redactor;
use crate::runtime::{CallError, Runtime};

/// Executes the runs of one local hub.
pub struct ComponentRunner {
    home: Home,
    store: ComponentStore,
    runtime: Arc<Runtime>,
    /// Where a run's words go: the daemon's log.
    log: PathBuf,
    /// The daemon's own; they are the same for as long as it lives.
    endpoints: OnceCell<Endpoints>,
    ready: KeptReady,
}

/// A daemon's engine takes its first runs a moment before the daemon has written where it listens.
const OWN_PATIENCE: Duration = Duration::from_secs(30);
const OWN_POLL: Duration = Duration::from_millis(20);

impl ComponentRunner {
    pub fn new(home: Home, runtime: Arc<Runtime>) -> Self {
        let log = home.path().join("logs").join("runs.log");
        let store = ComponentStore::new(&home::psn_home());
        Self { home, store, runtime, log, endpoints: OnceCell::new(), ready: KeptReady::default() }
    }

    async fn execute(&self, run: TaskRun) -> Result<RunOutcome, CodedError> {
        let crashed = |e: &dyn std::fmt::Display| RunOutcome::Crashed { message: e.to_string() };
        let installed = match self.ready.component(&self.store, &run.file_path) {
            Ok(installed) => installed,
            Err(NotReady::Store(e)) => return Ok(crashed(&e)),
            Err(NotReady::Registry(e)) => return Ok(crashed(&CodedError::from(e))),
        };
        let Ok(endpoints) = self.endpoints.get_or_try_init(|| own_endpoints(&self.home)).await else {
            return Ok(crashed(&"the local hub does not answer itself"));
        };

        let (secrets, redactor) = self.ready.secrets(&run.env)?;
        let hub_id = run.env.get("PSN_HUB_ID").cloned().unwrap_or_default();
        let manifest = &installed.manifest;
        let environment = Environment {
            settings: BTreeMap::from([
                ("hub.kind".to_owned(), "local".to_owned()),
                ("hub.id".to_owned(), hub_id.clone()),
            ]),
            hub_id,
            secrets: Arc::new(secrets),
            services: ServiceMap::local(endpoints.neon.clone(), endpoints.trigger.clone()),
            tls: TlsRoots::Pem(endpoints.ca_pem.clone()),
            notes: Notes::Memory,
            facts: Arc::new(NoFacts),
            cwd: std::env::temp_dir(),
            runtime: Arc::clone(&self.runtime),
            events: EventSink::new(RunLog {
                path: self.log.clone(),
                run: run.run_id.clone(),
                redactor: Arc::clone(&redactor),
            }),
            redactor,
            run_id: run.run_id.as_str().into(),
        };
        let loaded = match environment.runtime.load(&installed).await {
            Ok(loaded) => loaded,
            Err(e) => return Ok(crashed(&CodedError::from(e))),
        };
        let mut call = environment.call(&loaded, run.attempt);
        if let Some(limit) = run.max_duration {
            // The deployment's limit, or the trigger's, where it is less than the manifest's own.
            call.deadline = Deadline::after(call.deadline.clamp(limit));
        }
        let capabilities = environment.capabilities(manifest)?;
        let scheduled_at = run.scheduled_at.map(|t| t.timestamp_micros());
        let outcome =
            environment.runtime.run_task(&loaded, capabilities, call, run.payload.to_string(), scheduled_at).await;
        Ok(match outcome.result {
            Ok(Ok(output)) => RunOutcome::Completed { output },
            Ok(Err(failure)) => RunOutcome::Failed {
                retryable: true,
                retry_after: failure.retry_after_ms.map(Duration::from_millis),
                code: failure.code,
                message: failure.message,
            },
            Err(CallError::Deadline { .. }) => RunOutcome::TimedOut,
            Err(e) => RunOutcome::Crashed { message: e.into_coded(&manifest.plugin.name).message },
        })
    }
}

/// Those of this very process: a predecessor's that died are not attached to.
async fn own_endpoints(home: &Home) -> Result<Endpoints, Elapsed> {
    let asked = async {
        loop {
            match lifecycle::attach(home).await {
                Ok(Some(endpoints)) if endpoints.pid == std::process::id() => return endpoints,
                _ => tokio::time::sleep(OWN_POLL).await,
            }
        }
    };
    tokio::time::timeout(OWN_PATIENCE, asked).await
}

#[async_trait::async_trait]
impl TaskRunner for ComponentRunner {
    async fn run(&self, run: TaskRun, cancel: CancellationToken) -> RunOutcome {
        tokio::select! {
            // Dropping the call drops its store: nothing of the component goes on.
            () = cancel.cancelled() => RunOutcome::Cancelled,
            outcome = self.execute(run) => outcome.unwrap_or_else(|e| RunOutcome::Crashed { message: e.to_string() }),
        }
    }
}

/// What a run says, one JSON line each, in the local hub's logs.
struct RunLog {
    path: PathBuf,
    run: String,
    redactor: Arc<Redactor>,
}

impl Sink for RunLog {
    fn emit(&self, event: &Event) {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let (at, run) = (serde_json::json!(chrono::Utc::now()), serde_json::json!(self.run));
        let line = format!("{{\"at\":{at},\"run\":{run},\"event\":{}}}", crate::events::line_of(event, &self.redactor));
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        // A log that cannot be written is no reason to fail a run that works.
        let _ = file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes()));
    }
}
