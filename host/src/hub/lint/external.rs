//! squawk and pgrls, where they are on the PATH: linters of others, run on the files, read as JSON.
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::check;
use crate::events::{Check, CheckStatus};

/// Rules that do not fit how psn migrates: its session sets both time-outs (hub/migrate.rs), a counter of attempts stays small, and a
/// migration runs once, in a transaction, so its statements need not be repeatable.
const SQUAWK_EXCLUDED: &str =
    "require-lock-timeout,require-statement-timeout,prefer-bigint-over-int,prefer-robust-stmts";

pub(super) fn squawk(files: &[PathBuf]) -> Vec<Check> {
    let mut command = Command::new("squawk");
    command.args(["--assume-in-transaction", "--pg-version", "15", "--reporter", "json", "--exclude", SQUAWK_EXCLUDED]);
    run("lint.squawk", "pip install squawk-cli", command.args(files), |report| {
        let found = report.as_array()?;
        Some(found.iter().map(|f| (place(f), text(f, "rule_name"), text(f, "message"), is_error(f))).collect())
    })
}

pub(super) fn pgrls(files: &[PathBuf]) -> Vec<Check> {
    let mut command = Command::new("pgrls");
    command.args(["lint", "--format", "json"]);
    for file in files {
        command.arg("--sql-file").arg(file);
    }
    // A policy's role and the tables that it refers to are in psn's own migrations, which the files do not have.
    command.env_remove("DATABASE_URL");
    run("lint.pgrls", "pip install pgrls", &mut command, |report| {
        let found = report["violations"].as_array()?.iter().filter(|f| f["severity"] != "info");
        Some(found.map(|f| (text(f, "location"), text(f, "rule_id"), text(f, "message"), is_error(f))).collect())
    })
}

type Found = Vec<(String, String, String, bool)>;

fn run(name: &str, install: &str, command: &mut Command, read: impl Fn(&Value) -> Option<Found>) -> Vec<Check> {
    let program = command.get_program().to_string_lossy().into_owned();
    let skip = |why: String| vec![check(name, CheckStatus::Skip, why, vec![install.to_owned()], false)];
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return skip(format!("{program} is not installed")),
        Err(e) => return skip(format!("{program} could not be started: {e}")),
    };
    let found = serde_json::from_slice(&output.stdout).ok().as_ref().and_then(read);
    let Some(found) = found else {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        let message = format!("{program} gave no report ({}): {said}", output.status);
        return vec![check(name, CheckStatus::Fail, message, vec![format!("{program} --version")], true)];
    };
    if found.is_empty() {
        return vec![check(name, CheckStatus::Pass, format!("{program} finds nothing"), Vec::new(), false)];
    }
    let found = found.into_iter().map(|(place, rule, message, is_error)| {
        let status = if is_error { CheckStatus::Fail } else { CheckStatus::Warn };
        let message = format!("{place}: {program} {rule}: {message}");
        check(name, status, message, vec![format!("Change what {program} names in {place}")], is_error)
    });
    found.collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn place(value: &Value) -> String {
    format!("{}:{}", text(value, "file"), value["line"])
}

fn is_error(value: &Value) -> bool {
    ["level", "severity"].iter().any(|k| value[*k].as_str().is_some_and(|s| s.eq_ignore_ascii_case("error")))
}
