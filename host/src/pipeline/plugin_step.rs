//! One step that is a component: inspect → apply → verify, told as events.
use std::time::Duration;

use chrono::Utc;

use super::ledger::{StepRecord, report_fingerprint};
use super::outcome::Ended;
use super::session::Session;
use super::setup::Place;
use crate::capabilities::{Usage, secrets};
use crate::error::CodedError;
use crate::events::{Check, CheckStatus, Event, Level, Need, NextCommand, StepEvent, StepStatus};
use crate::hub::PERSON_KEYS;
use crate::plugins::manifest::{Manifest, covers, is_reserved};
use crate::plugins::registry::Installed;
use crate::runtime::{CallError, CallOutcome, Failure, Loaded, Report, StepState};
use crate::secret::is_secret_name;

/// How often `apply` and `verify` are called again when they ask for it.
const MAX_ATTEMPTS: u32 = 3;
/// A longer wait is a person's decision, not psn's.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// Runs the step and says how it ended. What it says goes out as events; an error here is one of psn's own.
pub(super) async fn run(session: &mut Session, installed: &Installed, place: &Place) -> Result<Ended, CodedError> {
    let step = Step::new(session, installed, place).await?;
    let mut usage = Usage::default();

    let state = match step.repeat(&mut usage, Call::Inspect).await {
        Ok(Answer::State(state)) => state,
        Ok(Answer::Report(_)) => unreachable!("inspect answers a state"),
        Err(e) => return Ok(step.failed(e, usage)),
    };
    match state {
        StepState::Ready(report) => step.ready(report, usage),
        StepState::Needs(needs) => Ok(step.needs(needs, usage)),
        StepState::Pending(changes) => {
            step.emit(StepStatus::Running, place.title(), |e| e.changes = changes);
            let report = match step.repeat(&mut usage, Call::Apply).await {
                Ok(Answer::Report(report)) => report,
                Ok(Answer::State(_)) => unreachable!("apply answers a report"),
                Err(e) => return Ok(step.failed(e, usage)),
            };
            match step.repeat(&mut usage, Call::Verify).await {
                Ok(Answer::Report(verified)) => step.done(report, verified, usage),
                Ok(Answer::State(_)) => unreachable!("verify answers a report"),
                Err(e) => Ok(step.failed(e, usage)),
            }
        }
    }
}

/// What is true now, by the component's own account; changes nothing.
pub(super) async fn inspect(
    session: &mut Session,
    installed: &Installed,
    place: &Place,
) -> Result<StepState, CodedError> {
    let step = Step::new(session, installed, place).await?;
    match step.repeat(&mut Usage::default(), Call::Inspect).await? {
        Answer::State(state) => Ok(state),
        Answer::Report(_) => unreachable!("inspect answers a state"),
    }
}

/// Removes what the step made, and nothing else.
pub(super) async fn destroy(
    session: &mut Session,
    installed: &Installed,
    place: &Place,
) -> Result<(Report, Usage), (CodedError, Usage)> {
    let mut usage = Usage::default();
    let step = match Step::new(session, installed, place).await {
        Ok(step) => step,
        Err(e) => return Err((e, usage)),
    };
    match step.repeat(&mut usage, Call::Destroy).await {
        Ok(Answer::Report(report)) => Ok((report, usage)),
        Ok(Answer::State(_)) => unreachable!("destroy answers a report"),
        Err(e) => Err((e, usage)),
    }
}

#[derive(Clone, Copy)]
enum Call {
    Inspect,
    Apply,
    Verify,
    Destroy,
}

enum Answer {
    State(StepState),
    Report(Report),
}

struct Step<'a> {
    session: &'a mut Session,
    installed: &'a Installed,
    place: &'a Place,
    loaded: Loaded,
}

impl<'a> Step<'a> {
    async fn new(session: &'a mut Session, installed: &'a Installed, place: &'a Place) -> Result<Self, CodedError> {
        let loaded = session.environment.runtime.load(installed).await?;
        Ok(Self { session, installed, place, loaded })
    }

