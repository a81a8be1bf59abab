//! API keys. The one that the hub hands to psn is not among those that can be listed or revoked: psn would be locked out.
use sqlx::PgPool;
use uuid::Uuid;

use crate::neon::keys::KeyRow;

pub(crate) struct New<'a> {
    pub(crate) account: Uuid,
    /// None for a personal key.
    pub(crate) org: Option<&'a str>,
    pub(crate) project: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) digest: &'a [u8; 32],
}

pub(crate) async fn insert(db: &PgPool, new: &New<'_>) -> Result<KeyRow, sqlx::Error> {
    sqlx::query_as(
        "WITH k AS (INSERT INTO neon.api_keys (account_id, kind, org_id, project_id, name, digest)
                    VALUES ($1, CASE WHEN $2::text IS NULL THEN 'personal' ELSE 'organization' END, $2, $3, $4, $5) RETURNING *)
         SELECT k.*, a.name AS account_name FROM k JOIN neon.accounts a ON a.id = k.account_id",
    )
    .bind(new.account)
    .bind(new.org)
    .bind(new.project)
    .bind(new.name)
    .bind(new.digest.as_slice())
    .fetch_one(db)
    .await
}

pub(crate) async fn list(db: &PgPool, account: Uuid, org: Option<&str>) -> Result<Vec<KeyRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT k.*, a.name AS account_name FROM neon.api_keys k JOIN neon.accounts a ON a.id = k.account_id
         WHERE k.account_id = $1 AND k.org_id IS NOT DISTINCT FROM $2 AND NOT k.builtin ORDER BY k.id",
    )
    .bind(account)
    .bind(org)
    .fetch_all(db)
    .await
}

pub(crate) async fn delete(
    db: &PgPool,
    account: Uuid,
    org: Option<&str>,
    key: i64,
) -> Result<Option<KeyRow>, sqlx::Error> {
    sqlx::query_as(
        "WITH k AS (DELETE FROM neon.api_keys
                    WHERE id = $3 AND account_id = $1 AND org_id IS NOT DISTINCT FROM $2 AND NOT builtin RETURNING *)
         SELECT k.*, a.name AS account_name FROM k JOIN neon.accounts a ON a.id = k.account_id",
    )
    .bind(account)
    .bind(org)
    .bind(key)
    .fetch_optional(db)
    .await
}

/// To the minute: a request should not always write.
pub(crate) async fn used(db: &PgPool, key: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.api_keys SET last_used_at = now()
         WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
    )
    .bind(key)
    .execute(db)
    .await?;
    Ok(())
}
