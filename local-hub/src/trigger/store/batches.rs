//! Batches: made first, filled with items afterwards.
use std::collections::HashSet;

use sqlx::{FromRow, PgConnection, PgPool};

use super::super::ids;
use super::super::model::Date;

#[derive(Debug, FromRow)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) run_count: i32,
    pub(crate) sealed: bool,
    pub(crate) created_at: Date,
    pub(crate) updated_at: Date,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, run_count, sealed, created_at, updated_at FROM trigger.batches WHERE environment_id = $1 ",
            $rest
        )
    };
}

/// The batch, and whether its key was known already.
pub(crate) async fn create(
    db: &PgPool,
    environment: &str,
    run_count: i32,
    idempotency_key: Option<&str>,
) -> Result<(Batch, bool), sqlx::Error> {
    let mut tx = db.begin().await?;
    let id: Option<String> = sqlx::query_scalar(
        "INSERT INTO trigger.batches (id, environment_id, run_count, idempotency_key) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (environment_id, idempotency_key) DO NOTHING RETURNING id",
    )
    .bind(ids::friendly("batch"))
    .bind(environment)
    .bind(run_count)
    .bind(idempotency_key)
    .fetch_optional(&mut *tx)
    .await?;
    let batch = sqlx::query_as(select!("AND (id = $2 OR ($2 IS NULL AND idempotency_key = $3))"))
        .bind(environment)
        .bind(&id)
        .bind(idempotency_key)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok((batch, id.is_none()))
}

pub(crate) async fn find(db: &PgPool, environment: &str, id: &str) -> Result<Option<Batch>, sqlx::Error> {
    sqlx::query_as(select!("AND id = $2")).bind(environment).bind(id).fetch_optional(db).await
}

/// Keeps two calls from adding the same items. True when the batch has all of its own.
pub(crate) async fn lock(tx: &mut PgConnection, batch: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT sealed FROM trigger.batches WHERE id = $1 FOR UPDATE").bind(batch).fetch_one(tx).await
}

pub(crate) async fn indexes(tx: &mut PgConnection, batch: &str) -> Result<HashSet<i32>, sqlx::Error> {
    let found: Vec<i32> = sqlx::query_scalar("SELECT index FROM trigger.batch_items WHERE batch_id = $1")
        .bind(batch)
        .fetch_all(tx)
        .await?;
    Ok(found.into_iter().collect())
}

#[derive(Debug, FromRow)]
pub(crate) struct Item {
    pub(crate) index: i32,
    pub(crate) task: String,
    pub(crate) run_id: Option<String>,
    pub(crate) error: Option<String>,
}

pub(crate) async fn add_items(tx: &mut PgConnection, batch: &str, items: &[Item]) -> Result<(), sqlx::Error> {
    let of = |text: fn(&Item) -> Option<&str>| items.iter().map(text).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO trigger.batch_items (batch_id, index, task, run_id, error) \
         SELECT $1, * FROM unnest($2::integer[], $3::text[], $4::text[], $5::text[])",
    )
    .bind(batch)
    .bind(items.iter().map(|item| item.index).collect::<Vec<_>>())
    .bind(of(|item| Some(&item.task)))
    .bind(of(|item| item.run_id.as_deref()))
    .bind(of(|item| item.error.as_deref()))
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn items(db: &PgPool, batch: &str) -> Result<Vec<Item>, sqlx::Error> {
    sqlx::query_as("SELECT index, task, run_id, error FROM trigger.batch_items WHERE batch_id = $1 ORDER BY index")
        .bind(batch)
        .fetch_all(db)
        .await
}

/// Seals the batch once all its items are there. Returns how many are.
pub(crate) async fn seal(tx: &mut PgConnection, batch: &str) -> Result<(i64, bool), sqlx::Error> {
    sqlx::query_as(
        "UPDATE trigger.batches b SET updated_at = now(), sealed = sealed OR n.count >= run_count \
         FROM (SELECT count(*) FROM trigger.batch_items WHERE batch_id = $1) AS n WHERE b.id = $1 RETURNING n.count, b.sealed",
    )
    .bind(batch)
    .fetch_one(tx)
    .await
}

/// How many of the batch's runs have not ended.
pub(crate) async fn unfinished(db: &PgPool, batch: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM trigger.runs WHERE batch_id = $1 AND finished_at IS NULL")
        .bind(batch)
        .fetch_one(db)
        .await
}
