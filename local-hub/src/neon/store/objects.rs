//! Roles and databases. `pending` is the part of the truth that the cluster does not know yet.
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

#[derive(Clone, sqlx::FromRow)]
pub(crate) struct RoleRow {
    pub(crate) id: i64,
    pub(crate) branch_id: String,
    pub(crate) name: String,
    pub(crate) no_login: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

#[derive(Clone, sqlx::FromRow)]
pub(crate) struct DatabaseRow {
    pub(crate) id: i64,
    pub(crate) branch_id: String,
    pub(crate) name: String,
    pub(crate) owner_name: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// What a role's password is in the cluster, and the password itself where the project keeps it. No Debug: it is a secret.
pub(crate) struct Secret {
    pub(crate) password: Option<String>,
    pub(crate) verifier: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Create,
    Password,
    Drop,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Change::Create => "create",
            Change::Password => "password",
            Change::Drop => "drop",
        }
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct PendingRole {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) no_login: bool,
    pub(crate) verifier: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct PendingDatabase {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) owner_name: String,
}

pub(crate) async fn roles(db: impl PgExecutor<'_>, branch: &str) -> Result<Vec<RoleRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM neon.roles WHERE branch_id = $1 AND pending IS DISTINCT FROM 'drop' ORDER BY id")
        .bind(branch)
        .fetch_all(db)
        .await
}

pub(crate) async fn role(db: impl PgExecutor<'_>, branch: &str, name: &str) -> Result<Option<RoleRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM neon.roles WHERE branch_id = $1 AND name = $2 AND pending IS DISTINCT FROM 'drop'")
        .bind(branch)
        .bind(name)
        .fetch_optional(db)
        .await
}

/// `None` when a role of that name is there already, be it on its way out.
pub(crate) async fn insert_role(
    tx: &mut PgConnection,
    branch: &str,
    name: &str,
    secret: Option<&Secret>,
) -> Result<Option<RoleRow>, sqlx::Error> {
    let row: Option<RoleRow> = sqlx::query_as(
        "INSERT INTO neon.roles (branch_id, name, no_login, pending) VALUES ($1, $2, $3, 'create')
         ON CONFLICT (branch_id, name) DO NOTHING RETURNING *",
    )
    .bind(branch)
    .bind(name)
    .bind(secret.is_none())
    .fetch_optional(&mut *tx)
    .await?;
    if let (Some(row), Some(secret)) = (&row, secret) {
        set_secret(tx, row.id, secret).await?;
    }
    Ok(row)
}

async fn set_secret(tx: &mut PgConnection, role: i64, secret: &Secret) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO neon.role_passwords (role_id, password, verifier) VALUES ($1, $2, $3)
         ON CONFLICT (role_id) DO UPDATE SET password = excluded.password, verifier = excluded.verifier",
    )
    .bind(role)
    .bind(&secret.password)
    .bind(&secret.verifier)
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn reset_password(tx: &mut PgConnection, role: i64, secret: &Secret) -> Result<RoleRow, sqlx::Error> {
    set_secret(tx, role, secret).await?;
    // A role that is not in the cluster yet stays to be created; its new password goes with it.
    sqlx::query_as(
        "UPDATE neon.roles SET pending = coalesce(pending, $2), updated_at = now() WHERE id = $1 RETURNING *",
    )
    .bind(role)
    .bind(Change::Password.as_str())
    .fetch_one(tx)
    .await
}

pub(crate) async fn drop_role(tx: &mut PgConnection, role: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.roles SET pending = $2, updated_at = now() WHERE id = $1")
        .bind(role)
        .bind(Change::Drop.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// The password, where it is kept.
pub(crate) async fn password(db: impl PgExecutor<'_>, role: i64) -> Result<Option<String>, sqlx::Error> {
    let row: Option<Option<String>> = sqlx::query_scalar("SELECT password FROM neon.role_passwords WHERE role_id = $1")
        .bind(role)
        .fetch_optional(db)
        .await?;
    Ok(row.flatten())
}

pub(crate) async fn databases(db: impl PgExecutor<'_>, branch: &str) -> Result<Vec<DatabaseRow>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM neon.databases WHERE branch_id = $1 AND pending IS DISTINCT FROM 'drop' ORDER BY id")
        .bind(branch)
        .fetch_all(db)
        .await
}

pub(crate) async fn database(
    db: impl PgExecutor<'_>,
    branch: &str,
    name: &str,
) -> Result<Option<DatabaseRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT * FROM neon.databases WHERE branch_id = $1 AND name = $2 AND pending IS DISTINCT FROM 'drop'",
    )
    .bind(branch)
    .bind(name)
    .fetch_optional(db)
    .await
}

/// `None` when a database of that name is there already, be it on its way out.
pub(crate) async fn insert_database(
    tx: &mut PgConnection,
    branch: &str,
    name: &str,
    owner: &str,
) -> Result<Option<DatabaseRow>, sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO neon.databases (branch_id, name, owner_name, pending) VALUES ($1, $2, $3, 'create')
         ON CONFLICT (branch_id, name) DO NOTHING RETURNING *",
    )
    .bind(branch)
    .bind(name)
    .bind(owner)
    .fetch_optional(tx)
    .await
}

pub(crate) async fn drop_database(tx: &mut PgConnection, database: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.databases SET pending = $2, updated_at = now() WHERE id = $1")
        .bind(database)
        .bind(Change::Drop.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Names of the databases that a role owns as far as the API knows.
pub(crate) async fn databases_of(
    db: impl PgExecutor<'_>,
    branch: &str,
    owner: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT name FROM neon.databases WHERE branch_id = $1 AND owner_name = $2 AND pending IS DISTINCT FROM 'drop' ORDER BY id",
    )
    .bind(branch)
    .bind(owner)
    .fetch_all(db)
    .await
}

pub(crate) async fn pending_roles(
    db: &mut PgConnection,
    branch: &str,
    change: Change,
) -> Result<Vec<PendingRole>, sqlx::Error> {
    sqlx::query_as(
        "SELECT r.id, r.name, r.no_login, s.verifier FROM neon.roles r LEFT JOIN neon.role_passwords s ON s.role_id = r.id
         WHERE r.branch_id = $1 AND r.pending = $2 ORDER BY r.id",
    )
    .bind(branch)
    .bind(change.as_str())
    .fetch_all(db)
    .await
}

pub(crate) async fn pending_databases(
    db: &mut PgConnection,
    branch: &str,
    change: Change,
) -> Result<Vec<PendingDatabase>, sqlx::Error> {
    sqlx::query_as("SELECT id, name, owner_name FROM neon.databases WHERE branch_id = $1 AND pending = $2 ORDER BY id")
        .bind(branch)
        .bind(change.as_str())
        .fetch_all(db)
        .await
}

pub(crate) async fn role_applied(db: &mut PgConnection, role: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.roles SET pending = NULL WHERE id = $1").bind(role).execute(db).await?;
    Ok(())
}

pub(crate) async fn role_dropped(db: &mut PgConnection, role: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM neon.roles WHERE id = $1").bind(role).execute(db).await?;
    Ok(())
}

pub(crate) async fn database_applied(db: &mut PgConnection, database: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE neon.databases SET pending = NULL WHERE id = $1").bind(database).execute(db).await?;
    Ok(())
}

pub(crate) async fn database_dropped(db: &mut PgConnection, database: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM neon.databases WHERE id = $1").bind(database).execute(db).await?;
    Ok(())
}
