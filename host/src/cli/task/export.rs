//! `psn task export`: the Trigger.dev project that setup deploys, in a folder. Needs no hub, only the folder's plugins and settings.
use std::path::Path;

use serde_json::json;

use super::answer;
use crate::cli::{Context, Done};
use crate::error::CodedError;
use crate::pipeline::facts;
use crate::pipeline::session::find_project;
use crate::shell;

pub(super) async fn export(context: &Context, folder: &Path) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), false)?;
    let to = folder.to_owned();
    // Tasks may have to be compiled: an interruption does not wait for that.
    let written = tokio::task::spawn_blocking(move || {
        let tasks = facts::exported(&project)?;
        tasks.write(&to).map(|()| tasks)
    });
    let tasks = written.await.unwrap_or_else(|e| {
        Err(CodedError::new("task.export", e.to_string(), [format!("psn task export {}", shell::path(folder))]))
    })?;
    answer(
        context,
        "export",
        json!({
            "folder": folder,
            "content_hash": tasks.content_hash(),
            "tasks": tasks.tasks,
            "files": tasks.paths().collect::<Vec<_>>(),
            "program": tasks.program,
            "program_sha256": tasks.program.sha256,
        }),
    )
}
