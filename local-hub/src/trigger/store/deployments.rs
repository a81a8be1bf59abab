//! Deployments, the workers they register, and which one is current.
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool};

use super::super::ids;
use super::super::model::Date;
use super::schedules::{self, Declared};

/// How long a deployment may stay unfinished, as at the vendor. Without it, a deploy that was killed would hold its external id for ever.
pub(crate) const TIMEOUT_MINUTES: i32 = 8;

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) version_day: i32,
    pub(crate) version_number: i32,
    pub(crate) content_hash: String,
    pub(crate) short_code: String,
    pub(crate) status: String,
    pub(crate) external_id: Option<String>,
    pub(crate) runtime: Option<String>,
    pub(crate) runtime_version: Option<String>,
    pub(crate) git: Option<Value>,
    pub(crate) error: Option<Value>,
    pub(crate) image_digest: Option<String>,
    pub(crate) created_at: Date,
    pub(crate) deployed_at: Option<Date>,
    pub(crate) promoted: bool,
}

impl Deployment {
    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.version_day, self.version_number)
    }
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "DEPLOYED" | "FAILED" | "CANCELED" | "TIMED_OUT")
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.version_day, d.version_number, d.content_hash, d.short_code, d.status, d.external_id, \
             d.runtime, d.runtime_version, d.git, d.error, d.image_digest, d.created_at, d.deployed_at, \
             EXISTS (SELECT FROM trigger.promotions p WHERE p.deployment_id = d.id) AS promoted \
             FROM trigger.deployments d WHERE d.environment_id = $1 ",
            $rest
        )
    };
}

#[derive(Debug)]
pub(crate) struct NewDeployment<'a> {
    pub(crate) content_hash: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) status: &'a str,
    pub(crate) external_id: Option<&'a str>,
    pub(crate) runtime: Option<&'a str>,
    pub(crate) git: Option<&'a Value>,
    pub(crate) force: bool,
    /// The upload that it is built from, if it is built here.
    pub(crate) artifact_key: Option<&'a str>,
    pub(crate) skip_promotion: bool,
}

#[derive(Debug)]
pub(crate) enum Initialized {
    Created {
        deployment: Box<Deployment>,
        canceled: Vec<(String, String)>,
    },
    /// The same external id is deployed already: nothing to do.
    Existing(Box<Deployment>),
    /// The same external id is being deployed; its version.
    InProgress(String),
}

pub(crate) async fn initialize(
    db: &PgPool,
    environment: &str,
    new: NewDeployment<'_>,
) -> Result<Initialized, sqlx::Error> {
    let mut tx = db.begin().await?;
    // One at a time for an environment: versions count up, and one external id is deployed once.
    sqlx::query("SELECT id FROM trigger.environments WHERE id = $1 FOR UPDATE")
        .bind(environment)
        .execute(&mut *tx)
        .await?;
    let mut canceled = Vec::new();
    if let Some(external_id) = new.external_id {
        let mut same: Vec<Deployment> =
            sqlx::query_as(select!("AND d.external_id = $2 ORDER BY d.version_day DESC, d.version_number DESC"))
                .bind(environment)
                .bind(external_id)
                .fetch_all(&mut *tx)
                .await?;
        let in_progress: Vec<Deployment> = same.iter().filter(|d| !d.is_final()).cloned().collect();
        if new.force {
            for deployment in in_progress {
                sqlx::query("UPDATE trigger.deployments SET status = 'CANCELED', status_at = now() WHERE id = $1")
                    .bind(&deployment.id)
                    .execute(&mut *tx)
                    .await?;
                canceled.push((deployment.version(), deployment.short_code));
            }
        } else if let Some(deployment) = in_progress.first() {
            return Ok(Initialized::InProgress(deployment.version()));
        } else if let Some(at) = same.iter().position(|d| d.status == "DEPLOYED") {
            return Ok(Initialized::Existing(Box::new(same.swap_remove(at))));
        }
    }
    let id = ids::friendly("deployment");
    sqlx::query(
        "INSERT INTO trigger.deployments (id, environment_id, version_day, version_number, content_hash, short_code, kind, status, \
         external_id, runtime, git, artifact_key, skip_promotion) \
         SELECT $2, $1, day, 1 + coalesce((SELECT max(version_number) FROM trigger.deployments \
             WHERE environment_id = $1 AND version_day = day), 0), $3, $4, $5, $6, $7, $8, $9, $10, $11 \
         FROM (SELECT to_char(now() AT TIME ZONE 'utc', 'YYYYMMDD')::int AS day) AS today",
    )
    .bind(environment)
    .bind(&id)
    .bind(new.content_hash)
    .bind(ids::short_code())
    .bind(new.kind)
    .bind(new.status)
    .bind(new.external_id)
    .bind(new.runtime)
    .bind(new.git)
    .bind(new.artifact_key)
    .bind(new.skip_promotion)
    .execute(&mut *tx)
    .await?;
    let deployment = sqlx::query_as(select!("AND d.id = $2")).bind(environment).bind(&id).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(Initialized::Created { deployment: Box::new(deployment), canceled })
}

