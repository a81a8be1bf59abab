//! One run in a task platform's worker: a component of the deployment's bundle with the grants that lie beside it, secrets from the
//! environment, and no folder of a hub.
mod code;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use serde_json::Value;
use url::Url;

use super::component_store::{ComponentStore, Reference, StoreError};
use super::environment::{Environment, NoFacts, Notes, needed_variables};
use super::outcome::{Tally, of_task};
use crate::capabilities::http::ServiceMap;
use crate::error::CodedError;
use crate::events::{Event, EventSink, StepEvent, StepStatus, Summary};
use crate::hub::TlsRoots;
use crate::plugins::registry::Installed;
use crate::redact::Redactor;
use crate::runtime::Runtime;
use crate::secret::{MemoryBackend, Secret, Secrets};

/// What Trigger.dev gives to each run.
const KEY: &str = "TRIGGER_SECRET_KEY";
const API_URL: &str = "TRIGGER_API_URL";
/// Sent to the environment by trigger-provision, beside the secrets.
const HUB_ID: &str = "PSN_HUB_ID";
/// The authority of a database whose certificate no public one signed, as a PEM file: the local hub's.
const DATABASE_CA: &str = "PSN_DATABASE_CA_FILE";

pub struct CloudRun {
    /// `components/NAME@sha256-….wasm`, below the store.
    pub component: String,
    pub store: PathBuf,
    /// Hex SHA-256 of the component's compiled code, as the task names it: a program without a compiler runs that, and nothing else.
    pub compiled: Option<String>,
    pub payload: Value,
    pub attempt: u32,
    pub scheduled_at: Option<DateTime<Utc>>,
    pub run_id: Arc<str>,
}

/// Where everything else stands that a run is told by its environment.
pub type Variables = BTreeMap<String, String>;

pub async fn cloud_run(
    run: CloudRun,
    variables: &Variables,
    redactor: Arc<Redactor>,
    events: EventSink,
) -> Result<Summary, CodedError> {
    let installed = bundled(&run.store, &run.component)?;
    let manifest = &installed.manifest;
    let name = manifest.plugin.name.as_str();
    events.emit(&Event::Step(Box::new(StepEvent::new(name, StepStatus::Running, format!("Running {name}…")))));

    // Only what the manifest was granted becomes a secret: the rest of the environment is not this component's business.
    let mut wanted = needed_variables(manifest);
    wanted.push(KEY.to_owned());
    let values: BTreeMap<String, Secret> =
        wanted.into_iter().filter_map(|n| variables.get(&n).map(|v| (n, Secret::new(v.as_str())))).collect();
    let secrets = Secrets::open(Box::new(MemoryBackend(Mutex::new(values))), Arc::clone(&redactor))?;
    let hub_id = variables.get(HUB_ID).cloned().unwrap_or_default();
    let runtime = Runtime::new(code::options(&run)?)?;
    let environment = Environment {
        settings: BTreeMap::from([("hub.kind".to_owned(), "cloud".to_owned()), ("hub.id".to_owned(), hub_id.clone())]),
        hub_id,
        secrets: Arc::new(secrets),
        services: services(variables)?,
        tls: variables.get(DATABASE_CA).map_or(TlsRoots::WebPki, |pem| TlsRoots::Pem(pem.into())),
        notes: Notes::Memory,
        facts: Arc::new(NoFacts),
        cwd: std::env::temp_dir(),
        runtime: Arc::new(runtime),
        events: events.clone(),
        redactor,
        run_id: run.run_id,
    };
    let loaded = environment.runtime.load(&installed).await?;
    let capabilities = environment.capabilities(manifest)?;
    let call = environment.call(&loaded, run.attempt);
    let scheduled_at = run.scheduled_at.map(|t| t.timestamp_micros());
    let outcome =
        environment.runtime.run_task(&loaded, capabilities, call, run.payload.to_string(), scheduled_at).await;
    let (how, finished) = of_task(name, outcome);
    events.emit(&Event::Step(Box::new(finished)));
    let mut tally = Tally::new(1);
    tally.add(how);
    Ok(tally.summary())
}

fn bundled(store: &Path, component: &str) -> Result<Installed, CodedError> {
    let store = ComponentStore::new(store);
    let found = Reference::parse(component).and_then(|reference| store.get(&reference, &store.grant(&reference)?));
    let (bytes, lock, policy) = found.map_err(|e| not_whole(&e))?;
    // A file says that it is psn's own; only this psn's build knows.
    Ok(Installed::verified(bytes, lock, &policy, super::FIRST_PARTY)?)
}

fn not_whole(e: &StoreError) -> CodedError {
    CodedError::new(
        "task.component",
        format!("the deployment's bundle is not whole: {e}"),
        ["psn run trigger-provision"],
    )
}

/// Trigger.dev says where it is: its cloud, a server of one's own, or the local hub.
fn services(variables: &Variables) -> Result<ServiceMap, CodedError> {
    let mut services = ServiceMap::vendors();
    if let Some(text) = variables.get(API_URL).filter(|text| !text.is_empty()) {
        let url = Url::parse(text).map_err(|e| {
            CodedError::new("task.environment", format!("{API_URL} is no URL: {e}"), ["psn run trigger-provision"])
        })?;
        services.set("trigger", url.clone());
        services.set("trigger-env", url);
    }
    Ok(services)
}
