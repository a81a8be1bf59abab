//! The tasks: the project is there, its key works, the tasks of this hub are what it runs, and on time.

use psn_plugin::{http, http::path, prelude::*};
use serde::Deserialize;

use crate::{bad, good, unknown, went_wrong};

const FIX: &str = "psn run trigger-provision";
/// Without it Trigger.dev answers in older words.
const API_VERSION: (&str, &str) = ("x-trigger-api-version", "2025-07-16");
/// Schedules per page: more than a project's plan allows.
const SCHEDULES: u32 = 100;

pub(crate) fn check() -> Vec<Check> {
    let (project, project_ref) = project();
    let (key, key_works) = environment_key();
    let deployed = if key_works { deployment(project_ref.as_deref()) } else { without_key() };
    [project, key].into_iter().chain(deployed).collect()
}

fn project() -> (Check, Option<String>) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Project {
        external_ref: String,
        name: String,
    }
    let name = "trigger.project";
    let ask = || -> Result<Vec<Project>, http::Error> {
        http::service("trigger").get("/api/v1/projects").retry_when_busy().send()?.success()?.json()
    };
    if !secrets::exists("TRIGGER_ACCESS_TOKEN") {
        return (unknown(name, "Without TRIGGER_ACCESS_TOKEN nobody can ask for the project"), None);
    }
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
        [one] => (good(name, format!("The Trigger.dev project {} is there", one.name)), Some(one.external_ref.clone())),
        several => {
            let check = bad(name, format!("Trigger.dev has {} projects named {wanted}", several.len()))
                .fix("Set trigger.project_ref in config/psn.toml to the one that is the hub's");
            (check, None)
        }
    }
}

fn environment_key() -> (Check, bool) {
    let name = "trigger.key";
    if !secrets::exists("TRIGGER_SECRET_KEY") {
        return (bad(name, "TRIGGER_SECRET_KEY, the project's production key, is not there").fix(FIX), false);
    }
    let request = http::service("trigger-env").get("/api/v1/runs").query("page[size]", 1);
    match request.header(API_VERSION.0, API_VERSION.1).retry_when_busy().send().and_then(http::Response::success) {
        Ok(_) => (good(name, "Trigger.dev accepts the project's production key"), true),
        Err(error) if matches!(error.status(), Some(401 | 403)) => {
            (bad(name, format!("Trigger.dev rejects the project's production key: {}", error.message)).fix(FIX), false)
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

fn deployment(project_ref: Option<&str>) -> Vec<Check> {
    let name = "deployment";
    let wanted: Tasks = match hub::facts("tasks") {
        Ok(tasks) => tasks,
        Err(error) => return vec![went_wrong(name, error)],
    };
    let Current { check, few_schedules } = match current(&wanted, project_ref) {
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

fn current(wanted: &Tasks, project_ref: Option<&str>) -> Result<Current, http::Error> {
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
    if let Some(project_ref) = project_ref {
        let there = deployed_tasks(project_ref)?;
        let missing: Vec<_> = ids.iter().filter(|id| !there.iter().any(|slug| slug == *id)).copied().collect();
        if !missing.is_empty() {
            let message = format!("The deployed version {version} lacks {}", missing.join(", "));
            return Ok(bad(name, message).fix(FIX).into());
        }
        said = format!("{said}, with {}", ids.join(", "));
    }
    Ok(Current { check: good(name, said), few_schedules })
}

fn deployed_tasks(project_ref: &str) -> Result<Vec<String>, http::Error> {
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
    let request = http::service("trigger").get(path!("/api/v1/projects/{}/prod/workers/current", project_ref));
    let reply = request.retry_when_busy().send()?;
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
        .fix("Switch it on, under Schedules in the Trigger.dev project: https://cloud.trigger.dev")
}
