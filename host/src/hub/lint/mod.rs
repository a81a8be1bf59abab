//! Mistakes in migration files, found without a database: psn's own rules, and squawk's and pgrls' where they are installed.
mod external;
mod rules;
mod statements;

use std::path::{Path, PathBuf};

use super::atomic_file;
use super::migrations::{FIRST_OF_PROJECT, FOLDER, Migrations, MigrationsError};
use super::project::ProjectDir;
use crate::error::CodedError;
use crate::events::{Check, CheckStatus};

/// The project's own migrations.
pub fn project(project: &ProjectDir) -> Result<Vec<Check>, CodedError> {
    let migrations = Migrations::load(project)?;
    let own = migrations.iter().filter(|m| m.version >= FIRST_OF_PROJECT);
    let files: Vec<PathBuf> = own.filter_map(|m| migrations.file(m.version)).map(|f| project.path().join(f)).collect();
    if files.is_empty() {
        let message = format!("{FOLDER}/ has no migrations of yours; psn db new NAME makes one");
        return Ok(vec![check("lint.files", CheckStatus::Skip, message, Vec::new(), false)]);
    }
    self::files(&files)
}

pub fn files(files: &[PathBuf]) -> Result<Vec<Check>, CodedError> {
    let mut checks = Vec::new();
    for file in files {
        checks.extend(one(file)?);
    }
    checks.extend(external::squawk(files));
    checks.extend(external::pgrls(files));
    Ok(checks)
}

fn one(file: &Path) -> Result<Vec<Check>, CodedError> {
    let shown = file.display().to_string();
    let bytes = atomic_file::read(file).map_err(|e| e.coded())?;
    let bad = |reason: &str| MigrationsError::BadFile { file: shown.clone(), reason: reason.to_owned() };
    let text = String::from_utf8(bytes.ok_or_else(|| bad("is not there"))?).map_err(|_| bad("is not UTF-8"))?;
    let statements =
        statements::statements(&text).map_err(|(line, e)| bad(&format!("is no SQL at line {line}: {e}")))?;
    let findings = rules::check(&statements);
    if findings.is_empty() {
        let message = format!("{shown}: psn's own rules hold");
        return Ok(vec![check("lint.psn", CheckStatus::Pass, message, Vec::new(), true)]);
    }
    let found = findings.into_iter().map(|f| {
        let status = if f.required { CheckStatus::Fail } else { CheckStatus::Warn };
        let fix = vec![
            format!("${{EDITOR:-vi}} +{} {shown}", f.line),
            format!("Where it is meant, write above the statement: -- psn:allow {} and why", f.rule),
        ];
        check(&format!("lint.{}", f.rule), status, format!("{shown}:{}: {}", f.line, f.message), fix, f.required)
    });
    Ok(found.collect())
}

fn check(name: &str, status: CheckStatus, message: String, fix: Vec<String>, required: bool) -> Check {
    Check { check: name.to_owned(), step: None, status, message, fix, required }
}
