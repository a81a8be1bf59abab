//! The database: it answers, its migrations are applied, and what they promise is so.

use psn_plugin::{context::HubKind, prelude::*};
use serde::Deserialize;

use crate::{bad, good, went_wrong};

const UNDEFINED_TABLE: &str = "42P01";
const INSUFFICIENT_PRIVILEGE: &str = "42501";

pub(crate) fn check() -> Vec<Check> {
    let mut checks = vec![connection(), migrations()];
    checks.extend(catalog());
    checks
}

/// As this plugin's own role, over the same way that tasks take.
fn connection() -> Check {
    let name = "database";
    let error = match db::query("SELECT id FROM posts LIMIT 1", params![]) {
        Ok(_) => return good(name, "The database answers"),
        Err(error) => error,
    };
    match error.sqlstate.as_deref() {
        Some(UNDEFINED_TABLE) => bad(name, "The database has no tables yet").fix("psn run migrate"),
        Some(INSUFFICIENT_PRIVILEGE) => {
            bad(name, format!("The plugins' roles lack their rights: {}", error.message)).fix("psn run migrate")
        }
        _ if error.code == "unavailable" && context::hub_kind() == HubKind::Local => {
            bad(name, format!("The local database does not answer: {}", error.message)).fix("psn local up")
        }
        _ if error.code == "unavailable" => bad(name, format!("The database does not answer: {}", error.message))
            .fix("psn run neon-provision")
            .fix("Look whether Neon has an outage: https://neonstatus.com"),
        _ => bad(name, error).fix("psn run migrate"),
    }
}

#[derive(Deserialize)]
struct Migrations {
    applied: Vec<Migration>,
    pending: Vec<Migration>,
    changed: Vec<Migration>,
}

#[derive(Deserialize)]
struct Migration {
    version: i64,
    description: String,
}

fn migrations() -> Check {
    let name = "migrations";
    let Migrations { applied, pending, changed } = match hub::facts("migrations") {
        Ok(facts) => facts,
        Err(error) => return went_wrong(name, error),
    };
    let list = |migrations: &[Migration]| {
        migrations.iter().map(|one| format!("{:04} {}", one.version, one.description)).collect::<Vec<_>>().join(", ")
    };
    if !changed.is_empty() {
        return bad(name, format!("These migrations are not what was applied: {}", list(&changed)))
            .fix("Go back to the psn that applied them, or forward to one whose notes say how to get past this");
    }
    if !pending.is_empty() {
        return bad(name, format!("Migrations are not applied yet: {}", list(&pending))).fix("psn run migrate");
    }
    good(name, format!("{} migrations are applied", applied.len()))
}

/// What the host sees in the catalog as the owner: row-level security, policies, indexes, roles.
fn catalog() -> Vec<Check> {
    #[derive(Deserialize)]
    struct Catalog {
        checks: Vec<Check>,
    }
    match hub::facts::<Catalog>("catalog") {
        Ok(catalog) => catalog.checks.into_iter().map(with_mark).collect(),
        Err(error) => vec![went_wrong("catalog", error)],
    }
}

fn with_mark(mut check: Check) -> Check {
    let mark = match check.status {
        Status::Pass => "✓",
        Status::Fail | Status::Warn => "✗",
        Status::Skip => "–",
    };
    if !check.message.starts_with(['✓', '✗', '–']) {
        check.message = format!("{mark} {}", check.message);
    }
    if check.status == Status::Fail && check.fix.is_empty() {
        check.fix.push("psn run migrate".into());
    }
    check
}
