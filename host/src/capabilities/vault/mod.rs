//! Encrypts tokens at rest with the hub's key, which stays here.
mod host;

use std::sync::Arc;

use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

pub struct Vault {
    contexts: Vec<String>,
    secrets: Arc<Secrets>,
}

impl Vault {
    pub fn new(manifest: &Manifest, secrets: Arc<Secrets>) -> Self {
        Self { contexts: manifest.vault.contexts.clone(), secrets }
    }
}
