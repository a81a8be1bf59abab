//! The plugin's durable notes about this hub: one JSON file a plugin, replaced as a whole and on disk before a `put` returns.
mod host;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A note's name, in bytes. The longest of psn's own plugins has 40.
pub const MAX_KEY: usize = 200;
/// A note, in bytes: a page of text. What is larger belongs into the database.
pub const MAX_VALUE: usize = 64 << 10;
/// Notes of one plugin. The file is written anew with each of them.
pub const MAX_NOTES: usize = 1_000;

pub struct StateNotes {
    file: Option<PathBuf>,
    /// Read when first asked for.
    notes: Option<BTreeMap<String, String>>,
}

impl StateNotes {
    /// `dir` is `<project>/.psn/state/<hub id>`.
    pub fn new(dir: PathBuf, plugin: &str) -> Self {
        Self { file: Some(dir.join(format!("{plugin}.json"))), notes: None }
    }

    /// Notes that last as long as the call: for runs in Trigger.dev, which have no disk to come back to.
    pub fn memory() -> Self {
        Self { file: None, notes: Some(BTreeMap::new()) }
    }
}
