//! Command-line programs that the manifest names, with the arguments that it allows.
mod host;

use std::path::PathBuf;
use std::sync::Arc;

use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

/// The programs that this plugin may run, and where.
pub struct Tools {
    tools: Vec<crate::plugins::manifest::Tool>,
    secrets: Arc<Secrets>,
    cwd: PathBuf,
}

impl Tools {
    /// The programs run in `cwd`.
    pub fn new(manifest: &Manifest, secrets: Arc<Secrets>, cwd: PathBuf) -> Self {
        Self { tools: manifest.tool.clone(), secrets, cwd }
    }
}
