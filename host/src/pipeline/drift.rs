//! The ledger against reality: what setup said it did, and is no longer so.
use serde_json::Value;

use super::outcome::{Ended, Tally};
use super::session::Session;
use super::setup::Place;
use super::survey::{self, Finding, State};
use crate::error::CodedError;
use crate::events::{Event, StepStatus, Summary};

/// Fields of a report by which a thing is known: another value is another thing.
const IDENTITY: [&str; 2] = ["project_id", "project_ref"];

/// Looks at every step that the ledger calls done, also where one before it is not as it was. What has drifted is told as
/// `planned`, with what setup would do about it.
pub async fn drift(session: &mut Session) -> Result<Summary, CodedError> {
    let mut tally = Tally::new(u32::try_from(super::SETUP.len()).unwrap_or(u32::MAX));
    let mut settled = true;
    for place in Place::all() {
        let Some(record) = session.ledger.steps.get(place.slot()).cloned() else {
            let event = place.event(StepStatus::Skipped, format!("{} has not been set up yet", place.slot()));
            session.environment.events.emit(&Event::Step(Box::new(event)));
            tally.add(Ended::Skipped);
            continue;
        };
        let finding = survey::look(session, place, settled).await;
        let changes = changes(&finding, record.component_sha256.as_deref(), record.data.as_ref());
        settled &= changes.is_empty();
        let slot = finding.place.slot();
        let event = if changes.is_empty() {
            let message = match &finding.state {
                State::Ready { message, .. } => message.clone(),
                _ => format!("{slot} looks at what has drifted: run it once that is mended"),
            };
            tally.add(Ended::Skipped);
            finding.place.event(StepStatus::Skipped, message)
        } else {
            tally.add(Ended::Planned);
            let mut event = finding.place.event(StepStatus::Planned, format!("{slot} is not as setup left it"));
            if let State::Unknown(error) = &finding.state {
                event.error = Some(error.clone());
            }
            event.changes = changes;
            event
        };
        session.environment.events.emit(&Event::Step(Box::new(event)));
    }
    Ok(tally.summary())
}

fn changes(finding: &Finding, component: Option<&str>, data: Option<&Value>) -> Vec<String> {
    let mut changes = match &finding.state {
        State::Ready { data: now, .. } => {
            let of = |value: Option<&Value>, field: &str| value.and_then(|v| v[field].as_str()).map(str::to_owned);
            IDENTITY
                .iter()
                .filter_map(|field| Some((field, of(data, field)?, of(Some(now), field)?)))
                .filter(|(_, then, now)| then != now)
                .map(|(field, then, now)| format!("{field} was {then}, and is {now}"))
                .collect()
        }
        State::Pending(changes) => changes.clone(),
        State::Needs(needs) => needs.iter().map(|n| format!("{} is missing", n.name)).collect(),
        State::Unknown(error) => vec![format!("it cannot be looked at: {}", error.message)],
        State::NotAsked => Vec::new(),
    };
    if finding.component_sha256.as_deref() != component {
        changes.push(format!("the component of {} is another than the one that ran", finding.place.slot()));
    }
    changes
}
