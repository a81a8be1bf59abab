//! Schedules: those that callers make and those that deployments declare.
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool};

use super::super::cron::Cron;
use super::super::ids;
use super::super::model::Date;
use crate::tokens;

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Schedule {
    pub(crate) id: String,
    pub(crate) environment_id: String,
    pub(crate) environment_kind: String,
    pub(crate) kind: String,
    pub(crate) task: String,
    pub(crate) cron: String,
    pub(crate) description: String,
    pub(crate) timezone: String,
    pub(crate) deduplication_key: String,
    pub(crate) user_key: bool,
    pub(crate) external_id: Option<String>,
    pub(crate) active: bool,
    pub(crate) next_run_at: Date,
    pub(crate) last_run_at: Option<Date>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.environment_id, e.kind AS environment_kind, s.kind, s.task, s.cron, s.description, s.timezone, \
             s.deduplication_key, s.user_key, s.external_id, s.active, s.next_run_at, s.last_run_at \
             FROM trigger.schedules s JOIN trigger.environments e ON e.id = s.environment_id ",
            $rest
        )
    };
}

/// A schedule that a deployed task declares.
pub(crate) struct Declared {
    pub(crate) task: String,
    pub(crate) expression: String,
    pub(crate) timezone: String,
    pub(crate) cron: Cron,
}

pub(crate) async fn now(tx: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("SELECT now()").fetch_one(tx).await
}

/// Makes, changes and removes declared schedules of an environment so that they are exactly these.
pub(crate) async fn sync_declared(
    tx: &mut PgConnection,
    environment: &str,
    declared: &[Declared],
) -> Result<(), sqlx::Error> {
    let now = now(tx).await?;
    let tasks: Vec<&str> = declared.iter().map(|d| d.task.as_str()).collect();
    sqlx::query("DELETE FROM trigger.schedules WHERE environment_id = $1 AND kind = 'DECLARATIVE' AND task <> ALL($2)")
        .bind(environment)
        .bind(&tasks)
        .execute(&mut *tx)
        .await?;
    for schedule in declared {
        // Validated when the worker was registered, so there is a next tick.
        let Some(next) = schedule.cron.next_after(now) else {
            continue;
        };
        // A schedule that did not change keeps its next tick: a deploy just before it must not skip it.
        sqlx::query(
            "INSERT INTO trigger.schedules AS s (id, project_id, environment_id, kind, task, cron, description, timezone, \
             deduplication_key, user_key, next_run_at) \
             SELECT $1, project_id, id, 'DECLARATIVE', $3, $4, $5, $6, $7, false, $8 FROM trigger.environments WHERE id = $2 \
             ON CONFLICT (environment_id, task) WHERE kind = 'DECLARATIVE' DO UPDATE SET cron = excluded.cron, \
             description = excluded.description, timezone = excluded.timezone, \
             next_run_at = CASE WHEN s.cron = excluded.cron AND s.timezone = excluded.timezone THEN s.next_run_at \
                                ELSE excluded.next_run_at END",
        )
        .bind(ids::friendly("sched"))
        .bind(environment)
        .bind(&schedule.task)
        .bind(&schedule.expression)
        .bind(schedule.cron.describe())
        .bind(&schedule.timezone)
        .bind(tokens::generate("", 24))
        .bind(next)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

pub(crate) struct Upsert<'a> {
    pub(crate) task: &'a str,
    pub(crate) expression: &'a str,
    pub(crate) timezone: &'a str,
    pub(crate) cron: &'a Cron,
    pub(crate) external_id: Option<&'a str>,
    pub(crate) target: Target<'a>,
}

/// Which schedule an upsert means.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Key(&'a str),
    Id(&'a str),
}

pub(crate) enum Upserted {
    Done(Box<Schedule>),
    Declarative,
    /// The expression never fires.
    Never,
}

/// As at the vendor, an existing schedule keeps its task and moves to the environment of the caller.
pub(crate) async fn upsert(
    db: &PgPool,
    project: &str,
    environment: &str,
    new: Upsert<'_>,
) -> Result<Upserted, sqlx::Error> {
    let mut tx = db.begin().await?;
    let now = now(&mut tx).await?;
    let Some(next) = new.cron.next_after(now) else {
        return Ok(Upserted::Never);
    };
    let generated = tokens::generate("", 24);
    let (id, key, user_key) = match new.target {
        Target::Key(key) if !key.is_empty() => (None, key, true),
        Target::Key(_) => (None, generated.as_str(), false),
        Target::Id(id) => (Some(id), generated.as_str(), false),
    };
    let existing: Option<(String, String)> = sqlx::query_as(
        "SELECT id, kind FROM trigger.schedules WHERE project_id = $1 \
         AND CASE WHEN $2::text IS NULL THEN deduplication_key = $3 ELSE id = $2 END FOR UPDATE",
    )
    .bind(project)
    .bind(id)
    .bind(key)
    .fetch_optional(&mut *tx)
    .await?;
    let id = match existing {
        Some((_, kind)) if kind == "DECLARATIVE" => return Ok(Upserted::Declarative),
        Some((id, _)) => {
            sqlx::query(
                "UPDATE trigger.schedules SET environment_id = $2, external_id = $6, description = $5, \
                 next_run_at = CASE WHEN cron = $3 AND timezone = $4 THEN next_run_at ELSE $7 END, cron = $3, timezone = $4 \
                 WHERE id = $1",
            )
            .bind(&id)
            .bind(environment)
            .bind(new.expression)
            .bind(new.timezone)
            .bind(new.cron.describe())
            .bind(new.external_id)
            .bind(next)
            .execute(&mut *tx)
            .await?;
            id
        }
        None => {
            // Two at once with one key: the second finds the first's row and becomes its update by repeating the whole call.
            let id: Option<String> = sqlx::query_scalar(
                "INSERT INTO trigger.schedules (id, project_id, environment_id, kind, task, cron, description, timezone, \
                 deduplication_key, user_key, external_id, next_run_at) \
                 VALUES ($1, $2, $3, 'IMPERATIVE', $4, $5, $6, $7, $8, $9, $10, $11) \
                 ON CONFLICT (project_id, deduplication_key) DO NOTHING RETURNING id",
            )
            .bind(ids::friendly("sched"))
            .bind(project)
            .bind(environment)
            .bind(new.task)
            .bind(new.expression)
            .bind(new.cron.describe())
            .bind(new.timezone)
            .bind(key)
            .bind(user_key)
            .bind(new.external_id)
            .bind(next)
            .fetch_optional(&mut *tx)
            .await?;
            let Some(id) = id else {
                tx.rollback().await?;
                return Box::pin(upsert(db, project, environment, new)).await;
            };
            id
        }
    };
    let schedule = sqlx::query_as(select!("WHERE s.id = $1")).bind(&id).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(Upserted::Done(Box::new(schedule)))
}

pub(crate) async fn find(db: &PgPool, environment: &str, id: &str) -> Result<Option<Schedule>, sqlx::Error> {
    sqlx::query_as(select!("WHERE s.environment_id = $1 AND s.id = $2"))
        .bind(environment)
        .bind(id)
        .fetch_optional(db)
        .await
}

/// True when the project has a schedule of this id in another environment.
pub(crate) async fn hidden(db: &PgPool, project: &str, environment: &str, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM trigger.schedules WHERE project_id = $1 AND id = $2 AND environment_id <> $3)",
    )
    .bind(project)
    .bind(id)
    .bind(environment)
    .fetch_one(db)
    .await
}

