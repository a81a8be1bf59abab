//! Operations, and the cursor that lists end with.
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::neon::store::operations::OperationRow;

#[derive(Serialize)]
pub(crate) struct Pagination {
    cursor: String,
}

impl Pagination {
    /// The cursor comes with the last page too; a page that is not full ends the list. After an empty page it is the one that
    /// was asked with, and where there was none, there is nothing to page through.
    pub(crate) fn after(last: Option<i64>, asked: Option<String>) -> Option<Self> {
        let cursor = last.map(|seq| seq.to_string()).or(asked).filter(|cursor| !cursor.is_empty())?;
        Some(Self { cursor })
    }
}

#[derive(Serialize)]
pub(crate) struct Operation {
    id: String,
    project_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_id: Option<String>,
    action: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    failures_count: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    total_duration_ms: i32,
}

impl From<&OperationRow> for Operation {
    fn from(row: &OperationRow) -> Self {
        let duration = match (row.started_at, row.ended_at) {
            (Some(from), Some(to)) => (to - from).num_milliseconds().clamp(0, i64::from(i32::MAX)),
            _ => 0,
        };
        Self {
            id: row.id.to_string(),
            project_id: row.project_id.clone(),
            branch_id: row.branch_id.clone(),
            endpoint_id: row.endpoint_id.clone(),
            action: row.action.clone(),
            status: row.status.clone(),
            error: row.error.clone(),
            failures_count: row.failures_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
            total_duration_ms: i32::try_from(duration).unwrap_or(i32::MAX),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct OperationBody {
    pub(crate) operation: Operation,
}

#[derive(Serialize)]
pub(crate) struct OperationList {
    pub(crate) operations: Vec<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pagination: Option<Pagination>,
}
