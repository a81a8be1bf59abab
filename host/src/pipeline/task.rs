//! A task, run once, here and now.
use serde_json::Value;

use super::environment::role_url_secret;
use super::outcome::{Ended, Tally};
use super::session::Session;
use crate::error::CodedError;
use crate::events::{Event, StepEvent, StepStatus, Summary};
use crate::hub::ConnectError;
use crate::plugins::manifest::World;

/// Runs the task of this name with a JSON payload.
pub async fn run_task(session: &mut Session, name: &str, payload: Value) -> Result<Summary, CodedError> {
    let installed = session.registry.get(name)?;
    if installed.manifest.world() != World::Task {
        return Err(CodedError::new(
            "plugin.wrong-world",
            format!("{name} is a step and takes no payload"),
            [format!("psn run {name}")],
        ));
    }
    let environment = &session.environment;
    // Asked for later, it would look like a database that is away for a moment.
    let url = role_url_secret(name);
    if !installed.manifest.db.is_empty() && !environment.secrets.exists(&url) {
        return Err(ConnectError::NoUrl { name: url }.coded());
    }
    let mut tally = Tally::new(1);
    let event = |status, message: String| StepEvent {
        step: name.to_owned(),
        index: None,
        total: None,
        status,
        message,
        data: None,
        needs: Vec::new(),
        changes: Vec::new(),
        error: None,
        usage: None,
    };
    environment.events.emit(&Event::Step(Box::new(event(StepStatus::Running, format!("Running {name}…")))));

    let loaded = environment.runtime.load(&installed).await?;
    let manifest = &installed.manifest;
    let capabilities = environment.capabilities(manifest)?;
    let call = environment.call(&loaded, 1);
    let outcome = environment.runtime.run_task(&loaded, capabilities, call, payload.to_string(), None).await;
    let (ended, finished) = match outcome.result {
        Ok(Ok(output)) => {
            let mut e = event(StepStatus::Success, ended(name, &output));
            e.data = Some(output);
            (Ended::Success, e)
        }
        Ok(Err(failure)) => failed(event, failure.into_coded(name)),
        Err(error) => failed(event, error.into_coded(name)),
    };
    environment.events.emit(&Event::Step(Box::new(StepEvent { usage: Some(outcome.usage), ..finished })));
    tally.add(ended);
    Ok(tally.summary())
}

/// Numbers of an answer that a message tells.
const TOLD: usize = 6;
/// Characters of their names.
const LONGEST_KEY: usize = 40;

/// What a task answered, in a line: its counts, and how long its lists are. The whole of it is the event's `data`.
pub(super) fn ended(name: &str, output: &Value) -> String {
    let count = |(key, value): (&String, &Value)| {
        let n = value.as_u64().or_else(|| value.as_array().map(|list| list.len() as u64)).filter(|n| *n > 0)?;
        let key: String = key.chars().take(LONGEST_KEY).collect();
        Some(format!("{} {n}", key.replace('_', " ")))
    };
    let counts: Vec<String> = output.as_object().into_iter().flatten().filter_map(count).take(TOLD).collect();
    if counts.is_empty() { format!("{name} ended") } else { format!("{name} ended: {}", counts.join(", ")) }
}

fn failed(event: impl Fn(StepStatus, String) -> StepEvent, error: CodedError) -> (Ended, StepEvent) {
    let mut e = event(StepStatus::Error, error.message.clone());
    e.error = Some(error);
    (Ended::Failed, e)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ended;

    #[test]
    fn a_last_line_tells_the_counts_that_are_not_zero() {
        assert_eq!(
            ended("watchdog", &json!({ "claimed": 3, "left_over": 2, "parked": 0, "posts": ["a"], "note": "x" })),
            "watchdog ended: claimed 3, left over 2, posts 1"
        );
        for nothing in [json!({}), json!({ "claimed": 0 }), json!(null)] {
            assert_eq!(ended("watchdog", &nothing), "watchdog ended");
        }
        let long = ended("x", &json!({ "k".repeat(5_000): 1 }));
        assert!(long.len() < 100, "{long}");
    }
}
