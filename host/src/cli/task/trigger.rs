//! `psn task trigger`: what is typed, made into a call, and its run followed to its end.
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::run::nearest;
use super::super::{Context, Done};
use super::options::{How, payload};
use super::time::still_ahead;
use super::{OPEN, answer, no_such, open};
use crate::error::CodedError;
use crate::pipeline::trigger_api::TriggerApi;
use crate::shell;

/// Between two looks at a run that is waited for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(in crate::cli) struct Trigger {
    /// The task's id, for example publish-post
    task: String,
    /// What it is given, as JSON; `-` reads standard input
    #[arg(long, value_name = "JSON", default_value = "{}")]
    payload: String,
    #[command(flatten)]
    how: How,
    /// Waits this many seconds for the run to end, and fails if it does not end well
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

pub(super) async fn start(
    context: &Context,
    trigger: &Trigger,
    payload: &Value,
    options: &Value,
) -> Result<Done, CodedError> {
    let task = trigger.task.as_str();
    let api = open(context).await?;
    let deployed = api.deployed_tasks().await?;
    if !deployed.as_ref().unwrap_or(&api.tasks).iter().any(|t| t == task) {
        return Err(unknown(&api, task, deployed.unwrap_or_default()));
    }
    if let Some(delay) = &trigger.how.delay {
        still_ahead(&api, delay, |span| again(trigger, span))?;
    }
    let reply = api.trigger(task, payload, options).await?;
    let id = reply["id"].as_str().unwrap_or_default().to_owned();
    let run = api.run(&id).await.map_err(|e| no_such(e, &id))?;
    let cached = reply["isCached"].as_bool().unwrap_or_default();
    if cached && run["status"] == "CANCELED" {
        return Err(CodedError::new(
            "task.key-cancelled",
            format!(
                "this key belongs to {id}, which was cancelled; a cancelled run keeps its key, so nothing was started"
            ),
            [format!("psn task replay {id}"), format!("psn task show {id}")],
        ));
    }
    answer(
        context,
        "trigger",
        json!({ "id": id, "task": task, "cached": cached, "status": run["status"], "delayed_until": run["delayedUntil"] }),
    )?;
    match trigger.wait {
        Some(seconds) => wait(context, &api, &id, Duration::from_secs(seconds)).await,
        None => Ok(Done::Ok),
    }
}

pub(super) async fn wait(
    context: &Context,
    api: &TriggerApi,
    id: &str,
    patience: Duration,
) -> Result<Done, CodedError> {
    let started = Instant::now();
    loop {
        let run = api.run(id).await.map_err(|e| no_such(e, id))?;
        let status = run["status"].as_str().unwrap_or_default().to_owned();
        if !OPEN.contains(&status.as_str()) {
            let reason = run["error"]["message"].as_str().map(|m| format!(": {m}")).unwrap_or_default();
            answer(context, "show", run)?;
            return match status.as_str() {
                "COMPLETED" => Ok(Done::Ok),
                _ => Err(CodedError::new(
                    "task.run-failed",
                    format!("{id} ended as {status}{reason}"),
                    [format!("psn task show {id}"), format!("psn task replay {id}")],
                )),
            };
        }
        if started.elapsed() >= patience {
            return Err(CodedError::new(
                "task.not-ended",
                format!("{id} is {status} after {} s; it goes on without psn", patience.as_secs()),
                [format!("psn task show {id}"), format!("psn task cancel {id}")],
            )
            .retryable());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The command as it was typed, with another delay.
fn again(trigger: &Trigger, delay: &str) -> String {
    let mut words = vec!["psn task trigger".to_owned(), shell::word(&trigger.task)];
    if trigger.payload != "{}" {
        words.extend(["--payload".to_owned(), shell::word(&trigger.payload)]);
    }
    words.extend(trigger.how.words(delay));
    if let Some(seconds) = trigger.wait {
        words.extend(["--wait".to_owned(), seconds.to_string()]);
    }
    words.join(" ")
}

/// A typing error, or a plugin that was added and not deployed yet.
fn unknown(api: &TriggerApi, task: &str, deployed: Vec<String>) -> CodedError {
    if api.tasks.iter().any(|t| t == task) {
        return CodedError::new(
            "task.not-deployed",
            format!("{task} is a task of this folder, but the hub runs a deployment without it"),
            ["psn run trigger-provision"],
        );
    }
    let names = if deployed.is_empty() { &api.tasks } else { &deployed };
    let mut fix = Vec::new();
    fix.extend(nearest(names, task).map(|near| format!("psn task trigger {near}")));
    fix.push("psn plugin list".to_owned());
    CodedError::new("task.unknown", format!("the hub runs no task `{task}`; it runs: {}", names.join(", ")), fix)
}

pub(super) fn prepare(trigger: &Trigger) -> Result<(Value, Value), CodedError> {
    let fix = format!("psn task trigger {} --payload '{{}}'", shell::word(&trigger.task));
    let payload = payload(&trigger.payload, &fix)?;
    let mut options = trigger.how.options("trigger", &fix)?;
    options.insert("payloadType".to_owned(), json!("application/json"));
    Ok((payload, Value::Object(options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_typed_again_word_by_word() {
        let trigger = Trigger {
            task: "publish-post".to_owned(),
            payload: r#"{"text":"it's $HOME"}"#.to_owned(),
            how: How {
                delay: Some("2027-01-31T09:00:00Z".to_owned()),
                idempotency_key: Some("post:1".to_owned()),
                idempotency_key_ttl: None,
                ttl: Some("1h".to_owned()),
                tags: vec!["a b".to_owned()],
            },
            wait: Some(5),
        };
        assert_eq!(
            again(&trigger, "60s"),
            "psn task trigger publish-post --payload '{\"text\":\"it'\\''s $HOME\"}' --delay 60s --idempotency-key post:1 --ttl 1h \
             --tag 'a b' --wait 5"
        );
    }
}
