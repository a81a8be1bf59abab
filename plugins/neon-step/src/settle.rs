//! Waiting for a project's operations: until they end, Neon answers 423 to whatever changes the project.

use psn_plugin::prelude::*;

use crate::{
    api::{Neon, Operation},
    notes::{self, Noted},
};

/// First and longest pause between two looks, in milliseconds; each is twice the one before.
const FIRST_PAUSE_MS: u32 = 200;
const LONGEST_PAUSE_MS: u32 = 5_000;
/// How long operations may take, in milliseconds: below the manifest's deadline, so that it is this step that says so.
const PATIENCE_MS: u32 = 240_000;
/// Milliseconds after which operations that took too long are worth another run.
const SLOW_RETRY_MS: u64 = 60_000;

enum Progress {
    Running,
    Done,
    Failed,
}

fn progress_of(status: &str) -> Progress {
    match status {
        "finished" | "skipped" => Progress::Done,
        "failed" | "error" | "cancelled" => Progress::Failed,
        // scheduling, running, cancelling, and whatever Neon may add.
        _ => Progress::Running,
    }
}

/// The operations of the creation, where it was this step's; else those that are under way now.
pub(crate) fn wait(neon: &impl Neon, noted: &mut Noted) -> Result<(), Failure> {
    let mut open = noted.operations.clone();
    if open.is_empty() {
        let running = |operation: &Operation| matches!(progress_of(&operation.status), Progress::Running);
        open = neon.operations(&noted.id)?.into_iter().filter(running).map(|operation| operation.id).collect();
    }
    let (mut pause, mut waited) = (FIRST_PAUSE_MS, 0);
    let mut failed = None;
    while let Some(id) = open.last() {
        // Operations are not kept for ever: one that Neon has forgotten has ended.
        let Some(operation) = neon.operation(&noted.id, id)? else {
            open.pop();
            continue;
        };
        match progress_of(&operation.status) {
            Progress::Running if waited >= PATIENCE_MS => return Err(too_slow(&operation)),
            Progress::Running => {
                context::sleep_ms(pause);
                waited += pause;
                pause = (pause * 2).min(LONGEST_PAUSE_MS);
            }
            Progress::Done => {
                open.pop();
            }
            Progress::Failed => {
                failed = failed.or(Some(operation));
                open.pop();
            }
        }
    }
    if !noted.operations.is_empty() {
        // Also where one failed: the next run judges by what is there, not by this.
        noted.operations.clear();
        notes::note(noted)?;
    }
    failed.map_or(Ok(()), |operation| Err(ended_badly(&noted.id, &operation)))
}

fn too_slow(operation: &Operation) -> Failure {
    let Operation { action, status, .. } = operation;
    let minutes = PATIENCE_MS / 60_000;
    Failure::new("operation-slow", format!("Neon's operation {action} is still {status} after {minutes} minutes"))
        .fix("Run the same command again: it goes on waiting")
        .retry_after_ms(SLOW_RETRY_MS)
}

fn ended_badly(project: &str, operation: &Operation) -> Failure {
    let Operation { action, status, error, .. } = operation;
    let reason = error.as_deref().unwrap_or("Neon gave no reason");
    Failure::new("operation-failed", format!("Neon's operation {action} ended as {status}: {reason}"))
        .fix(format!("Look at the project: https://console.neon.tech/app/projects/{project}"))
        .fix("psn run neon-provision")
}
