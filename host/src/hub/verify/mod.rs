//! Whether the database keeps users apart: asked of the catalog, and tried with the real roles.
//!
//! ```text
//! tables.rs   what there is, from the catalog
//! rows.rs     a row that a table takes
//! cases.rs    what is tried on a table
//! ```
mod cases;
mod rows;
mod tables;

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::catalog::catalog_checks;
use super::connection::{ConnectError, HubUrl, Purpose, TlsRoots, connect, connect_url};
use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::events::{Check, CheckStatus};
use crate::secret::Secrets;
use cases::{Stopped, Way};
use tables::Table;

const BEHAVIOUR: &str = "rls.behaviour";

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the database could not be looked at: {0}")]
    Sql(#[from] sqlx::Error),
}

impl VerifyError {
    pub fn coded(&self) -> CodedError {
        match self {
            VerifyError::Connect(e) => e.coded(),
            VerifyError::Sql(_) => {
                CodedError::new("migrate.verify-interrupted", self.to_string(), ["psn db verify"]).retryable()
            }
        }
    }
}

/// What must come of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Rows(u64),
    /// SQLSTATE 42501: no right, or against a policy.
    Denied,
}

impl Expect {
    fn where_allowed(allowed: bool, rows: u64) -> Self {
        if allowed { Expect::Rows(rows) } else { Expect::Denied }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Rows(u64),
    State { sqlstate: String, message: String },
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Got::Rows(n) => write!(f, "{n} rows"),
            Got::State { sqlstate, message } => write!(f, "{sqlstate} {message}"),
        }
    }
}

/// One statement that was tried.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub table: String,
    /// Through which door, and as whom.
    pub way: String,
    pub case: &'static str,
    pub expected: Expect,
    pub got: Got,
}

impl Behaviour {
    pub fn holds(&self) -> bool {
        match (&self.expected, &self.got) {
            (Expect::Rows(n), Got::Rows(m)) => n == m,
            (Expect::Denied, Got::State { sqlstate, .. }) => sqlstate == "42501",
            _ => false,
        }
    }

    fn wanted(&self) -> String {
        match self.expected {
            Expect::Rows(n) => format!("{n} rows"),
            Expect::Denied => "42501".to_owned(),
        }
    }

    pub fn to_json(&self) -> Value {
        let got = match &self.got {
            Got::Rows(n) => format!("{n} rows"),
            Got::State { sqlstate, .. } => sqlstate.clone(),
        };
        json!({ "table": self.table, "way": self.way, "case": self.case, "expected": self.wanted(), "got": got, "holds": self.holds() })
    }
}

#[derive(Debug, Default)]
pub struct VerifyReport {
    pub checks: Vec<Check>,
    pub behaviours: Vec<Behaviour>,
}

/// Looks and tries; leaves the database as it was. `plugins`: those that have a role.
pub async fn verify(
    secrets: &Secrets,
    tls: &TlsRoots,
    plugins: &[String],
    deadline: Deadline,
) -> Result<VerifyReport, VerifyError> {
    let mut owner = connect(&Purpose::OwnerDirect, secrets, tls, deadline).await?;
    let mut report = VerifyReport { checks: catalog_checks(&mut owner).await, behaviours: Vec::new() };
    let tables = tables::tables(&mut owner).await?;

    for (name, url) in ways(secrets)? {
        let mut connection = connect_url(&url, tls, deadline).await?;
        let mut fresh = connect_url(&url, tls, deadline).await?;
        for table in &tables {
            let mut way = Way { name, connection: &mut connection, fresh: &mut fresh };
            match cases::table(&tables, table, &mut way).await {
                Ok(found) => report.add(table, name, found),
                Err(Stopped::NoRow(why)) => report.checks.push(untried(table, name, &why)),
                Err(Stopped::Sql(e)) => return Err(e.into()),
            }
        }
        close(connection).await;
        close(fresh).await;
    }
    for plugin in plugins {
        let mut connection = connect(&Purpose::Plugin(plugin.clone()), secrets, tls, deadline).await?;
        plugin_role(&mut owner, &mut connection, plugin, &tables, &mut report).await?;
        close(connection).await;
    }
    as_owner(&mut owner, &tables, &mut report).await?;
    close(owner).await;
    Ok(report)
}

async fn close(connection: PgConnection) {
    // Everything was rolled back already: how the connection ends changes nothing.
    let _ = connection.close().await;
}

/// How psn_app gets in: where setup has pointed it, and past the pooler where that is one.
fn ways(secrets: &Secrets) -> Result<Vec<(&'static str, HubUrl)>, ConnectError> {
    let parse = |purpose: &Purpose| {
        let name = purpose.secret_name();
        let url = secrets.get(&name).ok_or_else(|| ConnectError::NoUrl { name: name.clone() })?;
        HubUrl::parse(&name, &url)
    };
    let (pooled, direct) = (parse(&Purpose::App)?, parse(&Purpose::OwnerDirect)?);
    if pooled.same_place(&direct) {
        return Ok(vec![("direct", pooled)]);
    }
    let past = parse(&Purpose::App)?.at(&direct);
    Ok(vec![("pooled", pooled), ("direct", past)])
}

