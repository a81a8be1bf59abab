//! Where the hub's tasks run: one Trigger.dev project, found by its exact name or created once, with the tasks' environment
//! variables, the tasks themselves, and their schedules. Killed anywhere and run again, it ends with one project.

mod create;
mod deploy;
mod environment;
mod find;
mod notes;
mod tasks;
mod trigger;

use find::{Found, Organisation};
use notes::Noted;
use psn_plugin::prelude::*;
use tasks::Tasks;

const TOKEN: &str = "TRIGGER_ACCESS_TOKEN";
/// Both are taken out of Trigger.dev's replies by the manifest's `capture`.
const ENVIRONMENT_KEY: &str = "TRIGGER_SECRET_KEY";
const PROJECT_REF: &str = "TRIGGER_PROJECT_REF";

struct TriggerProvision;

psn_plugin::export_step!(TriggerProvision);

impl Step for TriggerProvision {
    fn inspect() -> Result<State, Failure> {
        if !secrets::exists(TOKEN) {
            let origin = "Trigger.dev, Account, Personal Access Tokens: https://cloud.trigger.dev/account/tokens";
            return Ok(State::needs([Need::secret(TOKEN, origin)]));
        }
        let tasks = tasks::of_this_hub()?;
        if let Some(noted) = notes::noted()?
            && find::is_there(&noted)?
        {
            return inspect_noted(&noted, &tasks);
        }
        let organisation = match find::organisation()? {
            Organisation::Choose(need) => return Ok(State::needs([need])),
            Organisation::Known(organisation) => organisation,
        };
        let change = match find::project(&organisation)? {
            Found::Nothing => {
                format!("Create the Trigger.dev project {} in {}", find::project_name(), organisation.title)
            }
            Found::One(project) => format!("Adopt the Trigger.dev project {} ({})", project.name, project.external_ref),
        };
        Ok(State::pending([
            change,
            "Keep its production key in config/hub.env".into(),
            format!("Set {} environment variables", tasks.env.len() + tasks.plain_env.len()),
            format!("Deploy {}", tasks.names()),
        ]))
    }

    fn apply() -> Result<Report, Failure> {
        let tasks = tasks::of_this_hub()?;
        progress(0, 4, "Looking for the hub's Trigger.dev project");
        let noted = match notes::noted()? {
            Some(noted) if find::is_there(&noted)? => noted,
            _ => create::adopt_or_create()?,
        };
        // From here on a run that is killed finds the note, and has nothing left to look for.
        notes::settled()?;
        progress(1, 4, "Keeping its production key");
        trigger::keep_project_ref(&noted.external_ref)?;
        trigger::keep_environment_key(&noted.external_ref)?;
        for name in [PROJECT_REF, ENVIRONMENT_KEY] {
            if !secrets::exists(name) {
                return Err(Failure::new("key-not-answered", format!("Trigger.dev answered no value for {name}"))
                    .fix("psn run trigger-provision"));
            }
        }
        progress(2, 4, "Setting the tasks' environment variables");
        environment::bring_up_to_date(&noted, &tasks)?;
        progress(3, 4, format!("Deploying {}", tasks.names()));
        deploy::bring_up_to_date(&noted, &tasks)?;
        progress(4, 4, "The tasks are deployed");
        let verb = if noted.created { "Created" } else { "Adopted" };
        let message = format!("{verb} the Trigger.dev project {} and deployed {}", noted.name, tasks.names());
        Ok(report(message, &noted, &tasks))
    }

    fn destroy() -> Result<Report, Failure> {
        let Some(noted) = notes::noted()? else {
            return destroy_unnoted();
        };
        if noted.chosen || !noted.created {
            let name = &noted.name;
            let message = format!("Left the Trigger.dev project {name} alone: psn adopted it, and did not make it");
            notes::forget()?;
            return Ok(Report::new(message));
        }
        let deleted = trigger::delete(&noted.external_ref)?;
        notes::forget()?;
        let verb = if deleted { "Deleted the Trigger.dev project" } else { "Deleted before: the Trigger.dev project" };
        Ok(Report::new(format!("{verb} {}", noted.name)).data(json!({ "project_ref": noted.external_ref })))
    }
}

/// Everything that can have changed since, in the order in which `apply` mends it.
fn inspect_noted(noted: &Noted, tasks: &Tasks) -> Result<State, Failure> {
    let mut changes = Vec::new();
    let deployed = if secrets::exists(ENVIRONMENT_KEY) && secrets::exists(PROJECT_REF) {
        deploy::look(noted, tasks)?
    } else {
        deploy::Deployed::KeyRejected
    };
    if matches!(deployed, deploy::Deployed::KeyRejected) {
        changes.push(format!("Keep the production key of {} in config/hub.env", noted.name));
    }
    let stale = environment::stale(noted, tasks)?;
    if !stale.is_empty() {
        changes.push(format!("Set the environment variables {}", stale.join(", ")));
    }
    let checks = match deployed {
        deploy::Deployed::Complete(checks) => checks,
        deploy::Deployed::Incomplete { reason, .. } => {
            changes.push(format!("Deploy {}: {reason}", tasks.names()));
            Vec::new()
        }
        deploy::Deployed::KeyRejected => {
            changes.push(format!("Deploy {} unless they are there", tasks.names()));
            Vec::new()
        }
    };
    if !changes.is_empty() {
        return Ok(State::pending(changes));
    }
    let message = format!("The Trigger.dev project {} runs {}", noted.name, tasks.names());
    Ok(State::ready(report(message, noted, tasks).checks(checks)))
}

/// Without a note there may still be a project that an interrupted run created.
fn destroy_unnoted() -> Result<Report, Failure> {
    let Some(intent) = notes::intent()? else {
        return Ok(Report::new("psn has made no Trigger.dev project for this hub"));
    };
    if let Found::One(project) = find::by_name(&intent.name, &intent.org)? {
        let message = format!(
            "An interrupted run may have created the Trigger.dev project {} ({})",
            project.name, project.external_ref
        );
        return Err(Failure::new("unfinished-creation", message).fix("psn run trigger-provision"));
    }
    notes::forget()?;
    Ok(Report::new("psn has made no Trigger.dev project for this hub"))
}

fn report(message: String, noted: &Noted, tasks: &Tasks) -> Report {
    Report::new(message).data(json!({
        "project_ref": noted.external_ref,
        "project_name": noted.name,
        "organisation": noted.org,
        "content_hash": tasks.content_hash,
        "tasks": tasks.ids(),
        "created": noted.created,
    }))
}

#[cfg(test)]
mod tests;
