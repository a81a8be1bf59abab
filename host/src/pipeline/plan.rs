//! What setup would change, as events and as a file; and setup by such a file, if it still holds.
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::outcome::{Ended, Tally};
use super::plugin_step::need_event;
use super::session::{OpenOptions, Session, is_hub_id};
use super::setup::run_setup;
use super::survey::{self, Finding, State};
use crate::atomic;
use crate::error::CodedError;
use crate::events::{Event, StepEvent, StepStatus, Summary};
use crate::shell;

/// The plan file's format.
const SCHEMA: &str = "psn.plan/1";
/// A plan is a few KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What setup would do to one hub, and what it was told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    schema: String,
    pub psn: String,
    pub hub: String,
    /// That a new hub gets, where there is none yet.
    pub hub_id: String,
    pub made_at: DateTime<Utc>,
    /// The project's, on the machine that it was made on.
    #[serde(default)]
    folder: String,
    /// Over config/psn.toml.
    settings: String,
    /// Over what every step found.
    state: String,
    pub steps: Vec<PlannedStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    pub step: String,
    pub plugin: String,
    /// Absent for the host's own step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_sha256: Option<String>,
    pub changes: Vec<String>,
}

/// Says what each step would do, and answers it as a plan.
pub async fn plan_setup(session: &mut Session) -> (Summary, Plan) {
    let total = u32::try_from(super::SETUP.len()).unwrap_or(u32::MAX);
    let mut tally = Tally::new(total);
    let findings = survey::survey(session).await;
    for finding in &findings {
        let (ended, event) = tell(finding);
        session.environment.events.emit(&Event::Step(Box::new(event)));
        tally.add(ended);
    }
    (tally.summary(), Plan::of(session, &findings))
}

fn tell(finding: &Finding) -> (Ended, StepEvent) {
    let event = |status, message: String| finding.place.event(status, message);
    let slot = finding.place.slot();
    match &finding.state {
        State::Ready { message, data } => {
            let mut e = event(StepStatus::Skipped, message.clone());
            e.data = Some(data.clone()).filter(|d| d.as_object().is_some_and(|o| !o.is_empty()));
            (Ended::Skipped, e)
        }
        State::Pending(changes) => {
            let mut e = event(StepStatus::Planned, format!("{slot} would make {} changes", changes.len()));
            e.changes.clone_from(changes);
            (Ended::Planned, e)
        }
        State::NotAsked if finding.checks_only => {
            (Ended::Skipped, event(StepStatus::Skipped, format!("{slot} only looks, once the others are done")))
        }
        State::NotAsked => {
            let mut e = event(StepStatus::Planned, format!("{slot} depends on what the steps before it make"));
            e.changes.push("bring schema, roles and grants up to date".to_owned());
            (Ended::Planned, e)
        }
        State::Needs(needs) => {
            let names: Vec<&str> = needs.iter().map(|n| n.name.as_str()).collect();
            let mut e = event(StepStatus::NeedsInput, format!("{slot} needs {}", names.join(", ")));
            e.needs = needs.iter().map(need_event).collect();
            (Ended::NeedsInput, e)
        }
        State::Unknown(error) => {
            let mut e = event(StepStatus::Error, error.message.clone());
            e.error = Some(error.clone());
            (Ended::Failed, e)
        }
    }
}

impl Plan {
    fn of(session: &Session, findings: &[Finding]) -> Self {
        let changes = |state: &State| match state {
            State::Pending(changes) => changes.clone(),
            _ => Vec::new(),
        };
        let step = |f: &Finding| PlannedStep {
            step: f.place.slot().to_owned(),
            plugin: f.plugin.clone(),
            component_sha256: f.component_sha256.clone(),
            changes: changes(&f.state),
        };
        Self {
            schema: SCHEMA.to_owned(),
            psn: env!("CARGO_PKG_VERSION").to_owned(),
            hub: session.kind.as_str().to_owned(),
            hub_id: session.environment.hub_id.clone(),
            made_at: Utc::now(),
            folder: folder(session),
            settings: settings_fingerprint(session),
            state: survey::fingerprint(findings),
            steps: findings.iter().map(step).collect(),
        }
    }

