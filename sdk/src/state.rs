//! The plugin's durable notes about this hub, as JSON. A note is on disk before `put` returns: written before a creation it is
//! the intent, written after it the result.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::sys;

#[derive(Debug, Clone)]
pub struct Error {
    key: String,
    message: String,
    unreadable: bool,
}

impl Error {
    /// The note is there, but is not what the plugin expects: an older or newer version wrote it.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.unreadable { "understood" } else { "saved" };
        write!(f, "The note `{}` could not be {verb}: {}", self.key, self.message)
    }
}

impl std::error::Error for Error {}

fn error(key: &str, unreadable: bool, message: impl fmt::Display) -> Error {
    Error { key: key.to_owned(), message: message.to_string(), unreadable }
}

pub fn get<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    let Some(text) = sys::state_get(key) else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|cause| error(key, true, cause))
}

pub fn put<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(|cause| error(key, false, cause))?;
    sys::state_put(key, &text).map_err(|cause| error(key, false, cause))
}

pub fn delete(key: &str) -> Result<(), Error> {
    sys::state_delete(key).map_err(|cause| error(key, false, cause))
}
