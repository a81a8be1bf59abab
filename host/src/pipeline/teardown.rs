//! Removes what setup made, in reverse order, each step by its own `destroy`. What was adopted is left, and said.
use std::time::Duration;

use super::environment::role_url_secret;
use super::outcome::{Ended, Tally};
use super::plugin_step;
use super::session::Session;
use super::setup::{MIGRATE, Place, plugin_of};
use super::survey::{self, State};
use crate::capabilities::Deadline;
use crate::error::CodedError;
use crate::events::{Event, StepEvent, StepStatus, Summary};
use crate::hub::{self, EnvFiles, Purpose};
use crate::secret::record_name;

/// For the database's own part.
const LIMIT: Duration = Duration::from_secs(120);

/// The step's own word in its report: whether psn made the thing.
const CREATED: &str = "created";

/// What would be removed; removes nothing.
pub async fn plan_teardown(session: &mut Session) -> Result<Summary, CodedError> {
    let mut tally = tally();
    let mut stays = false;
    let mut events = Vec::new();
    for place in Place::all() {
        let (ended, event) = foresee(session, place, &mut stays).await?;
        events.push((ended, event));
    }
    for (ended, event) in events.into_iter().rev() {
        emit(session, event);
        tally.add(ended);
    }
    Ok(tally.summary())
}

/// `stays`: whether something that was adopted holds what later steps made in it.
async fn foresee(session: &mut Session, place: Place, stays: &mut bool) -> Result<(Ended, StepEvent), CodedError> {
    let slot = place.slot().to_owned();
    let nothing = |place: &Place| {
        (Ended::Skipped, place.event(StepStatus::Skipped, format!("{slot} has made nothing that is still there")))
    };
    if slot == MIGRATE {
        if !*stays {
            let message = "The tables, roles and grants go with the database that they are in".to_owned();
            return Ok((Ended::Skipped, place.event(StepStatus::Skipped, message)));
        }
        let mut event = place.event(StepStatus::Planned, "The database was adopted and stays".to_owned());
        event.changes = vec![
            "Drop the roles that psn made in it".to_owned(),
            "Leave its tables alone: they hold your data".to_owned(),
        ];
        return Ok((Ended::Planned, event));
    }
    let installed = plugin_of(session, &slot)?;
    if installed.manifest.plugin.checks_only {
        return Ok(nothing(&place));
    }
    let noted = has_notes(session, &installed.manifest.plugin.name);
    let finding = survey::look(session, place, true).await;
    let planned = |changes: Vec<String>, message: String| {
        let mut event = finding.place.event(StepStatus::Planned, message);
        event.changes = changes;
        (Ended::Planned, event)
    };
    Ok(match &finding.state {
        State::Ready { message, data } if data[CREATED] == false => {
            *stays = true;
            let message = format!("{slot} adopted what it uses, and leaves it alone: {message}");
            (Ended::Skipped, finding.place.event(StepStatus::Skipped, message))
        }
        State::Ready { message, .. } => {
            planned(vec![format!("Delete what {slot} made: {message}")], format!("{slot} would delete what it made"))
        }
        _ if !noted => nothing(&finding.place),
        State::Unknown(error) => planned(
            vec![format!("Delete what {slot} made, which cannot be looked at now: {}", error.message)],
            format!("{slot} would delete what it made"),
        ),
        _ => planned(
            vec![format!("Delete what an interrupted run of {slot} made, if it made anything")],
            format!("{slot} would delete what it made"),
        ),
    })
}

/// Removes it. Killed at any point, the same command goes on: a step forgets a thing when it is gone, and not before.
pub async fn teardown(session: &mut Session) -> Result<Summary, CodedError> {
    let mut tally = tally();
    for place in Place::all().rev() {
        emit(session, place.event(StepStatus::Running, format!("Removing what {} made…", place.slot())));
        let (ended, event) = match remove(session, &place).await {
            Ok((message, true)) => (Ended::Success, place.event(StepStatus::Success, message)),
            Ok((message, false)) => (Ended::Skipped, place.event(StepStatus::Skipped, message)),
            Err(error) => {
                let mut event = place.event(StepStatus::Error, error.message.clone());
                event.error = Some(error);
                (Ended::Failed, event)
            }
        };
        emit(session, event);
        tally.add(ended);
        if !ended.goes_on() {
            return Ok(tally.summary());
        }
    }
    forget_secrets(session)?;
    Ok(tally.summary())
}

/// Answers what was done, and whether anything was.
async fn remove(session: &mut Session, place: &Place) -> Result<(String, bool), CodedError> {
    let slot = place.slot();
    let did = session.ledger.steps.contains_key(slot);
    let done = if slot == MIGRATE {
        drop_roles(session).await?
    } else {
        let installed = plugin_of(session, slot)?;
        let name = &installed.manifest.plugin.name;
        if installed.manifest.plugin.checks_only {
            (format!("{slot} only looks, and has made nothing"), false)
        } else if !has_notes(session, name) && !did {
            (format!("{slot} has made nothing"), false)
        } else {
            let (report, _) = plugin_step::destroy(session, &installed, place).await.map_err(|(e, _)| e)?;
            (report.message, true)
        }
    };
    session.ledger.forget(slot)?;
    Ok(done)
}

/// In a database that goes, the roles go too; in one that was adopted psn takes back what it made besides the tables.
async fn drop_roles(session: &mut Session) -> Result<(String, bool), CodedError> {
    let adopted = session.ledger.steps.get("neon-provision").and_then(|r| r.data.as_ref()).map(|d| d[CREATED] == false);
    if adopted != Some(true) || !session.environment.secrets.exists(&Purpose::OwnerDirect.secret_name()) {
        return Ok(("The tables, roles and grants go with the database that they are in".to_owned(), false));
    }
    let manifests = session.registry.manifests()?;
    let environment = &session.environment;
    let dropped = hub::drop_roles(&environment.secrets, &environment.tls, &manifests, Deadline::after(LIMIT)).await?;
    let message = match dropped.as_slice() {
        [] => "The adopted database has none of psn's roles".to_owned(),
        roles => format!("Dropped {}; the tables stay: they hold your data", roles.join(", ")),
    };
    Ok((message, !dropped.is_empty()))
}

fn has_notes(session: &Session, plugin: &str) -> bool {
    let path = session.project.state_dir(&session.environment.hub_id).join(format!("{plugin}.json"));
    // Notes that cannot be read are notes: the step itself says what is wrong with them.
    std::fs::read(path).is_ok_and(|bytes| {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
            .map_or(true, |notes| !notes.is_empty())
    })
}

/// The connection strings and keys of what is gone. The hub's id and its encryption key stay: a deleted database can be recovered
/// for a while, and its tokens are of use with that key only.
fn forget_secrets(session: &Session) -> Result<(), CodedError> {
    let mut names = hub::plugin_urls(&session.environment.secrets);
    names.push(Purpose::App.secret_name());
    for manifest in session.registry.manifests()? {
        if !manifest.db.is_empty() {
            names.push(role_url_secret(&manifest.plugin.name));
        }
    }
    for place in Place::all().filter(|p| p.slot() != MIGRATE) {
        let installed = plugin_of(session, place.slot())?;
        names.extend(installed.manifest.kept().flat_map(|name| [name.clone(), record_name(name)]));
    }
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(EnvFiles::new(&session.project).remove_lines(&names)?)
}

fn tally() -> Tally {
    Tally::new(u32::try_from(super::SETUP.len()).unwrap_or(u32::MAX))
}

fn emit(session: &Session, event: StepEvent) {
    session.environment.events.emit(&Event::Step(Box::new(event)));
}
