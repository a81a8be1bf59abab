//! Files that hold what must not be lost, torn or read by others.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::boundary::{Kind, Phase, passed};

/// How long one writer waits for another. A write takes milliseconds; who waits longer than this waits for a stopped process.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The end of the names of files that are being written. Fixed, so that what a killed process left behind is found and removed by
/// the next writer, and so that one line in .gitignore covers them.
pub const TEMP_SUFFIX: &str = ".psn-tmp";

/// What was being done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path} cannot be {}: {source}", match direction { Direction::Read => "read", Direction::Write => "written" })]
    Io { path: PathBuf, source: io::Error, direction: Direction },
    #[error("{0} is a symbolic link; psn writes secrets to plain files only")]
    Symlink(PathBuf),
    #[error("{0} is not a plain file")]
    NotAFile(PathBuf),
    #[error("another psn has been writing for {} s (lock {path})", LOCK_WAIT.as_secs())]
    Locked { path: PathBuf },
}

impl FileError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |source| FileError::Io { path: path.to_owned(), source, direction: Direction::Write }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> FileError {
        move |source| FileError::Io { path: path.to_owned(), source, direction: Direction::Read }
    }
}

/// Held by whoever changes the files of one folder; released by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lives as long as the open file")] File);

impl Lock {
    /// `path` is a file of its own that is never replaced or deleted: a lock on a file that gets renamed over protects nothing.
    pub fn exclusive(path: &Path) -> Result<Self, FileError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(path)
            .map_err(FileError::io(path))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => return Err(FileError::Locked { path: path.to_owned() }),
                Err(TryLockError::Error(e)) => return Err(FileError::io(path)(e)),
            }
        }
    }
}

/// Replaces the file as a whole: a reader sees the old bytes or the new ones, and after a crash the file is one of the two. What is
/// written is on disk before this returns. Writers of one path must hold the same [`Lock`].
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_symlink() => return Err(FileError::Symlink(path.to_owned())),
        Ok(m) if !m.is_file() => return Err(FileError::NotAFile(path.to_owned())),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(FileError::io(path)(e)),
    }
    let temp = temp_path(path);
    let at = |phase| passed(Kind::File, phase, || path.display().to_string());
    at(Phase::Before);
    remove_if_there(&temp)?;
    let written = write_temp(&temp, path, bytes, mode, || at(Phase::Begun)).and_then(|()| {
        at(Phase::Written);
        fs::rename(&temp, path).map_err(FileError::io(path))
    });
    if written.is_err() {
        // Nothing half-written stays behind; if this fails too, the first error is the one to tell.
        let _ = fs::remove_file(&temp);
    }
    written?;
    sync_folder(path)?;
    at(Phase::After);
    Ok(())
}

/// Reads a file that a symbolic link may not stand for. `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let mut file = match OpenOptions::new().read(true).custom_flags(nofollow()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::LOOP) => {
            return Err(FileError::Symlink(path.to_owned()));
        }
        Err(e) => return Err(FileError::read(path)(e)),
    };
    if !file.metadata().map_err(FileError::read(path))?.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).map_err(FileError::read(path))?;
    Ok(Some(bytes))
}

/// Removes what a killed writer of `path` left behind. The caller holds the lock.
pub fn sweep(path: &Path) -> Result<(), FileError> {
    remove_if_there(&temp_path(path))
}

fn temp_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMP_SUFFIX}"))
}

/// Errors name the file that was to be written.
fn write_temp(temp: &Path, path: &Path, bytes: &[u8], mode: u32, begun: impl FnOnce()) -> Result<(), FileError> {
    let io = || FileError::io(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(nofollow()).open(temp).map_err(io())?;
    // The mode given to open is narrowed by the umask; this one is not.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io())?;
    begun();
    file.write_all(bytes).map_err(io())?;
    file.sync_all().map_err(io())
}

fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(FileError::io(folder))
}

fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::io(path)(e)),
        _ => Ok(()),
    }
}

fn nofollow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_replaced_file_has_the_mode_asked_for_whatever_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.env");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else stays in the folder");
    }

    #[test]
    fn links_folders_and_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.env");
        fs::write(dir.path().join("elsewhere"), "x").unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(replace(&path, b"secret", 0o600), Err(FileError::Symlink(_))));
        assert!(matches!(read(&path), Err(FileError::Symlink(_))));
        assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), b"x");
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        assert!(matches!(replace(&path, b"secret", 0o600), Err(FileError::NotAFile(_))));
        fs::remove_dir(&path).unwrap();

        // A killed writer's file, and one that an attacker made a link of.
        fs::write(temp_path(&path), "half").unwrap();
        replace(&path, b"whole", 0o600).unwrap();
        std::os::unix::fs::symlink("elsewhere", temp_path(&path)).unwrap();
        replace(&path, b"again", 0o600).unwrap();
        assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), b"x");
        assert_eq!(read(&path).unwrap().unwrap(), b"again");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.env");
        assert!(matches!(replace(&dir.path().join("missing/hub.env"), b"x", 0o600), Err(FileError::Io { .. })));
        replace(&path, b"one", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        assert_eq!(read(&dir.path().join("none")).unwrap(), None);
    }
}
