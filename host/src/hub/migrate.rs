//! Migrations: forward only, in one file each, on the direct endpoint; then the roles, their rights, and a look at the result.
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
use sqlx::{PgConnection, Row as _};

use super::catalog::catalog_checks;
use super::connection::{ConnectError, Purpose, TlsRoots, connect, passes};
use super::leftovers::{self, Leftover};
use super::migrations::{FIRST_OF_PROJECT, FOLDER, Migrations, MigrationsError};
use super::patience::Patience;
use super::roles::{self, Plans, RolesError};
use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::events::{Check, CheckStatus, Event, EventSink, Level};
use crate::plugins::manifest::Manifest;
use crate::secret::Secrets;

/// In a schema of its own: what lies in `public` is people's data and under row-level security.
const SCHEMA: &str = "psn";
const TABLE: &str = "psn.migrations";

/// How a migration's session begins. A migration that waits for a lock holds up everyone behind it, so it waits briefly and is run
/// again later; and with row_security off a data migration that a policy would silently narrow to no rows fails instead.
const SESSION: &str = "SET lock_timeout = '10s'; SET statement_timeout = '5min'; SET idle_in_transaction_session_timeout = '1min'; \
                       SET row_security = off; SET search_path = public, pg_catalog, pg_temp";

/// What [`migrate`] did and found.
#[derive(Clone, Debug, Default)]
pub struct MigrateReport {
    /// Versions that this run applied.
    pub applied: Vec<i64>,
    pub pending_before: Vec<i64>,
    /// Roles that got a password.
    pub roles_made: Vec<String>,
    /// In words.
    pub grants_changed: Vec<String>,
    pub checks: Vec<Check>,
}

impl MigrateReport {
    /// Whether anything was done.
    pub fn changed(&self) -> bool {
        !(self.applied.is_empty() && self.roles_made.is_empty() && self.grants_changed.is_empty())
    }
}

/// What [`migrate`] would do.
#[derive(Clone, Debug, Default)]
pub struct MigrationFacts {
    pub applied: Vec<Version>,
    pub pending: Vec<Version>,
    /// Applied, and different from what this psn carries.
    pub changed: Vec<Version>,
    /// Applied, and not known to this psn.
    pub unknown: Vec<i64>,
    /// What else would be done, in words.
    pub roles: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub version: i64,
    pub description: String,
}

