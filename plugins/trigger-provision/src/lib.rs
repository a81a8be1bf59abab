//! Where the hub's tasks run: one Trigger.dev project, found by its exact name or created once, with the tasks' environment
//! variables, the tasks themselves, and their schedules. Killed anywhere and run again, it ends with one project.

mod access;
mod create;
mod deploy;
mod environment;
mod error;
mod find;
mod notes;
mod plan;
mod tasks;
mod trigger;

use access::{Access, access};
use find::{Found, Organisation};
use notes::Noted;
use psn_plugin::prelude::*;
use tasks::Tasks;
use trigger::Project;

const TOKEN: &str = "TRIGGER_ACCESS_TOKEN";
/// Both are taken out of Trigger.dev's replies by the manifest's `capture`.
const ENVIRONMENT_KEY: &str = "TRIGGER_SECRET_KEY";
const PROJECT_REF: &str = "TRIGGER_PROJECT_REF";

struct TriggerProvision;

psn_plugin::export_step!(TriggerProvision);

impl Step for TriggerProvision {
    fn inspect() -> Result<State, Failure> {
        let tasks = match access()? {
            Access::Missing(needs) => return Ok(State::needs(needs)),
            Access::KeyOnly(noted) => {
                return inspect_noted(&noted, &tasks::of_this_hub()?, vec![access::key_only()]);
            }
            Access::Token => tasks::of_this_hub()?,
        };
        if let Some(noted) = notes::noted()?
            && find::is_there(&noted)?
        {
            return inspect_noted(&noted, &tasks, Vec::new());
        }
        let organisation = match find::organisation()? {
            Organisation::Choose(need) => return Ok(State::needs([need])),
            Organisation::Known(organisation) => organisation,
            Organisation::Unlisted => {
                return Ok(match find::unlisted_project()? {
                    Some(project) => pending(adoption(&project), &tasks),
                    None => State::needs([find::project_need()]),
                });
            }
        };
        let change = match find::project(&organisation)? {
            Found::Nothing => {
                format!("Create the Trigger.dev project {} in {}", find::project_name(), organisation.title)
            }
            Found::One(project) => adoption(&project),
        };
        Ok(pending(change, &tasks))
    }

    fn apply() -> Result<Report, Failure> {
        let key_only = match access()? {
            Access::Missing(_) => {
                return Err(
                    Failure::new("token-missing", "There is no Trigger.dev access token").fix(access::SET_TOKEN)
                );
            }
            Access::KeyOnly(noted) => Some(noted),
            Access::Token => None,
        };
        let tasks = tasks::of_this_hub()?;
        progress(0, 4, "Looking for the hub's Trigger.dev project");
        let was_noted = notes::noted()?.is_some();
        let noted = match key_only {
            Some(noted) => noted,
            None => project_and_key()?,
        };
        progress(2, 4, "Setting the tasks' environment variables");
        let tasks = plan::within(&noted, &tasks)?;
        environment::bring_up_to_date(&noted, &tasks)?;
        progress(3, 4, format!("Deploying {}", tasks.names()));
        let tasks = deploy::bring_up_to_date(&noted, tasks)?;
        plan::accepted(&noted, &tasks)?;
        progress(4, 4, "The tasks are deployed");
        let message = match (was_noted, noted.created) {
            (true, _) => format!("Deployed {} to the Trigger.dev project {}", tasks.names(), noted.name),
            (false, true) => format!("Created the Trigger.dev project {} and deployed {}", noted.name, tasks.names()),
            (false, false) => format!("Adopted the Trigger.dev project {} and deployed {}", noted.name, tasks.names()),
        };
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

fn adoption(project: &Project) -> String {
    format!("Adopt the Trigger.dev project {} ({})", project.name, project.external_ref)
}

fn pending(change: String, tasks: &Tasks) -> State {
    State::pending([
        change,
        "Keep its production key in config/hub.env".into(),
        format!("Set {} environment variables", tasks.env.len() + tasks.plain_env.len()),
        format!("Deploy {}", tasks.names()),
    ])
}

/// The project, found or created, and its production key where the host keeps it.
fn project_and_key() -> Result<Noted, Failure> {
    let noted = match notes::noted()? {
        Some(noted) if find::is_there(&noted)? => noted,
        _ => create::adopt_or_create()?,
    };
    // From here on a run that is killed finds the note, and has nothing left to look for.
    notes::settled()?;
    progress(1, 4, "Keeping its production key");
    let mut kept = vec![ENVIRONMENT_KEY];
    // An organisation's token cannot ask for it; then the setting says it already.
    if !noted.org.is_empty() {
        trigger::keep_project_ref(&noted.external_ref)?;
        kept.push(PROJECT_REF);
    }
    trigger::keep_environment_key(&noted.external_ref)?;
    for name in kept {
        if !secrets::exists(name) {
            return Err(Failure::new("key-not-answered", format!("Trigger.dev answered no value for {name}"))
                .fix("psn run trigger-provision"));
        }
    }
    Ok(noted)
}

/// Everything that can have changed since, in the order in which `apply` mends it.
fn inspect_noted(noted: &Noted, tasks: &Tasks, mut notices: Vec<Check>) -> Result<State, Failure> {
    let tasks = &plan::within(noted, tasks)?;
    let mut changes = Vec::new();
    let known = noted.org.is_empty() || secrets::exists(PROJECT_REF);
    let deployed = if secrets::exists(ENVIRONMENT_KEY) && known {
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
    notices.splice(..0, checks);
    notices.extend(plan::checks(noted, tasks));
    Ok(State::ready(report(message, noted, tasks).checks(notices)))
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
        "deployment": tasks.external_id(),
        "tasks": tasks.ids(),
        "created": noted.created,
    }))
}

#[cfg(test)]
mod tests;
