//! Which organization, and which project in it, is the hub's.

use psn_plugin::prelude::*;

use crate::neon::{self, Project, Search};

/// How often, and how many milliseconds apart, a search that could not look everywhere is repeated.
const SEARCHES: u32 = 3;
const SEARCH_PAUSE_MS: u32 = 2_000;
/// Milliseconds after which such a search is worth another run.
const UNAVAILABLE_RETRY_MS: u64 = 30_000;

pub(crate) enum Organisation {
    /// None where the key itself says which.
    Known(Option<String>),
    Choose(Need),
}

/// The one that a person named, or the only one there is. Among several nobody guesses: it decides who pays.
pub(crate) fn organisation() -> Result<Organisation, Failure> {
    if let Some(id) = context::setting("neon.org_id") {
        return Ok(Organisation::Known(Some(id)));
    }
    let organizations = neon::organizations()?.unwrap_or_default();
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
}

/// The hub's project: the one a person chose, else the one with its name, unless a deleted one should be thought of first.
pub(crate) fn project(org_id: Option<&str>) -> Result<Found, Failure> {
    if let Some(id) = context::setting("neon.project_id") {
        return match neon::project(&id)? {
            Some(project) => Ok(Found::One(project)),
            None => {
                Err(Failure::new("project-not-found", format!("Neon has no project {id}, which neon.project_id names"))
                    .fix("Set neon.project_id in config/psn.toml to an existing project, or remove it"))
            }
        };
    }
    let name = project_name();
    match by_name(&name, org_id)? {
        Found::Nothing => {
            think_of_deleted(&name, org_id)?;
            Ok(Found::Nothing)
        }
        found => Ok(found),
    }
}

/// Neon's names are not unique and its search is by part of a name: only an exact match counts, and two of them are too many.
pub(crate) fn by_name(name: &str, org_id: Option<&str>) -> Result<Found, Failure> {
    let mut matching = exact(name, org_id, false)?;
    matching.retain(|project| project.deleted_at.is_none());
    match matching.len() {
        0 => Ok(Found::Nothing),
        1 => Ok(Found::One(matching.remove(0))),
        _ => {
            let ids: Vec<_> = matching.into_iter().map(|project| project.id).collect();
            let message = format!("Neon has {} projects named {name}: {}", ids.len(), ids.join(", "));
            Err(Failure::new("ambiguous-project", message)
                .fix(format!(
                    "Set neon.project_id in config/psn.toml to the one that is the hub's, for example \"{}\"",
                    ids[0]
                ))
                .fix("Or delete the others: https://console.neon.tech/app/projects"))
        }
    }
}

/// A deleted project may hold a person's posts: it is offered, and never silently replaced by an empty one.
fn think_of_deleted(name: &str, org_id: Option<&str>) -> Result<(), Failure> {
    let ignored = context::setting("neon.ignore_deleted");
    let deleted = exact(name, org_id, true)?;
    match deleted.into_iter().find(|project| ignored.as_deref() != Some(&project.id)) {
        None => Ok(()),
        Some(project) => {
            let until = project.recoverable_until.map(|until| format!(" until {until}")).unwrap_or_default();
            let message = format!("The hub's Neon project {} was deleted, and can be recovered{until}", project.id);
            Err(Failure::new("project-recoverable", message).fix(format!("neon projects recover {}", project.id)).fix(
                format!(
                    "Or set neon.ignore_deleted = \"{}\" in config/psn.toml to begin with an empty database",
                    project.id
                ),
            ))
        }
    }
}

fn exact(name: &str, org_id: Option<&str>, deleted: bool) -> Result<Vec<Project>, Failure> {
    for attempt in 1..=SEARCHES {
        if let Search::Complete(projects) = neon::search(name, org_id, deleted)? {
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