impl MigrationFacts {
    /// Whether `migrate` would find nothing to do.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty() && self.changed.is_empty() && self.unknown.is_empty() && self.roles.is_empty()
    }

    /// The `migrations` topic of the hub's facts.
    pub fn to_json(&self) -> Value {
        let list = |v: &[Version]| {
            v.iter().map(|m| json!({ "version": m.version, "description": m.description })).collect::<Vec<_>>()
        };
        json!({ "applied": list(&self.applied), "pending": list(&self.pending), "changed": list(&self.changed), "unknown": self.unknown, "roles": self.roles })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Roles(#[from] RolesError),
    #[error(transparent)]
    Migrations(#[from] MigrationsError),
    #[error("migration {version} ({description}) was changed after it was applied to this hub")]
    Changed { version: i64, description: String, file: Option<String> },
    #[error("migration {version} was applied to this hub, and its file is no longer in {FOLDER}/")]
    Missing { version: i64 },
    #[error("this hub has migration {version}, which this psn does not know")]
    Newer { version: i64 },
    #[error("another session holds a lock that migration needs")]
    Locked,
    #[error("migration {version} ({description}){} failed and was undone: {source}", place(file.as_deref(), *line))]
    Failed { version: i64, description: String, file: Option<String>, line: Option<usize>, source: sqlx::Error },
    #[error("{what}: {source}")]
    Sql { what: &'static str, source: sqlx::Error },
}

impl MigrateError {
    /// Whether there was a connection, and it went away: terminated, or with a server that restarts.
    fn is_lost(&self) -> bool {
        match self {
            MigrateError::Failed { source, .. } | MigrateError::Sql { source, .. } => lost(source),
            MigrateError::Roles(RolesError::Sql { source, .. }) => lost(source),
            _ => false,
        }
    }

    pub fn coded(&self) -> CodedError {
        let say = |code: &str, fix: &[&str]| CodedError::new(code, self.to_string(), fix.iter().copied());
        match self {
            MigrateError::Connect(e) => e.coded(),
            MigrateError::Roles(e) => roles_error(e),
            MigrateError::Migrations(e) => e.coded(),
            MigrateError::Changed { file, .. } => CodedError::new(
                "migrate.changed",
                self.to_string(),
                [
                    format!("git checkout -- {}", file.as_deref().unwrap_or(FOLDER)),
                    "Write what you want changed as a new migration: an applied one stays as it is".to_owned(),
                ],
            ),
            MigrateError::Missing { version } => CodedError::new(
                "migrate.missing-file",
                self.to_string(),
                [
                    format!("git log --oneline --diff-filter=D -- '{FOLDER}/{version}_*'"),
                    "Put the file back as it was: the hub has what it made".to_owned(),
                ],
            ),
            MigrateError::Newer { .. } => {
                say("migrate.newer-hub", &["Update psn: the hub was migrated by a newer one"])
            }
            MigrateError::Locked => say("migrate.locked", &["psn run setup"]).retryable(),
            MigrateError::Failed { source, .. } | MigrateError::Sql { source, .. } if is_state(source, READ_ONLY) => {
                say(
                    "migrate.read-only",
                    &[
                        "psql \"$DATABASE_URL_DIRECT\" -c 'SET default_transaction_read_only = off' -c 'ALTER ROLE CURRENT_USER RESET default_transaction_read_only'",
                        "Where that is refused, look at the project's storage and plan: https://console.neon.tech/app/projects",
                        "psn run setup",
                    ],
                )
            }
            MigrateError::Failed { source, .. } | MigrateError::Sql { source, .. } if is_state(source, DISK_FULL) => {
                say(
                    "migrate.disk-full",
                    &[
                        "Make room where the database is: df -h on the local hub, the project's storage and plan at Neon; then run the same command again",
                    ],
                )
            }
            MigrateError::Failed { source, .. } if lost(source) => {
                say("migrate.interrupted", &["psn run setup"]).retryable()
            }
            MigrateError::Failed { file: Some(file), line, .. } => CodedError::new(
                "migrate.failed",
                self.to_string(),
                [format!("${{EDITOR:-vi}} +{} {file}", line.unwrap_or(1)), "psn db migrate".to_owned()],
            ),
            MigrateError::Failed { .. } => say("migrate.failed", &["psn run setup"]),
            MigrateError::Sql { source, .. } if lost(source) => {
                say("migrate.interrupted", &["psn run setup"]).retryable()
            }
            MigrateError::Sql { .. } => say("migrate.database", &["psn run setup"]),
        }
    }
}

/// Postgres' states for a transaction that may not write, and for a server that has no room to.
const READ_ONLY: &str = "25006";
const DISK_FULL: &str = "53100";

fn is_state(error: &sqlx::Error, state: &str) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some(state)
}

/// What is wrong with one plugin holds up no other.
fn unknown_grant(error: &RolesError) -> Check {
    let CodedError { code, message, fix, .. } = roles_error(error);
    let message = format!("{message}; no role is made for it, and everything else is done");
    Check { check: code, step: None, status: CheckStatus::Warn, message, fix, required: false }
}

fn lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(e) => e.code().is_some_and(|state| passes(&state)),
        _ => false,
    }
}

fn roles_error(e: &RolesError) -> CodedError {
    match e {
        RolesError::Connect(e) => e.coded(),
        RolesError::Secret(e) => CodedError::new("config.secret", e.to_string(), ["psn run setup"]),
        RolesError::Random(_) => CodedError::new("host.random", e.to_string(), ["psn run setup"]).retryable(),
        RolesError::Sql { source, .. } if lost(source) => {
            CodedError::new("migrate.interrupted", e.to_string(), ["psn run setup"]).retryable()
        }
        RolesError::Sql { .. } => CodedError::new("migrate.roles", e.to_string(), ["psn run setup"]),
        RolesError::TooPowerful { role, .. } => CodedError::new(
            "migrate.role-too-powerful",
            e.to_string(),
            [
                format!("psql \"$DATABASE_URL_DIRECT\" -c 'DROP OWNED BY {role}; DROP ROLE {role}'"),
                "psn run setup".to_owned(),
            ],
        ),
        RolesError::Unknown { plugin, .. } => CodedError::new(
            "migrate.unknown-grant",
            e.to_string(),
            [
                "psn db status".to_owned(),
                format!("Correct [db] in the manifest of {plugin}, or add the migration that makes it"),
            ],
        ),
    }
}

/// Brings the hub's database to where this psn and these plugins need it: pending migrations, roles, rights, policies. Then looks at
/// the catalog. Safe to run again after a crash at any point, and a no-op where all is done.
pub async fn migrate(
    migrations: &Migrations,
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[Manifest],
    events: &EventSink,
    deadline: Deadline,
) -> Result<MigrateReport, MigrateError> {
    let mut report = MigrateReport::default();
    let mut patience = Patience::within(deadline);
    loop {
        match attempt(&mut report, migrations, secrets, tls, plugins, events, deadline).await {
            // What was under way is undone, and what was done is found done.
            Err(e) if e.is_lost() && patience.again().await => {
                events.log(Level::Warn, "migrate", format!("{e}; beginning again"));
            }
            ended => return ended.map(|()| report),
        }
    }
}

