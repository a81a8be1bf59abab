//! The tasks in the project: a deployment is named by the hash of what it holds, so that the same tasks are deployed once.

use psn_plugin::prelude::*;

use crate::{
    access, environment,
    error::Error,
    notes::Noted,
    plan,
    tasks::{Task, Tasks, Way},
    trigger::{self, Deployment, DeploymentError, Started},
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
/// The CLI ends with 0 in cases where it deployed nothing; after this many milliseconds a deployment that nobody sees is none.
const APPEARING_MS: u32 = 60_000;
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
    if current.external_id != Some(tasks.external_id()) {
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
            // A person switched it off; switching it on again is theirs too. A deployment leaves it as it is.
            Check::warn(name, format!("✗ The schedule of {id} is switched off"))
                .fix(format!("psn task schedules activate {id}"))
        });
    }
    Ok(Deployed::Complete(checks))
}

/// How a deployment did not come about.
enum Refused {
    /// Trigger.dev's own error: the plan may be the reason.
    Deployment {
        version: String,
        error: DeploymentError,
    },
    Otherwise(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Otherwise(failure)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Otherwise(error.into())
    }
}

/// Answers the tasks as they were deployed: with less of their schedules where the plan refused more.
pub(crate) fn bring_up_to_date(noted: &Noted, mut tasks: Tasks) -> Result<Tasks, Failure> {
    loop {
        let (version, error) = match attempt(noted, &tasks) {
            Ok(()) => return Ok(tasks),
            Err(Refused::Otherwise(failure)) => return Err(failure),
            Err(Refused::Deployment { version, error }) => (version, error),
        };
        let Some(less) = plan::less(noted, &tasks, &error)? else {
            return Err(ended_badly(noted, &version, &error));
        };
        tasks = less;
        // The deployed tasks read there what the plan leaves of their schedules.
        environment::bring_up_to_date(noted, &tasks)?;
    }
}

fn attempt(noted: &Noted, tasks: &Tasks) -> Result<(), Refused> {
    let force = match look(noted, tasks)? {
        Deployed::Complete(_) => return Ok(()),
        Deployed::Incomplete { id_used, .. } => id_used,
        Deployed::KeyRejected => return Err(access::key_rejected().into()),
    };
    let deployment = match tasks.way {
        Way::Direct => directly(tasks, force)?,
        Way::Cli => by_cli(noted, tasks, force)?,
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
            Err(Failure::new("deploy-incomplete", message).fix("psn run trigger-provision").into())
        }
        Deployed::KeyRejected => Err(access::key_rejected().into()),
    }
}

/// The local hub runs the components as they are: it is told about them in the words of Trigger.dev's own build machines.
fn directly(tasks: &Tasks, force: bool) -> Result<Deployment, Refused> {
    let start = |force| trigger::start_deployment(&tasks.content_hash, &tasks.external_id(), force);
    let mut started = match start(force) {
        // A run that was killed half-way left one in progress, which would be in the way until its time-out.
        Err(error) if error.status() == Some(409) && !force => start(true)?,
        started => started?,
    };
    if started.outcome.as_deref() == Some("existing") {
        let existing = trigger::deployment(&started.id)?;
        if existing.status == "DEPLOYED" {
            return Ok(existing);
        }
        // It failed, or the run that made it was killed half-way; Trigger.dev ends it by itself.
        started = start(true)?;
    }
    let warnings = trigger::register_tasks(&started.id, &worker(tasks));
    for warning in warnings.map_err(|error| registration_refused(&started, error))? {
        log::warn!("{}", warning);
    }
    if let Some(message) = trigger::finalize(&started.id, &format!("sha256:{}", tasks.content_hash)).map_err(refused)? {
        return Err(failed(&started.version, &message).into());
    }
    wait(|| trigger::deployment(&started.id).map(Some))
}

