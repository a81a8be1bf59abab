//! `psn db`
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::json;

use super::args::Db;
use super::{Context, Done, run};
use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::events::{Check, CheckStatus, Event, StepStatus, Summary};
use crate::hub::lint;
use crate::hub::verify::{self, Behaviour};
use crate::hub::{self, Migrations};
use crate::pipeline::session::find_project;
use crate::pipeline::{self, Session};

/// A suspended database starts, and a look at the migrations takes a handful of queries.
const STATUS_LIMIT: Duration = Duration::from_secs(60);
/// Some thirty statements per table and way in.
const VERIFY_LIMIT: Duration = Duration::from_secs(300);

pub(super) async fn db(context: &Context, command: Db) -> Result<Done, CodedError> {
    match command {
        Db::Migrate => {
            let mut session = run::open(context, false).await?;
            Ok(Done::Summary(pipeline::run_single(&mut session, "migrate").await?))
        }
        Db::Status => status(context).await,
        Db::New { name } => new(context, &name),
        Db::Verify => verify(context).await,
        Db::Lint { files } => lint(context, &files),
    }
}

async fn status(context: &Context) -> Result<Done, CodedError> {
    let started = Instant::now();
    let session = run::open(context, false).await?;
    let migrations = Migrations::load(&session.project)?;
    let environment = &session.environment;
    let manifests = session.registry.manifests()?;
    let deadline = Deadline::after(STATUS_LIMIT);
    let facts =
        hub::inspect_migrations(&migrations, &environment.secrets, &environment.tls, &manifests, deadline).await?;
    let mut data = facts.to_json();
    data["next"] = json!(if facts.is_done() { "psn db verify" } else { "psn db migrate" });
    context.events.emit(&Event::Result { command: "db status".to_owned(), data });
    let broken = facts.changed.len() + facts.unknown.len();
    let status = match (broken, facts.is_done()) {
        (0, true) => StepStatus::Success,
        (0, false) => StepStatus::Planned,
        _ => StepStatus::Error,
    };
    let total = facts.applied.len() + facts.pending.len() + broken;
    Ok(Done::Summary(summary(status, (total, 0, facts.applied.len(), broken), started)))
}

fn new(context: &Context, name: &str) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), false)?;
    let file = hub::migrations::scaffold(&project, name, Utc::now())?;
    context.events.emit(&Event::Result {
        command: "db new".to_owned(),
        data: json!({ "file": file, "table": name, "next": ["psn db lint", "psn db migrate", "psn db verify"] }),
    });
    Ok(Done::Ok)
}

async fn verify(context: &Context) -> Result<Done, CodedError> {
    let started = Instant::now();
    let session: Session = run::open(context, false).await?;
    let environment = &session.environment;
    let manifests = session.registry.manifests()?;
    let plugins: Vec<String> = manifests.iter().filter(|m| !m.db.is_empty()).map(|m| m.plugin.name.clone()).collect();
    let deadline = Deadline::after(VERIFY_LIMIT);
    let report = verify::verify(&environment.secrets, &environment.tls, &plugins, deadline).await?;
    let rows: Vec<_> = report.behaviours.iter().map(Behaviour::to_json).collect();
    context.events.emit(&Event::Result { command: "db verify".to_owned(), data: json!({ "behaviours": rows }) });
    finish(context, &report.checks, started, "migrate.verify-failed", "psn db verify")
}

fn lint(context: &Context, files: &[PathBuf]) -> Result<Done, CodedError> {
    let started = Instant::now();
    let checks = if files.is_empty() {
        let project = find_project(context.common.project.as_deref(), false)?;
        lint::project(&project)?
    } else {
        lint::files(files)?
    };
    finish(context, &checks, started, "migrate.lint-failed", "psn db lint")
}

/// Tells every check; what is required and fails is an error.
fn finish(context: &Context, checks: &[Check], started: Instant, code: &str, again: &str) -> Result<Done, CodedError> {
    for check in checks {
        context.events.emit(&Event::Check(check.clone()));
    }
    let failed: Vec<&Check> = checks.iter().filter(|c| c.required && c.status == CheckStatus::Fail).collect();
    let skipped = checks.iter().filter(|c| c.status == CheckStatus::Skip).count();
    let Some(first) = failed.first() else {
        let passed = checks.len() - skipped;
        return Ok(Done::Summary(summary(StepStatus::Success, (checks.len(), passed, skipped, 0), started)));
    };
    let message = format!("{} of {} checks failed; the first: {}", failed.len(), checks.len(), first.message);
    let mut fix = first.fix.clone();
    fix.push(again.to_owned());
    Err(CodedError::new(code, message, fix))
}

fn summary(
    status: StepStatus,
    (steps, succeeded, skipped, failed): (usize, usize, usize, usize),
    started: Instant,
) -> Summary {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Summary {
        status,
        steps: count(steps),
        succeeded: count(succeeded),
        skipped: count(skipped),
        failed: count(failed),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}
