//! Which organisation, and which project in it, is the hub's.

use psn_plugin::prelude::*;

use crate::{
    notes::Noted,
    trigger::{self, Org, Project},
};

pub(crate) enum Organisation {
    Known(Org),
    Choose(Need),
    /// The token is an organisation's own, which opens projects and lists none.
    Unlisted,
}

/// Projects that an error names; the others are in the dashboard.
const SHOWN_PROJECTS: usize = 10;

/// What Trigger.dev answers where a token is good, but not for this.
const NOT_FOR_THIS_TOKEN: [Option<u16>; 2] = [Some(401), Some(403)];

/// The one that a person named, or the only one there is. Among several nobody guesses: it decides who pays.
pub(crate) fn organisation() -> Result<Organisation, Failure> {
    let orgs = match trigger::orgs() {
        Err(error) if NOT_FOR_THIS_TOKEN.contains(&error.status()) => {
            // One that was revoked just now is answered in the same way.
            token_is_good()?;
            match trigger::orgs() {
                Err(error) if NOT_FOR_THIS_TOKEN.contains(&error.status()) => return Ok(Organisation::Unlisted),
                orgs => orgs?,
            }
        }
        orgs => orgs?,
    };
    let named = context::setting("trigger.org");
    let slugs = || orgs.iter().map(|org| org.slug.as_str()).collect::<Vec<_>>();
    if let Some(name) = named {
        let found = orgs.iter().find(|org| org.slug == name || org.id == name);
        return found.cloned().map(Organisation::Known).ok_or_else(|| {
            let message = format!("The Trigger.dev token knows no organisation {name}, which trigger.org names");
            choose_org(Failure::new("organisation-not-found", message), &slugs())
        });
    }
    match orgs.as_slice() {
        [] => Err(Failure::new("no-organisation", "The Trigger.dev account has no organisation yet")
            .fix("Create one, signed in at https://cloud.trigger.dev/orgs/new")
            .fix("psn run trigger-provision")),
        [only] => Ok(Organisation::Known(only.clone())),
        several => {
            let names: Vec<_> = several.iter().map(|org| format!("{} is {}", org.slug, org.title)).collect();
            let origin = format!("config/psn.toml; the organisations of this token: {}", names.join(", "));
            Ok(Organisation::Choose(Need::setting("trigger.org", origin).choices(slugs())))
        }
    }
}

/// One command for each of them: any is right, and only a person knows which.
pub(crate) fn choose_org<S: AsRef<str>>(failure: Failure, slugs: &[S]) -> Failure {
    slugs.iter().fold(failure, |failure, slug| failure.fix(format!("psn config set trigger.org {}", slug.as_ref())))
}

/// The same for projects, whose references say nothing to a person: the message has their names.
pub(crate) fn choose_project(mut failure: Failure, projects: &[Project]) -> Failure {
    if projects.is_empty() {
        return failure;
    }
    let shown = &projects[..projects.len().min(SHOWN_PROJECTS)];
    let names: Vec<_> = shown.iter().map(|one| format!("{} is {}", one.external_ref, one.name)).collect();
    let more = projects.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    failure.message = format!("{}; there are: {}{more}", failure.message, names.join(", "));
    shown
        .iter()
        .fold(failure, |failure, one| failure.fix(format!("psn config set trigger.project_ref {}", one.external_ref)))
}

/// Asked first, so that a token that is none is told from one that may not do something.
pub(crate) fn token_is_good() -> Result<(), Failure> {
    Ok(trigger::whoami()?)
}

/// For credentials that list no projects: only a person can say which one is the hub's.
pub(crate) fn project_need() -> Need {
    Need::setting(
        "trigger.project_ref",
        "Trigger.dev, the project's settings: proj_…; an organisation's token or an environment's key cannot look for it",
    )
}

/// The project that a person chose, through an organisation's token. None: they have not chosen yet.
pub(crate) fn unlisted_project() -> Result<Option<Project>, Failure> {
    let Some(chosen) = context::setting("trigger.project_ref") else { return Ok(None) };
    let Some(production) = trigger::production(&chosen)? else {
        return Err(project_not_found(&format!("The organisation's token opens no project {chosen}"), &[]));
    };
    let organization = Org { id: String::new(), title: String::new(), slug: String::new() };
    let project = Project { id: production.project_id, external_ref: chosen, name: production.name, organization };
    Ok(Some(project))
}

/// Without `trigger.project_ref` psn looks for a project of the hub's own, and makes it where there is none; a token that cannot look
/// is asked for another reference.
fn project_not_found(message: &str, there: &[Project]) -> Failure {
    let failure = Failure::new("project-not-found", format!("{message}, which trigger.project_ref names"));
    choose_project(failure, there).fix("psn config unset trigger.project_ref")
}

/// Unique per hub unless a person chose one, so that a project can be found again by it alone.
pub(crate) fn project_name() -> String {
    context::setting("trigger.project_name").unwrap_or_else(|| format!("psn-hub-{}", context::hub_id()))
}

pub(crate) enum Found {
    Nothing,
    One(Project),
}

/// The hub's project: the one a person chose, else the one with its name.
pub(crate) fn project(org: &Org) -> Result<Found, Failure> {
    let Some(chosen) = context::setting("trigger.project_ref") else {
        return by_name(&project_name(), &org.slug);
    };
    let mut there = projects(org)?;
    match there.iter().position(|project| project.external_ref == chosen) {
        Some(at) => Ok(Found::One(there.swap_remove(at))),
        None => Err(project_not_found(&format!("{} has no project {chosen}", org.title), &there)),
    }
}

/// Trigger.dev's names are not unique: two of the same are too many.
pub(crate) fn by_name(name: &str, org: &str) -> Result<Found, Failure> {
    let mut matching = projects_of(org)?;
    matching.retain(|project| project.name == name);
    match matching.len() {
        0 => Ok(Found::Nothing),
        1 => Ok(Found::One(matching.remove(0))),
        _ => {
            let refs: Vec<_> = matching.into_iter().map(|project| project.external_ref).collect();
            let message = format!("Trigger.dev has {} projects named {name}: {}", refs.len(), refs.join(", "));
            let failure = Failure::new("ambiguous-project", message);
            let failure = refs
                .iter()
                .fold(failure, |failure, chosen| failure.fix(format!("psn config set trigger.project_ref {chosen}")));
            Err(failure.fix(format!("Delete the others, signed in at https://cloud.trigger.dev/orgs/{org}")))
        }
    }
}

pub(crate) fn is_there(noted: &Noted) -> Result<bool, Failure> {
    if noted.org.is_empty() {
        return Ok(trigger::production(&noted.external_ref)?.is_some());
    }
    let projects = trigger::projects(&noted.org)?.unwrap_or_default();
    Ok(projects.iter().any(|project| project.id == noted.id))
}

pub(crate) fn projects(org: &Org) -> Result<Vec<Project>, Failure> {
    projects_of(&org.slug)
}

fn projects_of(org: &str) -> Result<Vec<Project>, Failure> {
    if let Some(projects) = trigger::projects(org)? {
        return Ok(projects);
    }
    let failure = Failure::new("organisation-not-found", format!("Trigger.dev has no organisation {org} any more"));
    let others = trigger::orgs()?;
    let slugs: Vec<_> = others.iter().map(|org| org.slug.as_str()).collect();
    Err(choose_org(failure, &slugs).fix("psn run trigger-provision"))
}
