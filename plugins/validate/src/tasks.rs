//! The tasks: the project is there, its key works, the tasks of this hub are what it runs, and on time.

use psn_plugin::{http, http::path, prelude::*};
use serde::Deserialize;

use crate::{ENVIRONMENT_KEY, TOKEN, bad, good, unknown, went_wrong};

const FIX: &str = "psn run trigger-provision";
/// Without it Trigger.dev answers in older words.
const API_VERSION: (&str, &str) = ("x-trigger-api-version", "2025-07-16");
/// Schedules per page: more than a project's plan allows.
const SCHEDULES: u32 = 100;

/// The project, as far as it is known, and the service that answers for it.
struct Opened {
    reference: String,
    service: http::Service<'static>,
}

pub(crate) fn check() -> Vec<Check> {
    let asked = secrets::exists(TOKEN).then(project);
    let (key, key_works) = environment_key();
    let (project, opened) = asked.unwrap_or_else(|| project_of_key(key_works));
    let deployed = if key_works { deployment(opened.as_ref()) } else { without_key() };
    [project, key].into_iter().chain(deployed).collect()
}

const PROJECT: &str = "trigger.project";

fn project() -> (Check, Option<Opened>) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Project {
        external_ref: String,
        name: String,
    }
    let name = PROJECT;
    let ask = || -> Result<Vec<Project>, http::Error> {
        http::service("trigger").get("/api/v1/projects").retry_when_busy().send()?.success()?.json()
    };
    let projects = match ask() {
        Ok(projects) => projects,
        Err(error) => return (went_wrong(name, error), None),
    };
    let chosen = context::setting("trigger.project_ref");
    let wanted = context::setting("trigger.project_name").unwrap_or_else(|| format!("psn-hub-{}", context::hub_id()));
    let ours = |project: &&Project| match &chosen {
        Some(chosen) => project.external_ref == *chosen,
        None => project.name == wanted,
    };
    let matching: Vec<_> = projects.iter().filter(ours).collect();
    match matching.as_slice() {
        [] => {
            let wanted = chosen.as_deref().unwrap_or(&wanted);
            (bad(name, format!("Trigger.dev has no project {wanted}")).fix(FIX), None)
        }
        [one] => {
            let opened = Opened { reference: one.external_ref.clone(), service: http::service("trigger") };
            (good(name, format!("The Trigger.dev project {} is there", one.name)), Some(opened))
        }
        several => {
            let check = bad(name, format!("Trigger.dev has {} projects named {wanted}", several.len()));
            let choose = |check: Check, one: &&Project| {
                check.fix(format!("psn config set trigger.project_ref {}", one.external_ref))
            };
            (several.iter().fold(check, choose), None)
        }
    }
}

/// A key does not say which project it opens; it refuses every other.
fn project_of_key(key_works: bool) -> (Check, Option<Opened>) {
    let name = PROJECT;
    if !key_works {
        return (unknown(name, format!("Without {TOKEN} nobody can ask for the project")), None);
    }
    let Some(reference) = context::setting("trigger.project_ref") else {
        let message = format!("Without {TOKEN} only trigger.project_ref says which project the production key is for");
        return (Check::skip(name, format!("– {message}")).fix(format!("psn keys set {TOKEN} --stdin")), None);
    };
    let opened = Opened { reference, service: http::service("trigger-env") };
    let reference = &opened.reference;
    match deployed_tasks(&opened) {
        Ok(_) => (good(name, format!("The production key opens the project {reference}")), Some(opened)),
        Err(error) if matches!(error.status(), Some(400 | 401 | 403)) => {
            let message = format!("The production key is not for {reference}, which trigger.project_ref names");
            let check = bad(name, format!("{message}: {}", error.message));
            (check.fix("psn keys set TRIGGER_SECRET_KEY --stdin").fix("psn config unset trigger.project_ref"), None)
        }
        Err(error) => (went_wrong(name, error), None),
    }
}

fn environment_key() -> (Check, bool) {
    let name = "trigger.key";
    if !secrets::exists(ENVIRONMENT_KEY) {
        return (bad(name, "TRIGGER_SECRET_KEY, the project's production key, is not there").fix(FIX), false);
    }
    let request = http::service("trigger-env").get("/api/v1/runs").query("page[size]", 1);
    match request.header(API_VERSION.0, API_VERSION.1).retry_when_busy().send().and_then(http::Response::success) {
        Ok(_) => (good(name, "Trigger.dev accepts the project's production key"), true),
        Err(error) if matches!(error.status(), Some(401 | 403)) => {
            let check = bad(name, format!("Trigger.dev rejects the project's production key: {}", error.message));
            // A token fetches another; without one a person does.
            let fix = if secrets::exists(TOKEN) { FIX } else { "psn keys set TRIGGER_SECRET_KEY --stdin" };
            (check.fix(fix), false)
        }
        Err(error) => (went_wrong(name, error), false),
    }
}

