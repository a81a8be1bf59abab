//! The project on disk. What is there already is left as it is, so that a folder that is up to date keeps its files' times, and what
//! npm, git or a person put beside psn's files stays.
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{CloudProject, File, INDEX};
use crate::atomic;
use crate::error::CodedError;
use crate::shell;

/// Folders that are psn's as a whole: what stands in them is deployed, or was by an earlier set of tasks.
const OWN: [&str; 2] = ["src", "components"];

impl CloudProject {
    /// Makes the folder hold this project, and no other tasks. One that holds something else than a project of psn's is refused.
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
                [format!("psn task export {}", shell::path(&folder.join("psn-tasks")))],
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
        OWN.iter().try_for_each(|own| sweep(&folder.join(own), &wanted))
    }
}

fn is_psns(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
        Ok(mut entries) => Ok(has_index(folder) || entries.next().is_none()),
    }
}

/// A file of that name alone may be anyone's.
fn has_index(folder: &Path) -> bool {
    let index = fs::read(folder.join(INDEX)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    index.is_some_and(|index| index["psn"].is_string() && index["tasks"].is_array())
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
fn sweep(folder: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            sweep(&path, wanted)?;
            if fs::read_dir(&path)?.next().is_none() {
                fs::remove_dir(&path)?;
            }
        } else if !wanted.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
