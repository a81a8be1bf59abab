//! How a step, and a whole run, ended.
use std::time::Instant;

use serde_json::Value;

use crate::error::CodedError;
use crate::events::{StepEvent, StepStatus, Summary};
use crate::runtime::{CallOutcome, Failure};

/// How one step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Success,
    Skipped,
    Failed,
    NeedsInput,
    NeedsConsent,
    /// It would change something, and was only asked.
    Planned,
}

impl Ended {
    /// Whether the next step may run.
    pub fn goes_on(self) -> bool {
        matches!(self, Ended::Success | Ended::Skipped | Ended::Planned)
    }
}

/// Counts steps into the closing summary.
pub struct Tally {
    started: Instant,
    total: u32,
    succeeded: u32,
    skipped: u32,
    failed: u32,
    planned: bool,
    stopped: Option<Ended>,
}

impl Tally {
    pub fn new(total: u32) -> Self {
        Self { started: Instant::now(), total, succeeded: 0, skipped: 0, failed: 0, planned: false, stopped: None }
    }

    pub fn add(&mut self, ended: Ended) {
        match ended {
            Ended::Success => self.succeeded += 1,
            Ended::Skipped => self.skipped += 1,
            Ended::Failed => self.failed += 1,
            Ended::Planned => self.planned = true,
            Ended::NeedsInput | Ended::NeedsConsent => {}
        }
        if !ended.goes_on() {
            self.stopped = Some(ended);
        }
    }

    pub fn summary(&self) -> Summary {
        Summary {
            status: match self.stopped {
                None if self.planned => StepStatus::Planned,
                None | Some(Ended::Success | Ended::Skipped | Ended::Planned) => StepStatus::Success,
                Some(Ended::Failed) => StepStatus::Error,
                Some(Ended::NeedsInput) => StepStatus::NeedsInput,
                Some(Ended::NeedsConsent) => StepStatus::NeedsConsent,
            },
            steps: self.total,
            succeeded: self.succeeded,
            skipped: self.skipped,
            failed: self.failed,
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Numbers of an answer that a message tells.
const TOLD: usize = 6;
/// Characters of their names.
const LONGEST_KEY: usize = 40;

/// What a run of a task came to, as it is told: here and in a task platform's worker alike.
pub(super) fn of_task(name: &str, outcome: CallOutcome<Result<Value, Failure>>) -> (Ended, StepEvent) {
    let failed = |error: CodedError| {
        let event = StepEvent::new(name, StepStatus::Error, error.message.clone());
        (Ended::Failed, StepEvent { error: Some(error), ..event })
    };
    let (how, event) = match outcome.result {
        Ok(Ok(output)) => {
            let event = StepEvent::new(name, StepStatus::Success, ended(name, &output));
            (Ended::Success, StepEvent { data: Some(output), ..event })
        }
        Ok(Err(failure)) => failed(failure.into_coded(name)),
        Err(error) => failed(error.into_coded(name)),
    };
    (how, StepEvent { usage: Some(outcome.usage), ..event })
}

/// What a task answered, in a line: its counts, and how long its lists are. The whole of it is the event's `data`.
fn ended(name: &str, output: &Value) -> String {
    let count = |(key, value): (&String, &Value)| {
        let n = value.as_u64().or_else(|| value.as_array().map(|list| list.len() as u64)).filter(|n| *n > 0)?;
        let key: String = key.chars().take(LONGEST_KEY).collect();
        Some(format!("{} {n}", key.replace('_', " ")))
    };
    let counts: Vec<String> = output.as_object().into_iter().flatten().filter_map(count).take(TOLD).collect();
    if counts.is_empty() { format!("{name} ended") } else { format!("{name} ended: {}", counts.join(", ")) }
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
