//! The checklist: whether everything that makes a hub is there and works, and for whatever is not, what to do. Changes nothing.

mod database;
mod files;
mod keys;
mod tasks;

use psn_plugin::prelude::*;

/// A person's, or an organisation's.
const TOKEN: &str = "TRIGGER_ACCESS_TOKEN";
/// Of the project's production environment.
const ENVIRONMENT_KEY: &str = "TRIGGER_SECRET_KEY";

struct Validate;

psn_plugin::export_step!(Validate);

impl Step for Validate {
    fn inspect() -> Result<State, Failure> {
        type Checks = fn() -> Vec<Check>;
        let groups: [(&str, Checks); 4] = [
            ("the database", database::check),
            ("the keys", keys::check),
            ("the tasks", tasks::check),
            ("the files", files::check),
        ];
        let mut checks = Vec::new();
        for (done, (what, check)) in groups.iter().enumerate() {
            progress(done as u32, groups.len() as u32, format!("Checking {what}"));
            checks.extend(check());
        }
        Ok(State::ready(report(checks)))
    }
}

fn report(checks: Vec<Check>) -> Report {
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let (failed, warned) = (count(Status::Fail), count(Status::Warn));
    let message = match (failed, warned) {
        (0, 0) => format!("The hub is in order: {} checks", checks.len()),
        (0, _) => format!("The hub works: {} checks, {warned} of them with a warning", checks.len()),
        _ => format!("{failed} of {} checks failed", checks.len()),
    };
    Report::new(message).data(json!({ "failed": failed, "warnings": warned })).checks(checks)
}

fn good(name: impl Into<String>, message: impl std::fmt::Display) -> Check {
    Check::pass(name, format!("✓ {message}"))
}

fn bad(name: impl Into<String>, message: impl std::fmt::Display) -> Check {
    Check::fail(name, format!("✗ {message}"))
}

/// Could not be checked: something it depends on failed, and says what to do.
fn unknown(name: impl Into<String>, message: impl std::fmt::Display) -> Check {
    Check::skip(name, format!("– {message}"))
}

/// What went wrong while checking, as a failed check.
fn went_wrong(name: impl Into<String>, failure: impl Into<Failure>) -> Check {
    let failure = failure.into();
    let check = bad(name, &failure.message);
    if failure.fix.is_empty() { check.fix("psn run setup") } else { failure.fix.into_iter().fold(check, Check::fix) }
}

#[cfg(test)]
mod tests;
