//! What a component call is made of, wherever it runs: under the command line, or as a run in the local hub's engine.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::capabilities::context::Context;
use crate::capabilities::db::{Db, DbAccess};
use crate::capabilities::events::Events;
use crate::capabilities::http::{Http, ServiceMap};
use crate::capabilities::hub_facts::{FactError, FactSource, HubFacts};
use crate::capabilities::secrets::SecretsCap;
use crate::capabilities::state::StateNotes;
use crate::capabilities::tool::Tools;
use crate::capabilities::vault::Vault;
use crate::capabilities::{Call, Deadline, Meter};
use crate::error::CodedError;
use crate::events::EventSink;
use crate::hub::TlsRoots;
use crate::plugins::manifest::{Manifest, parse_duration};
use crate::redact::Redactor;
use crate::runtime::{Capabilities, Loaded, Runtime};
use crate::secret::Secrets;

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
        let http = Http::new(manifest, &self.services, Arc::clone(&self.secrets))?
            .with_try_limit(http_timeout(&self.settings)?);
        let access = DbAccess::new(self.secrets.get(&role_url_secret(name)), self.tls.clone());
        let state = match &self.notes {
            Notes::Dir(dir) => StateNotes::new(dir.clone(), name),
            Notes::Memory => StateNotes::memory(),
        };
        state.check(name)?;
        Ok(Capabilities {
            http,
            db: Db::new(manifest, access),
            secrets: SecretsCap::new(manifest, Arc::clone(&self.secrets)),
            state,
            vault: Vault::new(manifest, Arc::clone(&self.secrets)),
            tool: Tools::new(manifest, Arc::clone(&self.secrets), self.cwd.clone())
                .with_plain_env(self.addresses(manifest)),
            hub: HubFacts::new(manifest, Arc::clone(&self.facts)),
            context: Context::new(manifest, self.hub_id.clone(), self.settings.clone()),
            events: Events::new(),
        })
    }

    /// Where a plugin's programs find services that are not at their vendors'.
    fn addresses(&self, manifest: &Manifest) -> BTreeMap<String, String> {
        let wanted = manifest.tool.iter().flat_map(|tool| &tool.addresses);
        wanted
            .filter_map(|(name, service)| {
                let address = self.services.get(service)?.as_str().trim_end_matches('/').to_owned();
                Some((name.clone(), address))
            })
            .collect()
    }

    /// One call, within the limits of its manifest. `attempt` is counted from 1.
    pub fn call(&self, loaded: &Loaded, attempt: u32) -> Call {
        Call {
            plugin: loaded.manifest().plugin.name.as_str().into(),
            run_id: Arc::clone(&self.run_id),
            attempt,
            deadline: Deadline::after(loaded.limits().deadline),
            meter: Meter::new(loaded.limits().meter.clone()),
            redactor: Arc::clone(&self.redactor),
            events: self.events.clone(),
            leaks: Vec::new(),
            transaction_open: false,
        }
    }
}

/// The setting `http.timeout`: how long one try of a call may take, for networks that are slower than usual.
pub const HTTP_TIMEOUT: &str = "http.timeout";
/// Shorter than this no service answers reliably; longer than this nobody waits.
const HTTP_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

pub(super) fn http_timeout(settings: &BTreeMap<String, String>) -> Result<Option<Duration>, CodedError> {
    let Some(text) = settings.get(HTTP_TIMEOUT) else { return Ok(None) };
    match parse_duration(text).filter(|d| HTTP_TIMEOUTS.contains(d)) {
        Some(limit) => Ok(Some(limit)),
        None => Err(CodedError::new(
            "config.settings",
            format!("config/psn.toml: {HTTP_TIMEOUT}: `{text}` is no time from 1s to 600s"),
            [format!("psn config set {HTTP_TIMEOUT} 60s")],
        )),
    }
}

/// The secret that holds the URL of a plugin's own database role.
pub fn role_url_secret(plugin: &str) -> String {
    format!("DATABASE_URL_PLUGIN_{}", plugin.to_uppercase().replace('-', "_"))
}

/// The secrets that a task's component needs where Trigger.dev runs it. Never the owner's database URL.
pub(super) fn needed_variables(manifest: &Manifest) -> Vec<String> {
    let mut names = manifest.task.as_ref().map(|t| t.env.clone()).unwrap_or_default();
    if !manifest.db.is_empty() {
        names.push(role_url_secret(&manifest.plugin.name));
    }
    if !manifest.vault.contexts.is_empty() {
        names.push("HUB_ENCRYPTION_KEY".to_owned());
    }
    // The platform itself gives this one to each run.
    names.retain(|n| n != "TRIGGER_SECRET_KEY");
    names
}

/// A run in Trigger.dev has no hub folder to tell of.
pub(super) struct NoFacts;

#[async_trait::async_trait]
impl FactSource for NoFacts {
    async fn facts(&self, _topic: &str) -> Result<Value, FactError> {
        Err(FactError::Unavailable("a run in Trigger.dev sees no hub folder".to_owned()))
    }
}
