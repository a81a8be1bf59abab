//! `psn task trigger`: what is typed, made into a call, and its run followed to its end.
use std::io::Read as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::run::nearest;
use super::super::{Context, Done};
use super::time::{duration, still_ahead, when};
use super::{MAX_PAYLOAD, OPEN, answer, no_such, open};
use crate::error::CodedError;
use crate::pipeline::trigger_api::TriggerApi;

/// Trigger.dev's own limits.
const MAX_TAGS: usize = 10;
const MAX_TAG_CHARS: usize = 128;
const MAX_KEY_CHARS: usize = 2_048;
/// Between two looks at a run that is waited for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(in crate::cli) struct Trigger {
    /// The task's id, for example publish-post
    task: String,
    /// What it is given, as JSON; `-` reads standard input
    #[arg(long, value_name = "JSON", default_value = "{}")]
    payload: String,
    /// Starts it later: 10m, 1h30m, 2d, or a date such as 2027-01-31T09:00:00Z
    #[arg(long)]
    delay: Option<String>,
    /// A second trigger with the same key answers the first one's run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long the key counts: one number and s, m, h or d [default: 30d]
    #[arg(long, value_name = "TIME", requires = "idempotency_key")]
    idempotency_key_ttl: Option<String>,
    /// Gives up when it has not started by then, for example 1h
    #[arg(long)]
    ttl: Option<String>,
    /// A word to find the run by; up to 10
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
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
    if let Some(delay) = &trigger.delay {
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

async fn wait(context: &Context, api: &TriggerApi, id: &str, patience: Duration) -> Result<Done, CodedError> {
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
    let mut words = vec!["psn".to_owned(), "task".to_owned(), "trigger".to_owned(), quoted(&trigger.task)];
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), quoted(value)]);
    if trigger.payload != "{}" {
        option("--payload", &trigger.payload);
    }
    option("--delay", delay);
    let named = [
        ("--idempotency-key", &trigger.idempotency_key),
        ("--idempotency-key-ttl", &trigger.idempotency_key_ttl),
        ("--ttl", &trigger.ttl),
    ];
    for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        option(name, value);
    }
    trigger.tags.iter().for_each(|tag| option("--tag", tag));
    if let Some(seconds) = trigger.wait {
        option("--wait", &seconds.to_string());
    }
    words.join(" ")
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
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
    let usage = |code: &str, message: String| {
        CodedError::new(code, message, [format!("psn task trigger {} --payload '{{}}'", trigger.task)])
    };
    let text = match trigger.payload.as_str() {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_PAYLOAD + 1).read_to_string(&mut text);
            read.map_err(|e| usage("usage.payload", format!("standard input could not be read as text: {e}")))?;
            text
        }
        text => text.to_owned(),
    };
    if text.len() as u64 > MAX_PAYLOAD {
        return Err(usage("usage.payload", format!("the payload is larger than {MAX_PAYLOAD} bytes")));
    }
    let payload: Value =
        serde_json::from_str(&text).map_err(|e| usage("usage.payload", format!("--payload is not JSON: {e}")))?;
    let mut options = json!({ "payloadType": "application/json" });
    if let Some(delay) = &trigger.delay {
        when("trigger", delay)?;
        options["delay"] = json!(delay);
    }
    if let Some(key) = &trigger.idempotency_key {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            return Err(usage("usage.key", format!("an idempotency key has 1 to {MAX_KEY_CHARS} characters")));
        }
        options["idempotencyKey"] = json!(key);
    }
    if let Some(ttl) = &trigger.idempotency_key_ttl {
        if duration(ttl).is_none() || ttl.bytes().filter(u8::is_ascii_alphabetic).count() != 1 {
            return Err(usage("usage.time", format!("`{ttl}` is not one number and s, m, h or d")));
        }
        options["idempotencyKeyTTL"] = json!(ttl);
    }
    if let Some(ttl) = &trigger.ttl {
        if duration(ttl).is_none() {
            return Err(usage("usage.time", format!("`{ttl}` is no time such as 10m or 1h30m")));
        }
        options["ttl"] = json!(ttl);
    }
    if !trigger.tags.is_empty() {
        let bad = |tag: &String| tag.trim().is_empty() || tag.contains(',') || tag.chars().count() > MAX_TAG_CHARS;
        if trigger.tags.len() > MAX_TAGS || trigger.tags.iter().any(bad) {
            let message =
                format!("a run has up to {MAX_TAGS} tags of up to {MAX_TAG_CHARS} characters, without commas");
            return Err(usage("usage.tags", message));
        }
        options["tags"] = json!(trigger.tags);
    }
    Ok((payload, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_typed_again_word_by_word() {
        let trigger = Trigger {
            task: "publish-post".to_owned(),
            payload: r#"{"text":"it's $HOME"}"#.to_owned(),
            delay: Some("2027-01-31T09:00:00Z".to_owned()),
            idempotency_key: Some("post:1".to_owned()),
            idempotency_key_ttl: None,
            ttl: Some("1h".to_owned()),
            tags: vec!["a b".to_owned()],
            wait: Some(5),
        };
        assert_eq!(
            again(&trigger, "60s"),
            "psn task trigger publish-post --payload '{\"text\":\"it'\\''s $HOME\"}' --delay 60s --idempotency-key post:1 --ttl 1h \
             --tag 'a b' --wait 5"
        );
    }
}
