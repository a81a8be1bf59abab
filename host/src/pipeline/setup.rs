//! Setup: five steps in order. A step that another plugin takes over keeps its place.
use std::sync::Arc;

use super::component_store::ComponentStore;
use super::consent::needs_consent;
use super::facts::{Deploys, cloud_project};
use super::outcome::{Ended, Tally};
use super::session::Session;
use super::{home, migrate_step, plugin_step};
use crate::error::CodedError;
use crate::events::{Event, StepEvent, StepStatus, Summary};
use crate::hub::HubKind;
use crate::plugins::manifest::World;
use crate::plugins::{Installed, RegistryError};

/// One place in setup.
#[derive(Debug)]
pub struct Slot {
    /// The step's name, as in `psn run NAME`. A setting `steps.NAME` names the plugin that fills it.
    pub name: &'static str,
    /// What people read while it runs.
    pub title: &'static str,
}

/// The host's own step among the plugins'.
pub(super) const MIGRATE: &str = "migrate";

pub const SETUP: &[Slot] = &[
    Slot { name: "keys", title: "Checking keys…" },
    Slot { name: "neon-provision", title: "Creating database…" },
    Slot { name: MIGRATE, title: "Applying migrations…" },
    Slot { name: "trigger-provision", title: "Deploying to Trigger.dev…" },
    Slot { name: "validate", title: "Checking the hub…" },
];

/// Where a step stands, for its events.
pub(super) struct Place {
    slot: String,
    title: String,
    position: Option<(u32, u32)>,
}

impl Place {
    /// Of setup's steps, in order.
    pub(super) fn all() -> impl DoubleEndedIterator<Item = Place> {
        let total = u32::try_from(SETUP.len()).unwrap_or(u32::MAX);
        SETUP.iter().enumerate().map(move |(index, slot)| Place {
            slot: slot.name.to_owned(),
            title: slot.title.to_owned(),
            position: Some((u32::try_from(index).map_or(total, |i| i + 1), total)),
        })
    }

    pub(super) fn slot(&self) -> &str {
        &self.slot
    }

    /// `[2/5] Creating database…`
    pub(super) fn title(&self) -> String {
        match self.position {
            Some((index, total)) => format!("[{index}/{total}] {}", self.title),
            None => self.title.clone(),
        }
    }

    pub(super) fn event(&self, status: StepStatus, message: String) -> StepEvent {
        StepEvent {
            index: self.position.map(|(index, _)| index),
            total: self.position.map(|(_, total)| total),
            ..StepEvent::new(self.slot.as_str(), status, message)
        }
    }
}

/// All steps, until one does not end well.
pub async fn run_setup(session: &mut Session) -> Result<Summary, CodedError> {
    let total = u32::try_from(SETUP.len()).unwrap_or(u32::MAX);
    let mut tally = Tally::new(total);
    for (done, place) in (0..).zip(Place::all()) {
        session.environment.events.emit(&Event::Progress {
            source: "setup".to_owned(),
            done,
            total,
            message: place.title(),
        });
        let ended = run_place(session, &place).await;
        tally.add(ended);
        if !ended.goes_on() {
            break;
        }
    }
    Ok(tally.summary())
}

/// One step by name; of setup, or any plugin that is a step.
pub async fn run_single(session: &mut Session, name: &str) -> Result<Summary, CodedError> {
    let title =
        SETUP.iter().find(|s| s.name == name).map_or_else(|| format!("Running {name}…"), |s| s.title.to_owned());
    let mut tally = Tally::new(1);
    tally.add(run_place(session, &Place { slot: name.to_owned(), title, position: None }).await);
    Ok(tally.summary())
}

/// An error of psn's own in a step is that step's error: the stream says where it happened.
async fn run_place(session: &mut Session, place: &Place) -> Ended {
    match try_place(session, place).await {
        Ok(ended) => ended,
        Err(error) => {
            let mut event = place.event(StepStatus::Error, error.message.clone());
            event.error = Some(error);
            session.environment.events.emit(&Event::Step(Box::new(event)));
            Ended::Failed
        }
    }
}