pub(crate) async fn find(db: &PgPool, environment: &str, id: &str) -> Result<Option<Deployment>, sqlx::Error> {
    sqlx::query_as(select!("AND d.id = $2")).bind(environment).bind(id).fetch_optional(db).await
}

pub(crate) async fn by_version(
    db: &PgPool,
    environment: &str,
    version: &str,
) -> Result<Option<Deployment>, sqlx::Error> {
    sqlx::query_as(select!("AND d.version_day || '.' || d.version_number = $2"))
        .bind(environment)
        .bind(version)
        .fetch_optional(db)
        .await
}

pub(crate) async fn current(db: &PgPool, environment: &str) -> Result<Option<Deployment>, sqlx::Error> {
    sqlx::query_as(select!("AND d.id = (SELECT p.deployment_id FROM trigger.promotions p WHERE p.environment_id = $1)"))
        .bind(environment)
        .fetch_optional(db)
        .await
}

/// The newest of a kind, whatever its status.
pub(crate) async fn latest(db: &PgPool, environment: &str, kind: &str) -> Result<Option<Deployment>, sqlx::Error> {
    sqlx::query_as(select!("AND d.kind = $2 ORDER BY d.seq DESC LIMIT 1"))
        .bind(environment)
        .bind(kind)
        .fetch_optional(db)
        .await
}

#[derive(Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) status: Option<&'a str>,
    /// Only those before this one in the list (older).
    pub(crate) after: Option<&'a str>,
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) to: Option<DateTime<Utc>>,
    pub(crate) period: Option<f64>,
    pub(crate) limit: i64,
}

/// Newest first.
pub(crate) async fn list(db: &PgPool, environment: &str, filter: Filter<'_>) -> Result<Vec<Deployment>, sqlx::Error> {
    sqlx::query_as(select!(
        "AND d.kind <> 'DEVELOPMENT' AND ($2::text IS NULL OR d.status = $2) \
         AND ($3::text IS NULL OR d.seq < (SELECT seq FROM trigger.deployments WHERE id = $3 AND environment_id = $1)) \
         AND ($4::timestamptz IS NULL OR d.created_at >= $4) AND ($5::timestamptz IS NULL OR d.created_at <= $5) \
         AND ($6::float8 IS NULL OR d.created_at >= now() - make_interval(secs => $6)) \
         ORDER BY d.seq DESC LIMIT $7"
    ))
    .bind(environment)
    .bind(filter.status)
    .bind(filter.after)
    .bind(filter.from)
    .bind(filter.to)
    .bind(filter.period)
    .bind(filter.limit)
    .fetch_all(db)
    .await
}

/// Moves an unfinished deployment to FAILED. Does nothing to a finished one.
pub(crate) async fn fail(db: &PgPool, environment: &str, id: &str, error: &Value) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.deployments SET status = 'FAILED', status_at = now(), error = $3 WHERE environment_id = $1 AND id = $2 \
         AND status NOT IN ('DEPLOYED', 'FAILED', 'CANCELED', 'TIMED_OUT')",
    )
    .bind(environment)
    .bind(id)
    .bind(error)
    .execute(db)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Gives up deployments that nobody finished.
pub(crate) async fn time_out(db: &PgPool) -> Result<u64, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.deployments SET status_at = now(), error = jsonb_build_object('name', 'TimeoutError', 'message', \
         CASE status WHEN 'DEPLOYING' THEN 'Indexing timed out' ELSE 'Building timed out' END), status = 'TIMED_OUT' \
         WHERE status IN ('PENDING', 'INSTALLING', 'BUILDING', 'DEPLOYING') AND status_at < now() - make_interval(mins => $1)",
    )
    .bind(TIMEOUT_MINUTES)
    .execute(db)
    .await?;
    Ok(result.rows_affected())
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Worker {
    pub(crate) id: String,
    pub(crate) content_hash: String,
    pub(crate) engine: Option<String>,
    pub(crate) sdk_version: Option<String>,
    pub(crate) cli_version: Option<String>,
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct WorkerTask {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) file_path: String,
    pub(crate) export_name: Option<String>,
    pub(crate) trigger_source: String,
    pub(crate) queue_config: Option<Value>,
    pub(crate) payload_schema: Option<Value>,
    pub(crate) created_at: Date,
}

