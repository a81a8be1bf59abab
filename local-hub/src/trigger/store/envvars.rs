//! Environment variables. Values never leave this module redacted or not by accident: callers choose which they ask for.
use std::collections::BTreeMap;

use sqlx::{FromRow, PgPool};

#[derive(Debug, FromRow, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) is_secret: bool,
}

/// With secrets redacted, sorted by name; one of them when `name` is given.
pub(crate) async fn redacted(db: &PgPool, environment: &str, name: Option<&str>) -> Result<Vec<Listed>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, CASE WHEN is_secret THEN '<redacted>' ELSE value END AS value, is_secret FROM trigger.env_vars \
         WHERE environment_id = $1 AND ($2::text IS NULL OR name = $2) ORDER BY name",
    )
    .bind(environment)
    .bind(name)
    .fetch_all(db)
    .await
}

/// The real values: for the environment's own key and for runs.
pub(crate) async fn values(db: &PgPool, environment: &str) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT name, value FROM trigger.env_vars WHERE environment_id = $1")
            .bind(environment)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().collect())
}

/// Names that exist already, when `overwrite` is not allowed: then nothing is written.
pub(crate) async fn import(
    db: &PgPool,
    environment: &str,
    variables: &[(String, String)],
    is_secret: Option<bool>,
    overwrite: bool,
) -> Result<Vec<String>, sqlx::Error> {
    let (names, values): (Vec<&str>, Vec<&str>) = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).unzip();
    let mut tx = db.begin().await?;
    if !overwrite {
        let existing: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM trigger.env_vars WHERE environment_id = $1 AND name = ANY($2) ORDER BY name",
        )
        .bind(environment)
        .bind(&names)
        .fetch_all(&mut *tx)
        .await?;
        if !existing.is_empty() {
            return Ok(existing);
        }
    }
    sqlx::query(
        "INSERT INTO trigger.env_vars (environment_id, name, value, is_secret) \
         SELECT $1, v.name, v.value, coalesce($4, false) FROM unnest($2::text[], $3::text[]) AS v (name, value) \
         ON CONFLICT (environment_id, name) DO UPDATE \
         SET value = excluded.value, is_secret = coalesce($4, env_vars.is_secret), updated_at = now()",
    )
    .bind(environment)
    .bind(&names)
    .bind(&values)
    .bind(is_secret)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Vec::new())
}

/// False when there is no such variable.
pub(crate) async fn update(db: &PgPool, environment: &str, name: &str, value: &str) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.env_vars SET value = $3, updated_at = now() WHERE environment_id = $1 AND name = $2",
    )
    .bind(environment)
    .bind(name)
    .bind(value)
    .execute(db)
    .await?;
    Ok(result.rows_affected() == 1)
}

pub(crate) async fn delete(db: &PgPool, environment: &str, name: &str) -> Result<bool, sqlx::Error> {
    let result = sqlx::query("DELETE FROM trigger.env_vars WHERE environment_id = $1 AND name = $2")
        .bind(environment)
        .bind(name)
        .execute(db)
        .await?;
    Ok(result.rows_affected() == 1)
}
