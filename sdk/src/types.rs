//! What steps answer.

use serde::{Deserialize, Serialize};

/// What a step found.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Nothing to do.
    Ready(Report),
    /// What `apply` would change, in order.
    Pending(Vec<String>),
    /// What a person must supply first.
    Needs(Vec<Need>),
}

impl State {
    pub fn ready(report: Report) -> Self {
        Self::Ready(report)
    }

    /// `changes` are read by people: "create the database", not "POST /projects".
    pub fn pending<S: Into<String>>(changes: impl IntoIterator<Item = S>) -> Self {
        Self::Pending(changes.into_iter().map(Into::into).collect())
    }

    pub fn needs(needs: impl IntoIterator<Item = Need>) -> Self {
        Self::Needs(needs.into_iter().collect())
    }
}

/// Something only a person can supply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    pub name: String,
    /// Whether the value must never be shown, logged or passed as an argument.
    pub secret: bool,
    /// Where a person finds the value.
    pub origin: String,
    /// The values to choose from, where they are known.
    pub choices: Vec<String>,
}

impl Need {
    /// A key or token, named as in config/keys.env.
    pub fn secret(name: impl Into<String>, origin: impl Into<String>) -> Self {
        Self { name: name.into(), secret: true, origin: origin.into(), choices: Vec::new() }
    }

    /// A setting, by its dotted name in config/psn.toml.
    pub fn setting(name: impl Into<String>, origin: impl Into<String>) -> Self {
        Self { name: name.into(), secret: false, origin: origin.into(), choices: Vec::new() }
    }

    pub fn choices<S: Into<String>>(mut self, choices: impl IntoIterator<Item = S>) -> Self {
        self.choices = choices.into_iter().map(Into::into).collect();
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    Warn,
    Fail,
    Skip,
}

/// One fact that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub status: Status,
    pub message: String,
    /// What makes a failed check pass; commands exactly as they can be typed.
    #[serde(default)]
    pub fix: Vec<String>,
    /// Whether the hub is unusable while this check fails.
    #[serde(default)]
    pub required: bool,
}

impl Check {
    fn new(name: impl Into<String>, status: Status, message: impl Into<String>) -> Self {
        Self { name: name.into(), status, message: message.into(), fix: Vec::new(), required: true }
    }

    pub fn pass(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(name, Status::Pass, message)
    }

    pub fn warn(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(name, Status::Warn, message).optional()
    }

    pub fn fail(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(name, Status::Fail, message)
    }

    /// Not checked, and why.
    pub fn skip(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(name, Status::Skip, message).optional()
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    /// The hub works without it.
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// Whether the step that made this check must not count as done.
    pub fn is_blocking(&self) -> bool {
        self.required && self.status == Status::Fail
    }
}

/// What a step did or found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub message: String,
    /// A JSON object, without secrets.
    pub data: serde_json::Value,
    pub checks: Vec<Check>,
}

impl Report {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: serde_json::json!({}), checks: Vec::new() }
    }

    /// `data` must be a JSON object.
    pub fn data(mut self, data: serde_json::Value) -> Self {
        debug_assert!(data.is_object(), "a report's data is a JSON object");
        self.data = data;
        self
    }

    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    pub fn checks(mut self, checks: impl IntoIterator<Item = Check>) -> Self {
        self.checks.extend(checks);
        self
    }
}