async fn try_place(session: &mut Session, place: &Place) -> Result<Ended, CodedError> {
    if place.slot() == MIGRATE {
        return migrate_step::run(session, place).await;
    }
    let installed = match consent_first(session, place, named_plugin(session, place.slot()))? {
        Ok(installed) => installed,
        Err(ended) => return Ok(ended),
    };
    check_step(&installed, place.slot())?;
    // Only a step that deploys needs the tasks: a plugin that is damaged must not stop the others.
    let deploys = installed.manifest.hub.facts.iter().any(|topic| topic == "tasks");
    if deploys {
        let tasks = match consent_first(session, place, session.registry.tasks())? {
            Ok(tasks) => tasks,
            Err(ended) => return Ok(ended),
        };
        if session.kind == HubKind::Local {
            publish_tasks(session, tasks).await?;
        }
        if Deploys::of(session.kind, &session.environment.settings)? == Deploys::ByCli {
            write_project(session).await?;
        }
    }
    plugin_step::run(session, &installed, place).await
}

/// The component that fills a place of setup.
pub(super) fn plugin_of(session: &Session, slot: &str) -> Result<Arc<Installed>, CodedError> {
    let installed = named_plugin(session, slot)?;
    check_step(&installed, slot)?;
    Ok(installed)
}

fn named_plugin(session: &Session, slot: &str) -> Result<Arc<Installed>, RegistryError> {
    session.registry.get(session.environment.settings.get(&format!("steps.{slot}")).map_or(slot, String::as_str))
}

fn check_step(installed: &Installed, slot: &str) -> Result<(), CodedError> {
    if installed.manifest.world() == World::Step {
        return Ok(());
    }
    let plugin = &installed.manifest.plugin.name;
    Err(CodedError::new(
        "plugin.wrong-world",
        format!("{plugin} is a task, and {slot} is a step of setup"),
        [format!("psn run {plugin}"), "psn plugin list".to_owned()],
    ))
}

/// What the registry answered; where a plugin is not what was granted, that is asked instead, and the step has ended.
pub(super) fn consent_first<T>(
    session: &Session,
    place: &Place,
    answer: Result<T, RegistryError>,
) -> Result<Result<T, Ended>, CodedError> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(RegistryError::Changed { consent, file }) => {
            let asked = needs_consent(&consent, &file, session.named.as_deref());
            let mut event = place.event(asked.status, asked.message.clone());
            (event.data, event.needs) = (asked.data, asked.needs);
            session.environment.events.emit(&Event::Step(Box::new(event)));
            Ok(Err(Ended::NeedsConsent))
        }
        Err(e) => Err(e.into()),
    }
}

/// What the CLI will bundle, where the manifest's arguments say it is.
async fn write_project(session: &Session) -> Result<(), CodedError> {
    let (registry, project) = (Arc::clone(&session.registry), session.project.clone());
    let settings = session.environment.settings.clone();
    let folder = project.cloud_project_dir();
    let written =
        tokio::task::spawn_blocking(move || cloud_project(&registry, &project, &settings)?.write(&folder)).await;
    written.unwrap_or_else(|e| Err(CodedError::new("task.export", e.to_string(), ["psn run trigger-provision"])))
}

/// What the local hub's engine will run, where it can find it.
async fn publish_tasks(session: &Session, tasks: Vec<Arc<Installed>>) -> Result<(), CodedError> {
    let policy = session.registry.policy()?.clone();
    let stored = tokio::task::spawn_blocking(move || {
        let store = ComponentStore::new(&home::psn_home());
        tasks.iter().try_for_each(|task| store.put(task, &policy))
    });
    let problem = match stored.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(e)) => e.to_string(),
        Err(e) => e.to_string(),
    };
    Err(CodedError::new(
        "local.components",
        problem,
        [format!("make {} writable", home::psn_home().display()), "free disk space: df -h".to_owned()],
    ))
}
