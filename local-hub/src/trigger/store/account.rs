//! The one local account, its organization and its access token.
use sqlx::PgPool;

use super::super::ids;
use super::super::model::Organization;
use crate::tokens;

/// What `whoami` shows. `.invalid` is reserved: no such address can exist.
const EMAIL: &str = "local@psn.invalid";
const ORGANIZATION_TITLE: &str = "Local hub";
const ORGANIZATION_SLUG: &str = "local-hub";
/// Any constant will do: it keeps two first starts from both making the account.
const BOOTSTRAP_LOCK: i64 = 0x7073_6e74_7267_0001;

/// Makes the account at the first start. The token given is the only one that works from now on.
pub(crate) async fn ensure(db: &PgPool, access_token: &str) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(BOOTSTRAP_LOCK).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO trigger.users (id, email) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM trigger.users)")
        .bind(ids::cuid())
        .bind(EMAIL)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO trigger.organizations (id, slug, title) VALUES ($1, $2, $3) ON CONFLICT (slug) DO NOTHING",
    )
    .bind(ids::cuid())
    .bind(ORGANIZATION_SLUG)
    .bind(ORGANIZATION_TITLE)
    .execute(&mut *tx)
    .await?;
    let digest = tokens::digest(access_token);
    sqlx::query("DELETE FROM trigger.access_tokens WHERE digest <> $1 AND organization_id IS NULL")
        .bind(&digest[..])
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO trigger.access_tokens (digest, user_id) SELECT $1, id FROM trigger.users LIMIT 1 ON CONFLICT (digest) DO NOTHING",
    )
    .bind(&digest[..])
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// User id and address.
pub(crate) async fn by_token(db: &PgPool, digest: &[u8; 32]) -> Result<Option<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT u.id, u.email FROM trigger.access_tokens t JOIN trigger.users u ON u.id = t.user_id \
         WHERE t.digest = $1 AND t.organization_id IS NULL",
    )
    .bind(&digest[..])
    .fetch_optional(db)
    .await
}

/// The id of the organization whose token this is.
pub(crate) async fn organization_by_token(db: &PgPool, digest: &[u8; 32]) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT organization_id FROM trigger.access_tokens WHERE digest = $1 AND organization_id IS NOT NULL",
    )
    .bind(&digest[..])
    .fetch_optional(db)
    .await
}

pub(crate) async fn add_organization_token(
    db: &PgPool,
    organization_id: &str,
    digest: &[u8; 32],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO trigger.access_tokens (digest, user_id, organization_id) SELECT $1, id, $2 FROM trigger.users LIMIT 1",
    )
    .bind(&digest[..])
    .bind(organization_id)
    .execute(db)
    .await?;
    Ok(())
}

/// An organization's tokens stop working. The account's own is the daemon's.
pub(crate) async fn revoke_organization_tokens(db: &PgPool, organization_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM trigger.access_tokens WHERE organization_id = $1")
        .bind(organization_id)
        .execute(db)
        .await?;
    Ok(())
}

/// One more, as a person makes it in the vendor's dashboard. None where the slug is taken.
pub(crate) async fn add_organization(
    db: &PgPool,
    slug: &str,
    title: &str,
) -> Result<Option<Organization>, sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO trigger.organizations (id, slug, title) VALUES ($1, $2, $3) ON CONFLICT (slug) DO NOTHING \
         RETURNING id, title, slug, created_at",
    )
    .bind(ids::cuid())
    .bind(slug)
    .bind(title)
    .fetch_optional(db)
    .await
}

/// How many projects it has, and its plan.
pub(crate) async fn plan(db: &PgPool, organization_id: &str) -> Result<(String, i64), sqlx::Error> {
    sqlx::query_as(
        "SELECT plan, (SELECT count(*) FROM trigger.projects p WHERE p.organization_id = o.id AND p.deleted_at IS NULL) \
         FROM trigger.organizations o WHERE o.id = $1",
    )
    .bind(organization_id)
    .fetch_one(db)
    .await
}

pub(crate) async fn set_plan(db: &PgPool, organization_id: &str, plan: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE trigger.organizations SET plan = $2 WHERE id = $1")
        .bind(organization_id)
        .bind(plan)
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn organizations(db: &PgPool) -> Result<Vec<Organization>, sqlx::Error> {
    sqlx::query_as("SELECT id, title, slug, created_at FROM trigger.organizations ORDER BY created_at, id")
        .fetch_all(db)
        .await
}

/// By slug or id.
pub(crate) async fn organization(db: &PgPool, param: &str) -> Result<Option<Organization>, sqlx::Error> {
    sqlx::query_as("SELECT id, title, slug, created_at FROM trigger.organizations WHERE slug = $1 OR id = $1")
        .bind(param)
        .fetch_optional(db)
        .await
}