/// Adds to the report of what earlier attempts did.
async fn attempt(
    report: &mut MigrateReport,
    migrations: &Migrations,
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[Manifest],
    events: &EventSink,
    deadline: Deadline,
) -> Result<(), MigrateError> {
    let mut owner = connect(&Purpose::OwnerDirect, secrets, tls, deadline).await?;
    sqlx::raw_sql(SESSION)
        .execute(&mut owner)
        .await
        .map_err(|source| MigrateError::Sql { what: "preparing the session", source })?;
    let before = versions(&mut owner, migrations).await?;
    let pending = before.pending.iter().map(|m| m.version);
    if report.pending_before.is_empty() {
        report.pending_before = pending.collect();
    }
    refuse(&before, migrations)?;

    let mut steps = before.pending.len();
    if steps > 0 {
        for (done, migration) in before.pending.iter().enumerate() {
            progress(events, done, steps, format!("Migration {}: {}", migration.version, migration.description));
        }
        run(&mut owner, migrations).await?;
    }
    if !report.pending_before.is_empty() {
        let after = versions(&mut owner, migrations).await?;
        let is_applied = |v: &i64| after.applied.iter().any(|a| a.version == *v);
        report.applied = report.pending_before.iter().copied().filter(is_applied).collect();
    }

    let Plans { plans, unknown, leftovers } = roles::plan(&mut owner, secrets, tls, plugins, deadline).await?;
    steps += plans.iter().filter(|p| !p.is_done()).count();
    for (done, plan) in plans.iter().filter(|p| !p.is_done()).enumerate() {
        progress(events, before.pending.len() + done, steps, format!("Role {}", plan.role));
        roles::apply(&mut owner, secrets, tls, plan, deadline).await?;
        if plan.login {
            report.roles_made.push(plan.role.clone());
        }
        report.grants_changed.extend(plan.changes.iter().map(|c| c.words.clone()));
        if !plan.login && plan.moved {
            report.grants_changed.extend(plan.words().into_iter().take(1));
        }
    }
    for leftover in &leftovers {
        leftovers::drop(&mut owner, secrets, leftover).await?;
        report.grants_changed.push(leftover.words());
    }
    report.checks = catalog_checks(&mut owner).await;
    report.checks.extend(unknown.iter().map(unknown_grant));
    // Everything is done and committed: how the connection ends changes nothing.
    let _ = sqlx::Connection::close(owner).await;
    Ok(())
}

/// All of them, in order.
pub fn all_versions(migrations: &Migrations) -> Vec<Version> {
    migrations.iter().map(|m| Version { version: m.version, description: m.description.to_string() }).collect()
}

/// Takes psn's roles out of a database that stays, with all that they may do there. Answers those that were there.
pub async fn drop_roles(
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[Manifest],
    deadline: Deadline,
) -> Result<Vec<String>, MigrateError> {
    let mut owner = connect(&Purpose::OwnerDirect, secrets, tls, deadline).await?;
    let dropped = roles::drop_all(&mut owner, plugins).await?;
    let _ = sqlx::Connection::close(owner).await;
    Ok(dropped)
}

/// What [`migrate`] would do; changes nothing.
pub async fn inspect_migrations(
    migrations: &Migrations,
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[Manifest],
    deadline: Deadline,
) -> Result<MigrationFacts, MigrateError> {
    let mut patience = Patience::within(deadline);
    loop {
        match look(migrations, secrets, tls, plugins, deadline).await {
            Err(e) if e.is_lost() && patience.again().await => {}
            ended => return ended,
        }
    }
}

async fn look(
    migrations: &Migrations,
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[Manifest],
    deadline: Deadline,
) -> Result<MigrationFacts, MigrateError> {
    let mut owner = connect(&Purpose::OwnerDirect, secrets, tls, deadline).await?;
    let mut facts = versions(&mut owner, migrations).await?;
    // Before the tables are there, what a role lacks cannot be told from what is missing.
    if facts.pending.is_empty() {
        let Plans { plans, leftovers, .. } = roles::plan(&mut owner, secrets, tls, plugins, deadline).await?;
        facts.roles = plans.iter().flat_map(roles::RolePlan::words).collect();
        facts.roles.extend(leftovers.iter().map(Leftover::words));
    }
    let _ = sqlx::Connection::close(owner).await;
    Ok(facts)
}

/// The catalog check of a hub, on a connection of its own: for `validate`.
pub async fn inspect_catalog(
    secrets: &Secrets,
    tls: &TlsRoots,
    deadline: Deadline,
) -> Result<Vec<Check>, ConnectError> {
    let mut owner = connect(&Purpose::OwnerDirect, secrets, tls, deadline).await?;
    let checks = catalog_checks(&mut owner).await;
    let _ = sqlx::Connection::close(owner).await;
    Ok(checks)
}

