//! The tasks that this hub is to run, as the host knows them from their manifests.

use std::collections::BTreeMap;

use psn_plugin::hub;
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tasks {
    /// Changes when anything about the tasks does; it names a deployment.
    pub content_hash: String,
    pub tasks: Vec<Task>,
    /// Secrets that they read in the cloud.
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default)]
    pub plain_env: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Task {
    pub id: String,
    pub file_path: String,
    pub cron: Option<String>,
    pub timezone: Option<String>,
    pub max_duration_s: Option<u32>,
    pub queue: Option<String>,
    /// In Trigger.dev's own words.
    pub retry: Option<Json>,
}

pub(crate) fn of_this_hub() -> Result<Tasks, hub::Error> {
    hub::facts("tasks")
}

impl Tasks {
    pub(crate) fn ids(&self) -> Vec<&str> {
        self.tasks.iter().map(|task| task.id.as_str()).collect()
    }

    /// For people: "watchdog, publish-post".
    pub(crate) fn names(&self) -> String {
        self.ids().join(", ")
    }

    pub(crate) fn scheduled(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.cron.is_some())
    }
}
