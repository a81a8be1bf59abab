//! A file that could not be read or written, as an error for people: what stands in the way, and the command that moves it.
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::atomic_file::{Direction, FileError};
use crate::error::CodedError;
use crate::shell;

impl FileError {
    pub(crate) fn coded(&self) -> CodedError {
        let say = |code: &str, fix: Vec<String>| CodedError::new(code, self.to_string(), fix);
        match self {
            FileError::Io { path, source, direction } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    say("config.disk-full", vec![format!("df -h {}", shell::path(standing(path)))])
                }
                ErrorKind::ReadOnlyFilesystem => {
                    say("config.not-writable", vec![format!("findmnt -T {}", shell::path(standing(path)))])
                }
                ErrorKind::PermissionDenied => match direction {
                    Direction::Read => say("config.not-readable", vec![give_right(path, *direction)]),
                    Direction::Write => say("config.not-writable", vec![give_right(path, *direction)]),
                },
                ErrorKind::IsADirectory | ErrorKind::NotADirectory => say("config.not-a-file", vec![aside(path)]),
                _ => say("config.io", vec![format!("ls -ld {}", shell::path(standing(path)))]),
            },
            FileError::Symlink(path) | FileError::NotAFile(path) => say("config.not-a-file", vec![aside(path)]),
            FileError::Locked { path } => {
                say("config.locked", vec![format!("fuser -v {}", shell::path(path))]).retryable()
            }
        }
    }
}

/// Moves a file out of the way, and keeps it.
pub(crate) fn aside(path: &Path) -> String {
    format!("mv {} {}", shell::path(path), shell::path(&beside(path)))
}

/// Where what is in the way is kept: `mv` would replace a file of that name, and move into a folder.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let mut free = named(".old");
    for n in 2.. {
        if free.symlink_metadata().is_err() {
            break;
        }
        free = named(&format!(".old{n}"));
    }
    free
}

/// Gives this account the right that it lacks, on the one thing that lacks it.
fn give_right(path: &Path, direction: Direction) -> String {
    let culprit = culprit(path, direction);
    let metadata = fs::symlink_metadata(culprit);
    let own = metadata.as_ref().is_ok_and(|m| m.uid() == rustix::process::geteuid().as_raw());
    let at = shell::path(culprit);
    match metadata {
        Ok(_) if !own => format!("sudo chown -R \"$(id -un)\" {at}"),
        Ok(m) if m.is_dir() => format!("chmod u+rwx {at}"),
        _ => format!("chmod u+rw {at}"),
    }
}

/// The first folder on the way that may not be entered; else, to write, the folder that may not be written in; else the file.
fn culprit(path: &Path, direction: Direction) -> &Path {
    let denied = |at: &Path, right| rustix::fs::access(at, right) == Err(rustix::io::Errno::ACCESS);
    let folders: Vec<&Path> = path.ancestors().skip(1).filter(|a| !a.as_os_str().is_empty()).collect();
    if let Some(closed) = folders.iter().rev().copied().find(|f| denied(f, rustix::fs::Access::EXEC_OK)) {
        return closed;
    }
    let folder = folders.first().map_or(path, |f| standing(f));
    match direction {
        Direction::Write if denied(folder, rustix::fs::Access::WRITE_OK) => folder,
        _ => path,
    }
}

/// The nearest that is there.
fn standing(path: &Path) -> &Path {
    let there = path.ancestors().find(|a| a.symlink_metadata().is_ok());
    there.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &Path, errno: rustix::io::Errno, direction: Direction) -> CodedError {
        FileError::Io { path: path.to_owned(), source: errno.into(), direction }.coded()
    }

    #[test]
    fn what_is_in_the_way_is_told_by_its_kind() {
        use rustix::io::Errno;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config/hub.env");
        let there = dir.path().display();
        for (errno, direction, code, fix) in [
            (Errno::NOSPC, Direction::Write, "config.disk-full", format!("df -h {there}")),
            (Errno::DQUOT, Direction::Write, "config.disk-full", format!("df -h {there}")),
            (Errno::ROFS, Direction::Write, "config.not-writable", format!("findmnt -T {there}")),
            (Errno::ISDIR, Direction::Read, "config.not-a-file", format!("mv {0} {0}.old", file.display())),
            (Errno::NOTDIR, Direction::Write, "config.not-a-file", format!("mv {0} {0}.old", file.display())),
            (Errno::IO, Direction::Read, "config.io", format!("ls -ld {there}")),
        ] {
            let error = error(&file, errno, direction);
            assert_eq!((error.code.as_str(), &error.fix[0]), (code, &fix));
        }
        let error = error(&file, Errno::ACCESS, Direction::Read);
        assert_eq!(
            (error.code.as_str(), &error.fix[0]),
            ("config.not-readable", &format!("chmod u+rw {}", file.display()))
        );
    }

    #[test]
    fn what_was_put_aside_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        for name in ["f.old", "f.old3"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(beside(&file), dir.path().join("f.old2"));
    }
}