fn progress(events: &EventSink, done: usize, total: usize, message: String) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    events.emit(&Event::Progress { source: "migrate".to_owned(), done: count(done), total: count(total), message });
}

fn refuse(facts: &MigrationFacts, migrations: &Migrations) -> Result<(), MigrateError> {
    if let Some(changed) = facts.changed.first() {
        return Err(changed_error(migrations, changed.version));
    }
    match facts.unknown.first() {
        Some(version) => Err(unknown_error(*version)),
        None => Ok(()),
    }
}

fn changed_error(migrations: &Migrations, version: i64) -> MigrateError {
    let description = description(migrations, version);
    MigrateError::Changed { version, description, file: migrations.file(version).map(str::to_owned) }
}

fn unknown_error(version: i64) -> MigrateError {
    if version >= FIRST_OF_PROJECT { MigrateError::Missing { version } } else { MigrateError::Newer { version } }
}

fn description(migrations: &Migrations, version: i64) -> String {
    migrations.iter().find(|m| m.version == version).map(|m| m.description.to_string()).unwrap_or_default()
}

/// Reads what is applied, without making the table that says so.
async fn versions(owner: &mut PgConnection, migrations: &Migrations) -> Result<MigrationFacts, MigrateError> {
    let error = |source| MigrateError::Sql { what: "reading which migrations are applied", source };
    let there: bool = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
        .bind(TABLE)
        .fetch_one(&mut *owner)
        .await
        .map_err(error)?;
    let mut rows = Vec::new();
    if there {
        rows = sqlx::query("SELECT version, checksum FROM psn.migrations WHERE success ORDER BY version")
            .fetch_all(owner)
            .await
            .map_err(error)?;
    }
    let mut applied = Vec::new();
    for row in &rows {
        applied.push((row.try_get::<i64, _>(0).map_err(error)?, row.try_get::<Vec<u8>, _>(1).map_err(error)?));
    }
    let mut facts = MigrationFacts::default();
    for migration in migrations.iter() {
        let version = Version { version: migration.version, description: migration.description.to_string() };
        match applied.iter().find(|(v, _)| *v == migration.version) {
            None => facts.pending.push(version),
            Some((_, checksum)) if *checksum == *migration.checksum => facts.applied.push(version),
            Some(_) => facts.changed.push(version),
        }
    }
    facts.unknown = applied.iter().map(|(v, _)| *v).filter(|v| !migrations.has(*v)).collect();
    Ok(facts)
}

/// Each migration in a transaction of its own, so that one that fails leaves the hub at the one before.
async fn run(owner: &mut PgConnection, migrations: &Migrations) -> Result<(), MigrateError> {
    use sqlx::migrate::MigrateError as Sqlx;
    let mut migrator = Migrator::with_migrations(migrations.to_vec());
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(TABLE);
    let is_lock = |e: &sqlx::Error| matches!(e, sqlx::Error::Database(e) if e.code().as_deref() == Some("55P03"));
    match migrator.run_direct(None, owner, false).await {
        Ok(()) => Ok(()),
        Err(Sqlx::Execute(e) | Sqlx::ExecuteMigration(e, _)) if is_lock(&e) => Err(MigrateError::Locked),
        Err(Sqlx::ExecuteMigration(source, version)) => Err(failed(migrations, version, source)),
        Err(Sqlx::Execute(source)) => Err(MigrateError::Sql { what: "migrating", source }),
        // Another psn migrated meanwhile, with other files.
        Err(Sqlx::VersionMismatch(version)) => Err(changed_error(migrations, version)),
        Err(Sqlx::VersionMissing(version)) => Err(unknown_error(version)),
        Err(other) => Err(MigrateError::Sql { what: "migrating", source: sqlx::Error::Migrate(Box::new(other)) }),
    }
}

fn failed(migrations: &Migrations, version: i64, source: sqlx::Error) -> MigrateError {
    let position = match &source {
        sqlx::Error::Database(e) => e.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::position),
        _ => None,
    };
    // Counted in characters, from 1, over the whole file: it is sent as one message.
    let line = match position {
        Some(PgErrorPosition::Original(at)) => migrations
            .iter()
            .find(|m| m.version == version)
            .map(|m| m.sql.as_str().chars().take(at.saturating_sub(1)).filter(|c| *c == '\n').count() + 1),
        _ => None,
    };
    let file = migrations.file(version).map(str::to_owned);
    MigrateError::Failed { version, description: description(migrations, version), file, line, source }
}

fn place(file: Option<&str>, line: Option<usize>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(", {file}:{line},"),
        (Some(file), None) => format!(", {file},"),
        (None, _) => String::new(),
    }
}
