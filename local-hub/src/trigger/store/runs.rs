//! Runs: made, looked up, cancelled, put off. What the engine does with them is in `engine/queue.rs`.
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool};

use super::super::model::Date;
use super::super::status::RunStatus;
use super::super::{duration, ids};
use super::schedules::now;

/// How long a key is remembered when the caller does not say, as at the vendor.
const KEY_TTL_DAYS: i64 = 30;
/// The holder of a key can end between the look and the insert. Each round means another run ended in that moment.
const KEY_ROUNDS: usize = 5;
/// A run in a development environment does not wait longer than this for its worker, as at the vendor.
const DEVELOPMENT_TTL: &str = "10m";

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) environment_id: String,
    pub(crate) environment_slug: String,
    pub(crate) task: String,
    #[sqlx(try_from = "String")]
    pub(crate) status: RunStatus,
    pub(crate) payload: String,
    pub(crate) payload_type: String,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<Value>,
    pub(crate) metadata: Option<String>,
    pub(crate) metadata_type: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) is_test: bool,
    pub(crate) task_kind: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) idempotency_user_key: Option<String>,
    pub(crate) queue: String,
    pub(crate) concurrency_key: Option<String>,
    pub(crate) machine: Option<String>,
    pub(crate) ttl: Option<String>,
    pub(crate) delay_until: Option<Date>,
    pub(crate) schedule_id: Option<String>,
    pub(crate) batch_id: Option<String>,
    pub(crate) parent_run_id: Option<String>,
    pub(crate) root_run_id: Option<String>,
    pub(crate) depth: i32,
    pub(crate) waits: bool,
    pub(crate) version: Option<String>,
    pub(crate) attempt: i32,
    pub(crate) duration_ms: i64,
    pub(crate) created_at: Date,
    pub(crate) updated_at: Date,
    pub(crate) started_at: Option<Date>,
    pub(crate) finished_at: Option<Date>,
    pub(crate) expired_at: Option<Date>,
}

/// The columns of [`Run`], from `trigger.runs r` and `trigger.environments e`.
macro_rules! run_columns {
    () => {
        "SELECT r.id, r.environment_id, e.slug AS environment_slug, r.task, r.status, r.payload, r.payload_type, r.output, \
         r.error, r.metadata, r.metadata_type, r.tags, r.is_test, r.task_kind, r.idempotency_key, r.idempotency_user_key, r.queue, \
         r.concurrency_key, r.machine, r.ttl, r.delay_until, r.schedule_id, r.batch_id, r.parent_run_id, r.root_run_id, r.depth, \
         r.waits, r.version, r.attempt, r.duration_ms, r.created_at, r.updated_at, r.started_at, r.finished_at, r.expired_at \
         FROM trigger.runs r JOIN trigger.environments e ON e.id = r.environment_id "
    };
}
pub(crate) use run_columns;

/// What a new run is made of; everything that is not given is found out in the transaction that makes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewRun {
    pub(crate) task: String,
    pub(crate) payload: String,
    pub(crate) payload_type: String,
    pub(crate) metadata: Option<String>,
    pub(crate) metadata_type: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) is_test: bool,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) idempotency_key_ttl: Option<String>,
    pub(crate) idempotency_user_key: Option<String>,
    pub(crate) request_key: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) concurrency_key: Option<String>,
    pub(crate) priority: f64,
    pub(crate) lock_to_version: Option<String>,
    pub(crate) max_attempts: Option<i32>,
    pub(crate) max_duration: Option<f64>,
    pub(crate) machine: Option<String>,
    pub(crate) ttl: Option<String>,
    pub(crate) delay: Option<String>,
    pub(crate) schedule_id: Option<String>,
    pub(crate) scheduled_at: Option<DateTime<Utc>>,
    pub(crate) replayed_from: Option<String>,
    pub(crate) batch_id: Option<String>,
    pub(crate) parent_run_id: Option<String>,
    pub(crate) waits: bool,
}

impl NewRun {
    fn counts_from_now(&self, development: bool, task: Option<&ResolvedTask>) -> bool {
        let ttl = self.ttl.is_some() || development || task.is_some_and(|task| task.ttl.is_some());
        ttl || self.delay.is_some() || self.idempotency_key.is_some()
    }

    /// Nothing about it is due by itself.
    pub(crate) fn starts_now(&self) -> bool {
        self.ttl.is_none() && self.delay.is_none()
    }
}

