//! Projects with their branch and endpoint.
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::neon::auth::Reach;
use crate::neon::error::ApiError;

/// How long a deleted project can be had back, as on Neon.
const RECOVERY_DAYS: i64 = 7;

#[derive(Clone, sqlx::FromRow)]
pub(crate) struct ProjectRow {
    pub(crate) seq: i64,
    pub(crate) id: String,
    pub(crate) org_id: String,
    pub(crate) org_name: String,
    pub(crate) name: String,
    pub(crate) region_id: String,
    pub(crate) pg_version: i32,
    pub(crate) store_passwords: bool,
    pub(crate) history_retention_seconds: i32,
    pub(crate) autoscaling_limit_min_cu: f64,
    pub(crate) autoscaling_limit_max_cu: f64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) deleted_at: Option<DateTime<Utc>>,
    pub(crate) recoverable_until: Option<DateTime<Utc>>,
}

#[derive(Clone, sqlx::FromRow)]
pub(crate) struct BranchRow {
    pub(crate) id: String,
    pub(crate) project_id: String,
    pub(crate) name: String,
    pub(crate) is_default: bool,
    pub(crate) ready: bool,
    pub(crate) state_changed_at: DateTime<Utc>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Clone, sqlx::FromRow)]
pub(crate) struct EndpointRow {
    pub(crate) id: String,
    pub(crate) project_id: String,
    pub(crate) branch_id: String,
    pub(crate) region_id: String,
    pub(crate) autoscaling_limit_min_cu: f64,
    pub(crate) autoscaling_limit_max_cu: f64,
    pub(crate) port: Option<i32>,
    pub(crate) state: String,
    /// The action that will change `state`, when one is under way.
    pub(crate) pending: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) suspended_at: Option<DateTime<Utc>>,
}

pub(crate) struct NewProject {
    pub(crate) id: String,
    pub(crate) org_id: String,
    pub(crate) name: String,
    pub(crate) region_id: String,
    pub(crate) pg_version: i32,
    pub(crate) store_passwords: bool,
    pub(crate) history_retention_seconds: i32,
    pub(crate) compute: ComputeLimits,
}

#[derive(Clone, Copy)]
pub(crate) struct ComputeLimits {
    pub(crate) min_cu: f64,
    pub(crate) max_cu: f64,
}

/// Which projects a list is about.
pub(crate) struct Listing<'a> {
    pub(crate) org_id: &'a str,
    /// The only one that may be in it.
    pub(crate) project: Option<&'a str>,
    pub(crate) search: Option<&'a str>,
    pub(crate) recoverable: bool,
    pub(crate) after: Option<i64>,
    pub(crate) limit: i64,
}

macro_rules! select_projects {
    ($rest:literal) => {
        concat!(
            "SELECT p.*, o.name AS org_name FROM neon.projects p JOIN neon.organizations o ON o.id = p.org_id ",
            $rest
        )
    };
}

macro_rules! select_branches {
    ($rest:literal) => {
        concat!("SELECT b.* FROM neon.branches b ", $rest)
    };
}

macro_rules! select_endpoints {
    ($rest:literal) => {
        concat!(
            "SELECT e.*, p.region_id, p.autoscaling_limit_min_cu, p.autoscaling_limit_max_cu,
                    (SELECT o.action FROM neon.operations o
                     WHERE o.project_id = e.project_id AND o.status IN ('scheduling', 'running')
                       AND o.action IN ('start_compute', 'suspend_compute')
                     ORDER BY o.seq DESC LIMIT 1) AS pending
             FROM neon.endpoints e JOIN neon.projects p ON p.id = e.project_id ",
            $rest
        )
    };
}

pub(crate) async fn list(db: &PgPool, listing: &Listing<'_>) -> Result<Vec<ProjectRow>, sqlx::Error> {
    sqlx::query_as(select_projects!(
        "WHERE p.org_id = $1 AND NOT p.abandoned AND p.seq > $2
           AND (strpos(lower(p.name), lower($3)) > 0 OR strpos(p.id, lower($3)) > 0)
           AND CASE WHEN $4 THEN p.recoverable_until > now() ELSE p.deleted_at IS NULL END
           AND ($6::text IS NULL OR p.id = $6)
         ORDER BY p.seq LIMIT $5"
    ))
    .bind(listing.org_id)
    .bind(listing.after.unwrap_or(0))
    .bind(listing.search.unwrap_or(""))
    .bind(listing.recoverable)
    .bind(listing.limit)
    .bind(listing.project)
    .fetch_all(db)
    .await
}

