//! What only the host can see of the hub it looks after. Topics are granted one by one in the manifest.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::sys;

#[derive(Debug, Clone)]
pub struct Error {
    /// denied, unknown-topic, unavailable, unreadable, or a later one.
    pub code: String,
    pub message: String,
    pub(crate) topic: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "psn could not tell about `{}`: {}", self.topic, self.message)
    }
}

impl std::error::Error for Error {}

/// What the host knows about `topic`: `config-tree`, `git`, `migrations`, `catalog`, `tasks`, `owner-login`, or a later one.
pub fn facts<T: DeserializeOwned>(topic: &str) -> Result<T, Error> {
    let error = |code: &str, message: String| Error { code: code.into(), message, topic: topic.into() };
    let text = sys::hub_facts(topic).map_err(|(code, message)| error(&code, message))?;
    serde_json::from_str(&text).map_err(|cause| error("unreadable", cause.to_string()))
}
