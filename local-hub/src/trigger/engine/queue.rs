//! The queue: runs are claimed under a lease, kept by heartbeats, and given back with a fencing token. Whoever lost the lease changes
//! nothing.
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::super::status::RunStatus;
use super::retry::Problem;

/// How long a run is held without a heartbeat. Several heartbeats may fail before another engine takes it.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
/// A run under which the engine died this often is the likely cause of it, and is not started again.
const MAX_STALLS: i32 = 3;
/// Ready runs looked at for one claim.
const WINDOW: i64 = 200;
/// Rows moved by one statement of the housekeeping.
const BATCH: i64 = 500;
/// Taken by `trigger.claim`: keeps two engines from both counting a queue's running runs before either has claimed one.
const CLAIM_LOCK: i64 = 0x7073_6e74_7267_0002;
/// The class of the session-level advisory lock that an engine holds while it lives; the second half is its number.
pub(crate) const PRESENCE_LOCK_CLASS: i32 = 0x7073_6e33;

/// One attempt to make. Holds the environment's key, so it has no Debug.
#[derive(FromRow)]
pub(crate) struct Claimed {
    pub(crate) id: String,
    pub(crate) lease_token: Uuid,
    pub(crate) task: String,
    pub(crate) file_path: String,
    pub(crate) payload: String,
    pub(crate) payload_type: String,
    pub(crate) scheduled_at: Option<DateTime<Utc>>,
    pub(crate) attempt: i32,
    pub(crate) stalls: i32,
    pub(crate) max_attempts: Option<i32>,
    pub(crate) max_duration: Option<f64>,
    pub(crate) retry: Option<Value>,
    pub(crate) api_key: String,
    pub(crate) project_ref: String,
}

/// Who asks for runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claimant<'a> {
    /// An engine in this process, by the number of its presence lock.
    Engine(i32),
    /// A development worker, which fetches the runs of its environment. Only its heartbeats show that it lives.
    Worker { environment: &'a str },
}

/// Up to `slots` ready runs, the longest waiting first, within the limits of their queues. A limit counts for each concurrency key
/// by itself, as at the vendor.
pub(crate) async fn claim(db: &PgPool, claimant: Claimant<'_>, slots: usize) -> Result<Vec<Claimed>, sqlx::Error> {
    let (owner, environment) = match claimant {
        Claimant::Engine(number) => (Some(number), None),
        Claimant::Worker { environment } => (None, Some(environment)),
    };
    // In one function: a claim is one round trip, and nobody else makes one in between.
    sqlx::query_as("SELECT * FROM trigger.claim($1, $2, $3, $4, $5, $6)")
        .bind(CLAIM_LOCK)
        .bind(owner)
        .bind(i64::try_from(slots).unwrap_or(i64::MAX))
        .bind(WINDOW)
        .bind(LEASE.as_secs_f64())
        .bind(environment)
        .fetch_all(db)
        .await
}

/// What a claimed run is called in every later statement.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) run: String,
    pub(crate) token: Uuid,
}

/// DEQUEUED → EXECUTING, and the variables of the run's environment; none when the lease is gone.
pub(crate) async fn begin(db: &PgPool, lease: &Lease) -> Result<Option<BTreeMap<String, String>>, sqlx::Error> {
    // As with a claim, nobody has to wait for the disk.
    let rows: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
        "WITH begun AS ( \
             UPDATE trigger.runs SET status = 'EXECUTING', started_at = coalesce(started_at, now()), attempt_started_at = now(), \
             updated_at = now(), lease_expires_at = now() + make_interval(secs => $3) WHERE id = $1 AND lease_token = $2 \
             RETURNING environment_id, set_config('synchronous_commit', 'off', true) \
         ) SELECT v.name, v.value FROM begun LEFT JOIN trigger.env_vars v ON v.environment_id = begun.environment_id",
    )
    .bind(&lease.run)
    .bind(lease.token)
    .bind(LEASE.as_secs_f64())
    .fetch_all(db)
    .await?;
    // An environment without variables is one row without a name.
    Ok((!rows.is_empty()).then(|| rows.into_iter().filter_map(|(name, value)| Some((name?, value?))).collect()))
}

