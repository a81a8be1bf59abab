//! The plugin's durable notes about this hub.
mod host;

use std::path::PathBuf;

pub struct StateNotes {
    file: Option<PathBuf>,
}

impl StateNotes {
    /// `dir` is `<project>/.psn/state/<hub id>`.
    pub fn new(dir: PathBuf, plugin: &str) -> Self {
        Self { file: Some(dir.join(format!("{plugin}.json"))) }
    }

    /// Notes that last as long as the process: for runs in Trigger.dev, which have no disk to come back to.
    pub fn memory() -> Self {
        Self { file: None }
    }
}
