//! `psn doctor`: is this machine fit for psn, and does this psn hold against components that attack it?
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use psn_hostile::{Options, Row, SuiteError};
use serde_json::json;

use super::args::Doctor;
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::{Check, CheckStatus, Event};
use crate::hub::ProjectDir;
use crate::pipeline::home;
use crate::runtime::{Runtime, RuntimeOptions};

/// When the whole suite must be done. It takes two minutes on two idle cores.
const SUITE_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The step that the suite's checks belong to.
const HOSTILE: &str = "hostile";

pub(super) async fn doctor(context: &Context, command: Doctor) -> Result<Done, CodedError> {
    if command.hostile { hostile(context, command.only).await } else { machine(context) }
}

/// What psn needs of a machine, each with what to do where it is not so.
fn machine(context: &Context) -> Result<Done, CodedError> {
    let mut checks = vec![postgres(), cache(), program("git", "config/ is kept from git by rules alone")];
    let here = std::env::current_dir().unwrap_or_default();
    let project = match &context.common.project {
        Some(dir) => ProjectDir::at(dir).ok(),
        None => ProjectDir::discover(&here).ok(),
    };
    if let Some(project) = project {
        checks.extend(env_files(&project));
        checks.push(git(&project));
    }
    let failed = checks.iter().filter(|c| c.status == CheckStatus::Fail).count();
    let data = json!({ "checks": checks.len(), "failed": failed });
    checks.into_iter().for_each(|check| context.events.emit(&Event::Check(check)));
    context.events.emit(&Event::Result { command: "doctor".to_owned(), data });
    if failed == 0 { Ok(Done::Ok) } else { Ok(Done::Failed) }
}

fn check(name: &str, found: Result<String, (String, String)>) -> Check {
    let (status, message, fix) = match found {
        Ok(message) => (CheckStatus::Pass, message, Vec::new()),
        Err((message, fix)) => (CheckStatus::Fail, message, vec![fix]),
    };
    Check { check: name.to_owned(), step: Some("doctor".to_owned()), status, message, fix, required: true }
}

fn postgres() -> Check {
    let home = home::psn_home();
    // What is not there yet will be made below what is.
    let nearest = home.ancestors().find(|dir| dir.is_dir()).unwrap_or(&home);
    let found = psn_local_hub::pg::available(&psn_local_hub::pg::PgOptions::default(), nearest);
    check(
        "postgres",
        match found {
            Ok((dir, version)) => Ok(format!("Postgres {version} for the local hub, in {}", dir.display())),
            Err(e) => Err((e.to_string(), e.fix().into_iter().next().unwrap_or_else(|| "psn local up".to_owned()))),
        },
    )
}

/// Opens the cache as every run does: a folder or key that others can touch is not used.
fn cache() -> Check {
    let dir = home::psn_home().join("cache");
    let found = match Runtime::new(RuntimeOptions { cache_dir: Some(dir.clone()), ..RuntimeOptions::default() }) {
        Err(e) => Err((e.to_string(), "ulimit -a".to_owned())),
        Ok(runtime) => match runtime.notes().first() {
            None => Ok(format!("compiled code is kept in {}", dir.display())),
            Some(note) => Err((note.clone(), format!("chmod -R go-rwx {}", dir.display()))),
        },
    };
    check("cache", found)
}

fn program(name: &str, without: &str) -> Check {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|dir| dir.join(name)).find(|file| file.is_file());
    let mut check = check(
        name,
        match found {
            Some(file) => Ok(format!("{name} is at {}", file.display())),
            None => Err((format!("{name} is not on PATH: {without}"), format!("install {name}"))),
        },
    );
    if check.status == CheckStatus::Fail {
        (check.status, check.required) = (CheckStatus::Warn, false);
    }
    check
}

