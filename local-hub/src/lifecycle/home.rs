//! The folder that holds everything of one local hub.
use std::path::{Path, PathBuf};

/// `<PSN_HOME>/local-hub`. The path is absolute: the children run in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    pub fn new(path: impl Into<PathBuf>) -> Home {
        let path = path.into();
        // Fails only for an empty path or when the current folder is gone; then the first use of the path says so.
        Home(std::path::absolute(&path).unwrap_or(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}
