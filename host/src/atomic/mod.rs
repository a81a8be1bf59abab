//! Files that are either the old ones or the new ones, whatever happens in between.
#[cfg(feature = "full")]
mod shared;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::boundary::{Kind, Phase, passed};
#[cfg(feature = "full")]
pub(crate) use shared::{sweep, write_once};

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
