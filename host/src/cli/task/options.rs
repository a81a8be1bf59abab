//! When and how a run is made: what `psn task trigger` and `psn task replay` have in common.
use std::io::Read as _;

use clap::Args;
use serde_json::{Map, Value, json};

use super::time::{duration, when};
use crate::cli::cloud_run::MAX_PAYLOAD;
use crate::error::CodedError;
use crate::shell;

/// Trigger.dev's own limits.
const MAX_TAGS: usize = 10;
const MAX_TAG_CHARS: usize = 128;
const MAX_KEY_CHARS: usize = 2_048;

#[derive(Args, Default)]
pub(in crate::cli) struct How {
    /// Starts it later: 10m, 1h30m, 2d, or a date such as 2027-01-31T09:00:00Z
    #[arg(long)]
    pub(super) delay: Option<String>,
    /// A second one with the same key answers the first one's run
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    /// How long the key counts: one number and s, m, h or d [default: 30d]
    #[arg(long, value_name = "TIME", requires = "idempotency_key")]
    pub(super) idempotency_key_ttl: Option<String>,
    /// Gives up when it has not started by then, for example 1h
    #[arg(long)]
    pub(super) ttl: Option<String>,
    /// A word to find the run by; up to 10
    #[arg(long = "tag", value_name = "TAG")]
    pub(super) tags: Vec<String>,
}

impl How {
    /// As Trigger.dev's API names them. `command` is `trigger` or `replay`, `fix` a command of it that works.
    pub(super) fn options(&self, command: &str, fix: &str) -> Result<Map<String, Value>, CodedError> {
        let usage = |code: &str, message: String| CodedError::new(code, message, [fix]);
        let mut options = Map::new();
        let mut set = |name: &str, value: Value| drop(options.insert(name.to_owned(), value));
        if let Some(delay) = &self.delay {
            when(command, delay)?;
            set("delay", json!(delay));
        }
        if let Some(key) = &self.idempotency_key {
            if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
                return Err(usage("usage.key", format!("an idempotency key has 1 to {MAX_KEY_CHARS} characters")));
            }
            set("idempotencyKey", json!(key));
        }
        if let Some(ttl) = &self.idempotency_key_ttl {
            if duration(ttl).is_none() || ttl.bytes().filter(u8::is_ascii_alphabetic).count() != 1 {
                return Err(usage("usage.time", format!("`{ttl}` is not one number and s, m, h or d")));
            }
            set("idempotencyKeyTTL", json!(ttl));
        }
        if let Some(ttl) = &self.ttl {
            if duration(ttl).is_none() {
                return Err(usage("usage.time", format!("`{ttl}` is no time such as 10m or 1h30m")));
            }
            set("ttl", json!(ttl));
        }
        if !self.tags.is_empty() {
            let bad = |tag: &String| tag.trim().is_empty() || tag.contains(',') || tag.chars().count() > MAX_TAG_CHARS;
            if self.tags.len() > MAX_TAGS || self.tags.iter().any(bad) {
                let message =
                    format!("a run has up to {MAX_TAGS} tags of up to {MAX_TAG_CHARS} characters, without commas");
                return Err(usage("usage.tags", message));
            }
            set("tags", json!(self.tags));
        }
        Ok(options)
    }

    /// As they were typed, with another delay.
    pub(super) fn words(&self, delay: &str) -> Vec<String> {
        let mut words = Vec::new();
        let named = [
            ("--delay", Some(delay)),
            ("--idempotency-key", self.idempotency_key.as_deref()),
            ("--idempotency-key-ttl", self.idempotency_key_ttl.as_deref()),
            ("--ttl", self.ttl.as_deref()),
        ];
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            words.extend([name.to_owned(), shell::word(value)]);
        }
        self.tags.iter().for_each(|tag| words.extend(["--tag".to_owned(), shell::word(tag)]));
        words
    }
}

/// `-` is standard input.
pub(super) fn payload(text: &str, fix: &str) -> Result<Value, CodedError> {
    let usage = |message: String| CodedError::new("usage.payload", message, [fix]);
    let text = match text {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_PAYLOAD + 1).read_to_string(&mut text);
            read.map_err(|e| usage(format!("standard input could not be read as text: {e}")))?;
            text
        }
        text => text.to_owned(),
    };
    if text.len() as u64 > MAX_PAYLOAD {
        return Err(usage(format!("the payload is larger than {MAX_PAYLOAD} bytes")));
    }
    serde_json::from_str(&text).map_err(|e| usage(format!("--payload is not JSON: {e}")))
}
