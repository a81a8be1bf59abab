//! Folders that several processes write to, at once and one after the other.
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{RANDOM_BYTES, SUFFIX, Temporary, sync_parent};

/// Like [`write()`](super::write), but leaves a file that is already there alone: of two processes that come here at once, one wins.
/// Says whether it was this one.
pub(crate) fn write_once(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let temporary = Temporary::beside(path, mode)?;
    temporary.fill(bytes)?;
    // A hard link is the one way to publish a complete file that fails when the name is taken, on every Unix.
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes what killed writers left in a folder. A writer holds a lock on what it writes, and the kernel takes it away with the
/// writer, so that one at work is told from a dead one. A folder that is not there has nothing in it.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !(is_temporary(&name) && entry.file_type()?.is_file()) {
            continue;
        }
        match File::open(entry.path()) {
            Ok(file) if file.try_lock().is_ok() => remove_if_there(&entry.path())?,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// As [`beside`](super::beside) makes them.
fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix('.').and_then(|n| n.strip_suffix(SUFFIX)).and_then(|n| n.rsplit_once('.'));
    random.is_some_and(|(_, r)| r.len() == 2 * RANDOM_BYTES && r.bytes().all(|b| b.is_ascii_hexdigit()))
}
