//! Secrets by name: whether one is there, whether it changed, and having one made. Never a value.
mod host;
mod policy;

use std::sync::Arc;

use crate::plugins::manifest::Manifest;
use crate::secret::{Keeper, Secrets};

/// The names that this plugin may ask about.
pub struct SecretsCap {
    policy: policy::Policy,
    secrets: Arc<Secrets>,
    keeper: Keeper,
}

impl SecretsCap {
    pub fn new(manifest: &Manifest, secrets: Arc<Secrets>) -> Self {
        Self { policy: policy::Policy::new(manifest), secrets, keeper: manifest.keeper() }
    }
}

/// Whether a plugin may ask about a name.
pub fn may_ask(manifest: &Manifest, name: &str) -> bool {
    policy::Policy::new(manifest).may_ask(name).is_ok()
}
