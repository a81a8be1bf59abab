//! A runner that does what the name of the task says, and remembers what it was given.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use psn_local_hub::{RunOutcome, TaskRun, TaskRunner};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct Script {
    calls: Mutex<Vec<TaskRun>>,
    stopped: Mutex<Vec<String>>,
    /// Lets one waiting `gate` task end.
    pub gate: Notify,
}

impl Script {
    /// Every attempt so far, in order.
    pub fn calls(&self) -> Vec<TaskRun> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn calls_of(&self, run: &str) -> Vec<TaskRun> {
        self.calls().into_iter().filter(|c| c.run_id == run).collect()
    }

    /// The runs whose token fired while they were executing.
    pub fn stopped(&self) -> Vec<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn failed(retryable: bool) -> RunOutcome {
    RunOutcome::Failed { code: "test.no".to_owned(), message: "it said no".to_owned(), retry_after: None, retryable }
}

#[async_trait::async_trait]
impl TaskRunner for Script {
    async fn run(&self, run: TaskRun, cancel: CancellationToken) -> RunOutcome {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(run.clone());
        match run.task.as_str() {
            "fail" => failed(true),
            "refuse" => failed(false),
            "crash" => RunOutcome::Crashed { message: "wasm trap: unreachable".to_owned() },
            "panic" => panic!("the double panics because its task is called so"),
            "flaky" if run.attempt < 3 => failed(true),
            "nul" => RunOutcome::Completed { output: json!({ "text": "a\u{0}b" }) },
            "hang" => {
                cancel.cancelled().await;
                self.stopped.lock().unwrap_or_else(PoisonError::into_inner).push(run.run_id);
                RunOutcome::Cancelled
            }
            // Does not listen, as a runner that is stuck.
            "deaf" => loop {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
            },
            "brief" => {
                tokio::time::sleep(Duration::from_millis(40)).await;
                RunOutcome::Completed { output: json!({ "payload": run.payload }) }
            }
            "gate" => {
                self.gate.notified().await;
                RunOutcome::Completed { output: json!(null) }
            }
            _ => RunOutcome::Completed { output: json!({ "payload": run.payload }) },
        }
    }
}
