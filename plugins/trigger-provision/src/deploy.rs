//! The tasks in the project: a deployment is named by the hash of what it holds, so that the same tasks are deployed once.

use psn_plugin::{context::HubKind, prelude::*};

use crate::{
    notes::Noted,
    tasks::{Task, Tasks},
    trigger::{self, Deployment},
};

/// The version of Trigger.dev's protocol that the bodies here follow.
const PACKAGE_VERSION: &str = "4.8.3";
/// First and longest pause between two looks, in milliseconds; each is twice the one before.
const FIRST_PAUSE_MS: u32 = 200;
const LONGEST_PAUSE_MS: u32 = 5_000;
/// How long a deployment may take, in milliseconds: an image is built in the cloud. Below the manifest's deadline, so that it is
/// this step that says so.
const PATIENCE_MS: u32 = 600_000;
/// Milliseconds after which a deployment that took too long is worth another run.
const SLOW_RETRY_MS: u64 = 60_000;
/// Lines of the CLI's output that a failure shows.
const LAST_WORDS: usize = 5;

pub(crate) enum Deployed {
    /// With a check for each thing that people may have changed since.
    Complete(Vec<Check>),
    Incomplete {
        reason: String,
        /// The promoted deployment has the id of these tasks, so that only force makes a new one of them.
        id_used: bool,
    },
    /// The environment's key was replaced, so nobody can tell.
    KeyRejected,
}

/// Whether the promoted deployment is of these tasks, has all of them, and their schedules exist.
pub(crate) fn look(noted: &Noted, tasks: &Tasks) -> Result<Deployed, Failure> {
    let current = match trigger::current_deployment() {
        Ok(current) => current,
        Err(error) if error.status() == Some(401) => return Ok(Deployed::KeyRejected),
        Err(error) => return Err(error.into()),
    };
    let lacking = |id_used: bool, reason: String| Ok(Deployed::Incomplete { reason, id_used });
    let Some(current) = current else {
        return lacking(false, "nothing is deployed".into());
    };
    if current.external_id.as_deref() != Some(&tasks.content_hash) {
        return lacking(false, format!("version {} has other tasks", current.version));
    }
    let there = trigger::current_tasks(&noted.external_ref)?;
    let missing: Vec<_> = tasks.ids().into_iter().filter(|id| !there.iter().any(|task| task == id)).collect();
    if !missing.is_empty() {
        return lacking(true, format!("the deployment lacks {}", missing.join(", ")));
    }
    let mut checks = vec![Check::pass("tasks", format!("✓ Deployed: {}", tasks.names()))];
    let schedules = if tasks.scheduled().next().is_some() { trigger::schedules()? } else { Vec::new() };
    for task in tasks.scheduled() {
        let mut of_task = schedules.iter().filter(|schedule| schedule.task == task.id);
        let Some(first) = of_task.next() else {
            return lacking(true, format!("{} has no schedule", task.id));
        };
        let name = format!("schedule.{}", task.id);
        let id = &task.id;
        checks.push(if first.active || of_task.any(|schedule| schedule.active) {
            Check::pass(name, format!("✓ {id} is scheduled: {}", first.generator.expression))
        } else {
            // A person switched it off; switching it on again is theirs too.
            let org = &noted.org;
            Check::warn(name, format!("✗ The schedule of {id} is switched off")).fix(format!(
                "Switch it on, under Schedules in the project {}: https://cloud.trigger.dev/orgs/{org}",
                noted.name
            ))
        });
    }
    Ok(Deployed::Complete(checks))
}

pub(crate) fn bring_up_to_date(noted: &Noted, tasks: &Tasks) -> Result<(), Failure> {
    let force = match look(noted, tasks)? {
        Deployed::Complete(_) => return Ok(()),
        Deployed::Incomplete { id_used, .. } => id_used,
        Deployed::KeyRejected => return Err(key_rejected()),
    };
    let deployment = match context::hub_kind() {
        HubKind::Local => directly(tasks, force)?,
        HubKind::Cloud => by_cli(tasks, force)?,
    };
    let mut deployed = look(noted, tasks)?;
    if matches!(deployed, Deployed::Incomplete { id_used: false, .. }) {
        // It was there, and not the one in use: someone went back to another version.
        trigger::promote(&deployment.version)?;
        deployed = look(noted, tasks)?;
    }
    match deployed {
        Deployed::Complete(_) => Ok(()),
        Deployed::Incomplete { reason, .. } => {
            let message = format!("Version {} is deployed, but {reason}", deployment.version);
            Err(Failure::new("deploy-incomplete", message).fix("psn run trigger-provision"))
        }
        Deployed::KeyRejected => Err(key_rejected()),
    }
}

fn key_rejected() -> Failure {
    Failure::new("key-rejected", "Trigger.dev rejects the production key that it answered just now")
        .fix("psn run trigger-provision")
}