#[derive(Debug)]
pub(crate) enum Created {
    New(String),
    /// A run with the same idempotency key.
    Cached(String),
    /// The same call came before: a client repeats it when it lost the answer.
    Repeated(String),
    /// No worker has the version that the caller asked for.
    NoVersion(String),
    /// That version has no such task.
    NotOnVersion(String),
}

pub(crate) async fn create(
    db: &PgPool,
    environment: &str,
    development: bool,
    new: &NewRun,
) -> Result<Created, sqlx::Error> {
    let mut tx = db.begin().await?;
    let created = create_in(&mut tx, environment, development, new).await?;
    tx.commit().await?;
    Ok(created)
}

pub(crate) async fn create_in(
    tx: &mut PgConnection,
    environment: &str,
    development: bool,
    new: &NewRun,
) -> Result<Created, sqlx::Error> {
    create_with(tx, environment, development, new, &mut Resolved::default()).await
}

/// One of many runs of an environment in one transaction. `resolved` is what was found out for those before.
pub(crate) async fn create_with(
    tx: &mut PgConnection,
    environment: &str,
    development: bool,
    new: &NewRun,
    resolved: &mut Resolved,
) -> Result<Created, sqlx::Error> {
    for round in 0..KEY_ROUNDS {
        // A call is rarely a repeated one: without a key of the caller's, the insert itself says so.
        if (round > 0 || new.idempotency_key.is_some() || new.lock_to_version.is_some())
            && let Some(key) = &new.request_key
            && let Some(id) = by_request(tx, environment, &new.task, key).await?
        {
            return Ok(Created::Repeated(id));
        }
        if let Some(key) = &new.idempotency_key {
            release_key(tx, environment, &new.task, key).await?;
            if let Some(id) = by_key(tx, environment, &new.task, key).await? {
                return Ok(Created::Cached(id));
            }
        }
        let key = (new.task.clone(), new.lock_to_version.clone());
        let task = match resolved.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(resolve(tx, environment, new).await?),
        };
        if let (None, Some(version)) = (&task, &new.lock_to_version) {
            let known = version_exists(tx, environment, version).await?;
            return Ok(if known {
                Created::NotOnVersion(version.clone())
            } else {
                Created::NoVersion(version.clone())
            });
        }
        if let Some(id) = insert(tx, environment, development, new, task.as_ref()).await? {
            return Ok(Created::New(id));
        }
    }
    Err(sqlx::Error::Protocol("an idempotency key changed hands faster than a run could be made".to_owned()))
}

/// The tasks that runs of one transaction are of, by name and version.
#[derive(Default)]
pub(crate) struct Resolved(HashMap<(String, Option<String>), Option<ResolvedTask>>);

#[derive(Debug, FromRow)]
struct ResolvedTask {
    queue: String,
    ttl: Option<String>,
    trigger_source: String,
}

async fn resolve(tx: &mut PgConnection, environment: &str, new: &NewRun) -> Result<Option<ResolvedTask>, sqlx::Error> {
    sqlx::query_as(
        "SELECT queue, ttl, trigger_source FROM trigger.worker_tasks WHERE id = trigger.resolve_task($1, $2, $3)",
    )
    .bind(environment)
    .bind(&new.task)
    .bind(&new.lock_to_version)
    .fetch_optional(tx)
    .await
}

async fn version_exists(tx: &mut PgConnection, environment: &str, version: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM trigger.deployments WHERE environment_id = $1 AND status = 'DEPLOYED' \
         AND version_day || '.' || version_number = $2)",
    )
    .bind(environment)
    .bind(version)
    .fetch_one(tx)
    .await
}

async fn by_request(
    tx: &mut PgConnection,
    environment: &str,
    task: &str,
    key: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM trigger.runs WHERE environment_id = $1 AND task = $2 AND request_key = $3")
        .bind(environment)
        .bind(task)
        .bind(key)
        .fetch_optional(tx)
        .await
}

async fn by_key(
    tx: &mut PgConnection,
    environment: &str,
    task: &str,
    key: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM trigger.runs WHERE environment_id = $1 AND task = $2 AND idempotency_key = $3")
        .bind(environment)
        .bind(task)
        .bind(key)
        .fetch_optional(tx)
        .await
}

