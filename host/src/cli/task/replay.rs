//! `psn task replay`: a run again, as it was or with something else about it.
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::{Context, Done};
use super::options::{How, payload};
use super::time::still_ahead;
use super::trigger::wait;
use super::{answer, no_such, open, run_id};
use crate::error::CodedError;
use crate::pipeline::trigger_api::TriggerApi;
use crate::shell;

#[derive(Args)]
pub(in crate::cli) struct Replay {
    run: String,
    /// Another payload than the run's, as JSON; `-` reads standard input
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Another deployment than the current one, for example 20270131.1
    #[arg(long = "deployment", value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    how: How,
    /// Waits this many seconds for the new run to end, and fails if it does not end well
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

pub(super) async fn replay(context: &Context, replay: &Replay) -> Result<Done, CodedError> {
    let old = run_id(&replay.run)?;
    let fix = format!("psn task replay {old}");
    let mut body = replay.how.options("replay", &fix)?;
    if let Some(text) = &replay.payload {
        body.insert("payload".to_owned(), payload(text, &fix)?);
        body.insert("payloadType".to_owned(), json!("application/json"));
    }
    if let Some(version) = &replay.version {
        body.insert("version".to_owned(), json!(version));
    }
    let api = open(context).await?;
    // Also tells what time it is there.
    let before = api.run(old).await.map_err(|e| no_such(e, old))?;
    if let Some(delay) = &replay.how.delay {
        still_ahead(&api, delay, |span| replay.again(span))?;
    }
    let reply = api.replay(old, &body).await.map_err(|e| no_such(e, old))?;
    let id = reply["id"].as_str().unwrap_or_default().to_owned();
    let run = api.run(&id).await.map_err(|e| no_such(e, &id))?;
    if let Some(ignored) = ignored(&body, &before, &run) {
        return Err(taken_back(&api, &id, ignored, &before, &body).await);
    }
    answer(
        context,
        "replay",
        json!({ "id": id, "replay_of": old, "status": run["status"], "delayed_until": run["delayedUntil"] }),
    )?;
    match replay.wait {
        Some(seconds) => wait(context, &api, &id, Duration::from_secs(seconds)).await,
        None => Ok(Done::Ok),
    }
}

impl Replay {
    fn again(&self, delay: &str) -> String {
        let mut words = vec!["psn task replay".to_owned(), shell::word(&self.run)];
        let named = [("--payload", &self.payload), ("--deployment", &self.version)];
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            words.extend([name.to_owned(), shell::word(value)]);
        }
        words.extend(self.how.words(delay));
        if let Some(seconds) = self.wait {
            words.extend(["--wait".to_owned(), seconds.to_string()]);
        }
        words.join(" ")
    }
}

/// A Trigger.dev of before these options were there replays the run as it was, and says nothing of it. A large payload is not shown.
fn ignored(body: &Map<String, Value>, before: &Value, run: &Value) -> Option<&'static str> {
    if body.contains_key("delay") && run["delayedUntil"].is_null() {
        return Some("--delay");
    }
    let (old, new) = (&before["payload"], &run["payload"]);
    body.get("payload").is_some_and(|asked| !new.is_null() && new == old && new != asked).then_some("--payload")
}

/// Stops what nobody asked for. A trigger knows these options on every Trigger.dev.
async fn taken_back(
    api: &TriggerApi,
    id: &str,
    ignored: &str,
    before: &Value,
    body: &Map<String, Value>,
) -> CodedError {
    let stopped = match api.cancel(id).await {
        Ok(_) => format!("{id}, which it made instead, was cancelled"),
        Err(_) => format!("{id}, which it made instead, goes on"),
    };
    let given = body.get("payload").unwrap_or(&before["payload"]);
    let task = before["taskIdentifier"].as_str().unwrap_or_default();
    let mut words = format!("psn task trigger {} --payload {}", shell::word(task), shell::word(&given.to_string()));
    if let Some(delay) = body.get("delay").and_then(Value::as_str) {
        words = format!("{words} --delay {}", shell::word(delay));
    }
    CodedError::new(
        "task.replay-changed",
        format!("this Trigger.dev replays a run as it was, and took no notice of {ignored}; {stopped}"),
        [words, format!("psn task show {id}")],
    )
}
