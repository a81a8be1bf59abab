//! The project on disk. What is there already is left as it is, so that a folder that is up to date keeps its files' times, and what
//! npm installed in it stays.
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CloudProject, File, INDEX};
use crate::atomic;
use crate::error::CodedError;

/// What the vendor's tools put there.
const FOREIGN: [&str; 2] = ["node_modules", ".trigger"];

impl CloudProject {
    /// Makes the folder hold this project and nothing else. A folder that holds something else than a project of psn's is refused.
    pub fn write(&self, folder: &Path) -> Result<(), CodedError> {
        let failed = |e: io::Error| {
            CodedError::new(
                "task.export",
                format!("{} cannot be written: {e}", folder.display()),
                [format!("make {} writable", folder.display()), "free disk space: df -h".to_owned()],
            )
        };
        if !is_psns(folder).map_err(failed)? {
            return Err(CodedError::new(
                "task.export-folder",
                format!("{} holds something else than tasks that psn wrote; nothing was changed", folder.display()),
                [format!("psn task export {}", folder.join("psn-tasks").display())],
            ));
        }
        self.fill(folder).map_err(failed)
    }

    fn fill(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        // The index first: killed half-way, the folder is known as psn's own.
        let (index, others): (Vec<_>, Vec<_>) = self.files.iter().partition(|(path, _)| *path == INDEX);
        for (path, file) in index.into_iter().chain(others) {
            put(&folder.join(path), file)?;
        }
        let wanted: BTreeSet<PathBuf> = self.files.keys().map(|path| folder.join(path)).collect();
        sweep(folder, &wanted, true)
    }
}

fn is_psns(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
        Ok(mut entries) => Ok(folder.join(INDEX).is_file() || entries.next().is_none()),
    }
}

fn put(path: &Path, file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Ok(there) = fs::symlink_metadata(path)
        && there.is_file()
        && there.len() == file.bytes.len() as u64
        && there.permissions().mode() & 0o777 == file.mode
        && fs::read(path)? == file.bytes
    {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    atomic::write(path, &file.bytes, file.mode)
}

/// Removes the tasks and components of another time: what lies under src/trigger is deployed.
fn sweep(folder: &Path, wanted: &BTreeSet<PathBuf>, top: bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if top && FOREIGN.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            sweep(&path, wanted, false)?;
            if fs::read_dir(&path)?.next().is_none() {
                fs::remove_dir(&path)?;
            }
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
