//! What the host tells about a run: ids, granted settings, the clock, random bytes.
mod host;
mod policy;

use std::collections::BTreeMap;

use crate::plugins::manifest::Manifest;

/// The settings that this plugin may read, and who it runs for.
pub struct Context {
    hub_id: String,
    policy: policy::Policy,
}

impl Context {
    /// `settings` by dotted name, for example `neon.region`.
    pub fn new(manifest: &Manifest, hub_id: String, settings: BTreeMap<String, String>) -> Self {
        Self { hub_id, policy: policy::Policy::new(manifest, settings) }
    }
}
