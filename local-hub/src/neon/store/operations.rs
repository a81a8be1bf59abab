//! The operations of a project: what is to be done in its cluster, in order, and how it went.
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::projects::EndpointRow;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Makes the cluster.
    CreateTimeline,
    /// Starts it and brings it up to date.
    StartCompute,
    SuspendCompute,
    /// Brings roles and databases up to date.
    ApplyConfig,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Action::CreateTimeline => "create_timeline",
            Action::StartCompute => "start_compute",
            Action::SuspendCompute => "suspend_compute",
            Action::ApplyConfig => "apply_config",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Action::CreateTimeline, Action::StartCompute, Action::SuspendCompute, Action::ApplyConfig]
            .into_iter()
            .find(|a| a.as_str() == text)
    }
}

#[derive(Clone, sqlx::FromRow)]
pub(crate) struct OperationRow {
    pub(crate) seq: i64,
    pub(crate) id: Uuid,
    pub(crate) project_id: String,
    pub(crate) branch_id: Option<String>,
    pub(crate) endpoint_id: Option<String>,
    pub(crate) action: String,
    pub(crate) status: String,
    pub(crate) error: Option<String>,
    pub(crate) failures_count: i32,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

/// To be called with the project locked, in the transaction that makes the change the operation is about.
pub(crate) async fn schedule(
    tx: &mut PgConnection,
    endpoint: &EndpointRow,
    actions: &[Action],
) -> Result<Vec<OperationRow>, sqlx::Error> {
    let mut rows = Vec::with_capacity(actions.len());
    for action in actions {
        // What makes the branch is not about its endpoint.
        let endpoint_id = (*action != Action::CreateTimeline).then_some(&endpoint.id);
        let row = sqlx::query_as(
            "INSERT INTO neon.operations (id, project_id, branch_id, endpoint_id, action) VALUES ($1, $2, $3, $4, $5) RETURNING *",
        )
        .bind(Uuid::new_v4())
        .bind(&endpoint.project_id)
        .bind(&endpoint.branch_id)
        .bind(endpoint_id)
        .bind(action.as_str())
        .fetch_one(&mut *tx)
        .await?;
        rows.push(row);
    }
    let last = actions.iter().rev().find(|a| matches!(a, Action::StartCompute | Action::SuspendCompute));
    if let Some(last) = last {
        sqlx::query("UPDATE neon.endpoints SET should_run = $2 WHERE id = $1")
            .bind(&endpoint.id)
            .bind(*last == Action::StartCompute)
            .execute(tx)
            .await?;
    }
    Ok(rows)
}

/// The next one to do, the one that a dead daemon left running included.
pub(crate) async fn next(db: &mut PgConnection, project: &str) -> Result<Option<OperationRow>, sqlx::Error> {
    sqlx::query_as(
        "UPDATE neon.operations SET status = 'running', started_at = coalesce(started_at, now()), updated_at = now()
         WHERE seq = (SELECT min(seq) FROM neon.operations WHERE project_id = $1 AND status IN ('scheduling', 'running'))
         RETURNING *",
    )
    .bind(project)
    .fetch_optional(db)
    .await
}

pub(crate) async fn finish(db: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.operations SET status = 'finished', error = NULL, ended_at = now(), updated_at = now() WHERE id = $1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// One more failure, after which it is tried again.
pub(crate) async fn count_failure(db: &mut PgConnection, id: Uuid, error: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.operations SET failures_count = failures_count + 1, error = $2, updated_at = now() WHERE id = $1",
    )
    .bind(id)
    .bind(error)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives it up, and with it what was to follow.
pub(crate) async fn fail(db: &mut PgConnection, operation: &OperationRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.operations SET status = CASE WHEN id = $2 THEN 'failed' ELSE 'cancelled' END, ended_at = now(), updated_at = now()
         WHERE project_id = $1 AND status IN ('scheduling', 'running')",
    )
    .bind(&operation.project_id)
    .bind(operation.id)
    .execute(db)
    .await?;
    Ok(())
}

/// Newest first.
pub(crate) async fn list(
    db: &PgPool,
    project: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OperationRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM neon.operations WHERE project_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3")
        .bind(project)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(db)
        .await
}

pub(crate) async fn get(db: impl PgExecutor<'_>, project: &str, id: Uuid) -> Result<Option<OperationRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM neon.operations WHERE project_id = $1 AND id = $2")
        .bind(project)
        .bind(id)
        .fetch_optional(db)
        .await
}
