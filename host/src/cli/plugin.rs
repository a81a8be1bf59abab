//! `psn plugin`
use std::path::Path;

use serde_json::json;

use super::args::Plugin;
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::{Event, Need, NextCommand, StepEvent, StepStatus, Summary};
use crate::pipeline::FIRST_PARTY;
use crate::pipeline::session::find_project;
use crate::plugins::{AddError, ConsentNeeded, Registry, asks, describe};

/// The largest file that is looked at, in bytes: a component with an embedded JavaScript or Python engine has under 40 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

pub(super) async fn plugin(context: &Context, command: Plugin) -> Result<Done, CodedError> {
    if let Plugin::Check { file } = &command {
        return check(context, file);
    }
    let project = find_project(context.common.project.as_deref(), matches!(command, Plugin::Add { .. }))?;
    let mut registry = Registry::open(project.path(), FIRST_PARTY)?;
    match command {
        // Answered above.
        Plugin::Check { .. } => {}
        Plugin::List => {
            let plugins: Vec<_> = registry
                .names()
                .iter()
                .map(|name| match registry.get(name) {
                    Ok(p) => json!({
                        "name": name,
                        "version": p.manifest.plugin.version,
                        "world": p.manifest.plugin.world,
                        "summary": p.manifest.plugin.summary,
                        "sha256": p.sha256,
                        "capabilities": p.manifest.capabilities_hash(),
                        "source": p.lock.source,
                    }),
                    // It does not run, and that is something to know about it.
                    Err(e) => json!({ "name": name, "error": CodedError::from(e) }),
                })
                .collect();
            context.events.emit(&Event::Result { command: "plugin list".to_owned(), data: json!(plugins) });
        }
        Plugin::Add { file, grant } => match registry.add(&file, grant.as_deref()) {
            Ok(added) => context.events.emit(&Event::Result {
                command: "plugin add".to_owned(),
                data: json!({
                    "name": added.name,
                    "sha256": added.sha256,
                    "replaced": added.replaced.as_ref().map(|old| old.sha256.clone()),
                    "next": "psn run setup",
                }),
            }),
            Err(AddError::ConsentNeeded(consent)) => return Ok(needs_consent(context, &file, &consent)),
            Err(e) => return Err(e.into()),
        },
        Plugin::Remove { name } => {
            registry.remove(&name)?;
            context.events.emit(&Event::Result { command: "plugin remove".to_owned(), data: json!({ "name": name }) });
        }
    }
    Ok(Done::Ok)
}

/// What a component asks for; needs no hub.
fn check(context: &Context, file: &Path) -> Result<Done, CodedError> {
    let found = read(file).and_then(|bytes| Ok(describe(&bytes)?))?;
    let about = &found.manifest.plugin;
    let data = json!({
        "name": about.name,
        "version": about.version,
        "world": about.world,
        "summary": about.summary,
        "sha256": found.sha256,
        "capabilities": found.manifest.capabilities_hash(),
        "asks": asks(&found.manifest),
        "imports": found.imports,
    });
    context.events.emit(&Event::Result { command: "plugin check".to_owned(), data });
    Ok(Done::Ok)
}

/// Shows what is asked for, and the one command that grants exactly this.
fn needs_consent(context: &Context, file: &Path, consent: &ConsentNeeded) -> Done {
    let command = format!("psn plugin add {} --grant {}", file.display(), consent.grant);
    context.events.emit(&Event::Step(Box::new(StepEvent {
        step: consent.name.clone(),
        index: None,
        total: None,
        status: StepStatus::NeedsConsent,
        message: format!("{} asks for: {}", consent.name, consent.asks.join("; ")),
        data: Some(json!({
            "asks": consent.asks,
            "grant": consent.grant,
            "sha256": consent.sha256,
            "capabilities": consent.capabilities_hash,
            "difference": consent.difference.as_ref().map(ToString::to_string),
        })),
        needs: vec![Need {
            name: consent.grant.clone(),
            secret: false,
            origin: "a person who has read what the plugin asks for".to_owned(),
            choices: Vec::new(),
            next: vec![NextCommand { command, when: "a person agrees to all of it".to_owned() }],
        }],
        changes: Vec::new(),
        error: None,
        usage: None,
    })));
    Done::Summary(Summary {
        status: StepStatus::NeedsConsent,
        steps: 1,
        succeeded: 0,
        skipped: 0,
        failed: 0,
        elapsed_ms: 0,
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CodedError> {
    let unreadable = |what: String| CodedError::new("plugin.unreadable", what, ["psn plugin check FILE"]);
    let meta = std::fs::metadata(file).map_err(|e| unreadable(format!("{}: {e}", file.display())))?;
    if meta.len() > MAX_FILE_BYTES {
        return Err(unreadable(format!(
            "{} has {} bytes; at most {MAX_FILE_BYTES} are looked at",
            file.display(),
            meta.len()
        )));
    }
    std::fs::read(file).map_err(|e| unreadable(format!("{}: {e}", file.display())))
}