/// A project that the caller may see and that is not deleted.
pub(crate) async fn get(db: impl PgExecutor<'_>, reach: &Reach, id: &str) -> Result<ProjectRow, ApiError> {
    sqlx::query_as(select_projects!(
        "WHERE p.id = $1 AND p.org_id = ANY($2) AND ($3::text IS NULL OR p.id = $3) AND NOT p.abandoned AND p.deleted_at IS NULL"
    ))
    .bind(id)
    .bind(&reach.orgs)
    .bind(&reach.project)
    .fetch_optional(db)
    .await?
    .ok_or_else(|| ApiError::not_found("project"))
}

/// The same, held against every other change until the transaction ends. 423 while an operation is under way.
pub(crate) async fn lock(tx: &mut PgConnection, reach: &Reach, id: &str) -> Result<ProjectRow, ApiError> {
    let project = sqlx::query_as(select_projects!(
        "WHERE p.id = $1 AND p.org_id = ANY($2) AND ($3::text IS NULL OR p.id = $3) AND NOT p.abandoned AND p.deleted_at IS NULL FOR UPDATE OF p"
    ))
    .bind(id)
    .bind(&reach.orgs)
    .bind(&reach.project)
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| ApiError::not_found("project"))?;
    refuse_while_operating(tx, id).await?;
    Ok(project)
}

/// A deleted project that can still be had back, held like [`lock`].
pub(crate) async fn lock_deleted(tx: &mut PgConnection, reach: &Reach, id: &str) -> Result<ProjectRow, ApiError> {
    let project = sqlx::query_as(select_projects!(
        "WHERE p.id = $1 AND p.org_id = ANY($2) AND ($3::text IS NULL OR p.id = $3) AND NOT p.abandoned AND p.recoverable_until > now() FOR UPDATE OF p"
    ))
    .bind(id)
    .bind(&reach.orgs)
    .bind(&reach.project)
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(|| ApiError::not_found("project"))?;
    refuse_while_operating(tx, id).await?;
    Ok(project)
}

async fn refuse_while_operating(tx: &mut PgConnection, id: &str) -> Result<(), ApiError> {
    if is_operating(tx, id).await? { Err(ApiError::locked()) } else { Ok(()) }
}

async fn is_operating(tx: &mut PgConnection, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM neon.operations WHERE project_id = $1 AND status IN ('scheduling', 'running'))",
    )
    .bind(id)
    .fetch_one(tx)
    .await
}

/// Whether there is such a project, for anybody.
pub(crate) async fn is_there(db: impl PgExecutor<'_>, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM neon.projects WHERE id = $1 AND NOT abandoned AND deleted_at IS NULL)",
    )
    .bind(id)
    .fetch_one(db)
    .await
}

/// Holds a project like [`lock`], for the daemon itself. Says whether no operation is under way.
pub(crate) async fn lock_idle(tx: &mut PgConnection, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query("SELECT FROM neon.projects WHERE id = $1 FOR UPDATE").bind(id).execute(&mut *tx).await?;
    Ok(!is_operating(tx, id).await?)
}

pub(crate) async fn insert(tx: &mut PgConnection, new: &NewProject) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO neon.projects (id, org_id, name, region_id, pg_version, store_passwords, history_retention_seconds,
                                    autoscaling_limit_min_cu, autoscaling_limit_max_cu)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&new.id)
    .bind(&new.org_id)
    .bind(&new.name)
    .bind(&new.region_id)
    .bind(new.pg_version)
    .bind(new.store_passwords)
    .bind(new.history_retention_seconds)
    .bind(new.compute.min_cu)
    .bind(new.compute.max_cu)
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn insert_branch(
    tx: &mut PgConnection,
    project: &str,
    id: &str,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO neon.branches (id, project_id, name, is_default) VALUES ($1, $2, $3, true)")
        .bind(id)
        .bind(project)
        .bind(name)
        .execute(tx)
        .await?;
    Ok(())
}

pub(crate) async fn insert_endpoint(
    tx: &mut PgConnection,
    project: &str,
    branch: &str,
    id: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO neon.endpoints (id, project_id, branch_id) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(project)
        .bind(branch)
        .execute(tx)
        .await?;
    Ok(())
}

