//! What clients upload for a deployment. A local hub keeps it in the control database, like everything else.
use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// The policy is what the upload is recognised by; it is random.
pub(crate) async fn create(
    db: &PgPool,
    environment: &str,
    key: &str,
    policy: &str,
    minutes: i32,
) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query("DELETE FROM trigger.artifacts WHERE expires_at < now() AND content IS NULL").execute(db).await?;
    sqlx::query_scalar(
        "INSERT INTO trigger.artifacts (key, environment_id, policy, expires_at) \
         VALUES ($1, $2, $3, now() + make_interval(mins => $4)) RETURNING expires_at",
    )
    .bind(key)
    .bind(environment)
    .bind(policy)
    .bind(minutes)
    .fetch_one(db)
    .await
}

/// False when nobody was given this policy for this key, or its time is over.
pub(crate) async fn fill(db: &PgPool, key: &str, policy: &str, content: &[u8]) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.artifacts SET content = $3 WHERE key = $1 AND policy = $2 AND expires_at > now() AND content IS NULL",
    )
    .bind(key)
    .bind(policy)
    .bind(content)
    .execute(db)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// What was uploaded, once it was.
pub(crate) async fn content(db: &PgPool, environment: &str, key: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let row: Option<Option<Vec<u8>>> =
        sqlx::query_scalar("SELECT content FROM trigger.artifacts WHERE environment_id = $1 AND key = $2")
            .bind(environment)
            .bind(key)
            .fetch_optional(db)
            .await?;
    Ok(row.flatten())
}

pub(crate) async fn remove(db: &PgPool, environment: &str, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM trigger.artifacts WHERE environment_id = $1 AND key = $2")
        .bind(environment)
        .bind(key)
        .execute(db)
        .await?;
    Ok(())
}