pub(crate) async fn worker(db: &PgPool, deployment: &str) -> Result<Option<Worker>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, content_hash, engine, sdk_version, cli_version FROM trigger.workers WHERE deployment_id = $1",
    )
    .bind(deployment)
    .fetch_optional(db)
    .await
}

pub(crate) async fn tasks(db: &PgPool, worker: &str) -> Result<Vec<WorkerTask>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, slug, file_path, export_name, trigger_source, queue_config, payload_schema, created_at \
         FROM trigger.worker_tasks WHERE worker_id = $1 ORDER BY slug",
    )
    .bind(worker)
    .fetch_all(db)
    .await
}

#[derive(Debug)]
pub(crate) struct NewTask {
    pub(crate) slug: String,
    pub(crate) file_path: String,
    pub(crate) export_name: Option<String>,
    pub(crate) scheduled: bool,
    pub(crate) queue: String,
    pub(crate) queue_config: Option<Value>,
    pub(crate) concurrency_limit: Option<i32>,
    pub(crate) retry: Option<Value>,
    pub(crate) max_duration: Option<f64>,
    pub(crate) ttl: Option<String>,
    pub(crate) schedule: Option<Value>,
    pub(crate) payload_schema: Option<Value>,
}

#[derive(Debug)]
pub(crate) struct NewWorker<'a> {
    pub(crate) content_hash: &'a str,
    pub(crate) engine: Option<&'a str>,
    pub(crate) sdk_version: &'a str,
    pub(crate) cli_version: Option<&'a str>,
    pub(crate) runtime_version: Option<&'a str>,
    pub(crate) tasks: &'a [NewTask],
    /// Queues declared by themselves: name and limit.
    pub(crate) queues: &'a [(String, Option<i32>)],
}

/// BUILDING → DEPLOYING. `None` when the deployment is not BUILDING (any more).
pub(crate) async fn register_worker(
    db: &PgPool,
    environment: &str,
    deployment: &str,
    new: NewWorker<'_>,
) -> Result<Option<Worker>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let moved = sqlx::query(
        "UPDATE trigger.deployments SET status = 'DEPLOYING', status_at = now(), runtime_version = $3 \
         WHERE environment_id = $1 AND id = $2 AND status = 'BUILDING'",
    )
    .bind(environment)
    .bind(deployment)
    .bind(new.runtime_version)
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(None);
    }
    let worker: Worker = sqlx::query_as(
        "INSERT INTO trigger.workers (id, deployment_id, environment_id, content_hash, engine, sdk_version, cli_version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id, content_hash, engine, sdk_version, cli_version",
    )
    .bind(ids::friendly("worker"))
    .bind(deployment)
    .bind(environment)
    .bind(new.content_hash)
    .bind(new.engine)
    .bind(new.sdk_version)
    .bind(new.cli_version)
    .fetch_one(&mut *tx)
    .await?;
    for task in new.tasks {
        insert_task(&mut tx, &worker.id, task).await?;
        upsert_queue(&mut tx, environment, &task.queue, task.concurrency_limit).await?;
    }
    for (name, limit) in new.queues {
        upsert_queue(&mut tx, environment, name, *limit).await?;
    }
    tx.commit().await?;
    Ok(Some(worker))
}

/// Where the engine finds what these tasks of a deployment run.
pub(crate) async fn set_components(
    db: &PgPool,
    deployment: &str,
    components: &[(String, String)],
) -> Result<(), sqlx::Error> {
    let (slugs, paths): (Vec<&str>, Vec<&str>) = components.iter().map(|(slug, path)| (&**slug, &**path)).unzip();
    sqlx::query(
        "UPDATE trigger.worker_tasks t SET file_path = c.path FROM unnest($2::text[], $3::text[]) AS c(slug, path), \
         trigger.workers w WHERE w.deployment_id = $1 AND t.worker_id = w.id AND t.slug = c.slug",
    )
    .bind(deployment)
    .bind(slugs)
    .bind(paths)
    .execute(db)
    .await?;
    Ok(())
}