/// Writes back what PATCH may change.
pub(crate) async fn update(tx: &mut PgConnection, project: &ProjectRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.projects SET name = $2, history_retention_seconds = $3, autoscaling_limit_min_cu = $4,
                autoscaling_limit_max_cu = $5, updated_at = now() WHERE id = $1",
    )
    .bind(&project.id)
    .bind(&project.name)
    .bind(project.history_retention_seconds)
    .bind(project.autoscaling_limit_min_cu)
    .bind(project.autoscaling_limit_max_cu)
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn mark_deleted(tx: &mut PgConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.projects SET deleted_at = now(), recoverable_until = now() + $2, updated_at = now() WHERE id = $1",
    )
    .bind(id)
    .bind(TimeDelta::days(RECOVERY_DAYS))
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn mark_recovered(tx: &mut PgConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.projects SET deleted_at = NULL, recoverable_until = NULL, updated_at = now() WHERE id = $1",
    )
    .bind(id)
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes a project out of sight for good. Its cluster goes next, its rows last ([`erase`]).
pub(crate) async fn abandon(db: impl PgExecutor<'_>, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.projects SET abandoned = true WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

pub(crate) async fn erase(db: impl PgExecutor<'_>, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM neon.projects WHERE id = $1 AND abandoned").bind(id).execute(db).await?;
    Ok(())
}

/// Abandons what can no longer be recovered, and names everything that is abandoned.
pub(crate) async fn expire(db: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query("UPDATE neon.projects SET abandoned = true WHERE recoverable_until <= now()").execute(db).await?;
    sqlx::query_scalar("SELECT id FROM neon.projects WHERE abandoned ORDER BY seq").fetch_all(db).await
}

/// Projects whose endpoint has to run, or whose operations were cut off.
pub(crate) async fn to_resume(db: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT p.id FROM neon.projects p
         WHERE NOT p.abandoned
           AND (EXISTS (SELECT FROM neon.operations o WHERE o.project_id = p.id AND o.status IN ('scheduling', 'running'))
                OR p.deleted_at IS NULL AND EXISTS (SELECT FROM neon.endpoints e WHERE e.project_id = p.id AND e.should_run))
         ORDER BY p.seq",
    )
    .fetch_all(db)
    .await
}

pub(crate) async fn branches(db: impl PgExecutor<'_>, project: &str) -> Result<Vec<BranchRow>, sqlx::Error> {
    sqlx::query_as(select_branches!("WHERE b.project_id = $1 ORDER BY b.created_at, b.id"))
        .bind(project)
        .fetch_all(db)
        .await
}

pub(crate) async fn branch(db: impl PgExecutor<'_>, project: &str, id: &str) -> Result<BranchRow, ApiError> {
    sqlx::query_as(select_branches!("WHERE b.project_id = $1 AND b.id = $2"))
        .bind(project)
        .bind(id)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| ApiError::not_found("branch"))
}

pub(crate) async fn default_branch(db: impl PgExecutor<'_>, project: &str) -> Result<BranchRow, ApiError> {
    sqlx::query_as(select_branches!("WHERE b.project_id = $1 AND b.is_default"))
        .bind(project)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| ApiError::not_found("branch"))
}

pub(crate) async fn endpoints(db: impl PgExecutor<'_>, project: &str) -> Result<Vec<EndpointRow>, sqlx::Error> {
    sqlx::query_as(select_endpoints!("WHERE e.project_id = $1 ORDER BY e.created_at, e.id"))
        .bind(project)
        .fetch_all(db)
        .await
}

pub(crate) async fn endpoint(db: impl PgExecutor<'_>, project: &str, id: &str) -> Result<EndpointRow, ApiError> {
    sqlx::query_as(select_endpoints!("WHERE e.project_id = $1 AND e.id = $2"))
        .bind(project)
        .bind(id)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| ApiError::not_found("endpoint"))
}

/// The endpoint that a branch is reached through.
pub(crate) async fn endpoint_of_branch(db: impl PgExecutor<'_>, branch: &str) -> Result<EndpointRow, ApiError> {
    sqlx::query_as(select_endpoints!("WHERE e.branch_id = $1 ORDER BY e.created_at, e.id LIMIT 1"))
        .bind(branch)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| ApiError::not_found("endpoint"))
}

/// The cluster exists: from now on the project says the truth about it.
pub(crate) async fn cluster_created(
    db: &mut PgConnection,
    project: &str,
    port: u16,
    major: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.projects SET pg_version = $2, updated_at = now() WHERE id = $1 AND pg_version <> $2")
        .bind(project)
        .bind(i32::try_from(major).unwrap_or(i32::MAX))
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE neon.branches SET ready = true, state_changed_at = now(), updated_at = now() WHERE project_id = $1 AND NOT ready")
        .bind(project)
        .execute(&mut *db)
        .await?;
    set_port(db, project, port).await
}

async fn set_port(db: &mut PgConnection, project: &str, port: u16) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.endpoints SET port = $2, updated_at = now() WHERE project_id = $1 AND port IS DISTINCT FROM $2",
    )
    .bind(project)
    .bind(i32::from(port))
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn endpoint_active(db: &mut PgConnection, project: &str, port: u16) -> Result<(), sqlx::Error> {
    set_port(&mut *db, project, port).await?;
    sqlx::query(
        "UPDATE neon.endpoints SET state = 'active', started_at = now(), suspended_at = NULL, updated_at = now() WHERE project_id = $1",
    )
    .bind(project)
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn endpoint_idle(db: &mut PgConnection, project: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE neon.endpoints SET state = 'idle', suspended_at = now(), updated_at = now() WHERE project_id = $1",
    )
    .bind(project)
    .execute(db)
    .await?;
    Ok(())
}
