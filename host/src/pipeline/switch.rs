//! `psn hub use`: one folder, two hubs. The env files of the one not in use rest in config/connections/.
use std::path::Path;

use super::lock::RunLock;
use crate::error::CodedError;
use crate::hub::{EnvFiles, FileError, HubKind, ProjectDir, Settings};
use crate::secret::SecretBackend as _;

const FILES: [&str; 2] = ["hub.env", "keys.env"];

/// Puts the other hub's env files aside and takes up those of `kind`, if it has any. Answers whether anything moved. Killed
/// anywhere, the same command finishes it.
pub fn switch(project: &ProjectDir, kind: HubKind) -> Result<bool, CodedError> {
    let _lock = RunLock::acquire(&project.run_lock(), "psn hub use")?;
    let config = project.path().join("config");
    let mut moved = false;
    let current = EnvFiles::new(project).load()?;
    let current = match current.get("PSN_HUB") {
        Some(mark) => HubKind::parse(mark.expose()),
        // Keys without a mark were brought by a person for the hub that was not asked for now.
        None if current.is_empty() => None,
        None => Some(other(kind)),
    };
    let aside = |k: HubKind| config.join("connections").join(k.as_str());
    let connections = config.join("connections");
    let io = |e: std::io::Error| FileError::io(&connections)(e);
    if current.is_some_and(|c| c != kind) {
        moved |= shift(&config, &aside(other(kind))).map_err(io)?;
    }
    moved |= shift(&aside(kind), &config).map_err(io)?;
    Settings::set(project, "hub.kind", kind.as_str())?;
    Ok(moved)
}

fn other(kind: HubKind) -> HubKind {
    match kind {
        HubKind::Local => HubKind::Cloud,
        HubKind::Cloud => HubKind::Local,
    }
}

/// Moves the env files that are there; never over another.
fn shift(from: &Path, to: &Path) -> std::io::Result<bool> {
    let mut moved = false;
    for file in FILES {
        if !from.join(file).is_file() || to.join(file).exists() {
            continue;
        }
        std::fs::create_dir_all(to)?;
        std::fs::rename(from.join(file), to.join(file))?;
        moved = true;
    }
    Ok(moved)
}
