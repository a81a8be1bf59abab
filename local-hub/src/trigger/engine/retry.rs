//! Whether and when a failed attempt is repeated.
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::status::RunStatus;
use crate::runner::RunOutcome;

/// However long a task asks to be left alone, it is tried again within a day.
const MAX_DELAY: Duration = Duration::from_secs(86_400);

/// A task's own policy; what it leaves out is the vendor's default.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RetryPolicy {
    /// Counted with the first attempt.
    max_attempts: Option<i32>,
    factor: f64,
    min_timeout_in_ms: f64,
    max_timeout_in_ms: f64,
    randomize: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: None,
            factor: 2.0,
            min_timeout_in_ms: 1_000.0,
            max_timeout_in_ms: 60_000.0,
            randomize: true,
        }
    }
}

impl RetryPolicy {
    pub(crate) fn parse(value: Option<&Value>) -> Self {
        value.and_then(|v| Self::deserialize(v).ok()).unwrap_or_default()
    }

    /// What the trigger call says, else what the task says, else one: without a policy nothing is repeated.
    pub(crate) fn attempts(&self, of_the_call: Option<i32>) -> i32 {
        of_the_call.or(self.max_attempts).unwrap_or(1)
    }

    /// `attempt` is the one that failed, from 1; `random` is from 0 to 1.
    fn delay(&self, attempt: i32, random: f64) -> Duration {
        let jitter = if self.randomize { 1.0 + random } else { 1.0 };
        let millis = jitter * self.min_timeout_in_ms * self.factor.powi(attempt.saturating_sub(1));
        let millis = millis.min(self.max_timeout_in_ms);
        // NaN and negative numbers come from a policy that makes no sense: then at once.
        Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or_default().min(MAX_DELAY)
    }
}

/// What becomes of a run after an attempt that did not complete.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Retry { after: Duration, error: Problem },
    End { status: RunStatus, error: Problem },
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Problem {
    pub(crate) name: String,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(name: &str, message: impl AsRef<str>) -> Self {
        // jsonb cannot hold a NUL.
        let clean = |text: &str| text.replace('\0', "\u{fffd}");
        Self { name: clean(name), message: clean(message.as_ref()) }
    }
}

/// `attempt` counts only attempts that were allowed to end by themselves. `None` for a completed attempt.
pub(crate) fn next(
    outcome: &RunOutcome,
    policy: &RetryPolicy,
    attempt: i32,
    max_attempts: i32,
    random: f64,
) -> Option<Next> {
    let (status, error, again, wish) = match outcome {
        RunOutcome::Completed { .. } => return None,
        RunOutcome::Failed { code, message, retry_after, retryable } => {
            (RunStatus::CompletedWithErrors, Problem::new(code, message), *retryable, *retry_after)
        }
        RunOutcome::Crashed { message } => {
            (RunStatus::Crashed, Problem::new("TASK_PROCESS_CRASHED", message), true, None)
        }
        RunOutcome::TimedOut => {
            let message = "The run exceeded its maximum duration (maxDuration)";
            (RunStatus::TimedOut, Problem::new("MAX_DURATION_EXCEEDED", message), false, None)
        }
        RunOutcome::Cancelled => {
            (RunStatus::Canceled, Problem::new("TASK_RUN_CANCELLED", "The task cancelled itself"), false, None)
        }
    };
    if again && attempt < max_attempts {
        let after = policy.delay(attempt, random).max(wish.unwrap_or_default().min(MAX_DELAY));
        return Some(Next::Retry { after, error });
    }
    Some(Next::End { status, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failed(retryable: bool, retry_after: Option<u64>) -> RunOutcome {
        RunOutcome::Failed {
            code: "x.y".to_owned(),
            message: "no".to_owned(),
            retry_after: retry_after.map(Duration::from_secs),
            retryable,
        }
    }

    #[test]
    fn delays_grow_and_stay_below_their_limit() {
        let plain = json!({ "maxAttempts": 10, "factor": 2, "minTimeoutInMs": 1000, "maxTimeoutInMs": 5000, "randomize": false });
        let policy = RetryPolicy::parse(Some(&plain));
        let millis: Vec<u128> = (1..=5).map(|n| policy.delay(n, 0.9).as_millis()).collect();
        assert_eq!(millis, [1_000, 2_000, 4_000, 5_000, 5_000]);
        let jittered = RetryPolicy::default();
        assert_eq!(jittered.delay(1, 0.0).as_millis(), 1_000);
        assert_eq!(jittered.delay(1, 0.5).as_millis(), 1_500);
        assert_eq!(jittered.delay(40, 1.0).as_millis(), 60_000);
    }

    #[test]
    fn a_policy_that_makes_no_sense_does_no_harm() {
        for policy in [
            json!({ "factor": -1e300 }),
            json!({ "minTimeoutInMs": -5 }),
            json!("often"),
            json!({ "maxTimeoutInMs": 1e300, "minTimeoutInMs": 1e300 }),
        ] {
            let delay = RetryPolicy::parse(Some(&policy)).delay(2, 1.0);
            assert!(delay <= MAX_DELAY, "{policy}: {delay:?}");
        }
    }

    #[test]
    fn attempts_come_from_the_call_then_the_task_then_one() {
        let policy = RetryPolicy::parse(Some(&json!({ "maxAttempts": 3 })));
        assert_eq!((policy.attempts(Some(5)), policy.attempts(None), RetryPolicy::default().attempts(None)), (5, 3, 1));
    }

    #[test]
    fn outcomes_lead_to_states() {
        let policy = RetryPolicy::default();
        let ends = |outcome: &RunOutcome, attempt| match next(outcome, &policy, attempt, 2, 0.0) {
            Some(Next::End { status, .. }) => Some(status),
            _ => None,
        };
        assert_eq!(next(&RunOutcome::Completed { output: json!(1) }, &policy, 1, 2, 0.0), None);
        assert_eq!(ends(&failed(true, None), 1), None);
        assert_eq!(ends(&failed(true, None), 2), Some(RunStatus::CompletedWithErrors));
        assert_eq!(ends(&failed(false, None), 1), Some(RunStatus::CompletedWithErrors));
        assert_eq!(ends(&RunOutcome::Crashed { message: "trap".to_owned() }, 2), Some(RunStatus::Crashed));
        assert_eq!(ends(&RunOutcome::TimedOut, 1), Some(RunStatus::TimedOut));
        assert_eq!(ends(&RunOutcome::Cancelled, 1), Some(RunStatus::Canceled));
    }

    #[test]
    fn a_wish_for_a_longer_pause_is_granted_within_a_day() {
        for (wish, seconds) in [(None, 1), (Some(30), 30), (Some(0), 1), (Some(1_000_000), 86_400)] {
            match next(&failed(true, wish), &RetryPolicy::default(), 1, 2, 0.0) {
                Some(Next::Retry { after, .. }) => assert_eq!(after.as_secs(), seconds),
                other => panic!("{other:?}"),
            }
        }
    }
}
