//! The folder that holds everything of one local hub.
//!
//! ```text
//! PSN_LOCAL_HUB       marks the folder as one that `reset` may delete
//! up.lock             held while somebody starts, stops or deletes the hub
//! daemon.lock         held by the daemon for as long as it lives; says who it is
//! hub.json            where the ready daemon is
//! startup-error.json  why the last one did not get ready
//! ports.json          of the two services
//! credentials.json    the keys of the one local account           superuser.secret  of the clusters
//! pg/  tls/  logs/
//! ```
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::HubError;
use crate::files;

/// `<PSN_HOME>/local-hub`. The path is absolute: the children run in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

const MARKER: &str = "PSN_LOCAL_HUB";
/// The layout above. A psn that changes it incompatibly raises this, and an older one then refuses the folder.
const FORMAT: u32 = 1;

impl Home {
    pub fn new(path: impl Into<PathBuf>) -> Home {
        let path = path.into();
        // Fails only for an empty path or when the current folder is gone; then the first use of the path says so.
        Home(std::path::absolute(&path).unwrap_or(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    pub(super) fn up_lock(&self) -> PathBuf {
        self.file("up.lock")
    }
    pub(super) fn daemon_lock(&self) -> PathBuf {
        self.file("daemon.lock")
    }
    pub(super) fn logs(&self) -> PathBuf {
        self.file("logs")
    }
    pub(super) fn hub_log(&self) -> PathBuf {
        self.logs().join("hub.log")
    }
    pub(super) fn request_log(&self) -> PathBuf {
        self.logs().join("requests.log")
    }

    /// Makes the folder where there is none. A folder with something else in it is left alone.
    pub(super) fn prepare(&self) -> Result<(), HubError> {
        // As root the servers' account must get through to its own folders; nobody else needs to see any.
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        files::make_dir(&self.0, mode).map_err(HubError::io("could not make", &self.0))?;
        if !self.recognise()? {
            let text = format!(
                "psn-local-hub {FORMAT}\nEverything in this folder is psn's. `psn local reset` stops it and deletes the folder.\n"
            );
            let marker = self.file(MARKER);
            files::write_atomic(&marker, text.as_bytes(), 0o600).map_err(HubError::io("could not write", &marker))?;
        }
        let logs = self.logs();
        files::make_dir(&logs, 0o700).map_err(HubError::io("could not make", &logs))
    }

    /// Whether this is a Home: `false` when there is nothing or an empty folder, an error when it is something else.
    pub(super) fn recognise(&self) -> Result<bool, HubError> {
        let meta = match fs::metadata(&self.0) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(HubError::io("could not look at", &self.0)(e)),
        };
        let other = |reason| HubError::NotAHome { path: self.0.clone(), reason };
        if !meta.is_dir() {
            return Err(other("it is no folder"));
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me {
            return Err(HubError::NotOwner { path: self.0.clone(), owner: meta.uid(), me });
        }
        let marker = self.file(MARKER);
        let text = files::read_optional(&marker).map_err(HubError::io("could not read", &marker))?;
        match text.as_deref().map(format_of) {
            Some(Some(FORMAT)) => Ok(true),
            Some(Some(_)) => Err(other("another version of psn made it")),
            Some(None) => Err(other("its marker PSN_LOCAL_HUB is damaged")),
            None => {
                let entries = fs::read_dir(&self.0).map_err(HubError::io("could not read", &self.0))?;
                // Another psn may be writing the marker just now.
                let foreign = |e: fs::DirEntry| !e.file_name().to_string_lossy().contains(MARKER);
                if entries.flatten().any(foreign) && !marker.exists() {
                    return Err(other("it holds other files and no marker PSN_LOCAL_HUB"));
                }
                Ok(false)
            }
        }
    }

    /// Deletes everything in it, the marker last, so that an interrupted reset can be done again.
    pub(super) fn delete(&self) -> Result<(), HubError> {
        let keep = [MARKER, "up.lock", "daemon.lock"];
        let entries = fs::read_dir(&self.0).map_err(HubError::io("could not read", &self.0))?;
        for entry in entries {
            let entry = entry.map_err(HubError::io("could not read", &self.0))?;
            let path = entry.path();
            if keep.iter().any(|k| entry.file_name() == *k) {
                continue;
            }
            // The type of the entry itself: a link is deleted, never followed.
            let kind = entry.file_type().map_err(HubError::io("could not look at", &path))?;
            if kind.is_dir() { files::remove_dir(&path) } else { files::remove_file(&path) }
                .map_err(HubError::io("could not delete", &path))?;
        }
        for name in ["daemon.lock", MARKER, "up.lock"] {
            let path = self.file(name);
            files::remove_file(&path).map_err(HubError::io("could not delete", &path))?;
        }
        match fs::remove_dir(&self.0) {
            // Somebody who waited for the lock has begun a new one.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty || e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(HubError::io("could not delete", &self.0)),
        }
    }
}

fn format_of(marker: &str) -> Option<u32> {
    marker.lines().next()?.strip_prefix("psn-local-hub ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_becomes_a_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("a/b"));
        assert!(!home.recognise().unwrap());
        home.prepare().unwrap();
        home.prepare().unwrap();
        assert!(home.recognise().unwrap());

        let photos = dir.path().join("photos");
        fs::create_dir(&photos).unwrap();
        fs::write(photos.join("me.jpg"), "x").unwrap();
        let error = Home::new(&photos).prepare().unwrap_err();
        assert_eq!(error.code(), "local.not-a-home");
        assert_eq!(fs::read_dir(&photos).unwrap().count(), 1);
        assert_eq!(Home::new(photos.join("me.jpg")).recognise().unwrap_err().code(), "local.not-a-home");
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("h"));
        home.prepare().unwrap();
        fs::write(home.file(MARKER), "psn-local-hub 2\n").unwrap();
        assert!(home.prepare().unwrap_err().to_string().contains("another version"));
        fs::write(home.file(MARKER), "").unwrap();
        assert!(home.prepare().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn deleting_follows_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "x").unwrap();
        let home = Home::new(dir.path().join("h"));
        home.prepare().unwrap();
        std::os::unix::fs::symlink(&outside, home.file("pg")).unwrap();
        std::os::unix::fs::symlink(outside.join("keep"), home.file("hub.json")).unwrap();
        home.delete().unwrap();
        assert!(!home.path().exists());
        assert_eq!(fs::read_to_string(outside.join("keep")).unwrap(), "x");
    }
}
