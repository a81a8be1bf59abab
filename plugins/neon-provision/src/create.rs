//! Adopting the hub's project, or creating it exactly once.

use psn_plugin::prelude::*;

use crate::{
    find::{self, Found, Organisation},
    neon::{self, Project},
    notes::{self, Intent, Noted},
};

/// Milliseconds before each look for a project whose creation was not answered.
const LOOKS_MS: [u32; 4] = [1_000, 2_000, 4_000, 8_000];
/// For this many milliseconds after a creation was asked for, "not found" does not mean that it will not appear.
const STILL_APPEARING_MS: i64 = 60_000;
/// Milliseconds after which an unanswered creation is worth another run.
const UNANSWERED_RETRY_MS: u64 = 30_000;

pub(crate) fn adopt_or_create() -> Result<Noted, Failure> {
    let org_id = match find::organisation()? {
        Organisation::Known(id) => id,
        Organisation::Choose(need) => {
            return Err(Failure::new("organisation-unclear", "The Neon key belongs to several organizations")
                .fix(format!("Set neon.org_id in config/psn.toml to one of {}", need.choices.join(", "))));
        }
    };
    if let Found::One(project) = find::project(org_id.as_deref())? {
        return adopt(project);
    }
    // An earlier run asked and never heard: its project may be about to appear.
    if let Some(intent) = notes::intent()?
        && context::now().millis_since(intent.started_at) < STILL_APPEARING_MS
        && let Some(project) = look_again(&intent)?
    {
        return adopt(project);
    }
    create(org_id)
}

fn adopt(project: Project) -> Result<Noted, Failure> {
    log::info!("Adopting the Neon project {}", project.name; project = project.id);
    let chosen = project.name != find::project_name();
    // An earlier run that asked for it and was killed has made it all the same.
    let created = notes::intent()?.is_some_and(|intent| intent.name == project.name);
    remember(project, Vec::new(), created, chosen)
}

fn create(org_id: Option<String>) -> Result<Noted, Failure> {
    let intent = Intent { name: find::project_name(), org_id, started_at: context::now() };
    notes::intend(&intent)?;
    progress(0, 3, format!("Creating the Neon project {}", intent.name));
    match neon::create(&intent.name, intent.org_id.as_deref()) {
        Ok(created) => {
            let operations = created.operations.into_iter().map(|operation| operation.id).collect();
            remember(created.project, operations, true, false)
        }
        Err(error) if error.may_have_been_applied() => {
            log::warn!("Neon did not say whether it created the project; looking for it"; reason = error);
            match look_again(&intent)? {
                Some(project) => remember(project, Vec::new(), true, false),
                None => Err(Failure::from(error)
                    .context("Neon did not say whether it created the project, and does not show it yet")
                    .retry_after_ms(UNANSWERED_RETRY_MS)),
            }
        }
        Err(error) => {
            notes::settled()?;
            Err(refused(error))
        }
    }
}

fn look_again(intent: &Intent) -> Result<Option<Project>, Failure> {
    for pause in LOOKS_MS {
        context::sleep_ms(pause);
        if let Found::One(project) = find::by_name(&intent.name, intent.org_id.as_deref())? {
            return Ok(Some(project));
        }
    }
    Ok(None)
}

fn remember(project: Project, operations: Vec<String>, created: bool, chosen: bool) -> Result<Noted, Failure> {
    let Project { id, name, region_id, pg_version, .. } = project;
    let noted = Noted { id, name, region_id, pg_version, created, chosen, operations, host: None };
    notes::note(&noted)?;
    Ok(noted)
}

fn refused(error: http::Error) -> Failure {
    match error.status() {
        Some(400 | 402 | 404..=422) => {
            let message = format!("Neon refused to create the project: {}", error.message);
            Failure::new("create-refused", message)
                .fix("Change what Neon names: [neon] org_id, region or pg_version in config/psn.toml, or the plan and its projects in https://console.neon.tech/app/projects")
        }
        _ => error.into(),
    }
}
