//! The run lock: one psn at a time changes a hub. A kernel lock, so that it dies with its holder.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::CodedError;
use crate::hub::FileError;

/// Who holds it, as it says itself. For people; the lock itself is the kernel's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub host: String,
    pub command: String,
    pub since: DateTime<Utc>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another psn is at work on this hub: {}", describe(holder.as_ref()))]
    Held { holder: Option<Holder> },
    #[error(transparent)]
    Io(#[from] FileError),
}

impl From<LockError> for CodedError {
    fn from(e: LockError) -> Self {
        let message = e.to_string();
        match e {
            LockError::Held { holder } => {
                let wait = match holder {
                    Some(h) => format!("wait until it has ended, or stop it: kill {}", h.pid),
                    None => "wait until it has ended".to_owned(),
                };
                CodedError::new("run.locked", message, [wait, "psn status".to_owned()]).retryable()
            }
            LockError::Io(e) => e.into(),
        }
    }
}

/// Held until it is dropped.
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Who holds it now; none where nobody does, whatever a dead holder left written.
    pub fn holder(path: &Path) -> Option<Holder> {
        let mut file = File::open(path).ok()?;
        // Shared, so that two who ask do not take each other for a holder.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read_holder(&mut file),
            _ => None,
        }
    }

    /// `path` is the project's `.psn/run.lock`.
    pub fn acquire(path: &Path, command: &str) -> Result<Self, LockError> {
        let io = |source| FileError::io(path)(source);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { holder: read_holder(&mut file) });
            }
            Err(TryLockError::Error(e)) => return Err(io(e).into()),
        }
        let holder = Holder {
            pid: std::process::id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            command: command.to_owned(),
            since: Utc::now(),
        };
        let text = serde_json::to_string(&holder).map_err(|e| io(e.into()))?;
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The next holder must not be told of this one. The kernel lock goes with the file either way.
        let _ = self.file.set_len(0);
    }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok())
}

fn describe(holder: Option<&Holder>) -> String {
    holder.map_or_else(
        || "it has not said which".to_owned(),
        |h| {
            let age = (Utc::now() - h.since).num_seconds().max(0);
            format!("`{}`, process {} on {}, for {age} s", h.command, h.pid, h.host)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_other_learns_who() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::acquire(&dir.path().join("run.lock"), "psn run setup").unwrap();
        let Err(LockError::Held { holder: Some(holder) }) =
            RunLock::acquire(&dir.path().join("run.lock"), "psn run keys")
        else {
            panic!("the second got it too, or was not told who holds it");
        };
        assert_eq!((holder.pid, holder.command.as_str()), (std::process::id(), "psn run setup"));
        assert_eq!(RunLock::holder(&dir.path().join("run.lock")), Some(holder));
        drop(first);
        assert_eq!(RunLock::holder(&dir.path().join("run.lock")), None);
        RunLock::acquire(&dir.path().join("run.lock"), "psn run keys").unwrap();
    }
}
