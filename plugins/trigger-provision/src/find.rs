//! Which organisation, and which project in it, is the hub's.

use psn_plugin::prelude::*;

use crate::{
    notes::Noted,
    trigger::{self, Org, Project},
};

pub(crate) enum Organisation {
    Known(Org),
    Choose(Need),
}

/// The one that a person named, or the only one there is. Among several nobody guesses: it decides who pays.
pub(crate) fn organisation() -> Result<Organisation, Failure> {
    let orgs = trigger::orgs()?;
    let named = context::setting("trigger.org");
    let slugs = || orgs.iter().map(|org| org.slug.as_str()).collect::<Vec<_>>();
    if let Some(name) = named {
        let found = orgs.iter().find(|org| org.slug == name || org.id == name);
        return found.cloned().map(Organisation::Known).ok_or_else(|| {
            let message = format!("The Trigger.dev token knows no organisation {name}, which trigger.org names");
            Failure::new("organisation-not-found", message)
                .fix(format!("Set trigger.org in config/psn.toml to one of: {}", slugs().join(", ")))
        });
    }
    match orgs.as_slice() {
        [] => Err(Failure::new("no-organisation", "The Trigger.dev account has no organisation yet")
            .fix("Create one: https://cloud.trigger.dev/orgs/new")),
        [only] => Ok(Organisation::Known(only.clone())),
        several => {
            let names: Vec<_> = several.iter().map(|org| format!("{} is {}", org.slug, org.title)).collect();
            let origin = format!("config/psn.toml; the organisations of this token: {}", names.join(", "));
            Ok(Organisation::Choose(Need::setting("trigger.org", origin).choices(slugs())))
        }
    }
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
    let found = projects(&org.slug)?.into_iter().find(|project| project.external_ref == chosen);
    found.map(Found::One).ok_or_else(|| {
        let message = format!("{} has no project {chosen}, which trigger.project_ref names", org.title);
        Failure::new("project-not-found", message)
            .fix("Set trigger.project_ref in config/psn.toml to an existing project, or remove it")
    })
}

/// Trigger.dev's names are not unique: two of the same are too many.
pub(crate) fn by_name(name: &str, org: &str) -> Result<Found, Failure> {
    let mut matching = projects(org)?;
    matching.retain(|project| project.name == name);
    match matching.len() {
        0 => Ok(Found::Nothing),
        1 => Ok(Found::One(matching.remove(0))),
        _ => {
            let refs: Vec<_> = matching.into_iter().map(|project| project.external_ref).collect();
            let message = format!("Trigger.dev has {} projects named {name}: {}", refs.len(), refs.join(", "));
            let setting = format!(
                "Set trigger.project_ref in config/psn.toml to the one that is the hub's, for example \"{}\"",
                refs[0]
            );
            Err(Failure::new("ambiguous-project", message)
                .fix(setting)
                .fix(format!("Or delete the others: https://cloud.trigger.dev/orgs/{org}")))
        }
    }
}

pub(crate) fn is_there(noted: &Noted) -> Result<bool, Failure> {
    let projects = trigger::projects(&noted.org)?.unwrap_or_default();
    Ok(projects.iter().any(|project| project.id == noted.id))
}

fn projects(org: &str) -> Result<Vec<Project>, Failure> {
    trigger::projects(org)?.ok_or_else(|| {
        Failure::new("organisation-not-found", format!("Trigger.dev has no organisation {org} any more"))
            .fix("Set trigger.org in config/psn.toml to an existing organisation")
    })
}
