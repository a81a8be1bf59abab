//! A task, run once, here and now.
use serde_json::Value;

use super::environment::role_url_secret;
use super::outcome::{Tally, of_task};
use super::session::Session;
use crate::error::CodedError;
use crate::events::{Event, StepEvent, StepStatus, Summary};
use crate::hub::ConnectError;
use crate::plugins::manifest::World;

/// Runs the task of this name with a JSON payload.
pub async fn run_task(session: &mut Session, name: &str, payload: Value) -> Result<Summary, CodedError> {
    let installed = session.registry.get(name)?;
    if installed.manifest.world() != World::Task {
        return Err(CodedError::new(
            "plugin.wrong-world",
            format!("{name} is a step and takes no payload"),
            [format!("psn run {name}")],
        ));
    }
    let environment = &session.environment;
    // Asked for later, it would look like a database that is away for a moment.
    let url = role_url_secret(name);
    if !installed.manifest.db.is_empty() && !environment.secrets.exists(&url) {
        return Err(ConnectError::NoUrl { name: url }.coded());
    }
    let mut tally = Tally::new(1);
    environment.events.emit(&Event::Step(Box::new(StepEvent::new(
        name,
        StepStatus::Running,
        format!("Running {name}…"),
    ))));

    let loaded = environment.runtime.load(&installed).await?;
    let manifest = &installed.manifest;
    let capabilities = environment.capabilities(manifest)?;
    let call = environment.call(&loaded, 1);
    let outcome = environment.runtime.run_task(&loaded, capabilities, call, payload.to_string(), None).await;
    let (how, finished) = of_task(name, outcome);
    environment.events.emit(&Event::Step(Box::new(finished)));
    tally.add(how);
    Ok(tally.summary())
}
