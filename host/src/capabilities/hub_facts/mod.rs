//! What only the host can see of the hub, by granted topic.
mod host;
mod policy;

use std::sync::Arc;

use async_trait::async_trait;

use crate::plugins::manifest::Manifest;

/// Knows the hub: its folder, its grants, its migrations, its tasks.
#[async_trait]
pub trait FactSource: Send + Sync {
    /// A JSON document about one topic, without secrets.
    async fn facts(&self, topic: &str) -> Result<serde_json::Value, FactError>;
}

#[derive(Debug, thiserror::Error)]
pub enum FactError {
    #[error("this psn knows no topic of that name")]
    Unknown,
    #[error("{0}")]
    Unavailable(String),
}

/// The topics that this plugin may ask about.
pub struct HubFacts {
    policy: policy::Policy,
    source: Arc<dyn FactSource>,
}

impl HubFacts {
    pub fn new(manifest: &Manifest, source: Arc<dyn FactSource>) -> Self {
        Self { policy: policy::Policy::new(manifest), source }
    }
}
