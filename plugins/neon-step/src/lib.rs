//! The hub's database: one Neon project, found by its exact name or created once, and its connection strings in the host's
//! keeping. Killed anywhere and run again, it ends with one project. What reaches Neon is the caller's ([`Neon`]).

mod api;
mod create;
mod find;
mod notes;
mod password;
mod settle;
mod wish;

pub use api::{Created, Database, Endpoint, Kept, Key, Neon, Operation, Organization, Project, Search, Trouble, Wish};
use find::{Found, Organisation};
pub use notes::{Intent, Noted};
use psn_plugin::prelude::*;

pub const KEY: &str = "NEON_API_KEY";
/// The owner's connection strings: on the pooled endpoint for everyday work, on the direct one for migrations.
const POOLED: &str = "DATABASE_URL";
const DIRECT: &str = "DATABASE_URL_DIRECT";
/// Of a project that this step creates, unless settings say otherwise.
const DATABASE: &str = "hub";
const ROLE: &str = "hub_owner";

pub fn inspect(neon: &impl Neon) -> Result<State, Failure> {
    if !secrets::exists(KEY) {
        let origin = "Neon console, Account settings, API keys: https://console.neon.tech/app/settings/api-keys";
        return Ok(State::needs([Need::secret(KEY, origin)]));
    }
    if let Some(noted) = notes::noted()?
        && neon.project(&noted.id)?.is_some()
    {
        return inspect_noted(neon, &noted);
    }
    let organisation = match find::organisation(neon)? {
        Organisation::Choose(need) => return Ok(State::needs([need])),
        Organisation::Known(organisation) => organisation,
    };
    let change = match find::project(neon, organisation.as_deref())? {
        Found::Choose(need) => return Ok(State::needs([need])),
        Found::Nothing => {
            let needs = wish::needs(neon)?;
            if !needs.is_empty() {
                return Ok(State::needs(needs));
            }
            format!("Create the Neon project {}", find::project_name())
        }
        Found::One(project) => format!("Adopt the Neon project {} ({})", project.name, project.id),
        Found::Recover(project) => format!("Recover the deleted Neon project {} ({})", project.name, project.id),
    };
    Ok(State::pending([change, "Keep its connection strings in config/hub.env".into()]))
}

pub fn apply(neon: &impl Neon) -> Result<Report, Failure> {
    progress(0, 3, "Looking for the hub's Neon project");
    let mut noted = match notes::noted()? {
        Some(noted) if neon.project(&noted.id)?.is_some() => noted,
        _ => create::adopt_or_create(neon)?,
    };
    progress(1, 3, format!("Waiting for {} to be ready", noted.name));
    settle::wait(neon, &mut noted)?;
    progress(2, 3, "Keeping its connection strings");
    keep_connection_strings(neon, &mut noted)?;
    password::settle(neon, &mut noted, |noted| keep_connection_strings(neon, noted))?;
    progress(3, 3, "The database is there");
    let verb = if noted.created { "Created" } else { "Adopted" };
    Ok(report(format!("{verb} the Neon project {}", noted.name), &noted))
}

