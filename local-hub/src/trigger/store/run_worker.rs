//! What the worker that a run was given to says about it.
use sqlx::PgPool;

/// The worker that a run was given to, and its version.
pub(crate) async fn worker_of_run(db: &PgPool, run: &str) -> Result<Option<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT t.worker_id, r.version FROM trigger.runs r JOIN trigger.worker_tasks t ON t.id = r.worker_task_id WHERE r.id = $1",
    )
    .bind(run)
    .fetch_optional(db)
    .await
}

/// Where its worker keeps a run's task.
pub(crate) async fn file_of_run(db: &PgPool, run: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT t.file_path FROM trigger.runs r JOIN trigger.worker_tasks t ON t.id = r.worker_task_id WHERE r.id = $1",
    )
    .bind(run)
    .fetch_optional(db)
    .await
}

/// Seconds that a run may take: the call's word, else the task's.
pub(crate) async fn limit_of_run(db: &PgPool, run: &str) -> Result<Option<f64>, sqlx::Error> {
    let limit = sqlx::query_scalar(
        "SELECT coalesce(r.max_duration, t.max_duration) FROM trigger.runs r \
         LEFT JOIN trigger.worker_tasks t ON t.id = r.worker_task_id WHERE r.id = $1",
    )
    .bind(run)
    .fetch_optional(db)
    .await?;
    Ok(limit.flatten())
}