/// Takes the key from a run that failed, or whose claim on it ran out.
async fn release_key(tx: &mut PgConnection, environment: &str, task: &str, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE trigger.runs SET idempotency_key = NULL, idempotency_key_expires_at = NULL \
         WHERE environment_id = $1 AND task = $2 AND idempotency_key = $3 \
         AND (idempotency_key_expires_at < now() OR status = ANY($4))",
    )
    .bind(environment)
    .bind(task)
    .bind(key)
    .bind(RunStatus::RELEASING_KEY.map(RunStatus::name).as_slice())
    .execute(tx)
    .await?;
    Ok(())
}

/// `None` when another run has the idempotency key or request key already.
async fn insert(
    tx: &mut PgConnection,
    environment: &str,
    development: bool,
    new: &NewRun,
    task: Option<&ResolvedTask>,
) -> Result<Option<String>, sqlx::Error> {
    // Asked for only where a time counts from it.
    let now = if new.counts_from_now(development, task) { now(tx).await? } else { DateTime::UNIX_EPOCH };
    let delay_until = new.delay.as_deref().and_then(|delay| duration::delay(delay, now));
    let status = match (delay_until, task) {
        (Some(_), _) => RunStatus::Delayed,
        (None, Some(_)) => RunStatus::Pending,
        (None, None) => RunStatus::PendingVersion,
    };
    let ttl = new
        .ttl
        .clone()
        .or_else(|| task.and_then(|t| t.ttl.clone()))
        .or(development.then(|| DEVELOPMENT_TTL.to_owned()));
    let ttl_length = ttl.as_deref().and_then(duration::parse).and_then(|d| Duration::from_std(d).ok());
    let key_expires_at = new.idempotency_key.as_ref().and_then(|_| {
        let given = new.idempotency_key_ttl.as_deref().and_then(duration::key_ttl);
        let length = given.and_then(|d| Duration::from_std(d).ok()).unwrap_or_else(|| Duration::days(KEY_TTL_DAYS));
        now.checked_add_signed(length)
    });
    let id = ids::friendly("run");
    sqlx::query_scalar(
        "INSERT INTO trigger.runs (id, environment_id, task, status, payload, payload_type, metadata, metadata_type, tags, is_test, \
         task_kind, idempotency_key, idempotency_key_expires_at, idempotency_user_key, request_key, queue, concurrency_key, priority, \
         lock_to_version, max_attempts, max_duration, machine, ttl, ttl_ms, expires_at, delay_until, available_at, schedule_id, \
         scheduled_at, replayed_from, batch_id, parent_run_id, root_run_id, depth, waits) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, \
         $26, coalesce($26, now()), $27, $28, $29, $30, parent.id, coalesce(parent.root_run_id, parent.id), \
         coalesce(parent.depth + 1, 0), $32 \
         FROM (SELECT 1) AS one LEFT JOIN trigger.runs parent ON parent.id = $31 AND parent.environment_id = $2 \
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(&id)
    .bind(environment)
    .bind(&new.task)
    .bind(status.name())
    .bind(&new.payload)
    .bind(&new.payload_type)
    .bind(&new.metadata)
    .bind(&new.metadata_type)
    .bind(&new.tags)
    .bind(new.is_test)
    .bind(if new.schedule_id.is_some() { "SCHEDULED" } else { task.map_or("STANDARD", |t| t.trigger_source.as_str()) })
    .bind(&new.idempotency_key)
    .bind(key_expires_at)
    .bind(&new.idempotency_user_key)
    .bind(&new.request_key)
    .bind(new.queue.clone().or_else(|| task.map(|t| t.queue.clone())).unwrap_or_else(|| format!("task/{}", new.task)))
    .bind(&new.concurrency_key)
    .bind(new.priority)
    .bind(&new.lock_to_version)
    .bind(new.max_attempts)
    .bind(new.max_duration)
    .bind(&new.machine)
    .bind(&ttl)
    .bind(ttl_length.map(|d| d.num_milliseconds()))
    .bind(if delay_until.is_none() { ttl_length.and_then(|d| now.checked_add_signed(d)) } else { None })
    .bind(delay_until)
    .bind(&new.schedule_id)
    .bind(new.scheduled_at)
    .bind(&new.replayed_from)
    .bind(&new.batch_id)
    .bind(&new.parent_run_id)
    .bind(new.waits)
    .fetch_optional(tx)
    .await
}

pub(crate) async fn find(db: &PgPool, environment: &str, id: &str) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as(concat!(run_columns!(), "WHERE r.environment_id = $1 AND r.id = $2"))
        .bind(environment)
        .bind(id)
        .fetch_optional(db)
        .await
}

