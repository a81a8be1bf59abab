//! The service's tables. Every due time is compared with the control database's clock, never with this process's.
pub(crate) mod account;
pub(crate) mod artifacts;
pub(crate) mod batches;
pub(crate) mod deployments;
pub(crate) mod envvars;
pub(crate) mod list;
pub(crate) mod projects;
pub(crate) mod run_worker;
pub(crate) mod runs;
pub(crate) mod schedules;

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr};

/// In order; forward only. A file that was once released is never edited.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "init", include_str!("../../../migrations/trigger/0001_init.sql")),
    (2, "dev and switches", include_str!("../../../migrations/trigger/0002_dev_and_switches.sql")),
    (3, "engine speed", include_str!("../../../migrations/trigger/0003_engine_speed.sql")),
    (10, "tokens of organizations", include_str!("../../../migrations/trigger/0010_tokens_of_organizations.sql")),
    (11, "claim", include_str!("../../../migrations/trigger/0011_claim.sql")),
];

/// Brings schema `trigger` up to date. Safe to call from several processes at once: sqlx takes a lock.
pub(crate) async fn migrate(db: &PgPool) -> Result<(), sqlx::Error> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, (*sql).into_sql_str(), false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema("trigger");
    migrator.dangerous_set_table_name("trigger._migrations");
    migrator.run(db).await.map_err(|error| sqlx::Error::Migrate(Box::new(error)))
}
