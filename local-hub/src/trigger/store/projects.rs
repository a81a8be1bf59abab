//! Projects and their environments.
use sqlx::PgPool;

use super::super::ids;
use super::super::model::{Environment, Project};
use crate::tokens;

/// What a project of the vendor's free plan has: slug, kind, prefix of its secret key.
const ENVIRONMENTS: &[(&str, &str, &str)] = &[("dev", "DEVELOPMENT", "tr_dev_"), ("prod", "PRODUCTION", "tr_prod_")];
const KEY_LEN: usize = 24;

macro_rules! select_project {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.ref, p.name, p.slug, p.created_at, o.id AS organization_id, o.title AS organization_title, \
             o.slug AS organization_slug, o.created_at AS organization_created_at \
             FROM trigger.projects p JOIN trigger.organizations o ON o.id = p.organization_id WHERE p.deleted_at IS NULL ",
            $rest
        )
    };
}

macro_rules! select_environment {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, e.slug, e.kind, e.api_key, e.paused, e.project_id, p.ref AS project_ref, p.name AS project_name, \
             p.slug AS project_slug, o.id AS organization_id, o.slug AS organization_slug, o.title AS organization_title, o.plan \
             FROM trigger.environments e JOIN trigger.projects p ON p.id = e.project_id \
             JOIN trigger.organizations o ON o.id = p.organization_id WHERE p.deleted_at IS NULL ",
            $rest
        )
    };
}

pub(crate) async fn create(db: &PgPool, organization_id: &str, name: &str) -> Result<Project, sqlx::Error> {
    let mut tx = db.begin().await?;
    let (id, reference) = (ids::cuid(), ids::project_ref());
    sqlx::query("INSERT INTO trigger.projects (id, ref, organization_id, name, slug) VALUES ($1, $2, $3, $4, $5)")
        .bind(&id)
        .bind(&reference)
        .bind(organization_id)
        .bind(name)
        .bind(ids::slug(name))
        .execute(&mut *tx)
        .await?;
    for (slug, kind, prefix) in ENVIRONMENTS {
        sqlx::query(
            "INSERT INTO trigger.environments (id, project_id, slug, kind, api_key) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(ids::cuid())
        .bind(&id)
        .bind(slug)
        .bind(kind)
        .bind(tokens::generate(prefix, KEY_LEN))
        .execute(&mut *tx)
        .await?;
    }
    let project = sqlx::query_as(select_project!("AND p.id = $1")).bind(&id).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(project)
}

/// Newest last; of one organization when it is given.
pub(crate) async fn list(db: &PgPool, organization_id: Option<&str>) -> Result<Vec<Project>, sqlx::Error> {
    sqlx::query_as(select_project!("AND ($1::text IS NULL OR p.organization_id = $1) ORDER BY p.created_at, p.id"))
        .bind(organization_id)
        .fetch_all(db)
        .await
}

pub(crate) async fn find(db: &PgPool, reference: &str) -> Result<Option<Project>, sqlx::Error> {
    sqlx::query_as(select_project!("AND p.ref = $1")).bind(reference).fetch_optional(db).await
}

/// The project's id, `None` when there is no such project.
pub(crate) async fn rename(db: &PgPool, reference: &str, name: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("UPDATE trigger.projects SET name = $2 WHERE ref = $1 AND deleted_at IS NULL RETURNING id")
        .bind(reference)
        .bind(name)
        .fetch_optional(db)
        .await
}

/// Its keys stop working and its schedules stop firing at once; runs that wait are cancelled. Returns the project's id and the
/// runs that are executing.
pub(crate) async fn delete(db: &PgPool, reference: &str) -> Result<Option<(String, Vec<String>)>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let id: Option<String> = sqlx::query_scalar(
        "UPDATE trigger.projects SET deleted_at = now() WHERE ref = $1 AND deleted_at IS NULL RETURNING id",
    )
    .bind(reference)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(id) = id else { return Ok(None) };
    let runs = sqlx::query_scalar(
        "UPDATE trigger.runs SET status = 'CANCELED', finished_at = now(), updated_at = now(), \
         lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL \
         WHERE environment_id IN (SELECT id FROM trigger.environments WHERE project_id = $1) AND finished_at IS NULL \
         RETURNING id",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some((id, runs)))
}

pub(crate) async fn environment_by_key(db: &PgPool, key: &str) -> Result<Option<Environment>, sqlx::Error> {
    sqlx::query_as(select_environment!("AND e.api_key = $1")).bind(key).fetch_optional(db).await
}

pub(crate) async fn environment_by_id(db: &PgPool, id: &str) -> Result<Option<Environment>, sqlx::Error> {
    sqlx::query_as(select_environment!("AND e.id = $1")).bind(id).fetch_optional(db).await
}

/// The old key stops working at once; the vendor gives it a day, but a local hub's key leaves the machine with nobody.
pub(crate) async fn new_key(db: &PgPool, environment: &Environment) -> Result<String, sqlx::Error> {
    let prefix = ENVIRONMENTS.iter().find(|(slug, ..)| *slug == environment.slug).map_or("tr_", |(.., prefix)| prefix);
    sqlx::query_scalar("UPDATE trigger.environments SET api_key = $2 WHERE id = $1 RETURNING api_key")
        .bind(&environment.id)
        .bind(tokens::generate(prefix, KEY_LEN))
        .fetch_one(db)
        .await
}

pub(crate) async fn pause(db: &PgPool, id: &str, paused: bool) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE trigger.environments SET paused = $2 WHERE id = $1").bind(id).bind(paused).execute(db).await?;
    Ok(())
}

pub(crate) async fn environment(db: &PgPool, reference: &str, slug: &str) -> Result<Option<Environment>, sqlx::Error> {
    sqlx::query_as(select_environment!("AND p.ref = $1 AND e.slug = $2"))
        .bind(reference)
        .bind(slug)
        .fetch_optional(db)
        .await
}
