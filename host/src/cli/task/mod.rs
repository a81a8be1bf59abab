//! `psn task`: the runs of the hub's tasks, on either hub through Trigger.dev's API.
mod export;
mod list;
mod options;
mod replay;
mod schedules;
mod time;
mod trigger;
mod view;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Context, Done};
use crate::error::CodedError;
use crate::events::Event;
use crate::pipeline::trigger_api::{ApiError, TriggerApi};
use list::Runs;
use replay::Replay;
use schedules::Change;
use trigger::Trigger;
pub(super) use view::lines;

/// What a result event of these commands is named after.
pub(super) const COMMAND: &str = "task ";
/// The states in which a run goes on. Trigger.dev's own yes-and-no fields leave EXPIRED and TIMED_OUT out.
const OPEN: [&str; 6] = ["PENDING_VERSION", "DELAYED", "QUEUED", "DEQUEUED", "EXECUTING", "WAITING"];

#[derive(Subcommand)]
pub(super) enum Task {
    /// Starts a task, now or later
    Trigger(Trigger),
    /// Lists runs, the newest first; without a window, those of the last 7 days
    Runs(Runs),
    /// Shows one run
    Show {
        /// run_…
        run: String,
    },
    /// Cancels a run that has not ended
    Cancel { run: String },
    /// Runs again what a run was given, or something else, as a new run
    Replay(Replay),
    /// Puts a run that is still delayed to another time
    Reschedule {
        run: String,
        /// 10m, 1h30m, 2d, or a date such as 2027-01-31T09:00:00Z
        #[arg(long)]
        delay: String,
    },
    /// Lists the schedules of the hub's tasks, or switches one on or off
    Schedules {
        #[command(subcommand)]
        change: Option<Change>,
    },
    /// Writes the Trigger.dev project that setup deploys to the cloud, for a look at it, or to deploy it by hand
    Export {
        /// Made where it is not there; nothing but an earlier export is written over
        folder: PathBuf,
    },
}

pub(super) async fn task(context: &Context, task: Task) -> Result<Done, CodedError> {
    // What is typed wrong is said before anything is started or asked.
    match task {
        Task::Trigger(trigger) => {
            let (payload, options) = trigger::prepare(&trigger)?;
            trigger::start(context, &trigger, &payload, &options).await
        }
        Task::Runs(runs) => {
            let query = list::query(&runs)?;
            let mut page = open(context).await?.list(&query).await.map_err(CodedError::from)?;
            if let Some(last) = page["pagination"]["next"].as_str().map(str::to_owned) {
                page["next"] = runs.page_after(&last).into();
            }
            answer(context, "runs", page)
        }
        Task::Show { run } => {
            let run = run_id(&run)?;
            let shown = open(context).await?.run(run).await.map_err(|e| no_such(e, run))?;
            answer(context, "show", shown)
        }
        Task::Cancel { run } => cancel(context, run_id(&run)?).await,
        Task::Replay(replay) => replay::replay(context, &replay).await,
        Task::Reschedule { run, delay } => reschedule(context, run_id(&run)?, &delay).await,
        Task::Schedules { change } => schedules::schedules(context, change).await,
        Task::Export { folder } => export::export(context, &folder).await,
    }
}

async fn open(context: &Context) -> Result<TriggerApi, CodedError> {
    TriggerApi::open(context.common.project.as_deref(), context.common.hub, &context.redactor, &context.events).await
}

fn answer(context: &Context, command: &str, data: Value) -> Result<Done, CodedError> {
    context.events.emit(&Event::Result { command: format!("{COMMAND}{command}"), data });
    Ok(Done::Ok)
}

async fn cancel(context: &Context, id: &str) -> Result<Done, CodedError> {
    let api = open(context).await?;
    api.cancel(id).await.map_err(|e| no_such(e, id))?;
    let run = api.run(id).await.map_err(|e| no_such(e, id))?;
    let status = run["status"].as_str().unwrap_or_default();
    if status != "CANCELED" && !OPEN.contains(&status) {
        return Err(CodedError::new(
            "task.ended",
            format!("{id} had ended as {status} already; there was nothing to cancel"),
            [format!("psn task show {id}"), format!("psn task replay {id}")],
        ));
    }
    answer(context, "cancel", json!({ "id": id, "status": status }))
}

async fn reschedule(context: &Context, id: &str, delay: &str) -> Result<Done, CodedError> {
    time::when("reschedule", delay)?;
    let api = open(context).await?;
    // Also tells what time it is there.
    api.run(id).await.map_err(|e| no_such(e, id))?;
    time::still_ahead(&api, delay, |span| format!("psn task reschedule {id} --delay {span}"))?;
    match api.reschedule(id, delay).await {
        Ok(run) => answer(
            context,
            "reschedule",
            json!({ "id": id, "status": run["status"], "delayed_until": run["delayedUntil"] }),
        ),
        // Trigger.dev has one status for every refusal here, so the run itself says which it was.
        Err(ApiError::Refused(refused)) if matches!(refused.status.as_u16(), 400 | 422) => {
            let run = api.run(id).await.map_err(|e| no_such(e, id))?;
            let status = run["status"].as_str().unwrap_or_default();
            if status == "DELAYED" {
                return Err(ApiError::Refused(refused).into());
            }
            Err(CodedError::new(
                "task.not-delayed",
                format!("{id} is {status}; only a run that is still delayed can be put to another time"),
                [format!("psn task show {id}"), format!("psn task replay {id}")],
            ))
        }
        Err(e) => Err(no_such(e, id)),
    }
}

fn no_such(error: ApiError, id: &str) -> CodedError {
    match error {
        ApiError::Refused(refused) if refused.status.as_u16() == 404 => CodedError::new(
            "task.no-such-run",
            format!("this hub has no run {id}"),
            ["psn task runs", "psn task runs --since 30d"],
        ),
        other => other.into(),
    }
}

fn run_id(text: &str) -> Result<&str, CodedError> {
    let rest = text.strip_prefix("run_").unwrap_or_default();
    if !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(text);
    }
    Err(CodedError::new("usage.run-id", "a run's id is run_ and letters and digits", ["psn task runs"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_id_is_nothing_else() {
        assert!(run_id("run_cm0abc123").is_ok());
        for bad in ["", "run_", "run_../../orgs", "sched_1", "run_a b"] {
            assert!(run_id(bad).is_err(), "{bad}");
        }
    }
}