async fn insert_task(tx: &mut PgConnection, worker: &str, task: &NewTask) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO trigger.worker_tasks (id, worker_id, slug, file_path, export_name, trigger_source, queue, queue_config, retry, \
         max_duration, ttl, schedule, payload_schema) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(ids::friendly("task"))
    .bind(worker)
    .bind(&task.slug)
    .bind(&task.file_path)
    .bind(&task.export_name)
    .bind(if task.scheduled { "SCHEDULED" } else { "STANDARD" })
    .bind(&task.queue)
    .bind(&task.queue_config)
    .bind(&task.retry)
    .bind(task.max_duration)
    .bind(&task.ttl)
    .bind(&task.schedule)
    .bind(&task.payload_schema)
    .execute(tx)
    .await?;
    Ok(())
}

async fn upsert_queue(
    tx: &mut PgConnection,
    environment: &str,
    name: &str,
    limit: Option<i32>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO trigger.queues (environment_id, name, concurrency_limit) VALUES ($1, $2, $3) \
         ON CONFLICT (environment_id, name) DO UPDATE SET concurrency_limit = excluded.concurrency_limit",
    )
    .bind(environment)
    .bind(name)
    .bind(limit)
    .execute(tx)
    .await?;
    Ok(())
}

/// DEPLOYING → DEPLOYED. False when it was not DEPLOYING.
pub(crate) async fn finish(
    tx: &mut PgConnection,
    environment: &str,
    id: &str,
    digest: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.deployments SET status = 'DEPLOYED', status_at = now(), deployed_at = now(), image_digest = $3 \
         WHERE environment_id = $1 AND id = $2 AND status = 'DEPLOYING'",
    )
    .bind(environment)
    .bind(id)
    .bind(digest)
    .execute(tx)
    .await?;
    Ok(result.rows_affected() == 1)
}

#[derive(Debug)]
pub(crate) enum Promotion {
    Done,
    AlreadyCurrent,
    Older,
}

/// Makes a DEPLOYED deployment the current one, brings the declared schedules in line with it, and frees the runs that waited for it.
pub(crate) async fn promote(
    tx: &mut PgConnection,
    environment: &str,
    deployment: &Deployment,
    declared: &[Declared],
    allow_rollback: bool,
) -> Result<Promotion, sqlx::Error> {
    sqlx::query("SELECT id FROM trigger.environments WHERE id = $1 FOR UPDATE")
        .bind(environment)
        .execute(&mut *tx)
        .await?;
    let current: Option<(String, i32, i32)> = sqlx::query_as(
        "SELECT d.id, d.version_day, d.version_number FROM trigger.promotions p JOIN trigger.deployments d ON d.id = p.deployment_id \
         WHERE p.environment_id = $1",
    )
    .bind(environment)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some((id, day, number)) = current {
        if id == deployment.id {
            return Ok(Promotion::AlreadyCurrent);
        }
        if !allow_rollback && (day, number) >= (deployment.version_day, deployment.version_number) {
            return Ok(Promotion::Older);
        }
    }
    sqlx::query(
        "INSERT INTO trigger.promotions (environment_id, deployment_id) VALUES ($1, $2) \
         ON CONFLICT (environment_id) DO UPDATE SET deployment_id = excluded.deployment_id, promoted_at = now()",
    )
    .bind(environment)
    .bind(&deployment.id)
    .execute(&mut *tx)
    .await?;
    schedules::sync_declared(tx, environment, declared).await?;
    sqlx::query(
        "UPDATE trigger.runs r SET status = 'PENDING', available_at = now(), updated_at = now() \
         WHERE r.environment_id = $1 AND r.status = 'PENDING_VERSION' \
         AND trigger.resolve_task(r.environment_id, r.task, r.lock_to_version) IS NOT NULL",
    )
    .bind(environment)
    .execute(&mut *tx)
    .await?;
    Ok(Promotion::Done)
}

/// The schedules that a deployment's tasks declare for one kind of environment: task, cron, time zone.
pub(crate) async fn declared_schedules(
    db: &PgPool,
    deployment: &str,
    environment_kind: &str,
) -> Result<Vec<(String, String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT t.slug, t.schedule->>'cron', coalesce(t.schedule->>'timezone', 'UTC') FROM trigger.worker_tasks t \
         JOIN trigger.workers w ON w.id = t.worker_id WHERE w.deployment_id = $1 AND t.schedule IS NOT NULL \
         AND (t.schedule->'environments' IS NULL OR jsonb_typeof(t.schedule->'environments') <> 'array' \
              OR t.schedule->'environments' ? $2) ORDER BY t.slug",
    )
    .bind(deployment)
    .bind(environment_kind)
    .fetch_all(db)
    .await
}
