//! The types of which the published schema `docs/events.schema.json` is generated. A change here is a change of a public interface.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::capabilities::Usage;
use crate::error::CodedError;

pub const SCHEMA_NAME: &str = "psn.events/1";

/// One line of standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// The first line.
    Version {
        /// `psn.events/1`
        schema: String,
        psn: String,
        /// This run's id, a ULID.
        run: String,
        /// `local` or `cloud`; absent where the command is about no hub.
        #[serde(skip_serializing_if = "Option::is_none")]
        hub: Option<String>,
    },
    Step(Box<StepEvent>),
    Check(Check),
    /// What a plugin or psn itself has to say.
    Log {
        level: Level,
        /// The plugin, or `psn`.
        source: String,
        message: String,
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        fields: Map<String, Value>,
    },
    Progress {
        source: String,
        done: u32,
        /// 0 where it is not known.
        total: u32,
        message: String,
    },
    /// The answer of a command that asks (`psn status`, `psn plugin list`, …).
    Result {
        command: String,
        data: Value,
    },
    /// What stopped a command outside of any step.
    Error {
        error: CodedError,
    },
    /// The last line.
    Summary(Summary),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepEvent {
    pub step: String,
    /// Counted from 1; absent for a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
    pub status: StepStatus,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// With `needs_input` and `needs_consent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// With `planned` and `running`: what would change, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CodedError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl StepEvent {
    /// Of a step that has no place among others, and nothing else to tell.
    pub fn new(step: impl Into<String>, status: StepStatus, message: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            index: None,
            total: None,
            status,
            message: message.into(),
            data: None,
            needs: Vec::new(),
            changes: Vec::new(),
            error: None,
            usage: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Running,
    Success,
    Skipped,
    Error,
    NeedsInput,
    NeedsConsent,
    Planned,
}

/// Something that only a person can supply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Need {
    pub name: String,
    /// Whether the value must never be shown, logged or passed as an argument.
    pub secret: bool,
    /// Where a person finds the value.
    #[serde(rename = "where")]
    pub origin: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// How to supply it.
    pub next: Vec<NextCommand>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NextCommand {
    /// Exactly as it can be typed.
    pub command: String,
    pub when: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub check: String,
    /// The step that looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub status: CheckStatus,
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
    /// Whether the hub is unusable while this check fails.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Pass,
    Warn,
    Fail,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// `success`, `error`, `needs_input`, `needs_consent` or `planned`
    pub status: StepStatus,
    pub steps: u32,
    pub succeeded: u32,
    pub skipped: u32,
    pub failed: u32,
    pub elapsed_ms: u64,
}
