//! Adopting the hub's project, or creating it exactly once.

use psn_plugin::prelude::*;

use crate::{
    api::{Neon, Project, Trouble},
    find::{self, Found, Organisation},
    notes::{self, Intent, Noted},
    wish,
};

/// Milliseconds before each look for a project whose creation was not answered.
const LOOKS_MS: [u32; 4] = [1_000, 2_000, 4_000, 8_000];
/// For this many milliseconds after a creation was asked for, "not found" does not mean that it will not appear.
const STILL_APPEARING_MS: i64 = 60_000;
/// Milliseconds after which an unanswered creation is worth another run.
const UNANSWERED_RETRY_MS: u64 = 30_000;
/// Projects that an error names.
const NAMED: usize = 5;

pub(crate) fn adopt_or_create(neon: &impl Neon) -> Result<Noted, Failure> {
    let org_id = match find::organisation(neon)? {
        Organisation::Known(id) => id,
        Organisation::Choose(need) => return Err(find::unclear(&need)),
    };
    match find::project(neon, org_id.as_deref())? {
        Found::One(project) => return adopt(project),
        Found::Recover(project) => {
            neon.recover(&project.id)?;
            log::info!("Recovered the Neon project {}", project.name; project = project.id);
            return adopt(Project { deleted_at: None, ..project });
        }
        Found::Choose(need) => return Err(find::unclear(&need)),
        Found::Nothing => {}
    }
    // An earlier run asked and never heard: its project may be about to appear.
    if let Some(intent) = notes::intent()?
        && context::now().millis_since(intent.started_at) < STILL_APPEARING_MS
        && let Some(project) = look_again(neon, &intent)?
    {
        return adopt(project);
    }
    create(neon, org_id)
}

/// One of the hub's name that this step was about to create is its own; any other belongs to whoever made it.
fn adopt(project: Project) -> Result<Noted, Failure> {
    let ours = notes::intent()?.is_some_and(|intent| intent.name == project.name);
    log::info!("Adopting the Neon project {}", project.name; project = project.id);
    remember(project, Vec::new(), ours)
}

fn create(neon: &impl Neon, org_id: Option<String>) -> Result<Noted, Failure> {
    let intent = Intent { name: find::project_name(), org_id, started_at: context::now() };
    notes::intend(&intent)?;
    progress(0, 3, format!("Creating the Neon project {}", intent.name));
    match neon.create(&wish::wish(&intent.name, intent.org_id.as_deref())) {
        Ok(created) => {
            let operations = created.operations.into_iter().map(|operation| operation.id).collect();
            remember(created.project, operations, true)
        }
        Err(trouble) if trouble.unsure => {
            log::warn!("Neon did not say whether it created the project; looking for it"; reason = trouble.message);
            match look_again(neon, &intent)? {
                Some(project) => remember(project, Vec::new(), true),
                None => Err(trouble
                    .failure
                    .context("Neon did not say whether it created the project, and does not show it yet")
                    .retry_after_ms(UNANSWERED_RETRY_MS)),
            }
        }
        Err(trouble) => {
            notes::settled()?;
            Err(refused(neon, trouble))
        }
    }
}

fn look_again(neon: &impl Neon, intent: &Intent) -> Result<Option<Project>, Failure> {
    for pause in LOOKS_MS {
        context::sleep_ms(pause);
        match find::by_name(neon, &intent.name, intent.org_id.as_deref())? {
            Found::One(project) => return Ok(Some(project)),
            Found::Choose(need) => return Err(find::unclear(&need)),
            Found::Nothing | Found::Recover(_) => {}
        }
    }
    Ok(None)
}

fn remember(project: Project, operations: Vec<String>, created: bool) -> Result<Noted, Failure> {
    let Project { id, name, region_id, pg_version, .. } = project;
    let (host, database, role) = (None, None, None);
    let noted = Noted { id, name, region_id, pg_version, created, operations, host, database, role, resetting: false };
    notes::note(&noted)?;
    Ok(noted)
}

fn refused(neon: &impl Neon, trouble: Trouble) -> Failure {
    match trouble.status {
        // As a key for one project is, or one of a member who may not.
        Some(403) => {
            let message = format!("The key may not create a Neon project: {}", trouble.message);
            let mut failure = Failure::new("key-cannot-create", message);
            for project in neon.visible().unwrap_or_default().iter().take(NAMED) {
                failure = failure.fix(format!("psn config set neon.project_id {}", project.id));
            }
            failure.fix("Or give a key that may: psn keys set NEON_API_KEY --stdin")
        }
        Some(400 | 402 | 404..=422) => {
            let message = format!("Neon refused to create the project: {}", trouble.message);
            let failure = Failure::new("create-refused", message);
            // Any of what was wished for may be what is not to be had; without it, Neon chooses.
            let wished = wish::SETTINGS.iter().filter(|name| context::setting(name).is_some());
            wished
                .fold(failure, |failure, name| failure.fix(format!("psn config unset {name}")))
                .fix("psn run setup")
                .fix("Where the plan is full, make room or choose another: https://console.neon.tech/app/projects")
        }
        _ => trouble.failure,
    }
}
