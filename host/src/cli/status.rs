//! `psn status`: reads what is on this machine; asks nobody else.
use serde_json::{Map, Value, json};

use super::{Context, Done};
use crate::error::CodedError;
use crate::events::Event;
use crate::hub::HubKind;
use crate::hub::{EnvFiles, Settings};
use crate::pipeline::session::{KIND_MARK, find_project, hub_kind};
use crate::pipeline::{self, FIRST_PARTY, Ledger, RunLock, SETUP, Session, facts, home};
use crate::plugins::manifest::World;
use crate::plugins::registry::{Registry, RegistryError};
use crate::secret::{SecretBackend as _, is_public};

/// Asks the services too: what setup did, compared with what is there.
pub(super) async fn drift(context: &Context) -> Result<Done, CodedError> {
    let mut session = Session::look(super::run::options(context, false)).await?;
    Ok(Done::Summary(pipeline::drift(&mut session).await?))
}

pub(super) async fn status(context: &Context) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), false)?;
    let settings = Settings::load(&project)?;
    let secrets = EnvFiles::new(&project).load()?;
    let kind = hub_kind(context.common.hub, &settings, secrets.get(KIND_MARK));
    for (name, value) in &secrets {
        if !is_public(name) {
            context.redactor.register(value);
        }
    }
    let public = |name: &str| secrets.get(name).map(|s| s.expose().to_owned());
    let hub_id = public("PSN_HUB_ID");
    let ledger = hub_id.as_ref().map(|id| Ledger::open(&project, id)).transpose()?.unwrap_or_default();

    let mut steps = Map::new();
    let mut missing = Vec::new();
    for slot in SETUP {
        match ledger.steps.get(slot.name) {
            Some(record) => {
                steps.insert(
                    slot.name.to_owned(),
                    json!({ "status": record.status, "message": record.message, "at": record.at }),
                );
            }
            None => {
                steps.insert(slot.name.to_owned(), Value::Null);
                missing.push(slot.name);
            }
        }
    }
    let local = match kind {
        HubKind::Local => {
            serde_json::to_value(psn_local_hub::lifecycle::status(&home::local_hub()).await).unwrap_or_default()
        }
        HubKind::Cloud => Value::Null,
    };
    let (tasks, stopped) = plugins(&Registry::open(project.path(), FIRST_PARTY));
    // A status that cannot say it is a status all the same.
    let program = match facts::deployed_program(&project, kind, &settings) {
        Ok(program) => json!(program),
        Err(error) => json!({ "error": error }),
    };
    let keys: Map<String, Value> = secrets
        .iter()
        .filter(|(name, _)| !is_public(name))
        .map(|(name, value)| (name.clone(), json!(format!("sha256:{}", value.fingerprint(name)))))
        .collect();
    let next = if missing.is_empty() { "psn run validate" } else { "psn run setup" };
    context.events.emit(&Event::Result {
        command: "status".to_owned(),
        data: json!({
            "project": project.path(),
            "hub": kind.as_str(),
            "hub_id": hub_id,
            "set_up": missing.is_empty(),
            "missing": missing,
            "steps": steps,
            "running": RunLock::holder(&project.run_lock()),
            "trigger_project": public("TRIGGER_PROJECT_REF"),
            "keys": keys,
            "tasks": tasks,
            "task_program": program,
            "stopped": stopped,
            "local": local,
            "next": next,
        }),
    });
    Ok(Done::Ok)
}

/// The ids of the tasks that could run, and what stops plugins that cannot: a status says so, and is no worse for it.
fn plugins(registry: &Registry) -> (Vec<String>, Vec<Value>) {
    let (mut tasks, mut stopped) = (Vec::new(), Vec::new());
    let mut stops = |name: Option<&str>, e: RegistryError| {
        stopped.push(json!({ "plugin": name, "error": CodedError::from(e) }));
    };
    for name in registry.names() {
        match registry.get(&name) {
            Ok(plugin) if plugin.manifest.world() == World::Task => tasks.push(plugin.manifest.task_id().to_owned()),
            Ok(_) => {}
            Err(e) => stops(Some(&name), e),
        }
    }
    if let Err(e) = registry.readable() {
        stops(None, e);
    }
    (tasks, stopped)
}
