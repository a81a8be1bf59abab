//! What a plugin implements.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Failure, Report, State, Timestamp};

/// A setup step. psn calls `inspect`; when something is pending, `apply` and then `verify`. Each call runs in a fresh instance:
/// what must be remembered goes into [`crate::state`].
pub trait Step {
    /// What is true now, what would change, or what is missing. Changes nothing, here or at a service.
    fn inspect() -> Result<State, Failure>;

    /// Makes it true. Called again after a crash at any point, so every creation is looked up first.
    fn apply() -> Result<Report, Failure> {
        Ok(Report::new("Nothing to change"))
    }

    /// Whether what was made works. Unless a step knows better: `inspect` finds nothing left to do.
    fn verify() -> Result<Report, Failure> {
        match Self::inspect()? {
            State::Ready(report) => Ok(report),
            State::Pending(changes) => Err(Failure::new("not-done", format!("Still to do: {}", changes.join("; ")))
                .fix("Run the same command again: it goes on where it was")),
            State::Needs(needs) => {
                let names: Vec<_> = needs.into_iter().map(|need| need.name).collect();
                Err(Failure::new("not-done", format!("Still missing: {}", names.join(", "))).fix("psn run keys"))
            }
        }
    }

    /// Removes what this step made, and nothing else.
    fn destroy() -> Result<Report, Failure> {
        Ok(Report::new("This step makes nothing that could be removed"))
    }
}

/// How a task was started.
#[derive(Debug, Clone)]
pub struct Invocation<P> {
    pub payload: P,
    /// When it was meant to run; none when started by hand.
    pub scheduled_at: Option<Timestamp>,
}

/// Work that runs on a schedule or on demand.
pub trait Task {
    /// Fields that a schedule's own payload lacks need a default.
    type Payload: DeserializeOwned;
    /// Serializes to a JSON object.
    type Output: Serialize;

    fn run(invocation: Invocation<Self::Payload>) -> Result<Self::Output, Failure>;
}

/// Runs a task on JSON text, as the host does.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "used at the border to the host"))]
pub(crate) fn run_json<T: Task>(payload: &str, scheduled_at: Option<i64>) -> Result<String, Failure> {
    // A task started by hand has no payload; `{}` lets every field take its default.
    let payload = match payload.trim() {
        "" | "null" => "{}",
        text => text,
    };
    let payload = serde_json::from_str(payload).map_err(|error| {
        Failure::new("payload-invalid", format!("The payload does not fit this task: {error}"))
            .fix("Start the task with the payload that its documentation shows")
    })?;
    let scheduled_at = scheduled_at.map(Timestamp::from_micros);
    let output = T::run(Invocation { payload, scheduled_at })?;
    Ok(serde_json::to_string(&output)?)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    struct Double;

    #[derive(Deserialize)]
    struct Number {
        #[serde(default)]
        n: i64,
    }

    impl Task for Double {
        type Payload = Number;
        type Output = serde_json::Value;

        fn run(invocation: Invocation<Number>) -> Result<serde_json::Value, Failure> {
            Ok(serde_json::json!({ "n": invocation.payload.n * 2 }))
        }
    }

    #[test]
    fn payloads() {
        for (payload, expected) in [
            (r#"{"n":21}"#, Ok(r#"{"n":42}"#)),
            ("", Ok(r#"{"n":0}"#)),
            ("null", Ok(r#"{"n":0}"#)),
            (r#"{"timestamp":"2026-01-01T00:00:00Z"}"#, Ok(r#"{"n":0}"#)),
            (r#"{"n":"many"}"#, Err("payload-invalid")),
            ("{", Err("payload-invalid")),
        ] {
            let answer = run_json::<Double>(payload, None);
            match expected {
                Ok(text) => assert_eq!(answer.unwrap(), text, "{payload}"),
                Err(code) => assert_eq!(answer.unwrap_err().code, code, "{payload}"),
            }
        }
    }

    struct Half;

    impl Step for Half {
        fn inspect() -> Result<State, Failure> {
            Ok(State::pending(["the other half"]))
        }
    }

    #[test]
    fn verify_asks_inspect_unless_a_step_knows_better() {
        let failure = Half::verify().unwrap_err();
        assert_eq!(failure.code, "not-done");
        assert!(failure.message.contains("the other half"));
    }
}
