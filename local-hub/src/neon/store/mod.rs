//! SQL on the control database: the account and its keys here, the rest by what it is about.
pub(crate) mod keys;
pub(crate) mod objects;
pub(crate) mod operations;
pub(crate) mod projects;

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use uuid::Uuid;

use super::auth::{Caller, KeyKind, Reach};
use super::ids;

/// Keeps its own table inside the service's schema, so that the services' migrations do not see each other.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("migrations/neon");
    migrator.create_schema("neon");
    migrator.dangerous_set_table_name("neon._migrations");
    migrator
});

/// Any fixed number: two daemons that start at once must not both make the account.
const ACCOUNT_LOCK: i64 = 0x6e65_6f6e_0001;

#[derive(sqlx::FromRow)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) last_name: String,
}

#[derive(sqlx::FromRow)]
pub(crate) struct Organization {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) handle: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

pub(crate) async fn migrate(db: &PgPool) -> Result<(), sqlx::Error> {
    Ok(MIGRATOR.run(db).await?)
}

/// Makes the one local account with its organisation, and lets it in with this key and no other builtin one.
pub(crate) async fn ensure_account(db: &PgPool, key_digest: &[u8; 32]) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ACCOUNT_LOCK).execute(&mut *tx).await?;
    let account: Option<Uuid> = sqlx::query_scalar("SELECT id FROM neon.accounts ORDER BY created_at, id LIMIT 1")
        .fetch_optional(&mut *tx)
        .await?;
    let account = match account {
        Some(id) => id,
        None => {
            let (id, org) = (Uuid::new_v4(), ids::organization());
            sqlx::query("INSERT INTO neon.accounts (id, email, name, last_name) VALUES ($1, 'owner@local-hub.invalid', 'Local', 'Owner')")
                .bind(id)
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "INSERT INTO neon.organizations (id, account_id, name, handle) VALUES ($1, $2, 'Local hub', $3)",
            )
            .bind(&org)
            .bind(id)
            .bind(format!("local-hub-{org}"))
            .execute(&mut *tx)
            .await?;
            id
        }
    };
    sqlx::query(
        "INSERT INTO neon.api_keys (account_id, kind, name, digest, builtin) VALUES ($1, 'personal', 'psn', $2, true)
         ON CONFLICT (builtin) WHERE builtin
         DO UPDATE SET digest = excluded.digest, created_at = now() WHERE api_keys.digest <> excluded.digest",
    )
    .bind(account)
    .bind(key_digest.as_slice())
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Key, account, whether it is an organization's, the organizations in its reach, the project that it is for.
type KeyRow = (i64, Uuid, bool, Vec<String>, Option<String>);

pub(crate) async fn caller(db: &PgPool, key_digest: &[u8; 32]) -> Result<Option<Caller>, sqlx::Error> {
    let row: Option<KeyRow> = sqlx::query_as(
        "SELECT k.id, k.account_id, k.kind = 'organization',
                ARRAY(SELECT o.id FROM neon.organizations o
                      WHERE o.account_id = k.account_id AND (k.org_id IS NULL OR o.id = k.org_id) ORDER BY o.id), k.project_id
         FROM neon.api_keys k WHERE k.digest = $1",
    )
    .bind(key_digest.as_slice())
    .fetch_optional(db)
    .await?;
    Ok(row.map(|(key_id, account_id, organization, orgs, project)| Caller {
        key_id,
        account_id,
        kind: if organization { KeyKind::Organization } else { KeyKind::Personal },
        reach: Reach { orgs, project },
    }))
}

pub(crate) async fn account(db: &PgPool, id: Uuid) -> Result<Account, sqlx::Error> {
    sqlx::query_as("SELECT id, email, name, last_name FROM neon.accounts WHERE id = $1").bind(id).fetch_one(db).await
}

pub(crate) async fn organizations(db: &PgPool, account: Uuid) -> Result<Vec<Organization>, sqlx::Error> {
    sqlx::query_as("SELECT id, name, handle, created_at, updated_at FROM neon.organizations WHERE account_id = $1 ORDER BY created_at, id")
        .bind(account)
        .fetch_all(db)
        .await
}
