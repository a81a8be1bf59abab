//! The policy as its file has it. Read strictly: a rule that is misspelt must not be a rule that is missing.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::routes::RoutePattern;
use crate::plugins::manifest::{MAX_NAME, is_kebab, parse_bytes, parse_duration};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    pub(super) third_party: Option<bool>,
    #[serde(default)]
    pub(super) compile: Compile,
    #[serde(default)]
    pub(super) plugin: BTreeMap<Section, Rules>,
}

/// What compiling a component from elsewhere may use up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Compile {
    pub(super) deadline: Option<Span>,
    pub(super) memory: Option<Size>,
}

/// What one plugin, or every one, may at most have. What is absent restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Rules {
    pub(super) services: Option<Vec<String>>,
    pub(super) hosts: Option<Vec<HostPattern>>,
    /// Service, or `*`.
    #[serde(default)]
    pub(super) routes: BTreeMap<String, Vec<RoutePattern>>,
    #[serde(default)]
    pub(super) deny_routes: BTreeMap<String, Vec<RoutePattern>>,
    /// Table or function, or `*` for each that is not named.
    pub(super) db: Option<BTreeMap<String, TableRule>>,
    pub(super) tools: Option<Vec<String>>,
    #[serde(default)]
    pub(super) limits: Ceilings,
}

/// Columns; `*` is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TableRule {
    #[serde(default)]
    pub(super) select: Vec<String>,
    #[serde(default)]
    pub(super) insert: Vec<String>,
    #[serde(default)]
    pub(super) update: Vec<String>,
    #[serde(default)]
    pub(super) delete: bool,
    #[serde(default)]
    pub(super) execute: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Ceilings {
    pub(super) memory: Option<Size>,
    pub(super) deadline: Option<Span>,
    pub(super) http_calls: Option<u64>,
    pub(super) db_calls: Option<u64>,
    pub(super) log_bytes: Option<u64>,
}

/// A plugin's name, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Section(pub(super) String);

impl TryFrom<String> for Section {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name == super::EVERY || (is_kebab(&name) && name.len() <= MAX_NAME) {
            return Ok(Self(name));
        }
        Err(format!("`{name}` is no plugin's name; \"*\" is for every one"))
    }
}

/// `64MiB`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size {
    pub(super) text: String,
    pub(super) bytes: u64,
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = parse_bytes(&text).ok_or_else(|| format!("`{text}` is not a size such as 64MiB"))?;
        Ok(Self { text, bytes })
    }
}

/// `60s`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) duration: Duration,
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration =
            parse_duration(&text).ok_or_else(|| format!("`{text}` is not a duration such as 60s, 500ms or 5m"))?;
        Ok(Self { text, duration })
    }
}

/// `api.trigger.dev`, or `*.trigger.dev` for every name below it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct HostPattern(pub(super) String);

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let plain = !name.is_empty()
            && name.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            });
        if plain {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no host such as api.trigger.dev or *.trigger.dev"))
        }
    }
}

impl HostPattern {
    pub(super) fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.0,
        }
    }
}
