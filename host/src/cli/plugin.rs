//! `psn plugin`
use std::path::Path;

use serde_json::json;

use super::args::Plugin;
use super::{Context, Done, consent_prompt};
use crate::error::CodedError;
use crate::events::{Event, StepEvent, StepStatus, Summary};
use crate::pipeline::FIRST_PARTY;
use crate::pipeline::consent::needs_consent;
use crate::pipeline::session::find_project;
use crate::plugins::{AddError, Added, OperatorPolicy, Registry, asks, describe, withheld};
use crate::shell;

/// The largest file that is looked at, in bytes: a component with an embedded JavaScript or Python engine has under 40 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

pub(super) async fn plugin(context: &Context, command: Plugin) -> Result<Done, CodedError> {
    if let Plugin::Check { file } = &command {
        return check(context, file);
    }
    let project = find_project(context.common.project.as_deref(), matches!(command, Plugin::Add { .. }))?;
    let mut registry = Registry::open(project.path(), FIRST_PARTY);
    match command {
        // Answered above.
        Plugin::Check { .. } => {}
        Plugin::List => list(context, &registry)?,
        Plugin::Add { file, grant, yes } => return add(context, &mut registry, &file, grant.as_deref(), yes).await,
        Plugin::Diff { plugin } => return diff(context, &registry, &plugin),
        Plugin::Remove { name } => {
            registry.remove(&name)?;
            context.events.emit(&Event::Result { command: "plugin remove".to_owned(), data: json!({ "name": name }) });
        }
    }
    Ok(Done::Ok)
}

fn list(context: &Context, registry: &Registry) -> Result<(), CodedError> {
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
                "capabilities": p.lock.capabilities,
                "withheld": withheld(&p.manifest),
                "source": p.lock.source,
            }),
            // It does not run, and that is something to know about it.
            Err(e) => json!({ "name": name, "error": CodedError::from(e) }),
        })
        .collect();
    context.events.emit(&Event::Result { command: "plugin list".to_owned(), data: json!(plugins) });
    // What was added cannot be listed where the lock file cannot be read.
    Ok(registry.readable()?)
}

/// Adds a component once a person has agreed: with the grant that the question shows, or on a terminal.
async fn add(
    context: &Context,
    registry: &mut Registry,
    file: &Path,
    grant: Option<&str>,
    yes: bool,
) -> Result<Done, CodedError> {
    let consent = match registry.add(file, grant) {
        Ok(added) => return Ok(told(context, &added)),
        Err(AddError::ConsentNeeded(consent)) => consent,
        Err(e) => return Err(e.into()),
    };
    let mut asked = needs_consent(&consent, file, context.common.project.as_deref());
    if yes {
        asked.error = Some(CodedError::new(
            "plugin.yes-grants-nothing",
            format!("--yes does not say to what: {} was granted nothing", consent.name),
            asked.needs.iter().flat_map(|n| n.next.iter().take(1)).map(|n| n.command.clone()),
        ));
        return Ok(consent_needed(context, asked));
    }
    if consent_prompt::is_possible() && consent_prompt::agrees(&consent).await? {
        // The grant is for what was shown: where the file has changed meanwhile, this says so.
        return Ok(told(context, &registry.add(file, Some(&consent.grant))?));
    }
    Ok(consent_needed(context, asked))
}

fn told(context: &Context, added: &Added) -> Done {
    context.events.emit(&Event::Result {
        command: "plugin add".to_owned(),
        data: json!({
            "name": added.name,
            "sha256": added.sha256,
            "replaced": added.replaced.as_ref().map(|old| old.sha256.clone()),
            "next": "psn run setup",
        }),
    });
    Done::Ok
}

/// The question, as the last thing that the command says.
pub(super) fn consent_needed(context: &Context, asked: StepEvent) -> Done {
    context.events.emit(&Event::Step(Box::new(asked)));
    Done::Summary(Summary {
        status: StepStatus::NeedsConsent,
        steps: 1,
        succeeded: 0,
        skipped: 0,
        failed: 0,
        elapsed_ms: 0,
    })
}

/// What of a plugin is not what was granted.
fn diff(context: &Context, registry: &Registry, plugin: &str) -> Result<Done, CodedError> {
    let diff = registry.diff(plugin)?;
    let consent = &diff.consent;
    let lines = match (&diff.granted, &consent.difference) {
        (None, _) => {
            let nobody = "nobody has granted it anything yet; it asks to".to_owned();
            std::iter::once(nobody).chain(consent.asks.iter().map(|ask| format!("  + {ask}"))).collect()
        }
        (Some(_), Some(difference)) => difference.lines(),
        (Some(_), None) => vec!["it is what was granted".to_owned()],
    };
    let asked = diff.file.as_ref().filter(|_| !diff.is_same());
    let next = asked.map(|file| needs_consent(consent, file, context.common.project.as_deref()).needs);
    context.events.emit(&Event::Result {
        command: "plugin diff".to_owned(),
        data: json!({
            "name": consent.name,
            "same": diff.is_same(),
            "lines": lines,
            "removed": consent.difference.as_ref().map(|d| d.removed.clone()).unwrap_or_default(),
            "added": consent.difference.as_ref().map(|d| d.added.clone()).unwrap_or_default(),
            "withheld": consent.withheld,
            "sha256": consent.sha256,
            "granted": diff.granted.as_ref().map(|g| json!({
                "sha256": g.sha256,
                "version": g.version,
                "by": g.granted_by,
                "at": g.granted_at,
            })),
            "next": next.into_iter().flatten().flat_map(|need| need.next).collect::<Vec<_>>(),
        }),
    });
    Ok(if diff.is_same() { Done::Ok } else { Done::NeedsPerson })
}

/// What a component asks for, and what the policy here takes away; needs no hub.
fn check(context: &Context, file: &Path) -> Result<Done, CodedError> {
    let found = read(file).and_then(|bytes| Ok(describe(&bytes)?))?;
    let policy = match find_project(context.common.project.as_deref(), false) {
        Ok(project) => OperatorPolicy::load(project.path())?,
        Err(_) => OperatorPolicy::default(),
    };
    let about = &found.manifest.plugin;
    let data = json!({
        "name": about.name,
        "version": about.version,
        "world": about.world,
        "summary": about.summary,
        "sha256": found.sha256,
        "capabilities": found.manifest.capabilities_hash(),
        "asks": asks(&found.manifest),
        "withheld": withheld(&policy.narrow(&found.manifest)),
        "allowed": policy.allows_third_party(),
        "imports": found.imports,
        "next": format!("psn plugin add {}", shell::path(file)),
    });
    context.events.emit(&Event::Result { command: "plugin check".to_owned(), data });
    Ok(Done::Ok)
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
