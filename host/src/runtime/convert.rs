//! What a guest answers, turned into what psn works with. Everything in it is untrusted: lengths, numbers of items, JSON, and
//! texts that a terminal or a log will show.
use psn_bindings::step::exports::psn::plugin::lifecycle::State;
use psn_bindings::types as wit;
use serde_json::{Map, Value};

use super::error::{CallError, Failure};
use crate::capabilities::Call;
use crate::events::{Check, CheckStatus, redact_value};
use crate::plugins::manifest::is_kebab;

/// The longest text of an answer, in bytes; longer ones are cut. A page of a manual.
const MAX_TEXT: usize = 16 << 10;

/// The longest name of a check, a need or a code, in bytes.
const MAX_NAME: usize = 100;

/// The longest JSON document of an answer, in bytes. It is one line of the event stream.
const MAX_DATA: usize = 256 << 10;

/// The most checks of one report. `validate` has about 40.
const MAX_CHECKS: usize = 500;

/// The most changes, needs, choices, or fixes in one list. Nobody reads more.
const MAX_ITEMS: usize = 200;

/// What a step found or did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub message: String,
    /// A JSON object without live secrets.
    pub data: Value,
    pub checks: Vec<Check>,
}

/// Something that only a person can supply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub name: String,
    pub secret: bool,
    /// Where a person finds the value.
    pub origin: String,
    pub choices: Vec<String>,
}

/// What is true before a step is applied.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    /// Nothing to do.
    Ready(Report),
    /// What `apply` would change, in order.
    Pending(Vec<String>),
    /// What a person must supply first. Never empty.
    Needs(Vec<Need>),
}

/// Of one answer, with the call it answers.
pub(super) struct Converter<'a>(pub(super) &'a mut Call);

impl Converter<'_> {
    pub(super) fn state(&mut self, state: State) -> Result<StepState, CallError> {
        Ok(match state {
            State::Ready(report) => StepState::Ready(self.report(report)?),
            State::Pending(changes) => StepState::Pending(self.texts("changes", changes)?),
            State::Needs(needs) => {
                bounded("needs", needs.len(), MAX_ITEMS)?;
                if needs.is_empty() {
                    return Err(CallError::Output("it needs something, but does not say what".into()));
                }
                StepState::Needs(needs.into_iter().map(|need| self.need(need)).collect::<Result<_, _>>()?)
            }
        })
    }

    pub(super) fn report(&mut self, report: wit::Report) -> Result<Report, CallError> {
        bounded("checks", report.checks.len(), MAX_CHECKS)?;
        Ok(Report {
            message: self.text("message", &report.message),
            data: self.object(&report.data)?,
            checks: report.checks.into_iter().map(|check| self.check(check)).collect::<Result<_, _>>()?,
        })
    }

    /// A JSON object; an empty text is an empty one.
    pub(super) fn object(&mut self, text: &str) -> Result<Value, CallError> {
        if text.len() > MAX_DATA {
            return Err(CallError::Output(format!("{} bytes of data; at most {MAX_DATA} are read", text.len())));
        }
        if text.trim().is_empty() {
            return Ok(Value::Object(Map::new()));
        }
        let mut value: Value =
            serde_json::from_str(text).map_err(|e| CallError::Output(format!("its data is not JSON: {e}")))?;
        if self.0.redactor.finds(text.as_bytes()) {
            self.0.leaked("data");
        }
        redact_value(&mut value, &self.0.redactor);
        if !value.is_object() {
            return Err(CallError::Output("its data is not a JSON object".into()));
        }
        Ok(value)
    }

    pub(super) fn failure(&mut self, failure: wit::Failure) -> Failure {
        // A failure is told however badly it is put.
        let code =
            if is_kebab(&failure.code) && failure.code.len() <= MAX_NAME { failure.code } else { "failed".into() };
        Failure {
            code,
            message: self.text("message", &failure.message),
            fix: failure.fix.iter().take(MAX_ITEMS).map(|fix| self.text("fix", fix)).collect(),
            retry_after_ms: failure.retry_after_ms,
        }
    }

    fn check(&mut self, check: wit::Check) -> Result<Check, CallError> {
        Ok(Check {
            check: self.name("check", &check.name),
            step: Some(self.0.plugin.to_string()),
            status: match check.status {
                wit::CheckStatus::Pass => CheckStatus::Pass,
                wit::CheckStatus::Warn => CheckStatus::Warn,
                wit::CheckStatus::Fail => CheckStatus::Fail,
                wit::CheckStatus::Skip => CheckStatus::Skip,
            },
            message: self.text("check", &check.message),
            fix: self.texts("fixes", check.fix)?,
            required: check.required,
        })
    }

    fn need(&mut self, need: wit::Need) -> Result<Need, CallError> {
        Ok(Need {
            name: self.name("need", &need.name),
            secret: need.secret,
            origin: self.text("need", &need.origin),
            choices: self.texts("choices", need.choices)?,
        })
    }

    fn texts(&mut self, what: &'static str, texts: Vec<String>) -> Result<Vec<String>, CallError> {
        bounded(what, texts.len(), MAX_ITEMS)?;
        Ok(texts.iter().map(|text| self.text(what, text)).collect())
    }

    fn text(&mut self, what: &'static str, text: &str) -> String {
        self.0.spoken(what, text, MAX_TEXT)
    }

    fn name(&mut self, what: &'static str, text: &str) -> String {
        self.0.spoken(what, text, MAX_NAME)
    }
}