/// The refusal of a registration says little; the deployment that it ended says which rule it was.
fn registration_refused(started: &Started, error: Error) -> Refused {
    if !matches!(error.status(), Some(400 | 404..=422)) {
        return error.into();
    }
    match trigger::deployment(&started.id) {
        Ok(Deployment { version, error: Some(error), .. }) => Refused::Deployment { version, error },
        _ => refused(error).into(),
    }
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
fn by_cli(noted: &Noted, tasks: &Tasks, force: bool) -> Result<Deployment, Refused> {
    if !secrets::exists(crate::TOKEN) {
        let message = "The tasks are not deployed as they are here, and the production key alone cannot deploy them";
        return Err(Failure::new("token-missing", message).fix(access::SET_TOKEN).into());
    }
    let id = tasks.external_id();
    let look = || trigger::deployment_by_external_id(&id);
    let before = look()?;
    // A run that was killed may have left one that goes on by itself; a second one would be refused.
    if !force && before.as_ref().is_some_and(|deployment| !deployment.is_over()) {
        return wait(look);
    }
    npm(&INSTALL, "install")?;
    let mut args = DEPLOY.to_vec();
    args.extend(["--project-ref", &noted.external_ref, "--external-id", &id]);
    args.extend(force.then_some("--force"));
    npm(&args, "deploy")?;
    let old = before.map(|deployment| deployment.id);
    wait(|| {
        let seen = look()?;
        // With force there is another of the same name until the new one is there.
        Ok(seen.filter(|deployment| !force || Some(&deployment.id) != old.as_ref()))
    })
}

const INSTALL: [&str; 7] =
    ["ci", "--prefix", ".psn/trigger", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"];
const DEPLOY: [&str; 15] = [
    "exec",
    "--prefix",
    ".psn/trigger",
    "--no",
    "--",
    "trigger",
    "deploy",
    ".psn/trigger",
    "--env",
    "prod",
    "--native-build",
    "--local-bundle",
    "--detach",
    "--skip-update-check",
    "--skip-telemetry",
];

fn npm(args: &[&str], what: &str) -> Result<(), Failure> {
    let output = tool::run("npm", args)?;
    if output.is_success() {
        return Ok(());
    }
    let message = format!("`npm` ({what}) ended with {}: {}", output.exit_code, output.last_words(LAST_WORDS));
    Err(Failure::new("deploy-failed", message).fix("psn run trigger-provision").fix("psn task export psn-tasks"))
}

fn wait(mut look: impl FnMut() -> Result<Option<Deployment>, Error>) -> Result<Deployment, Refused> {
    let (mut pause, mut waited) = (FIRST_PAUSE_MS, 0);
    loop {
        match look()? {
            Some(deployment) if deployment.status == "DEPLOYED" => return Ok(deployment),
            Some(deployment) if deployment.is_over() => {
                let Deployment { version, status, error, .. } = deployment;
                return Err(match error {
                    Some(error) => Refused::Deployment { version, error },
                    None => failed(&version, &format!("it ended as {status}")).into(),
                });
            }
            Some(deployment) if waited >= PATIENCE_MS => return Err(too_slow(&deployment.status).into()),
            None if waited >= APPEARING_MS => {
                let message = "Trigger.dev's CLI said that it went well, and Trigger.dev has no such deployment";
                return Err(Failure::new("deploy-failed", message).fix("psn run trigger-provision").into());
            }
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
        .fix("psn run trigger-provision")
        .retry_after_ms(SLOW_RETRY_MS)
}

fn ended_badly(noted: &Noted, version: &str, error: &DeploymentError) -> Failure {
    if error.name == "SchedulePlanLimitError" {
        return Failure::new("schedule-plan-limit", format!("Trigger.dev refuses the schedule: {}", error.message))
            .fix("psn config set trigger.schedules hourly")
            .fix(plan::larger(noted));
    }
    failed(version, &error.message)
}

fn failed(version: &str, reason: &str) -> Failure {
    Failure::new("deploy-failed", format!("Trigger.dev could not deploy version {version}: {reason}"))
        .fix("psn run trigger-provision")
}

fn refused(error: Error) -> Failure {
    match error.status() {
        Some(400 | 404..=422) => {
            Failure::new("deploy-refused", format!("Trigger.dev refused the tasks: {}", error.message))
                .fix("psn run trigger-provision")
        }
        _ => error.into(),
    }
}
