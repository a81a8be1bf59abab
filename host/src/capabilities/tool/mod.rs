//! Command-line programs that the manifest names, with the arguments that it allows.
mod capture;
mod host;
mod policy;
mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::plugins::manifest::Manifest;
use crate::secret::{Keeper, Secrets};

/// The programs that this plugin may run, and where.
pub struct Tools {
    policy: policy::Policy,
    programs: run::Programs,
    secrets: Arc<Secrets>,
    keeper: Keeper,
    plain: BTreeMap<String, String>,
    cwd: PathBuf,
}

impl Tools {
    /// The programs run in `cwd`.
    pub fn new(manifest: &Manifest, secrets: Arc<Secrets>, cwd: PathBuf) -> Self {
        Self {
            policy: policy::Policy::new(manifest),
            programs: run::Programs::on_path(std::env::var_os("PATH")),
            secrets,
            keeper: manifest.keeper(),
            plain: BTreeMap::new(),
            cwd,
        }
    }

    /// Values that are no secrets: for the names in the manifest's `addresses`, and for those in its `env` that no secret has.
    #[must_use]
    pub fn with_plain_env(mut self, values: BTreeMap<String, String>) -> Self {
        self.plain = values;
        self
    }
}