pub(crate) async fn children(db: &PgPool, environment: &str, id: &str) -> Result<Vec<Run>, sqlx::Error> {
    sqlx::query_as(concat!(run_columns!(), "WHERE r.environment_id = $1 AND r.parent_run_id = $2 ORDER BY r.seq"))
        .bind(environment)
        .bind(id)
        .fetch_all(db)
        .await
}

/// The token of the lease that a run is under.
pub(crate) async fn lease(db: &PgPool, id: &str) -> Result<Option<uuid::Uuid>, sqlx::Error> {
    let token = sqlx::query_scalar("SELECT lease_token FROM trigger.runs WHERE id = $1").bind(id).fetch_optional(db);
    Ok(token.await?.flatten())
}

/// A run's metadata and their type, which nobody else changes until the transaction ends.
pub(crate) async fn lock_metadata(
    tx: &mut PgConnection,
    environment: &str,
    id: &str,
) -> Result<Option<(Option<String>, Option<String>)>, sqlx::Error> {
    sqlx::query_as("SELECT metadata, metadata_type FROM trigger.runs WHERE environment_id = $1 AND id = $2 FOR UPDATE")
        .bind(environment)
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// A JSON object, as text.
pub(crate) async fn set_metadata(
    tx: &mut PgConnection,
    environment: &str,
    id: &str,
    text: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE trigger.runs SET metadata = $3, metadata_type = 'application/json', updated_at = now() \
         WHERE environment_id = $1 AND id = $2",
    )
    .bind(environment)
    .bind(id)
    .bind(text)
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn set_tags(db: &PgPool, environment: &str, id: &str, tags: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE trigger.runs SET tags = $3, updated_at = now() WHERE environment_id = $1 AND id = $2")
        .bind(environment)
        .bind(id)
        .bind(tags)
        .execute(db)
        .await?;
    Ok(())
}

/// False when there is no such run. A run that has ended stays as it is.
pub(crate) async fn cancel(db: &PgPool, environment: &str, id: &str) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query(
        "UPDATE trigger.runs SET status = 'CANCELED', finished_at = now(), updated_at = now(), \
         error = jsonb_build_object('name', 'TASK_RUN_CANCELLED', 'message', 'Canceled by user'), \
         duration_ms = duration_ms + CASE WHEN lease_token IS NULL THEN 0 \
                                     ELSE (extract(epoch FROM now() - attempt_started_at) * 1000)::bigint END, \
         lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL \
         WHERE environment_id = $1 AND id = $2 AND finished_at IS NULL",
    )
    .bind(environment)
    .bind(id)
    .execute(&mut *tx)
    .await?;
    let exists = sqlx::query_scalar("SELECT EXISTS (SELECT FROM trigger.runs WHERE environment_id = $1 AND id = $2)")
        .bind(environment)
        .bind(id)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(exists)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rescheduled {
    Done,
    NotFound,
    NotDelayed,
    InvalidDelay,
}

pub(crate) async fn reschedule(
    db: &PgPool,
    environment: &str,
    id: &str,
    delay: &str,
) -> Result<Rescheduled, sqlx::Error> {
    let mut tx = db.begin().await?;
    let Some(until) = duration::delay(delay, now(&mut tx).await?) else {
        return Ok(Rescheduled::InvalidDelay);
    };
    let status: Option<String> =
        sqlx::query_scalar("SELECT status FROM trigger.runs WHERE environment_id = $1 AND id = $2 FOR UPDATE")
            .bind(environment)
            .bind(id)
            .fetch_optional(&mut *tx)
            .await?;
    match status.as_deref() {
        None => return Ok(Rescheduled::NotFound),
        Some("DELAYED") => {}
        Some(_) => return Ok(Rescheduled::NotDelayed),
    }
    sqlx::query("UPDATE trigger.runs SET delay_until = $2, available_at = $2, updated_at = now() WHERE id = $1")
        .bind(id)
        .bind(until)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Rescheduled::Done)
}

/// False when no run of the task has the key.
pub(crate) async fn reset_key(db: &PgPool, environment: &str, task: &str, key: &str) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.runs SET idempotency_key = NULL, idempotency_key_expires_at = NULL, updated_at = now() \
         WHERE environment_id = $1 AND task = $2 AND idempotency_key = $3",
    )
    .bind(environment)
    .bind(task)
    .bind(key)
    .execute(db)
    .await?;
    Ok(result.rows_affected() > 0)
}