pub(crate) async fn heartbeat(db: &PgPool, lease: &Lease) -> Result<bool, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.runs SET lease_expires_at = now() + make_interval(secs => $3) WHERE id = $1 AND lease_token = $2",
    )
    .bind(&lease.run)
    .bind(lease.token)
    .bind(LEASE.as_secs_f64())
    .execute(db)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// How an attempt leaves its run.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    Completed {
        output: String,
    },
    Failed {
        status: RunStatus,
        error: Problem,
    },
    Again {
        after: Duration,
        error: Problem,
    },
    /// The engine stops: the attempt does not count.
    Released,
}

/// Gives the lease back. False when it was gone: then nothing is changed.
pub(crate) async fn end(db: &PgPool, lease: &Lease, ending: &Ending) -> Result<bool, sqlx::Error> {
    Ok(!end_all(db, &[(lease, ending)]).await?.is_empty())
}

/// The same for several in one statement, and so with one wait for the disk. Answers the leases that were not gone.
pub(crate) async fn end_all(db: &PgPool, ends: &[(&Lease, &Ending)]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let mut rows = Ends::default();
    for (lease, ending) in ends {
        rows.add(lease, ending);
    }
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE trigger.runs r SET status = e.status, output = e.output, error = e.error, \
         available_at = CASE WHEN e.after IS NULL THEN available_at ELSE now() + make_interval(secs => e.after) END, \
         finished_at = CASE WHEN e.after IS NULL THEN now() END, attempt = attempt - e.counted, updated_at = now(), \
         duration_ms = duration_ms + (extract(epoch FROM now() - attempt_started_at) * 1000)::bigint, \
         lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL \
         FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::float8[], $7::integer[]) \
             AS e(run, token, status, output, error, after, counted) \
         WHERE r.id = e.run AND r.lease_token = e.token RETURNING e.token",
    )
    .bind(rows.run)
    .bind(rows.token)
    .bind(rows.status)
    .bind(rows.output)
    .bind(rows.error)
    .bind(rows.after)
    .bind(rows.counted)
    .fetch_all(db)
    .await?;
    Ok(ended.into_iter().collect())
}

/// Endings as the columns of a statement.
#[derive(Default)]
struct Ends<'a> {
    run: Vec<&'a str>,
    token: Vec<Uuid>,
    status: Vec<&'static str>,
    output: Vec<Option<&'a str>>,
    error: Vec<Option<Value>>,
    /// Seconds until it is tried again; none where it is not.
    after: Vec<Option<f64>>,
    /// Attempts that do not count.
    counted: Vec<i32>,
}

impl<'a> Ends<'a> {
    fn add(&mut self, lease: &'a Lease, ending: &'a Ending) {
        let (status, output, error, after, counted) = match ending {
            Ending::Completed { output } => (RunStatus::CompletedSuccessfully, Some(output.as_str()), None, None, 0),
            Ending::Failed { status, error } => (*status, None, Some(error), None, 0),
            Ending::Again { after, error } => {
                (RunStatus::RetryingAfterFailure, None, Some(error), Some(after.as_secs_f64()), 0)
            }
            Ending::Released => (RunStatus::Pending, None, None, Some(0.0), 1),
        };
        self.run.push(&lease.run);
        self.token.push(lease.token);
        self.status.push(status.name());
        self.output.push(output);
        self.error.push(error.map(|e| serde_json::json!(e)));
        self.after.push(after);
        self.counted.push(counted);
    }
}

