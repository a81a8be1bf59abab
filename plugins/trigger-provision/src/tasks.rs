//! The tasks that this hub is to run, as the host knows them from their manifests.

use std::collections::BTreeMap;

use psn_plugin::hub;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// Read by the deployed project: what a plan leaves of the schedules.
pub(crate) const PLAN_VARIABLE: &str = "PSN_SCHEDULES";
/// Its value once a plan has no limits any more; a variable cannot be empty.
pub(crate) const AS_WRITTEN: &str = "as-written";

/// What a plan of Trigger.dev's refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// No schedule more often than hourly.
    #[serde(default)]
    pub hourly: bool,
    /// No more schedules than this.
    #[serde(default)]
    pub schedules: Option<usize>,
}

/// How they come to where they run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// The local hub is told about components that it has.
    Direct,
    /// Trigger.dev's CLI bundles and uploads what the host wrote.
    #[default]
    Cli,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tasks {
    /// Changes when anything about the tasks does.
    pub content_hash: String,
    #[serde(rename = "deploy", default)]
    pub way: Way,
    /// What the plan leaves of the schedules.
    #[serde(skip)]
    pub limits: Limits,
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
    /// Instead of a `cron` that comes more often than that.
    pub hourly: Option<String>,
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
    /// The tasks as they can be deployed where a plan has these limits.
    pub(crate) fn within(&self, limits: &Limits) -> Self {
        let mut tasks = Self { limits: limits.clone(), ..self.clone() };
        let mut words = Vec::new();
        if limits.hourly {
            words.push("hourly".to_owned());
            for task in &mut tasks.tasks {
                task.cron = task.hourly.clone().or_else(|| task.cron.take());
            }
        }
        if let Some(most) = limits.schedules {
            for task in tasks.tasks.iter_mut().filter(|task| task.cron.is_some()).skip(most) {
                words.push(format!("-{}", task.id));
                task.cron = None;
            }
        }
        // The deployed tasks read it when they are listed, and follow it.
        if !words.is_empty() {
            tasks.plain_env.insert(PLAN_VARIABLE.to_owned(), words.join(" "));
        }
        tasks
    }

    /// Names a deployment of exactly these tasks with exactly these schedules.
    pub(crate) fn external_id(&self) -> String {
        let hourly = if self.limits.hourly { "-hourly" } else { "" };
        let most = self.limits.schedules.map(|most| format!("-{most}")).unwrap_or_default();
        format!("{}{hourly}{most}", self.content_hash)
    }

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
