//! What executes a Trigger.dev run. The engine decides when and how often; the runner does it once.
use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

/// One attempt of one run, as the engine hands it out.
#[derive(Clone)]
pub struct TaskRun {
    /// `run_…`
    pub run_id: String,
    /// The task's id, for example `watchdog`.
    pub task: String,
    /// Where the deployed worker keeps the task, as the deployment said it (`tasks[].filePath` of its metadata).
    pub file_path: String,
    /// The JSON payload. A scheduled run carries Trigger.dev's schedule payload.
    pub payload: serde_json::Value,
    /// When a schedule meant it to run.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Counted from 1.
    pub attempt: u32,
    /// The environment: the project's variables and what the platform adds (TRIGGER_SECRET_KEY, TRIGGER_API_URL, …).
    /// Holds secrets, so this type has no Debug.
    pub env: BTreeMap<String, String>,
    /// The task's own limit, from the deployment or the trigger call.
    pub max_duration: Option<Duration>,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunOutcome {
    Completed {
        output: serde_json::Value,
    },
    /// The task said no. `retry_after` is its own wish; the engine's retry policy decides.
    Failed {
        code: String,
        message: String,
        retry_after: Option<Duration>,
        retryable: bool,
    },
    /// The component trapped or could not be loaded.
    Crashed {
        message: String,
    },
    TimedOut,
    Cancelled,
}

/// Executes runs. Implemented by the host; by a closure-like double in this crate's tests.
#[async_trait::async_trait]
pub trait TaskRunner: Send + Sync + 'static {
    /// Runs one attempt to its end. Must return soon after `cancel` fires.
    async fn run(&self, run: TaskRun, cancel: CancellationToken) -> RunOutcome;
}
