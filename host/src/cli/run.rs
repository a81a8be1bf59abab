//! `psn run`
use std::sync::Arc;

use super::args::Run;
use super::{Context, Done};
use crate::error::CodedError;
use crate::pipeline::consent::needs_consent;
use crate::pipeline::{self, OpenOptions, Session};
use crate::plugins::RegistryError;
use crate::plugins::manifest::World;

/// The whole setup, under the name of a step.
const SETUP: &str = "setup";
/// The host's own step.
const MIGRATE: &str = "migrate";

pub(super) async fn run(context: &Context, run: Run) -> Result<Done, CodedError> {
    let payload = match &run.payload {
        None => serde_json::json!({}),
        Some(text) => serde_json::from_str(text).map_err(|e| {
            CodedError::new(
                "usage.payload",
                format!("--payload is not JSON: {e}"),
                [format!("psn run {} --payload '{{}}'", run.name)],
            )
        })?,
    };
    let payload = looking(&run)?.unwrap_or(payload);
    // A first run in an empty folder lays the tree out, whichever step it is.
    let mut session = open(context, true).await?;
    let name = run.name.as_str();
    if name == SETUP || name == MIGRATE || pipeline::SETUP.iter().any(|s| s.name == name) {
        if run.payload.is_some() {
            return Err(CodedError::new(
                "usage.payload",
                format!("{name} is no task and takes no payload"),
                [format!("psn run {name}")],
            ));
        }
        let summary = if name == SETUP {
            pipeline::run_setup(&mut session).await?
        } else {
            pipeline::run_single(&mut session, name).await?
        };
        return Ok(Done::Summary(summary));
    }
    let installed = match session.registry.get(name) {
        Ok(installed) => installed,
        Err(RegistryError::Changed { consent, file }) => {
            let asked = needs_consent(&consent, &file, context.common.project.as_deref());
            return Ok(super::plugin::consent_needed(context, asked));
        }
        Err(e) => return Err(unknown(&session, name, CodedError::from(e))),
    };
    let summary = match installed.manifest.world() {
        World::Step => pipeline::run_single(&mut session, name).await?,
        World::Task => pipeline::run_task(&mut session, name, payload).await?,
    };
    Ok(Done::Summary(summary))
}

/// The one task that can be asked to look only.
const WATCHDOG: &str = "watchdog";

/// What the watchdog is given by `--dry-run` and `--explain`.
fn looking(run: &Run) -> Result<Option<serde_json::Value>, CodedError> {
    let payload = match (run.dry_run, run.explain) {
        (false, None) => return Ok(None),
        (true, _) => serde_json::json!({ "dry_run": true }),
        (_, Some(post)) => serde_json::json!({ "explain": post }),
    };
    if run.name == WATCHDOG {
        return Ok(Some(payload));
    }
    let (flag, fix) = if run.dry_run {
        ("--dry-run", "psn plan setup".to_owned())
    } else {
        ("--explain", format!("psn run {WATCHDOG} --dry-run"))
    };
    Err(CodedError::new(
        "usage.looking",
        format!("{flag} is for the {WATCHDOG}: {} has no such thing", run.name),
        [fix],
    ))
}

/// An unknown name is most often a typing error: the answer says what there is.
fn unknown(session: &Session, name: &str, error: CodedError) -> CodedError {
    if error.code != "plugin.unknown" {
        return error;
    }
    let mut names: Vec<String> = vec![SETUP.to_owned(), MIGRATE.to_owned()];
    names.extend(session.registry.names());
    names.sort();
    let near = nearest(&names, name).map(|near| format!("psn run {near}"));
    CodedError::new(
        "run.unknown-step",
        format!("there is no step or task `{name}`; there are: {}", names.join(", ")),
        near.into_iter().chain(["psn plugin list".to_owned()]),
    )
}

/// The name that was most likely meant: a third of its letters may be wrong. A fix is typed as it stands, and what nobody meant must
/// not be done.
pub(super) fn nearest<'n>(names: &'n [String], typed: &str) -> Option<&'n str> {
    let (near, wrong) = names.iter().map(|name| (name, distance(name, typed))).min_by_key(|(_, wrong)| *wrong)?;
    (wrong * 3 <= near.chars().count()).then_some(near)
}

/// Levenshtein's distance; both words are short.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

pub(super) async fn open(context: &Context, create: bool) -> Result<Session, CodedError> {
    Session::open(options(context, create)).await
}

pub(super) fn options(context: &Context, create: bool) -> OpenOptions {
    OpenOptions {
        project: context.common.project.clone(),
        hub: context.common.hub,
        command: context.command.clone(),
        create,
        run_id: Arc::clone(&context.run_id),
        redactor: Arc::clone(&context.redactor),
        events: context.events.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn a_fix_is_what_was_meant_or_nothing() {
        let names: Vec<String> = ["keys", "migrate", "setup", "watchdog"].map(str::to_owned).to_vec();
        assert_eq!(nearest(&names, "wacthdog"), Some("watchdog"));
        assert_eq!(nearest(&names, "key"), Some("keys"));
        for typed in ["nothing-like", "", "watch", "k"] {
            assert_eq!(nearest(&names, typed), None, "{typed}");
        }
        assert_eq!(nearest(&[], "setup"), None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("setup", "setup"), 0);
        assert_eq!(distance("setup", "setpu"), 2);
        assert_eq!(distance("validate", "valdate"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
