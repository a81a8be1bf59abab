//! `psn config` and `psn hub`
use serde_json::json;

use super::args::{Config, Hub};
use super::run::distance;
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::{Event, Level};
use crate::hub::{HubKind, ProjectDir, Settings};
use crate::pipeline::session::find_project;
use crate::pipeline::switch::switch;
use crate::pipeline::{FIRST_PARTY, KnownSettings};
use crate::plugins::registry::Registry;

const HUB_KIND: &str = "hub.kind";

pub(super) fn config(context: &Context, command: Config) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), matches!(command, Config::Set { .. }))?;
    let settings = Settings::load(&project)?;
    let data = match command {
        Config::Set { name, value } if name == HUB_KIND && HubKind::parse(&value).is_none() => {
            return Err(CodedError::new(
                "usage.hub-kind",
                format!("`{value}` is no kind of hub: local, on this machine, or cloud"),
                [HubKind::Local, HubKind::Cloud].map(|kind| format!("psn config set {HUB_KIND} {}", kind.as_str())),
            ));
        }
        Config::Set { name, value } => {
            Settings::set(&project, &name, &value)?;
            warn_of_unknown(context, &project, &name);
            json!({ "name": name, "value": value })
        }
        Config::Unset { name } => {
            let was = settings.get(&name).map(str::to_owned);
            Settings::unset(&project, &name)?;
            json!({ "name": name, "was": was })
        }
        Config::Get { name } => match settings.get(&name) {
            Some(value) => json!({ "name": name, "value": value }),
            None => {
                return Err(CodedError::new(
                    "config.not-set",
                    format!("{name} is not set in config/psn.toml"),
                    [format!("psn config set {name} VALUE"), "psn config list".to_owned()],
                ));
            }
        },
        Config::List => json!(settings.to_map()),
    };
    context.events.emit(&Event::Result { command: "config".to_owned(), data });
    Ok(Done::Ok)
}

/// What nobody reads yet may be for a plugin that is added later, so it is set all the same.
fn warn_of_unknown(context: &Context, project: &ProjectDir, name: &str) {
    let known = KnownSettings::of(&Registry::open(project.path(), FIRST_PARTY));
    if known.has(name) {
        return;
    }
    let mut near: Vec<(usize, &str)> = known.names().map(|k| (distance(k, name), k)).collect();
    near.retain(|(distance, _)| *distance <= NEAR);
    near.sort_unstable();
    let near: Vec<&str> = near.into_iter().take(NEAREST).map(|(_, name)| name).collect();
    let message = match near.as_slice() {
        [] => format!("neither psn nor a plugin here reads the setting {name}"),
        near => format!("neither psn nor a plugin here reads the setting {name}; near it are {}", near.join(", ")),
    };
    context.events.log(Level::Warn, "psn", message);
}

/// Letters that a name and a misspelt one differ in.
const NEAR: usize = 4;
const NEAREST: usize = 3;

pub(super) fn hub(context: &Context, command: &Hub) -> Result<Done, CodedError> {
    let Hub::Use { kind } = command;
    let project = find_project(context.common.project.as_deref(), true)?;
    let moved = switch(&project, *kind)?;
    context.events.emit(&Event::Result {
        command: "hub use".to_owned(),
        data: json!({ "hub": kind.as_str(), "moved": moved, "next": "psn run setup" }),
    });
    Ok(Done::Ok)
}