/// One page, oldest first, and how many there are.
pub(crate) async fn list(
    db: &PgPool,
    environment: &str,
    page: i64,
    per_page: i64,
) -> Result<(Vec<Schedule>, i64), sqlx::Error> {
    let count = sqlx::query_scalar("SELECT count(*) FROM trigger.schedules WHERE environment_id = $1")
        .bind(environment)
        .fetch_one(db)
        .await?;
    let schedules =
        sqlx::query_as(select!("WHERE s.environment_id = $1 ORDER BY s.created_at, s.id LIMIT $2 OFFSET $3"))
            .bind(environment)
            .bind(per_page)
            .bind((page - 1).saturating_mul(per_page))
            .fetch_all(db)
            .await?;
    Ok((schedules, count))
}

pub(crate) async fn delete(db: &PgPool, environment: &str, id: &str) -> Result<bool, sqlx::Error> {
    let result = sqlx::query("DELETE FROM trigger.schedules WHERE environment_id = $1 AND id = $2")
        .bind(environment)
        .bind(id)
        .execute(db)
        .await?;
    Ok(result.rows_affected() == 1)
}

/// Ticks that passed while a schedule was inactive are not made up for.
pub(crate) async fn set_active(db: &PgPool, id: &str, active: bool, cron: &Cron) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    let next = cron.next_after(now(&mut tx).await?);
    sqlx::query(
        "UPDATE trigger.schedules SET next_run_at = CASE WHEN active OR NOT $2 THEN next_run_at ELSE coalesce($3, next_run_at) END, \
         active = $2 WHERE id = $1",
    )
    .bind(id)
    .bind(active)
    .bind(next)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// The most overdue active schedule, locked until `tx` ends.
pub(crate) async fn lock_due(tx: &mut PgConnection) -> Result<Option<Schedule>, sqlx::Error> {
    sqlx::query_as(select!(
        "JOIN trigger.projects p ON p.id = s.project_id AND p.deleted_at IS NULL \
         WHERE s.active AND s.next_run_at <= now() ORDER BY s.next_run_at LIMIT 1 FOR UPDATE OF s SKIP LOCKED"
    ))
    .fetch_optional(tx)
    .await
}

/// Moves a schedule on. `ran` is the tick that was turned into a run; a schedule without a next tick becomes inactive.
pub(crate) async fn advance(
    tx: &mut PgConnection,
    id: &str,
    ran: Option<DateTime<Utc>>,
    next: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE trigger.schedules SET last_run_at = coalesce($2, last_run_at), next_run_at = coalesce($3, next_run_at), \
         active = active AND $3::timestamptz IS NOT NULL WHERE id = $1",
    )
    .bind(id)
    .bind(ran)
    .bind(next)
    .execute(tx)
    .await?;
    Ok(())
}

/// Where the newest registration of a task in a project came from: `STANDARD` or `SCHEDULED`.
pub(crate) async fn task_source(db: &PgPool, project: &str, task: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT t.trigger_source FROM trigger.worker_tasks t JOIN trigger.workers w ON w.id = t.worker_id \
         JOIN trigger.environments e ON e.id = w.environment_id WHERE e.project_id = $1 AND t.slug = $2 \
         ORDER BY t.created_at DESC LIMIT 1",
    )
    .bind(project)
    .bind(task)
    .fetch_optional(db)
    .await
}
