//! Encrypts tokens at rest with the hub's key, which stays here.
mod host;
mod seal;

use std::sync::Arc;

use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

/// The secret that holds the hub's key: 64 hex digits.
pub const KEY: &str = "HUB_ENCRYPTION_KEY";

/// What may be sealed at once, in bytes. A token has under 8 KiB.
pub const MAX_PLAINTEXT: usize = 64 << 10;

pub struct Vault {
    contexts: Vec<String>,
    secrets: Arc<Secrets>,
}

impl Vault {
    pub fn new(manifest: &Manifest, secrets: Arc<Secrets>) -> Self {
        Self { contexts: manifest.vault.contexts.clone(), secrets }
    }
}