fn bounded(what: &str, found: usize, limit: usize) -> Result<(), CallError> {
    if found > limit {
        return Err(CallError::Output(format!("{found} {what}; at most {limit} are read")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::Rig;
    use crate::runtime::error::CallError::Output;

    fn report(message: &str, data: &str) -> wit::Report {
        wit::Report { message: message.into(), data: data.into(), checks: vec![] }
    }

    #[test]
    fn texts_are_cleaned_and_data_is_an_object() {
        let mut rig = Rig::new(());
        rig.secret("NEON_API_KEY", "napi_canary_value");
        let mut c = Converter(&mut rig.call);
        let r = c
            .report(report("\u{1b}[31mred\u{1b}[0m napi_canary_value", "{\"a\":{\"b\":\"x napi_canary_value\"}}"))
            .unwrap();
        assert_eq!(r.message, "red [redacted]");
        assert_eq!(r.data, serde_json::json!({ "a": { "b": "x [redacted]" } }));
        assert_eq!(c.report(report("m", "")).unwrap().data, serde_json::json!({}));
        assert_eq!(c.report(report(&"x".repeat(MAX_TEXT + 1), "{}")).unwrap().message.len(), MAX_TEXT);
        assert_eq!(rig.call.leaks, ["message", "data"]);
    }

    #[test]
    fn what_breaks_the_contract_is_said() {
        let mut rig = Rig::new(());
        let mut c = Converter(&mut rig.call);
        let check = wit::Check {
            name: "c".into(),
            status: wit::CheckStatus::Pass,
            message: "m".into(),
            fix: vec![],
            required: true,
        };
        let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_DATA));
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
        for bad in [
            report("m", "[1]"),
            report("m", "not json"),
            report("m", &huge),
            report("m", &deep),
            wit::Report { checks: vec![check.clone(); MAX_CHECKS + 1], ..report("m", "{}") },
            wit::Report {
                checks: vec![wit::Check { fix: vec![String::new(); MAX_ITEMS + 1], ..check }],
                ..report("m", "{}")
            },
        ] {
            assert!(matches!(c.report(bad), Err(Output(_))));
        }
        assert!(matches!(c.state(State::Needs(vec![])), Err(Output(_))));
        assert!(matches!(c.state(State::Pending(vec![String::new(); MAX_ITEMS + 1])), Err(Output(_))));
    }

    #[test]
    fn a_failure_is_told_however_badly_it_is_put() {
        let mut rig = Rig::new(());
        let mut c = Converter(&mut rig.call);
        let failure = wit::Failure {
            code: "Not A Code\n".into(),
            message: "m\u{0}".into(),
            fix: vec!["f".into(); MAX_ITEMS + 1],
            retry_after_ms: Some(5),
        };
        let f = c.failure(failure);
        assert_eq!((f.code.as_str(), f.message.as_str(), f.fix.len()), ("failed", "m", MAX_ITEMS));
        let coded = Failure { fix: vec![], ..f }.into_coded("keys");
        assert_eq!((coded.code.as_str(), coded.fix.len(), coded.retryable), ("keys.failed", 1, true));
    }
}
