//! What each step of setup would do now, asked without doing it: what plan, drift and teardown are made of.
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::session::Session;
use super::setup::{MIGRATE, Place, plugin_of};
use super::{migrate_step, plugin_step};
use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::hub::{self, Purpose};
use crate::runtime::{Need, StepState};

/// For the host's own look into the database.
const LIMIT: Duration = Duration::from_secs(120);

/// One step, as it was found.
pub(super) struct Finding {
    pub(super) place: Place,
    /// `migrate` is the host's own.
    pub(super) plugin: String,
    pub(super) component_sha256: Option<String>,
    /// It never changes anything.
    pub(super) checks_only: bool,
    pub(super) state: State,
}

pub(super) enum State {
    Ready {
        message: String,
        data: Value,
    },
    Pending(Vec<String>),
    Needs(Vec<Need>),
    Unknown(CodedError),
    /// It was not asked: what it looks at is not there before the steps before it ran.
    NotAsked,
}

impl State {
    /// Over what a plan depends on.
    fn digest(&self, hash: &mut Sha256) {
        let (kind, text) = match self {
            State::Ready { message, data } => ("ready", format!("{message} {data}")),
            State::Pending(changes) => ("pending", changes.join("\n")),
            State::Needs(needs) => ("needs", needs.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join("\n")),
            State::Unknown(error) => ("unknown", error.code.clone()),
            State::NotAsked => ("not-asked", String::new()),
        };
        hash.update(format!("{kind}\0{text}\0"));
    }
}

/// Asks each step, in order, until one needs a person or cannot say.
pub(super) async fn survey(session: &mut Session) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for place in Place::all() {
        let settled = findings.iter().all(|f| matches!(f.state, State::Ready { .. }));
        let finding = look(session, place, settled).await;
        let goes_on = matches!(finding.state, State::Ready { .. } | State::Pending(_) | State::NotAsked);
        findings.push(finding);
        if !goes_on {
            break;
        }
    }
    findings
}

/// `settled`: nothing before it is to change.
pub(super) async fn look(session: &mut Session, place: Place, settled: bool) -> Finding {
    if place.slot() == MIGRATE {
        let state = migrations(session, settled).await;
        return Finding { plugin: MIGRATE.to_owned(), component_sha256: None, checks_only: false, state, place };
    }
    let installed = match plugin_of(session, place.slot()) {
        Ok(installed) => installed,
        Err(error) => {
            let plugin = place.slot().to_owned();
            return Finding { place, plugin, component_sha256: None, checks_only: false, state: State::Unknown(error) };
        }
    };
    let checks_only = installed.manifest.plugin.checks_only;
    let state = if checks_only && !settled {
        State::NotAsked
    } else {
        match plugin_step::inspect(session, &installed, &place).await {
            Ok(StepState::Ready(report)) => State::Ready { message: report.message, data: report.data },
            Ok(StepState::Pending(changes)) => State::Pending(changes),
            Ok(StepState::Needs(needs)) => State::Needs(needs),
            Err(error) => State::Unknown(error),
        }
    };
    Finding {
        plugin: installed.manifest.plugin.name.clone(),
        component_sha256: Some(installed.sha256.clone()),
        checks_only,
        state,
        place,
    }
}

async fn migrations(session: &Session, settled: bool) -> State {
    let environment = &session.environment;
    let migrations = match hub::Migrations::load(&session.project) {
        Ok(migrations) => migrations,
        Err(e) => return State::Unknown(e.into()),
    };
    if !environment.secrets.exists(&Purpose::OwnerDirect.secret_name()) {
        let mut changes = migrate_step::changes(&hub::all_versions(&migrations), &[]);
        changes.push("make psn's roles, with the rights that the plugins' manifests ask for".to_owned());
        return State::Pending(changes);
    }
    let manifests = match session.registry.manifests() {
        Ok(manifests) => manifests,
        Err(e) => return State::Unknown(e.into()),
    };
    let deadline = Deadline::after(LIMIT);
    match hub::inspect_migrations(&migrations, &environment.secrets, &environment.tls, &manifests, deadline).await {
        Ok(facts) if facts.is_done() => {
            let message = format!("{} migrations are applied; roles and grants are in place", facts.applied.len());
            State::Ready { message, data: Value::Null }
        }
        Ok(facts) => State::Pending(migrate_step::changes(&facts.pending, &facts.roles)),
        // The step before is to change where the database is, or whether there is one.
        Err(_) if !settled => State::NotAsked,
        Err(e) => State::Unknown(e.into()),
    }
}

/// Tells two surveys apart.
pub(super) fn fingerprint(findings: &[Finding]) -> String {
    let mut hash = Sha256::new();
    for finding in findings {
        hash.update(format!("{}\0{}\0", finding.place.slot(), finding.plugin));
        finding.state.digest(&mut hash);
    }
    hex::encode(&hash.finalize()[..16])
}