fn env_files(project: &ProjectDir) -> Vec<Check> {
    use std::os::unix::fs::PermissionsExt as _;
    [project.keys_env(), project.hub_env()]
        .iter()
        .filter_map(|file| Some((file, std::fs::metadata(file).ok()?.permissions().mode() & 0o777)))
        .map(|(file, mode)| {
            let name = name_of(file);
            check(
                &name,
                match (mode & 0o077, std::fs::File::open(file)) {
                    (_, Err(e)) => {
                        Err((format!("{name} cannot be read: {e}"), format!("chmod 600 {}", file.display())))
                    }
                    (0, Ok(_)) => Ok(format!("{name} is its owner's alone")),
                    (_, Ok(_)) => Err((
                        format!("{name} can be read by others (mode {mode:o})"),
                        format!("chmod 600 {}", file.display()),
                    )),
                },
            )
        })
        .collect()
}

fn git(project: &ProjectDir) -> Check {
    let facts = project.git_facts();
    let files = facts["files"].as_array().cloned().unwrap_or_default();
    let kept = files.iter().find(|f| f["ignored"] == false || f["tracked"] == true);
    let was_kept = files.iter().find(|f| f["in_history"] == true);
    check(
        "git-hygiene",
        match (kept, was_kept) {
            (None, None) => Ok("git keeps no file with secrets".to_owned()),
            (Some(file), _) => Err((
                format!("git would keep {}", file["path"].as_str().unwrap_or_default()),
                "psn run validate".to_owned(),
            )),
            (None, Some(file)) => Err((
                format!("git has {} in its history", file["path"].as_str().unwrap_or_default()),
                "psn run validate".to_owned(),
            )),
        },
    )
}

fn name_of(file: &Path) -> String {
    file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Runs the suite against this very binary, in a hub of its own.
async fn hostile(context: &Context, only: Vec<String>) -> Result<Done, CodedError> {
    let program = std::env::current_exe().map_err(|e| {
        suite_error(&SuiteError::Io { what: "psn does not find its own program".to_owned(), source: e })
    })?;
    let events = context.events.clone();
    let width = psn_hostile::attacks().iter().map(|a| a.id.len()).max().unwrap_or_default();
    let mut tell = move |row: &Row| {
        print_row(row, width);
        events.emit(&Event::Check(row_check(row)));
    };
    let options = Options { program, only, limit: SUITE_LIMIT };
    let rows = psn_hostile::run(&options, &mut tell).await.map_err(|e| suite_error(&e))?;
    let failed: Vec<&str> = rows.iter().filter(|r| !r.held).map(|r| r.id.as_str()).collect();
    let attacks = rows.iter().filter(|r| !r.control).count();
    print_line(&format!("{} of {} held; {} controls", rows.len() - failed.len(), rows.len(), rows.len() - attacks));
    context.events.emit(&Event::Result {
        command: "doctor".to_owned(),
        data: json!({ "attacks": attacks, "controls": rows.len() - attacks, "failed": failed }),
    });
    if failed.is_empty() { Ok(Done::Ok) } else { Ok(Done::Failed) }
}

fn row_check(row: &Row) -> Check {
    let (status, fix) = if row.held {
        (CheckStatus::Pass, Vec::new())
    } else {
        let again = format!("psn doctor --hostile --only {}", row.id);
        (CheckStatus::Fail, vec![again, "Do not add plugins with this psn; report it as SECURITY.md says.".to_owned()])
    };
    Check {
        check: row.id.clone(),
        step: Some(HOSTILE.to_owned()),
        status,
        message: format!("{}: {}", row.title, row.observed),
        fix,
        required: true,
    }
}

fn print_row(row: &Row, width: usize) {
    let ended = if row.held { "held  " } else { "FAILED" };
    print_line(&format!("{ended} {:width$}  {}: {}", row.id, row.title, row.observed));
}

/// The table is for people.
fn print_line(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    // Without a reader there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn suite_error(e: &SuiteError) -> CodedError {
    let message = e.to_string();
    match e {
        SuiteError::NoSuchAttack(_) => CodedError::new(
            "usage.no-such-attack",
            message,
            ["psn doctor --hostile", "psn doctor --hostile --only http"],
        ),
        SuiteError::Setup { .. } | SuiteError::Database(_) | SuiteError::Io { .. } | SuiteError::Time(_) => {
            CodedError::new("doctor.suite", message, ["psn doctor", "psn local status"])
        }
    }
}