pub fn verify(neon: &impl Neon) -> Result<Report, Failure> {
    let noted = notes::noted()?.ok_or_else(|| incomplete("No Neon project is noted for this hub"))?;
    if neon.project(&noted.id)?.is_none() {
        return Err(incomplete(&format!("The Neon project {} is gone", noted.id)));
    }
    match neon.endpoint(&noted.id, &noted.database())? {
        None => {
            return Err(incomplete(&format!("The Neon project {} has no endpoint to connect to", noted.id)));
        }
        Some(endpoint) if endpoint.disabled => {
            return Err(Failure::new("endpoint-disabled", format!("The endpoint {} is disabled", endpoint.id))
                .fix(format!("Enable it: https://console.neon.tech/app/projects/{}", noted.id)));
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

/// Exactly what this step created. What it adopted, because it was chosen or had the name already, is left alone.
pub fn destroy(neon: &impl Neon) -> Result<Report, Failure> {
    let Some(noted) = notes::noted()? else {
        return destroy_unnoted(neon);
    };
    if !noted.created {
        let message = format!(
            "Left the Neon project {} ({}) alone: psn adopted it, and did not make it; `neon projects delete {}` deletes it",
            noted.name, noted.id, noted.id
        );
        notes::forget()?;
        return Ok(Report::new(message).data(json!({ "project_id": noted.id, "deleted": false })));
    }
    let deleted = neon.delete(&noted.id)?;
    notes::forget()?;
    let message = match deleted {
        Some(until) => format!(
            "Deleted the Neon project {}; `neon projects recover {}` brings it back until {until}",
            noted.name, noted.id
        ),
        None => format!("The Neon project {} was deleted before", noted.name),
    };
    Ok(Report::new(message).data(json!({ "project_id": noted.id, "deleted": true })))
}

/// A noted project that is there is done when its connection strings lead to where it can be reached now: on the local hub the
/// port may have changed.
fn inspect_noted(neon: &impl Neon, noted: &Noted) -> Result<State, Failure> {
    let Some(endpoint) = neon.endpoint(&noted.id, &noted.database())? else {
        return Ok(State::pending([format!("Wait for the endpoint of {}", noted.name)]));
    };
    let kept = secrets::exists(POOLED) && secrets::exists(DIRECT);
    let settled = !noted.resetting && noted.operations.is_empty();
    if kept && noted.host.as_deref() == Some(&endpoint.host) && settled {
        if password::is_refused() {
            let change =
                format!("Keep the connection strings of {} anew: the database refuses the password", noted.name);
            return Ok(State::pending([change]));
        }
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

fn keep_connection_strings(neon: &impl Neon, noted: &mut Noted) -> Result<(), Failure> {
    let endpoint = neon.endpoint(&noted.id, &noted.database())?.ok_or_else(|| {
        incomplete(&format!("The Neon project {} has no endpoint yet", noted.id)).retry_after_ms(10_000)
    })?;
    if let Kept::NoSuchDatabase = neon.keep_connection_strings(&noted.id, &noted.database())? {
        // One that somebody else made may have other names.
        let database = only_database(neon, noted)?;
        (noted.database, noted.role) = (Some(database.name.clone()), Some(database.owner_name.clone()));
        notes::note(noted)?;
        if let Kept::NoSuchDatabase = neon.keep_connection_strings(&noted.id, &noted.database())? {
            return Err(no_such_database(noted));
        }
    }
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

/// The only one there is, unless settings name one that is not there.
fn only_database(neon: &impl Neon, noted: &Noted) -> Result<Database, Failure> {
    if noted.created || context::setting("neon.database").is_some() || context::setting("neon.role").is_some() {
        return Err(no_such_database(noted));
    }
    let mut databases = neon.databases(&noted.id)?;
    match databases.len() {
        1 => Ok(databases.remove(0)),
        0 => Err(no_such_database(noted)),
        count => {
            let message =
                format!("The Neon project {} has {count} databases, and one of them is to be the hub's", noted.id);
            let failure = Failure::new("database-unclear", message);
            Err(databases
                .iter()
                .fold(failure, |failure, one| failure.fix(format!("psn config set neon.database {}", one.name))))
        }
    }
}

fn no_such_database(noted: &Noted) -> Failure {
    let Database { name, owner_name } = noted.database();
    let message = format!("The Neon project {} has no database `{name}` with a role `{owner_name}`", noted.id);
    Failure::new("database-not-found", message)
        .fix("Set neon.database and neon.role in config/psn.toml to what the project has")
}

/// Without a note there may still be a project that an interrupted run created.
fn destroy_unnoted(neon: &impl Neon) -> Result<Report, Failure> {
    let Some(intent) = notes::intent()? else {
        return Ok(Report::new("psn has made no Neon project for this hub"));
    };
    match find::by_name(neon, &intent.name, intent.org_id.as_deref())? {
        Found::One(project) => {
            let message =
                format!("An interrupted run may have created the Neon project {} ({})", project.name, project.id);
            return Err(Failure::new("unfinished-creation", message).fix("psn run neon-provision"));
        }
        Found::Choose(need) => return Err(find::unclear(&need)),
        Found::Nothing | Found::Recover(_) => {}
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
