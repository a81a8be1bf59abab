//! What a component call is made of, wherever it runs: under the command line, or as a run in the local hub's engine.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::capabilities::context::Context;
use crate::capabilities::db::{Db, DbAccess};
use crate::capabilities::events::Events;
use crate::capabilities::http::{Http, ServiceMap};
use crate::capabilities::hub_facts::{FactSource, HubFacts};
use crate::capabilities::secrets::SecretsCap;
use crate::capabilities::state::StateNotes;
use crate::capabilities::tool::Tools;
use crate::capabilities::vault::Vault;
use crate::capabilities::{Call, Deadline, Meter, MeterLimits};
use crate::error::CodedError;
use crate::events::EventSink;
use crate::hub::TlsRoots;
use crate::plugins::manifest::{Manifest, parse_duration};
use crate::redact::Redactor;
use crate::runtime::{Capabilities, Runtime};
use crate::secret::Secrets;

/// A step's default limit: a cloud database's creation, with its operations, was seen to take up to half a minute.
const DEFAULT_STEP_DEADLINE: Duration = Duration::from_secs(120);
/// A task's default limit.
const DEFAULT_TASK_DEADLINE: Duration = Duration::from_secs(60);
/// The longest that a manifest may ask for: a deployment with an image build.
const MAX_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Where a plugin's notes are kept.
#[derive(Clone)]
pub enum Notes {
    /// In files of this folder.
    Dir(PathBuf),
    /// For the length of one call: a run in Trigger.dev has no disk to come back to.
    Memory,
}

/// Everything that calls of components have in common.
#[derive(Clone)]
pub struct Environment {
    pub hub_id: String,
    /// Dotted names, `hub.kind` and `hub.id` among them.
    pub settings: BTreeMap<String, String>,
    pub secrets: Arc<Secrets>,
    pub redactor: Arc<Redactor>,
    pub services: ServiceMap,
    pub tls: TlsRoots,
    pub notes: Notes,
    pub facts: Arc<dyn FactSource>,
    /// Where tools run.
    pub cwd: PathBuf,
    pub runtime: Arc<Runtime>,
    pub events: EventSink,
    pub run_id: Arc<str>,
}

impl Environment {
    /// What the plugin was granted, as live capabilities for one call.
    pub fn capabilities(&self, manifest: &Manifest) -> Result<Capabilities, CodedError> {
        let name = &manifest.plugin.name;
        let http = Http::new(manifest, &self.services, Arc::clone(&self.secrets))?;
        let access = DbAccess::new(self.secrets.get(&role_url_secret(name)), self.tls.clone());
        Ok(Capabilities {
            http,
            db: Db::new(manifest, access),
            secrets: SecretsCap::new(manifest, Arc::clone(&self.secrets)),
            state: match &self.notes {
                Notes::Dir(dir) => StateNotes::new(dir.clone(), name),
                Notes::Memory => StateNotes::memory(),
            },
            vault: Vault::new(manifest, Arc::clone(&self.secrets)),
            tool: Tools::new(manifest, Arc::clone(&self.secrets), self.cwd.clone()),
            hub: HubFacts::new(manifest, Arc::clone(&self.facts)),
            context: Context::new(manifest, self.hub_id.clone(), self.settings.clone()),
            events: Events::new(),
        })
    }

    /// One call. `attempt` is counted from 1.
    pub fn call(&self, manifest: &Manifest, attempt: u32, deadline: Deadline) -> Call {
        let asked = &manifest.limits;
        let mut limits = MeterLimits::default();
        // A manifest lowers the defaults; it cannot raise them above what the operator's build allows.
        for (limit, asked) in [
            (&mut limits.http_calls, asked.http_calls),
            (&mut limits.db_calls, asked.db_calls),
            (&mut limits.log_bytes, asked.log_bytes),
        ] {
            *limit = asked.unwrap_or(*limit).min(*limit);
        }
        Call {
            plugin: manifest.plugin.name.as_str().into(),
            run_id: Arc::clone(&self.run_id),
            attempt,
            deadline,
            meter: Meter::new(limits),
            redactor: Arc::clone(&self.redactor),
            events: self.events.clone(),
            leaks: Vec::new(),
            transaction_open: false,
        }
    }
}

/// How long a call of a step may take.
pub fn step_deadline(manifest: &Manifest) -> Deadline {
    Deadline::after(asked(manifest.limits.deadline.as_deref()).unwrap_or(DEFAULT_STEP_DEADLINE).min(MAX_DEADLINE))
}

/// How long a task may run: its own limit, or its caller's if that is less.
pub fn task_deadline(manifest: &Manifest, callers: Option<Duration>) -> Deadline {
    let own = manifest.task.as_ref().and_then(|t| asked(t.max_duration.as_deref()));
    let own = own.or_else(|| asked(manifest.limits.deadline.as_deref())).unwrap_or(DEFAULT_TASK_DEADLINE);
    Deadline::after(own.min(callers.unwrap_or(MAX_DEADLINE)).min(MAX_DEADLINE))
}

fn asked(duration: Option<&str>) -> Option<Duration> {
    duration.and_then(parse_duration)
}

/// The secret that holds the URL of a plugin's own database role.
pub fn role_url_secret(plugin: &str) -> String {
    format!("DATABASE_URL_PLUGIN_{}", plugin.to_uppercase().replace('-', "_"))
}
