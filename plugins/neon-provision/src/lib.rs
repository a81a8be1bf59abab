//! The hub's database: one Neon project, found by its exact name or created once, and its connection strings in the host's
//! keeping. Killed anywhere and run again, it ends with one project.

mod create;
mod find;
mod neon;
mod notes;
mod settle;

use find::{Found, Organisation};
use notes::Noted;
use psn_plugin::prelude::*;

const KEY: &str = "NEON_API_KEY";
/// The owner's connection strings: on the pooled endpoint for everyday work, on the direct one for migrations.
const POOLED: &str = "DATABASE_URL";
const DIRECT: &str = "DATABASE_URL_DIRECT";

struct NeonProvision;

psn_plugin::export_step!(NeonProvision);

impl Step for NeonProvision {
    fn inspect() -> Result<State, Failure> {
        if !secrets::exists(KEY) {
            let origin = "Neon console, Account settings, API keys: https://console.neon.tech/app/settings/api-keys";
            return Ok(State::needs([Need::secret(KEY, origin)]));
        }
        if let Some(noted) = notes::noted()?
            && neon::project(&noted.id)?.is_some()
        {
            return inspect_noted(&noted);
        }
        let organisation = match find::organisation()? {
            Organisation::Choose(need) => return Ok(State::needs([need])),
            Organisation::Known(organisation) => organisation,
        };
        let change = match find::project(organisation.as_deref())? {
            Found::Nothing => format!("Create the Neon project {}", find::project_name()),
            Found::One(project) => {
                format!("Adopt the Neon project {} ({})", project.name, project.id)
            }
        };
        Ok(State::pending([change, "Keep its connection strings in config/hub.env".into()]))
    }

    fn apply() -> Result<Report, Failure> {
        progress(0, 3, "Looking for the hub's Neon project");
        let mut noted = match notes::noted()? {
            Some(noted) if neon::project(&noted.id)?.is_some() => noted,
            _ => create::adopt_or_create()?,
        };
        progress(1, 3, format!("Waiting for {} to be ready", noted.name));
        settle::wait(&mut noted)?;
        progress(2, 3, "Keeping its connection strings");
        keep_connection_strings(&mut noted)?;
        progress(3, 3, "The database is there");
        let verb = if noted.created { "Created" } else { "Adopted" };
        Ok(report(format!("{verb} the Neon project {}", noted.name), &noted))
    }

    fn verify() -> Result<Report, Failure> {
        let noted = notes::noted()?.ok_or_else(|| incomplete("No Neon project is noted for this hub"))?;
        if neon::project(&noted.id)?.is_none() {
            return Err(incomplete(&format!("The Neon project {} is gone", noted.id)));
        }
        match neon::endpoint(&noted.id)? {
            None => {
                return Err(incomplete(&format!("The Neon project {} has no endpoint to connect to", noted.id)));
            }
            Some(endpoint) if endpoint.disabled => {
                return Err(Failure::new("endpoint-disabled", format!("The endpoint {} is disabled", endpoint.id))
                    .fix(format!(
                        "Enable it in the Neon console: https://console.neon.tech/app/projects/{}",
                        noted.id
                    )));
            }
            Some(_) => {}
        }
        for name in [POOLED, DIRECT] {
            if !secrets::exists(name) {
                return Err(incomplete(&format!("{name} is not in config/hub.env")));
            }
        }
        Ok(report(format!("The Neon project {} can be connected to", noted.name), &noted))
    }

    fn destroy() -> Result<Report, Failure> {
        let Some(noted) = notes::noted()? else {
            return destroy_unnoted();
        };
        if noted.chosen || !noted.created {
            let message = format!("Left the Neon project {} alone: psn adopted it, and did not make it", noted.name);
            notes::forget()?;
            return Ok(Report::new(message));
        }
        let deleted = neon::delete(&noted.id)?;
        notes::forget()?;
        let message = match deleted {
            Some(until) => format!(
                "Deleted the Neon project {}; `neon projects recover {}` brings it back until {until}",
                noted.name, noted.id
            ),
            None => format!("The Neon project {} was deleted before", noted.name),
        };
        Ok(Report::new(message).data(json!({ "project_id": noted.id })))
    }
}

/// A noted project that is there is done when its connection strings lead to where it can be reached now: on the local hub the
/// port may have changed.
fn inspect_noted(noted: &Noted) -> Result<State, Failure> {
    let Some(endpoint) = neon::endpoint(&noted.id)? else {
        return Ok(State::pending([format!("Wait for the endpoint of {}", noted.name)]));
    };
    let kept = secrets::exists(POOLED) && secrets::exists(DIRECT);
    if kept && noted.host.as_deref() == Some(&endpoint.host) && noted.operations.is_empty() {
        return Ok(State::ready(report(format!("The Neon project {} is there", noted.name), noted)));
    }
    let change = match &noted.host {
        Some(host) if *host != endpoint.host => {
            format!("Keep the connection strings of {} anew: it moved from {host} to {}", noted.name, endpoint.host)
        }
        _ => format!("Keep the connection strings of {} in config/hub.env", noted.name),
    };
    Ok(State::pending([change]))
}

fn keep_connection_strings(noted: &mut Noted) -> Result<(), Failure> {
    let endpoint = neon::endpoint(&noted.id)?.ok_or_else(|| {
        incomplete(&format!("The Neon project {} has no endpoint yet", noted.id)).retry_after_ms(10_000)
    })?;
    let database = context::setting_or("neon.database", "hub");
    let role = context::setting_or("neon.role", "hub_owner");
    neon::keep_connection_uri(&noted.id, &database, &role, neon::Endpoint::POOLED)?;
    neon::keep_connection_uri(&noted.id, &database, &role, neon::Endpoint::DIRECT)?;
    for name in [POOLED, DIRECT] {
        if !secrets::exists(name) {
            return Err(incomplete(&format!("Neon answered no connection string for {name}")));
        }
    }
    // Before the note that says that all is done: a run that finds that note changes nothing any more.
    notes::settled()?;
    noted.host = Some(endpoint.host);
    Ok(notes::note(noted)?)
}

/// Without a note there may still be a project that an interrupted run created.
fn destroy_unnoted() -> Result<Report, Failure> {
    let Some(intent) = notes::intent()? else {
        return Ok(Report::new("psn has made no Neon project for this hub"));
    };
    if let Found::One(project) = find::by_name(&intent.name, intent.org_id.as_deref())? {
        let message = format!("An interrupted run may have created the Neon project {} ({})", project.name, project.id);
        return Err(Failure::new("unfinished-creation", message).fix("psn run neon-provision"));
    }
    notes::forget()?;
    Ok(Report::new("psn has made no Neon project for this hub"))
}

fn incomplete(message: &str) -> Failure {
    Failure::new("project-incomplete", message).fix("psn run neon-provision")
}

fn report(message: String, noted: &Noted) -> Report {
    Report::new(message).data(json!({
        "project_id": noted.id,
        "project_name": noted.name,
        "region": noted.region_id,
        "pg_version": noted.pg_version,
        "created": noted.created,
    }))
}

#[cfg(test)]
mod tests;
