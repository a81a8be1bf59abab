//! Adopting the hub's project, or creating it exactly once.

use psn_plugin::prelude::*;

use crate::{
    error::Error,
    find::{self, Found, Organisation},
    notes::{self, Intent, Noted},
    trigger::{self, Org, Project},
};

/// Milliseconds before each look for a project whose creation was not answered.
const LOOKS_MS: [u32; 4] = [1_000, 2_000, 4_000, 8_000];
/// For this many milliseconds after a creation was asked for, "not found" does not mean that it will not appear.
const STILL_APPEARING_MS: i64 = 60_000;
/// Milliseconds after which an unanswered creation is worth another run.
const UNANSWERED_RETRY_MS: u64 = 30_000;
/// Projects of an organisation on Trigger.dev's free plan.
const FREE_PROJECTS: usize = 10;
/// Trigger.dev's status for an organisation that has not chosen a plan.
const PLAN_REQUIRED: Option<u16> = Some(402);

pub(crate) fn adopt_or_create() -> Result<Noted, Failure> {
    let org = match find::organisation()? {
        Organisation::Known(org) => org,
        Organisation::Unlisted => {
            let project = find::unlisted_project()?.ok_or_else(|| {
                // Asked again, it says what is needed and how to give it.
                Failure::new("project-unclear", "An organisation's token cannot look for the hub's Trigger.dev project")
                    .fix("psn run trigger-provision")
            })?;
            return adopt(project);
        }
        Organisation::Choose(need) => {
            let message = "The Trigger.dev token belongs to several organisations";
            return Err(find::choose_org(Failure::new("organisation-unclear", message), &need.choices));
        }
    };
    if let Found::One(project) = find::project(&org)? {
        return adopt(project);
    }
    // An earlier run asked and never heard: its project may be about to appear.
    if let Some(intent) = notes::intent()?
        && context::now().millis_since(intent.started_at) < STILL_APPEARING_MS
        && let Some(project) = look_again(&intent)?
    {
        return adopt(project);
    }
    create(&org)
}

fn adopt(project: Project) -> Result<Noted, Failure> {
    log::info!("Adopting the Trigger.dev project {}", project.name; project = project.external_ref);
    let chosen = context::setting("trigger.project_ref").is_some() && project.name != find::project_name();
    // An earlier run that asked for it and was killed has made it all the same.
    let created = notes::intent()?.is_some_and(|intent| intent.name == project.name);
    remember(project, created, chosen)
}

fn create(org: &Org) -> Result<Noted, Failure> {
    let intent = Intent { name: find::project_name(), org: org.slug.clone(), started_at: context::now() };
    notes::intend(&intent)?;
    progress(0, 4, format!("Creating the Trigger.dev project {}", intent.name));
    let mut created = trigger::create(&org.slug, &intent.name);
    if created.as_ref().is_err_and(|error| error.status() == PLAN_REQUIRED) {
        activate_free_plan(org)?;
        created = trigger::create(&org.slug, &intent.name);
    }
    match created {
        Ok(project) => remember(project, true, false),
        Err(error) if error.may_have_been_applied() => {
            log::warn!("Trigger.dev did not say whether it created the project; looking for it"; reason = error);
            match look_again(&intent)? {
                Some(project) => remember(project, true, false),
                None => Err(Failure::from(error)
                    .context("Trigger.dev did not say whether it created the project, and does not show it yet")
                    .retry_after_ms(UNANSWERED_RETRY_MS)),
            }
        }
        Err(error) => {
            notes::settled()?;
            refused(org, error)
        }
    }
}

/// Free of charge; where Trigger.dev does not let an API do it, a person must.
fn activate_free_plan(org: &Org) -> Result<(), Failure> {
    log::info!("Choosing the free plan for {}", org.title);
    trigger::activate_free_plan(&org.slug).map_err(|error| match error.status() {
        Some(400 | 402..=422) => plan_needed(org),
        _ => error.into(),
    })
}

fn plan_needed(org: &Org) -> Failure {
    Failure::new(
        "plan-needed",
        format!("The Trigger.dev organisation {} has no plan yet; the free one will do", org.title),
    )
    .fix(format!("Choose the free plan, signed in at https://cloud.trigger.dev/orgs/{}/select-plan", org.slug))
    .fix("psn run trigger-provision")
}

fn refused<T>(org: &Org, error: Error) -> Result<T, Failure> {
    Err(match error.status() {
        PLAN_REQUIRED => plan_needed(org),
        Some(400 | 404..=422) => {
            let there = find::projects(org)?;
            // Trigger.dev has the same words for every reason; with so many projects it is most likely their number.
            let failure = if error.status() == Some(400) && there.len() >= FREE_PROJECTS {
                let message =
                    format!("{} has {FREE_PROJECTS} Trigger.dev projects or more, and may have no other", org.title);
                Failure::new("project-limit", message)
            } else {
                Failure::new("create-refused", format!("Trigger.dev refused to create the project: {}", error.message))
            };
            let failure = find::choose_project(failure, &there);
            let failure = failure.fix(format!(
                "Make room or choose a larger plan, signed in at https://cloud.trigger.dev/orgs/{}",
                org.slug
            ));
            failure.fix("psn run trigger-provision")
        }
        _ => error.into(),
    })
}

fn look_again(intent: &Intent) -> Result<Option<Project>, Failure> {
    for pause in LOOKS_MS {
        context::sleep_ms(pause);
        if let Found::One(project) = find::by_name(&intent.name, &intent.org)? {
            return Ok(Some(project));
        }
    }
    Ok(None)
}

fn remember(project: Project, created: bool, chosen: bool) -> Result<Noted, Failure> {
    let Project { id, external_ref, name, organization } = project;
    let noted = Noted { id, external_ref, name, org: organization.slug, created, chosen };
    notes::note(&noted)?;
    Ok(noted)
}