    pub fn save(&self, path: &Path) -> Result<(), CodedError> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        text.and_then(|text| atomic::write(path, &text, 0o600)).map_err(|e| {
            CodedError::new(
                "plan.not-written",
                format!("the plan cannot be written to {}: {e}", path.display()),
                ["psn plan setup --out psn-plan.json"],
            )
        })
    }

    pub fn load(path: &Path) -> Result<Self, CodedError> {
        let bad = |reason: String| {
            CodedError::new(
                "plan.invalid",
                format!("{} is no plan that this psn can apply: {reason}", path.display()),
                again(path),
            )
        };
        let size = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
        if size > MAX_FILE_BYTES {
            return Err(bad(format!("it has {size} bytes")));
        }
        let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let plan: Self = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if plan.schema != SCHEMA {
            return Err(bad(format!("it says that it is {}, not {SCHEMA}", plan.schema)));
        }
        if !is_hub_id(&plan.hub_id) {
            return Err(bad("its hub_id is no hub's id".to_owned()));
        }
        Ok(plan)
    }

    /// Whether it was made for the hub of this folder. One that has none yet takes a plan that was made in it, and no other: its hub
    /// would be the other folder's, under another key.
    fn is_of(&self, session: &Session, path: &Path) -> Result<(), CodedError> {
        let kind = session.kind.as_str();
        if self.hub != kind {
            let why = format!("it is for a {} hub, and this folder has a {kind} one", self.hub);
            let fix = format!("psn apply {} --hub {}", shell::path(path), self.hub);
            return Err(stale(&why, session.is_new.then_some(fix).into_iter().chain(again(path))));
        }
        let (hub_id, here) = (&session.environment.hub_id, folder(session));
        let this = match session.is_new {
            _ if self.hub_id != *hub_id => format!("this folder has the hub {hub_id}"),
            true if self.folder != here => "this folder has no hub yet".to_owned(),
            _ => return Ok(()),
        };
        let message = format!("the plan was made in {}, for the hub {}; {this}", self.folder, self.hub_id);
        Err(CodedError::new("plan.other-folder", message, again(path)))
    }

    /// What is different from when it was made.
    fn differences(&self, now: &Plan) -> Vec<String> {
        let mut all = Vec::new();
        if self.psn != now.psn {
            all.push(format!("it was made by psn {}", self.psn));
        }
        if self.settings != now.settings {
            all.push("config/psn.toml was changed".to_owned());
        }
        for then in &self.steps {
            let Some(step) = now.steps.iter().find(|s| s.step == then.step) else {
                all.push(format!("{} can no longer be reached", then.step));
                continue;
            };
            if (&step.plugin, &step.component_sha256) != (&then.plugin, &then.component_sha256) {
                all.push(format!("the component of {} is another", then.step));
            }
            if step.changes != then.changes {
                all.push(format!("{} would do something else now", then.step));
            }
        }
        if all.is_empty() && self.state != now.state {
            all.push("the hub is in another state".to_owned());
        }
        all
    }
}

/// Does what the plan says, unless something is different from when it was made: then nothing is written.
pub async fn apply(options: impl Fn() -> OpenOptions, plan: &Plan, path: &Path) -> Result<Summary, CodedError> {
    let mut looked = Session::look_as(options(), plan.hub_id.clone()).await?;
    plan.is_of(&looked, path)?;
    let findings = survey::survey(&mut looked).await;
    let differences = plan.differences(&Plan::of(&looked, &findings));
    if !differences.is_empty() {
        return Err(stale(&differences.join("; "), again(path)));
    }
    let mut session = Session::open_looked_at(options(), looked).await?;
    // A folder that no psn had been in could not be locked while it was looked at.
    plan.is_of(&session, path)?;
    run_setup(&mut session).await
}

fn stale(why: &str, fix: impl IntoIterator<Item = String>) -> CodedError {
    CodedError::new("plan.stale", format!("the plan no longer holds: {why}"), fix)
}

/// As it stands in a plan.
fn folder(session: &Session) -> String {
    let path = session.project.path();
    path.canonicalize().as_deref().unwrap_or(path).display().to_string()
}

fn again(path: &Path) -> [String; 2] {
    let path = shell::path(path);
    [format!("psn plan setup --out {path}"), format!("psn apply {path}")]
}

fn settings_fingerprint(session: &Session) -> String {
    let mut hash = Sha256::new();
    for (name, value) in &session.environment.settings {
        hash.update(format!("{name}\0{value}\0"));
    }
    hex::encode(&hash.finalize()[..16])
}