    /// Calls the component; again, after the wait that it asks for, when it says that this makes sense.
    async fn repeat(&self, usage: &mut Usage, call: Call) -> Result<Answer, CodedError> {
        let mut attempt = 1;
        loop {
            let outcome = self.once(call, attempt).await?;
            add(usage, &outcome.usage);
            let failure = match outcome.result {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(e) => return Err(e.into_coded(self.name())),
            };
            let wait = failure.retry_after_ms.map(Duration::from_millis).filter(|w| *w <= MAX_WAIT);
            let Some(wait) = wait.filter(|_| attempt < MAX_ATTEMPTS) else { return Err(self.coded(failure)) };
            self.session.environment.events.log(
                Level::Warn,
                self.name(),
                format!("{}; trying again in {:.1} s", failure.message, wait.as_secs_f64()),
            );
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn once(&self, call: Call, attempt: u32) -> Result<CallOutcome<Result<Answer, Failure>>, CodedError> {
        let manifest = &self.installed.manifest;
        let environment = &self.session.environment;
        let capabilities = environment.capabilities(manifest)?;
        let cx = environment.call(&self.loaded, attempt);
        let runtime = &environment.runtime;
        Ok(match call {
            Call::Inspect => runtime.inspect(&self.loaded, capabilities, cx).await.map(|r| r.map(Answer::State)),
            Call::Apply => runtime.apply(&self.loaded, capabilities, cx).await.map(|r| r.map(Answer::Report)),
            Call::Verify => runtime.verify(&self.loaded, capabilities, cx).await.map(|r| r.map(Answer::Report)),
            Call::Destroy => runtime.destroy(&self.loaded, capabilities, cx).await.map(|r| r.map(Answer::Report)),
        })
    }

    fn ready(self, report: Report, usage: Usage) -> Result<Ended, CodedError> {
        let checks = self.emit_checks(&report);
        if let Some(failed) = first_failure(&checks) {
            return Ok(self.failed(failed, usage));
        }
        let fingerprint = report_fingerprint(&report.message, &checks);
        // A step that only looks has done its work when it has something new to say; one that changes things, when it changed some.
        let news = self.installed.manifest.plugin.checks_only
            && self.session.ledger.fingerprint(self.name()) != Some(&fingerprint);
        let ended = if news { Ended::Success } else { Ended::Skipped };
        self.close(ended, report, Some(fingerprint), usage)
    }

    fn done(self, report: Report, verified: Report, usage: Usage) -> Result<Ended, CodedError> {
        let mut checks = self.emit_checks(&report);
        checks.extend(self.emit_checks(&verified));
        if let Some(failed) = first_failure(&checks) {
            return Ok(self.failed(failed, usage));
        }
        let fingerprint = report_fingerprint(&report.message, &checks);
        self.close(Ended::Success, report, Some(fingerprint), usage)
    }

    /// Records first, tells then: what was told as done is on disk.
    fn close(
        self,
        ended: Ended,
        report: Report,
        fingerprint: Option<String>,
        usage: Usage,
    ) -> Result<Ended, CodedError> {
        let record = StepRecord {
            status: StepStatus::Success,
            message: report.message.clone(),
            at: Utc::now(),
            component_sha256: Some(self.installed.sha256.clone()),
            fingerprint,
            data: Some(report.data.clone()),
        };
        let status = if ended == Ended::Success { StepStatus::Success } else { StepStatus::Skipped };
        let slot = self.place.slot().to_owned();
        self.session.ledger.record(&slot, record)?;
        self.emit(status, report.message, |e| {
            e.data = Some(report.data).filter(|d| d.as_object().is_some_and(|o| !o.is_empty()));
            e.usage = Some(usage);
        });
        Ok(ended)
    }

    fn needs(self, needs: Vec<crate::runtime::Need>, usage: Usage) -> Ended {
        // What is told becomes commands, ready to be typed.
        if let Some(need) = needs.iter().find(|n| !may_need(&self.installed.manifest, n)) {
            let why = format!("it needs `{}`, which its manifest does not speak of", need.name.escape_debug());
            let error = CallError::Output(why).into_coded(self.name());
            return self.failed(error, usage);
        }
        let names: Vec<&str> = needs.iter().map(|n| n.name.as_str()).collect();
        let message = format!("{} needs {}", self.place.slot(), names.join(", "));
        let needs = needs.iter().map(need_event).collect();
        self.emit(StepStatus::NeedsInput, message, |e| {
            e.needs = needs;
            e.usage = Some(usage);
        });
        Ended::NeedsInput
    }

    fn failed(self, error: CodedError, usage: Usage) -> Ended {
        self.emit(StepStatus::Error, error.message.clone(), |e| {
            e.error = Some(error);
            e.usage = Some(usage);
        });
        Ended::Failed
    }

    fn emit(&self, status: StepStatus, message: String, with: impl FnOnce(&mut StepEvent)) {
        let mut event = self.place.event(status, message);
        with(&mut event);
        self.session.environment.events.emit(&Event::Step(Box::new(event)));
    }

    fn emit_checks(&self, report: &Report) -> Vec<Check> {
        let checks: Vec<Check> =
            report.checks.iter().map(|c| Check { step: Some(self.place.slot().to_owned()), ..c.clone() }).collect();
        for check in &checks {
            self.session.environment.events.emit(&Event::Check(check.clone()));
        }
        checks
    }

    fn coded(&self, failure: Failure) -> CodedError {
        failure.into_coded(self.name())
    }

    fn name(&self) -> &str {
        &self.installed.manifest.plugin.name
    }
}

/// A required check that fails fails its step, whatever the component itself thinks of it.
fn first_failure(checks: &[Check]) -> Option<CodedError> {
    let failed: Vec<&Check> = checks.iter().filter(|c| c.required && c.status == CheckStatus::Fail).collect();
    let first = failed.first()?;
    let step = first.step.as_deref().unwrap_or("check");
    let message = match failed.len() {
        1 => first.message.clone(),
        n => format!("{n} checks failed; first: {}", first.message),
    };
    let mut fix: Vec<String> = Vec::new();
    for line in failed.iter().flat_map(|c| &c.fix) {
        if !fix.contains(line) {
            fix.push(line.clone());
        }
    }
    if fix.is_empty() {
        fix.push("psn run setup".to_owned());
    }
    Some(CodedError::new(format!("{step}.check-failed"), message, fix))
}

/// Whether a person may be asked for this: only for secrets and settings that the plugin was granted, and with choices that are plain
/// words, because a shell will read them.
fn may_need(manifest: &Manifest, need: &crate::runtime::Need) -> bool {
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/@+".contains(&b));
    let choices = need.choices.iter().all(|c| c.split_whitespace().next().is_none_or(plain));
    let name = need.name.as_str();
    choices
        && if need.secret {
            let psns_own = is_reserved(name) && !PERSON_KEYS.contains(&name);
            is_secret_name(name) && !psns_own && secrets::may_ask(manifest, name)
        } else {
            plain(name) && covers(&manifest.settings.names, name)
        }
}

/// What only a person can supply, with the command that supplies it.
pub(super) fn need_event(need: &crate::runtime::Need) -> Need {
    let next = if need.secret {
        vec![
            NextCommand {
                command: format!("psn keys set {} --stdin", need.name),
                when: "with the value on standard input, never as an argument".to_owned(),
            },
            NextCommand {
                command: format!("psn keys set {} --from-env {}", need.name, need.name),
                when: "when the environment has it".to_owned(),
            },
        ]
    } else {
        need.choices
            .iter()
            .map(|choice| {
                // «id (words for people)»: the id is what is set.
                let value = choice.split_whitespace().next().unwrap_or(choice);
                NextCommand {
                    command: format!("psn config set {} {value}", need.name),
                    when: format!("to choose {choice}"),
                }
            })
            .collect()
    };
    Need {
        name: need.name.clone(),
        secret: need.secret,
        origin: need.origin.clone(),
        choices: need.choices.clone(),
        next,
    }
}

fn add(total: &mut Usage, one: &Usage) {
    total.ms += one.ms;
    total.memory_peak = total.memory_peak.max(one.memory_peak);
    total.http_calls += one.http_calls;
    total.http_bytes_out += one.http_bytes_out;
    total.http_bytes_in += one.http_bytes_in;
    total.db_calls += one.db_calls;
    total.db_rows += one.db_rows;
    total.tool_calls += one.tool_calls;
    total.log_bytes += one.log_bytes;
    total.host_calls += one.host_calls;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::manifest;

    #[test]
    fn only_what_was_granted_becomes_a_command() {
        let manifest = manifest(
            "[secrets]\nnames = [\"A_KEY\", \"HUB_ENCRYPTION_KEY\", \"NEON_API_KEY\"]\n[settings]\nnames = [\"a.b\"]\n",
        );
        let need = |name: &str, secret, choice: &str| crate::runtime::Need {
            name: name.into(),
            secret,
            origin: "o".into(),
            choices: vec![choice.into()],
        };
        for (name, secret, choice, may) in [
            ("A_KEY", true, "", true),
            ("NEON_API_KEY", true, "", true),
            ("a.b", false, "org-1 (My organisation)", true),
            ("OTHER", true, "", false),
            ("A_KEY --stdin; touch x #", true, "", false),
            ("HUB_ENCRYPTION_KEY", true, "", false),
            ("steps.keys", false, "evil", false),
            ("a.b", false, "$(touch x)", false),
            ("a.b", false, "x;y z", false),
        ] {
            assert_eq!(may_need(&manifest, &need(name, secret, choice)), may, "{name} {choice}");
        }
    }
}