/// The local hub runs the components as they are: it is told about them in the words of Trigger.dev's own build machines.
fn directly(tasks: &Tasks, force: bool) -> Result<Deployment, Failure> {
    let mut started = match trigger::start_deployment(&tasks.content_hash, force) {
        // A run that was killed half-way left one in progress, which would be in the way until its time-out.
        Err(error) if error.status() == Some(409) && !force => trigger::start_deployment(&tasks.content_hash, true)?,
        started => started?,
    };
    if started.outcome.as_deref() == Some("existing") {
        let existing = trigger::deployment(&started.id)?;
        if existing.status == "DEPLOYED" {
            return Ok(existing);
        }
        // It failed, or the run that made it was killed half-way; Trigger.dev ends it by itself.
        started = trigger::start_deployment(&tasks.content_hash, true)?;
    }
    for warning in trigger::register_tasks(&started.id, &worker(tasks)).map_err(refused)? {
        log::warn!("{}", warning);
    }
    if let Some(message) = trigger::finalize(&started.id, &format!("sha256:{}", tasks.content_hash)).map_err(refused)? {
        return Err(failed(&started.version, &message));
    }
    wait(|| trigger::deployment(&started.id).map(Some))
}

fn worker(tasks: &Tasks) -> serde_json::Value {
    json!({
        "localOnly": true,
        "metadata": {
            "contentHash": tasks.content_hash,
            "packageVersion": PACKAGE_VERSION,
            "cliPackageVersion": PACKAGE_VERSION,
            "tasks": tasks.tasks.iter().map(resource).collect::<Vec<_>>(),
            "queues": [],
            "sourceFiles": [],
        },
        "engine": "V2",
        "supportsLazyAttempts": true,
    })
}

fn resource(task: &Task) -> serde_json::Value {
    let mut resource = json!({ "id": task.id, "filePath": task.file_path });
    if let Some(cron) = &task.cron {
        resource["triggerSource"] = "schedule".into();
        resource["schedule"] = json!({ "cron": cron, "timezone": task.timezone.as_deref().unwrap_or("UTC") });
    }
    if let Some(seconds) = task.max_duration_s {
        resource["maxDuration"] = seconds.into();
    }
    if let Some(queue) = &task.queue {
        resource["queue"] = json!({ "name": queue });
    }
    if let Some(retry) = &task.retry {
        resource["retry"] = retry.clone();
    }
    resource
}

/// Trigger.dev's own CLI bundles and uploads. That it exits with 0 does not mean that anything is deployed.
fn by_cli(tasks: &Tasks, force: bool) -> Result<Deployment, Failure> {
    let hash = tasks.content_hash.as_str();
    let mut args = vec!["deploy", "--env", "prod", "--skip-update-check", "--external-id", hash];
    args.extend(force.then_some("--force"));
    let output = tool::run("trigger", &args)?;
    if !output.is_success() {
        let message = format!("`trigger deploy` ended with {}: {}", output.exit_code, output.last_words(LAST_WORDS));
        return Err(Failure::new("deploy-failed", message).fix("psn run trigger-provision"));
    }
    wait(|| trigger::deployment_by_external_id(hash))
}

fn wait(mut look: impl FnMut() -> Result<Option<Deployment>, http::Error>) -> Result<Deployment, Failure> {
    let (mut pause, mut waited) = (FIRST_PAUSE_MS, 0);
    loop {
        let seen = look()?;
        let status = seen.as_ref().map_or("not to be seen", |deployment| deployment.status.as_str()).to_owned();
        match (status.as_str(), seen) {
            ("DEPLOYED", Some(deployment)) => return Ok(deployment),
            ("FAILED" | "CANCELED" | "TIMED_OUT", Some(deployment)) => {
                return Err(ended_badly(&deployment));
            }
            _ if waited >= PATIENCE_MS => return Err(too_slow(&status)),
            _ => {}
        }
        context::sleep_ms(pause);
        waited += pause;
        pause = (pause * 2).min(LONGEST_PAUSE_MS);
    }
}

fn too_slow(status: &str) -> Failure {
    let minutes = PATIENCE_MS / 60_000;
    Failure::new("deploy-slow", format!("The deployment is still {status} after {minutes} minutes"))
        .fix("Run the same command again: it goes on waiting")
        .retry_after_ms(SLOW_RETRY_MS)
}

fn ended_badly(deployment: &Deployment) -> Failure {
    let Deployment { version, status, error, .. } = deployment;
    match error {
        Some(error) if error.name == "SchedulePlanLimitError" => {
            Failure::new("schedule-plan-limit", format!("Trigger.dev refuses the schedule: {}", error.message))
                .fix("Choose a plan that allows schedules more often than hourly: https://cloud.trigger.dev")
                .fix("Or give the task an hourly [task] cron in its plugin.toml, and build the plugins again")
        }
        Some(error) => failed(version, &error.message),
        None => failed(version, &format!("it ended as {status}")),
    }
}

fn failed(version: &str, reason: &str) -> Failure {
    Failure::new("deploy-failed", format!("Trigger.dev could not deploy version {version}: {reason}"))
        .fix("psn run trigger-provision")
}

fn refused(error: http::Error) -> Failure {
    match error.status() {
        Some(400 | 404..=422) => {
            Failure::new("deploy-refused", format!("Trigger.dev refused the tasks: {}", error.message))
                .fix("psn run trigger-provision")
        }
        _ => error.into(),
    }
}
