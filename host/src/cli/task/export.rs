//! `psn task export`: the Trigger.dev project that setup deploys, in a folder. Needs no hub, only the folder's plugins and settings.
use std::path::Path;

use serde_json::json;

use super::answer;
use crate::cli::{Context, Done};
use crate::error::CodedError;
use crate::pipeline::facts;
use crate::pipeline::session::find_project;

pub(super) fn export(context: &Context, folder: &Path) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), false)?;
    let tasks = facts::exported(&project)?;
    tasks.write(folder)?;
    answer(
        context,
        "export",
        json!({
            "folder": folder,
            "content_hash": tasks.content_hash(),
            "tasks": tasks.tasks,
            "files": tasks.paths().collect::<Vec<_>>(),
            "program_sha256": tasks.program_sha256,
        }),
    )
}