impl VerifyReport {
    /// One check for all that was tried on a table through one door.
    fn add(&mut self, table: &Table, way: &str, found: Vec<Behaviour>) {
        let broken: Vec<String> = found
            .iter()
            .filter(|b| !b.holds())
            .map(|b| format!("{}: {} expected, {} came", b.case, b.wanted(), b.got))
            .collect();
        let label = &table.label;
        let (status, message) = match broken.as_slice() {
            [] => (CheckStatus::Pass, format!("{label}, {way}: all {} cases hold", found.len())),
            _ => {
                let count = format!("{} of {} cases do not hold", broken.len(), found.len());
                (CheckStatus::Fail, format!("{label}, {way}: {count}: {}", broken.join("; ")))
            }
        };
        self.checks.push(check(status, message));
        self.behaviours.extend(found);
    }
}

fn untried(table: &Table, way: &str, why: &str) -> Check {
    check(CheckStatus::Fail, format!("{}, {way}: could not be tried: {why}", table.label))
}

fn check(status: CheckStatus, message: String) -> Check {
    let fix = match status {
        CheckStatus::Pass | CheckStatus::Skip => Vec::new(),
        _ => vec![
            "psn db migrate".to_owned(),
            "Write a migration that gives the table what `psn db new` gives one: see docs/database.md".to_owned(),
        ],
    };
    Check { check: BEHAVIOUR.to_owned(), step: None, status, message, fix, required: true }
}

/// A plugin's role reads nothing that it was not granted. What it was granted is its own policies' matter.
async fn plugin_role(
    owner: &mut PgConnection,
    connection: &mut PgConnection,
    plugin: &str,
    tables: &[Table],
    report: &mut VerifyReport,
) -> Result<(), VerifyError> {
    let role = super::roles::plugin_role(plugin);
    let mut found = Vec::new();
    cases::begin(connection).await?;
    for table in tables {
        let any: bool = sqlx::query_scalar(
            "SELECT pg_catalog.has_any_column_privilege($1::name, $2::bigint::oid, 'SELECT') AND pg_catalog.has_schema_privilege($1::name, (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = $2::bigint::oid), 'USAGE')",
        )
        .bind(&role)
        .bind(table.oid)
        .fetch_one(&mut *owner)
        .await?;
        let rights = [
            (any, "select", format!("SELECT count(*) FROM {}", table.name)),
            (false, "delete without a grant", format!("DELETE FROM {} WHERE false", table.name)),
        ];
        for (granted, case, sql) in rights {
            let granted = granted || (case.starts_with("delete") && may_delete(owner, &role, table.oid).await?);
            if !granted {
                let got = cases::attempt(connection, sql).await?;
                let (table, way) = (table.label.clone(), role.clone());
                found.push(Behaviour { table, way, case, expected: Expect::Denied, got });
            }
        }
    }
    cases::raw(connection, "ROLLBACK").await?;
    let broken: Vec<String> =
        found.iter().filter(|b| !b.holds()).map(|b| format!("{} {}: {}", b.case, b.table, b.got)).collect();
    let (status, message) = match broken.as_slice() {
        [] => (CheckStatus::Pass, format!("{role}: all {} things that it was not granted are refused", found.len())),
        _ => (CheckStatus::Fail, format!("{role} may do what it was not granted: {}", broken.join("; "))),
    };
    report.checks.push(check(status, message));
    report.behaviours.extend(found);
    Ok(())
}

async fn may_delete(owner: &mut PgConnection, role: &str, table: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_catalog.has_table_privilege($1::name, $2::bigint::oid, 'DELETE')")
        .bind(role)
        .bind(table)
        .fetch_one(owner)
        .await
}

/// FORCE: the policies hold for the owner of the tables too, unless it bypasses all of them.
async fn as_owner(owner: &mut PgConnection, tables: &[Table], report: &mut VerifyReport) -> Result<(), VerifyError> {
    let (role, bypasses): (String, bool) = sqlx::query_as(
        "SELECT rolname::text, rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut *owner)
    .await?;
    if bypasses {
        let message = format!(
            "owner: {role} bypasses row-level security, as every role does that Neon makes; nothing but migrations connects as it"
        );
        report.checks.push(check(CheckStatus::Skip, message));
        return Ok(());
    }
    let mut found = Vec::new();
    cases::begin(owner).await?;
    for table in tables {
        let sql =
            format!("SET LOCAL row_security = off; UPDATE {0} SET {1} = {1} WHERE false", table.name, first(table));
        let got = cases::attempt(owner, sql).await?;
        found.push(Behaviour {
            table: table.label.clone(),
            way: "owner".to_owned(),
            case: "update, row_security off",
            expected: Expect::Denied,
            got,
        });
        let sql = format!("SELECT count(*) FROM {}", table.name);
        let got = cases::attempt(owner, sql).await?;
        found.push(Behaviour {
            table: table.label.clone(),
            way: "owner".to_owned(),
            case: "select, no setting",
            expected: Expect::Rows(0),
            got,
        });
    }
    cases::raw(owner, "ROLLBACK").await?;
    let broken = found.iter().filter(|b| !b.holds()).map(|b| format!("{} {}: {}", b.case, b.table, b.got));
    let broken: Vec<String> = broken.collect();
    let (status, message) = match broken.as_slice() {
        [] => (CheckStatus::Pass, format!("owner: all {} cases hold as {role}", found.len())),
        _ => (CheckStatus::Fail, format!("owner: as {role}: {}", broken.join("; "))),
    };
    report.checks.push(check(status, message));
    report.behaviours.extend(found);
    Ok(())
}

fn first(table: &Table) -> &str {
    table.columns.iter().find(|c| !c.generated).map_or("ctid", |c| c.name.as_str())
}
