//! Which organization, and which project in it, is the hub's.

use psn_plugin::prelude::*;

use crate::api::{Key, Neon, Project, Search};

/// How often, and how many milliseconds apart, a search that could not look everywhere is repeated.
const SEARCHES: u32 = 3;
const SEARCH_PAUSE_MS: u32 = 2_000;
/// Milliseconds after which such a search is worth another run.
const UNAVAILABLE_RETRY_MS: u64 = 30_000;
/// Says what becomes of a deleted project: `recover:ID` or `leave:ID`. The id is in it, so that it is about that one alone.
const DELETED: &str = "neon.deleted_project";

pub(crate) enum Organisation {
    /// None where the key itself says which.
    Known(Option<String>),
    Choose(Need),
}

/// The one that a person named, or the only one there is. Among several nobody guesses: it decides who pays.
pub(crate) fn organisation(neon: &impl Neon) -> Result<Organisation, Failure> {
    if let Some(id) = context::setting("neon.org_id") {
        return Ok(Organisation::Known(Some(id)));
    }
    // A project is one organization's, so whoever names it has said which.
    if context::setting("neon.project_id").is_some() {
        return Ok(Organisation::Known(None));
    }
    let Key::Person(organizations) = neon.key()? else { return Ok(Organisation::Known(None)) };
    Ok(match organizations.as_slice() {
        [] => Organisation::Known(None),
        [only] => Organisation::Known(Some(only.id.clone())),
        several => {
            let names: Vec<_> = several.iter().map(|org| format!("{} is {}", org.id, org.name)).collect();
            let origin = format!("config/psn.toml; the Neon organizations of this key: {}", names.join(", "));
            Organisation::Choose(Need::setting("neon.org_id", origin).choices(several.iter().map(|org| &org.id)))
        }
    })
}

/// Unique per hub, so that a project can be found again by it alone.
pub(crate) fn project_name() -> String {
    format!("psn-hub-{}", context::hub_id())
}

pub(crate) enum Found {
    Nothing,
    One(Project),
    /// Of the hub's name and deleted, and a person said to have it back.
    Recover(Project),
    /// A person has to say.
    Choose(Need),
}

/// The hub's project: the one a person chose, else the one with its name, unless a deleted one should be thought of first.
pub(crate) fn project(neon: &impl Neon, org_id: Option<&str>) -> Result<Found, Failure> {
    if let Some(id) = context::setting("neon.project_id") {
        return match neon.project(&id)? {
            Some(project) => Ok(Found::One(project)),
            None => {
                Err(Failure::new("project-not-found", format!("Neon has no project {id}, which neon.project_id names"))
                    .fix("Set neon.project_id in config/psn.toml to an existing project, or remove it"))
            }
        };
    }
    let name = project_name();
    match by_name(neon, &name, org_id)? {
        Found::Nothing => think_of_deleted(neon, &name, org_id),
        found => Ok(found),
    }
}

/// Neon's names are not unique and its search is by part of a name: only an exact match counts, and two of them are too many.
pub(crate) fn by_name(neon: &impl Neon, name: &str, org_id: Option<&str>) -> Result<Found, Failure> {
    let mut matching = exact(neon, name, org_id, false)?;
    matching.retain(|project| project.deleted_at.is_none());
    match matching.len() {
        0 => Ok(Found::Nothing),
        1 => Ok(Found::One(matching.remove(0))),
        count => {
            let origin = format!(
                "config/psn.toml; Neon has {count} projects named {name}, and one of them is the hub's: https://console.neon.tech/app/projects"
            );
            let ids = matching.into_iter().map(|project| project.id);
            Ok(Found::Choose(Need::setting("neon.project_id", origin).choices(ids)))
        }
    }
}

/// A deleted project may hold a person's posts: it is offered, and never silently replaced by an empty one.
fn think_of_deleted(neon: &impl Neon, name: &str, org_id: Option<&str>) -> Result<Found, Failure> {
    let said = context::setting(DELETED).unwrap_or_default();
    let leave = |project: &Project| said == format!("leave:{}", project.id);
    let Some(project) = exact(neon, name, org_id, true)?.into_iter().find(|project| !leave(project)) else {
        return Ok(Found::Nothing);
    };
    if said == format!("recover:{}", project.id) {
        return Ok(Found::Recover(project));
    }
    let until = project.recoverable_until.map(|until| format!(" until {until}")).unwrap_or_default();
    let id = project.id;
    let origin = format!(
        "config/psn.toml; the hub's Neon project {id} was deleted and can be recovered{until}, or left where it is to begin with an empty database"
    );
    Ok(Found::Choose(Need::setting(DELETED, origin).choices([format!("recover:{id}"), format!("leave:{id}")])))
}

/// In `apply` there is nobody to ask: `inspect` did, and what it found has changed since.
pub(crate) fn unclear(need: &Need) -> Failure {
    let failure = Failure::new("choice-needed", format!("{} has to be chosen: {}", need.name, need.origin));
    need.choices.iter().fold(failure, |failure, choice| failure.fix(format!("psn config set {} {choice}", need.name)))
}

fn exact(neon: &impl Neon, name: &str, org_id: Option<&str>, deleted: bool) -> Result<Vec<Project>, Failure> {
    for attempt in 1..=SEARCHES {
        if let Search::Complete(projects) = neon.search(name, org_id, deleted)? {
            return Ok(projects.into_iter().filter(|project| project.name == name).collect());
        }
        if attempt < SEARCHES {
            context::sleep_ms(SEARCH_PAUSE_MS);
        }
    }
    Err(Failure::new(
        "projects-unavailable",
        "Neon cannot look at all projects now, so the hub's may be among the hidden ones",
    )
    .fix("Run the same command again in half a minute")
    .retry_after_ms(UNAVAILABLE_RETRY_MS))
}
