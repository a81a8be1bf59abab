//! `psn task schedules`: when tasks come by themselves, and switching that off and on. A deployment leaves a schedule that was switched
//! off as it is, and so does setup: whoever switched it off switches it on.
use clap::Subcommand;
use serde_json::{Value, json};

use super::super::run::nearest;
use super::super::{Context, Done};
use super::{answer, open};
use crate::error::CodedError;
use crate::pipeline::trigger_api::TriggerApi;

#[derive(Subcommand)]
pub(in crate::cli) enum Change {
    /// Switches a schedule on; ticks that it missed are not made up for
    Activate {
        /// sched_…, or a task's id, for example watchdog: all of its schedules
        schedule: String,
    },
    /// Switches a schedule off, until it is switched on again
    Deactivate {
        /// sched_…, or a task's id, for example watchdog: all of its schedules
        schedule: String,
    },
}

pub(super) async fn schedules(context: &Context, change: Option<Change>) -> Result<Done, CodedError> {
    let api = open(context).await?;
    let all = api.schedules().await.map_err(CodedError::from)?;
    let (wanted, active) = match &change {
        None => return answer(context, "schedules", json!({ "schedules": all })),
        Some(Change::Activate { schedule }) => (schedule, true),
        Some(Change::Deactivate { schedule }) => (schedule, false),
    };
    let meant: Vec<&str> = all
        .iter()
        .filter(|schedule| text(schedule, "id") == wanted || text(schedule, "task") == wanted)
        .map(|schedule| text(schedule, "id"))
        .collect();
    if meant.is_empty() {
        return Err(unknown(&api, &all, wanted, if active { "activate" } else { "deactivate" }));
    }
    let mut changed = Vec::new();
    for id in meant {
        changed.push(api.switch_schedule(id, active).await.map_err(CodedError::from)?);
    }
    answer(context, "schedules", json!({ "schedules": changed }))
}

fn text<'a>(schedule: &'a Value, field: &str) -> &'a str {
    schedule[field].as_str().unwrap_or_default()
}

fn unknown(api: &TriggerApi, all: &[Value], wanted: &str, verb: &str) -> CodedError {
    let mut fix = Vec::new();
    // A task of this folder without a schedule was deployed without one, or not at all.
    if api.tasks.iter().any(|task| task == wanted) {
        fix.push("psn run trigger-provision".to_owned());
    } else {
        let names: Vec<String> = all.iter().map(|schedule| text(schedule, "task").to_owned()).collect();
        fix.extend(nearest(&names, wanted).map(|name| format!("psn task schedules {verb} {name}")));
    }
    fix.push("psn task schedules".to_owned());
    CodedError::new(
        "task.no-such-schedule",
        format!("the hub has no schedule `{wanted}`, and no task of that name has one"),
        fix,
    )
}
