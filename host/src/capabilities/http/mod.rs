//! Named HTTP services. A guest names a service and a path; everything else is the host's.
mod host;

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

/// Where services are, if not where a manifest says: `config/services.toml`, or the local hub.
#[derive(Clone, Debug, Default)]
pub struct ServiceMap {
    overrides: BTreeMap<String, Url>,
}

impl ServiceMap {
    /// Every service where its manifest says.
    pub fn vendors() -> Self {
        Self::default()
    }

    /// The services of the local hub.
    pub fn local(neon: Url, trigger: Url) -> Self {
        let mut map = Self::default();
        map.set("neon", neon);
        map.set("trigger", trigger.clone());
        map.set("trigger-env", trigger);
        map
    }

    pub fn set(&mut self, service: &str, base: Url) {
        self.overrides.insert(service.to_owned(), base);
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {}

/// The services that one plugin may call.
pub struct Http {
    secrets: Arc<Secrets>,
}

impl Http {
    pub fn new(_manifest: &Manifest, _services: &ServiceMap, secrets: Arc<Secrets>) -> Result<Self, PolicyError> {
        Ok(Self { secrets })
    }
}
