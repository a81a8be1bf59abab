//! The host's own step: schema, roles and grants. Not a component, because it works as the database's owner.
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::json;

use super::ledger::{StepRecord, report_fingerprint};
use super::outcome::Ended;
use super::session::Session;
use super::setup::{Place, consent_first};
use crate::capabilities::{Deadline, Usage};
use crate::error::CodedError;
use crate::events::{Check, CheckStatus, Event, StepEvent, StepStatus};
use crate::hub;

/// Migrations wait for locks, and a suspended database for its start.
const LIMIT: Duration = Duration::from_secs(300);

/// What would be done, in words.
pub(super) fn changes(pending: &[hub::Version], roles: &[String]) -> Vec<String> {
    let migrations = pending.iter().map(|m| format!("apply migration {:04} {}", m.version, m.description));
    migrations.chain(roles.iter().cloned()).collect()
}

pub(super) async fn run(session: &mut Session, place: &Place) -> Result<Ended, CodedError> {
    let started = Instant::now();
    let manifests = match consent_first(session, place, session.registry.manifests())? {
        Ok(manifests) => manifests,
        Err(ended) => return Ok(ended),
    };
    let environment = session.environment.clone();
    let emit = |status, message: String, with: &mut dyn FnMut(&mut StepEvent)| {
        let mut event = place.event(status, message);
        with(&mut event);
        environment.events.emit(&Event::Step(Box::new(event)));
    };
    let usage = || Usage { ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), ..Usage::default() };
    let fail = |error: CodedError| {
        emit(StepStatus::Error, error.message.clone(), &mut |e| {
            e.error = Some(error.clone());
            e.usage = Some(usage());
        });
        Ok(Ended::Failed)
    };

    let deadline = Deadline::after(LIMIT);
    let (secrets, tls) = (&environment.secrets, &environment.tls);
    let migrations = match hub::Migrations::load(&session.project) {
        Ok(migrations) => migrations,
        Err(e) => return fail(e.into()),
    };
    let facts = match hub::inspect_migrations(&migrations, secrets, tls, &manifests, deadline).await {
        Ok(facts) => facts,
        Err(e) => return fail(e.into()),
    };
    let changes = changes(&facts.pending, &facts.roles);
    let nothing_to_do = facts.is_done();
    if !nothing_to_do {
        emit(StepStatus::Running, place.title(), &mut |e| e.changes.clone_from(&changes));
    }

    // Also when nothing is pending: this is what looks at the catalog, and refuses a migration that was changed.
    let report = match hub::migrate(&migrations, secrets, tls, &manifests, &environment.events, deadline).await {
        Ok(report) => report,
        Err(e) => return fail(e.into()),
    };
    let checks: Vec<Check> =
        report.checks.iter().map(|c| Check { step: Some(place.slot().to_owned()), ..c.clone() }).collect();
    for check in checks.iter().filter(|c| c.status != CheckStatus::Pass) {
        environment.events.emit(&Event::Check(check.clone()));
    }
    if let Some(failed) = checks.iter().find(|c| c.required && c.status == CheckStatus::Fail) {
        let fix = if failed.fix.is_empty() { vec!["psn run validate".to_owned()] } else { failed.fix.clone() };
        return fail(CodedError::new("migrate.catalog", failed.message.clone(), fix));
    }

    let hold = checks.iter().filter(|c| c.status == CheckStatus::Pass).count();
    let changed = report.changed() || !nothing_to_do;
    let message = if changed {
        format!(
            "Applied {} migrations, {} roles and {} grants; {} catalog checks hold",
            report.applied.len(),
            report.roles_made.len(),
            report.grants_changed.len(),
            hold
        )
    } else {
        format!("Schema, roles and grants are as they should be; {hold} catalog checks hold")
    };
    let data = json!({ "applied": report.applied, "roles": report.roles_made, "grants": report.grants_changed });
    let record = StepRecord {
        status: StepStatus::Success,
        message: message.clone(),
        at: Utc::now(),
        component_sha256: None,
        fingerprint: Some(report_fingerprint(&message, &checks)),
        data: None,
    };
    session.ledger.record(place.slot(), record)?;
    let status = if changed { StepStatus::Success } else { StepStatus::Skipped };
    emit(status, message, &mut |e| {
        e.data = changed.then(|| data.clone());
        e.usage = Some(usage());
    });
    Ok(if changed { Ended::Success } else { Ended::Skipped })
}