fn without_key() -> Vec<Check> {
    let message = "Without the project's key nobody can ask";
    vec![unknown("deployment", message), unknown("schedule", message)]
}

#[derive(Deserialize)]
struct Tasks {
    content_hash: String,
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    id: String,
    cron: Option<String>,
}

fn deployment(opened: Option<&Opened>) -> Vec<Check> {
    let name = "deployment";
    let wanted: Tasks = match hub::facts("tasks") {
        Ok(tasks) => tasks,
        Err(error) => return vec![went_wrong(name, error)],
    };
    let Current { check, few_schedules } = match current(&wanted, opened) {
        Ok(current) => current,
        Err(error) => went_wrong(name, error).into(),
    };
    let mut checks = vec![check];
    match schedules() {
        Ok(schedules) => {
            let scheduled = wanted.tasks.iter().filter(|task| task.cron.is_some());
            checks.extend(scheduled.map(|task| schedule(task, &schedules, few_schedules)))
        }
        Err(error) => checks.push(went_wrong("schedule", error)),
    }
    checks
}

/// What is deployed, and whether the plan of the organisation left some tasks without a schedule.
struct Current {
    check: Check,
    few_schedules: bool,
}

impl From<Check> for Current {
    fn from(check: Check) -> Self {
        Self { check, few_schedules: false }
    }
}

fn current(wanted: &Tasks, opened: Option<&Opened>) -> Result<Current, http::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Deployment {
        version: String,
        external_id: Option<String>,
    }
    let name = "deployment";
    let reply = http::service("trigger-env").get("/api/v1/deployments/current").retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(bad(name, "No tasks are deployed").fix(FIX).into());
    }
    let Deployment { version, external_id } = reply.success()?.json()?;
    // What a plan left of the schedules stands behind the hash: `HASH-hourly-10`.
    let external_id = external_id.unwrap_or_default();
    let mut parts = external_id.split('-');
    if parts.next() != Some(wanted.content_hash.as_str()) {
        return Ok(bad(name, format!("The deployed version {version} has other tasks than this psn")).fix(FIX).into());
    }
    let few_schedules = parts.any(|part| part.parse::<u32>().is_ok());
    let ids: Vec<_> = wanted.tasks.iter().map(|task| task.id.as_str()).collect();
    let mut said = format!("Version {version} is deployed");
    if let Some(opened) = opened {
        let there = deployed_tasks(opened)?;
        let missing: Vec<_> = ids.iter().filter(|id| !there.iter().any(|slug| slug == *id)).copied().collect();
        if !missing.is_empty() {
            let message = format!("The deployed version {version} lacks {}", missing.join(", "));
            return Ok(bad(name, message).fix(FIX).into());
        }
        said = format!("{said}, with {}", ids.join(", "));
    }
    Ok(Current { check: good(name, said), few_schedules })
}

fn deployed_tasks(opened: &Opened) -> Result<Vec<String>, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        worker: Worker,
    }
    #[derive(Deserialize)]
    struct Worker {
        tasks: Vec<Deployed>,
    }
    #[derive(Deserialize)]
    struct Deployed {
        slug: String,
    }
    let path = path!("/api/v1/projects/{}/prod/workers/current", opened.reference);
    let reply = opened.service.get(path).retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(Vec::new());
    }
    Ok(reply.success()?.json::<Reply>()?.worker.tasks.into_iter().map(|task| task.slug).collect())
}

#[derive(Deserialize)]
struct Schedule {
    task: String,
    active: bool,
    generator: Generator,
}

#[derive(Deserialize)]
struct Generator {
    expression: String,
}

fn schedules() -> Result<Vec<Schedule>, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        data: Vec<Schedule>,
    }
    let request = http::service("trigger-env").get("/api/v1/schedules").query("page", 1).query("perPage", SCHEDULES);
    Ok(request.header(API_VERSION.0, API_VERSION.1).retry_when_busy().send()?.success()?.json::<Reply>()?.data)
}

fn schedule(task: &Task, schedules: &[Schedule], few_schedules: bool) -> Check {
    let name = format!("schedule.{}", task.id);
    let of_task: Vec<_> = schedules.iter().filter(|schedule| schedule.task == task.id).collect();
    if of_task.is_empty() && few_schedules {
        return Check::warn(name, format!("✗ The Trigger.dev plan leaves {} no schedule", task.id))
            .fix(format!("psn task trigger {}", task.id));
    }
    if of_task.is_empty() {
        return bad(name, format!("{} has no schedule", task.id)).fix(FIX);
    }
    if let Some(active) = of_task.iter().find(|schedule| schedule.active) {
        return good(name, format!("{} is scheduled: {}", task.id, active.generator.expression));
    }
    Check::warn(name, format!("✗ The schedule of {} is switched off", task.id))
        .fix(format!("psn task schedules activate {}", task.id))
}
