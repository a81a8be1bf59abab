//! Files that are either the old ones or the new ones, whatever happens in between.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::boundary::{Kind, Phase, passed};

/// The end of the names of files that are being written.
const SUFFIX: &str = ".tmp";
/// In their names, so that two writers never meet.
const RANDOM_BYTES: usize = 8;
/// Names tried for a file beside another. A second one is needed only where a sweep takes the first for a dead one's.
const NAMES: usize = 8;

/// Writes a file beside its place, has it on disk, then moves it there, and has that on disk too.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let at = |phase| passed(Kind::File, phase, || path.display().to_string());
    at(Phase::Before);
    let temporary = Temporary::beside(path, mode)?;
    at(Phase::Begun);
    temporary.fill(bytes)?;
    at(Phase::Written);
    temporary.rename(path)?;
    sync_parent(path)?;
    at(Phase::After);
    Ok(())
}

/// Like [`write()`], but leaves a file that is already there alone: of two processes that come here at once, one wins.
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

/// A file under a name of its own, locked. Gone when dropped, unless it got its place.
struct Temporary {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Temporary {
    fn beside(path: &Path, mode: u32) -> io::Result<Self> {
        for _ in 0..NAMES {
            let path = beside(path)?;
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            // Between the two a sweep may have come by.
            match file.try_lock() {
                Ok(()) if file.metadata()?.nlink() > 0 => return Ok(Self { path, file, placed: false }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => {
                    let _ = fs::remove_file(&path);
                    return Err(e);
                }
            }
        }
        Err(io::Error::other("another process removes files that are being written"))
    }

    fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)?;
        self.file.sync_all()
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // If this fails too, the error before it is the one to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// As [`beside`] makes them.
fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix('.').and_then(|n| n.strip_suffix(SUFFIX)).and_then(|n| n.rsplit_once('.'));
    random.is_some_and(|(_, r)| r.len() == 2 * RANDOM_BYTES && r.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file's path"))?;
    let mut random = [0u8; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(path.with_file_name(format!(".{}.{}{SUFFIX}", name.to_string_lossy(), hex::encode(random))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_keeps_modes_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_once(&path, b"three", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write_once(&dir.path().join("g"), b"four", 0o600).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(write(&dir.path().join("no/such/f"), b"x", 0o600).is_err());
    }

    #[test]
    fn a_sweep_takes_what_the_dead_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dead = beside(&dir.path().join("f")).unwrap();
        fs::write(&dead, "half").unwrap();
        let others = ["mine.tmp", ".hidden", ".notes.tmp", ".a.0123456789abcdeX.tmp"].map(|n| dir.path().join(n));
        for other in &others {
            fs::write(other, "a person's").unwrap();
        }
        let alive = Temporary::beside(&dir.path().join("g"), 0o600).unwrap();
        sweep(dir.path()).unwrap();
        assert!(!dead.exists());
        assert!(alive.path.exists() && others.iter().all(|o| o.exists()));
        alive.fill(b"whole").unwrap();
        alive.rename(&dir.path().join("g")).unwrap();
        assert_eq!(fs::read(dir.path().join("g")).unwrap(), b"whole");
        sweep(&dir.path().join("none")).unwrap();
    }
}