/// Puts runs back whose lease ran out, and without waiting for that those of engines that live no more: an engine holds an advisory
/// lock while it lives, and Postgres drops it with the engine's connection.
pub(crate) async fn recover(db: &PgPool) -> Result<u64, sqlx::Error> {
    let result = sqlx::query(
        "WITH lost AS MATERIALIZED ( \
             SELECT id FROM trigger.runs r WHERE lease_token IS NOT NULL \
             AND (lease_expires_at < now() OR lease_owner IS NOT NULL AND NOT EXISTS ( \
                 SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND l.classid::bigint = $1 AND l.objid::bigint = r.lease_owner)) \
             ORDER BY seq LIMIT $3 FOR UPDATE SKIP LOCKED \
         ) \
         UPDATE trigger.runs r SET \
             status = CASE WHEN stalls < $2 THEN 'PENDING' ELSE 'SYSTEM_FAILURE' END, \
             finished_at = CASE WHEN stalls < $2 THEN NULL ELSE now() END, \
             error = jsonb_build_object('name', 'TASK_RUN_STALLED_EXECUTING', 'message', \
                 'The engine stopped while the run was executing'), \
             stalls = stalls + 1, available_at = now(), updated_at = now(), \
             lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL \
         FROM lost WHERE r.id = lost.id",
    )
    .bind(i64::from(PRESENCE_LOCK_CLASS))
    .bind(MAX_STALLS)
    .bind(BATCH)
    .execute(db)
    .await?;
    Ok(result.rows_affected())
}

/// Puts delayed runs into their queues when their time has come. A time to live counts from here.
pub(crate) async fn promote_delayed(db: &PgPool) -> Result<u64, sqlx::Error> {
    let result = sqlx::query(
        "WITH due AS MATERIALIZED ( \
             SELECT id FROM trigger.runs WHERE status = 'DELAYED' AND delay_until <= now() \
             ORDER BY delay_until LIMIT $1 FOR UPDATE SKIP LOCKED \
         ) \
         UPDATE trigger.runs r SET status = 'PENDING', available_at = now(), updated_at = now(), \
             expires_at = now() + ttl_ms * interval '1 millisecond' \
         FROM due WHERE r.id = due.id",
    )
    .bind(BATCH)
    .execute(db)
    .await?;
    Ok(result.rows_affected())
}

/// Ends runs that were not started within their time to live.
pub(crate) async fn expire(db: &PgPool) -> Result<u64, sqlx::Error> {
    let result = sqlx::query(
        "UPDATE trigger.runs SET status = 'EXPIRED', expired_at = now(), finished_at = now(), updated_at = now(), \
         error = jsonb_build_object('name', 'RUN_EXPIRED', 'message', \
             format('Run expired because the TTL (%s) was reached', ttl)) \
         WHERE status = 'PENDING' AND attempt = 0 AND expires_at <= now()",
    )
    .execute(db)
    .await?;
    Ok(result.rows_affected())
}

/// Sets runs aside whose task is not deployed; a promotion takes them up again.
pub(crate) async fn park(db: &PgPool) -> Result<u64, sqlx::Error> {
    let result = sqlx::query(
        "WITH current AS MATERIALIZED (SELECT * FROM trigger.current_tasks) \
         UPDATE trigger.runs r SET status = 'PENDING_VERSION', updated_at = now() \
         WHERE status = 'PENDING' AND available_at <= now() AND worker_task_id IS NULL AND CASE WHEN lock_to_version IS NULL \
             THEN NOT EXISTS (SELECT FROM current c WHERE c.environment_id = r.environment_id AND c.task = r.task) \
             ELSE trigger.resolve_task(environment_id, task, lock_to_version) IS NULL END",
    )
    .execute(db)
    .await?;
    Ok(result.rows_affected())
}

/// How long until something is due by itself. What is ready already but has no free slot or place in its queue is not counted: the
/// end of a run wakes the engine for it.
pub(crate) async fn until_due(db: &PgPool) -> Result<Option<Duration>, sqlx::Error> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(due) - clock_timestamp())::float8 FROM ( \
             SELECT min(delay_until) AS due FROM trigger.runs WHERE status = 'DELAYED' \
             UNION ALL SELECT min(available_at) FROM trigger.runs \
                 WHERE status IN ('PENDING', 'RETRYING_AFTER_FAILURE') AND available_at > now() \
             UNION ALL SELECT min(expires_at) FROM trigger.runs WHERE status = 'PENDING' AND attempt = 0 AND expires_at > now() \
             UNION ALL SELECT min(s.next_run_at) FROM trigger.schedules s \
                 JOIN trigger.projects p ON p.id = s.project_id AND p.deleted_at IS NULL WHERE s.active \
         ) AS times",
    )
    .fetch_one(db)
    .await?;
    Ok(seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or_default()))
}
