//! The small files of a Home: credentials, ports, where the daemon is, why it did not start.
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Credentials, Endpoints, Home, HubError};
use crate::{files, tokens};

const CREDENTIALS: &str = "credentials.json";
const HUB: &str = "hub.json";
const PORTS: &str = "ports.json";
const STARTUP_ERROR: &str = "startup-error.json";
/// Letters and digits after the prefix: 380 bits for Neon, 238 for Trigger.dev, as long as the vendors' own.
const NEON_KEY_LEN: usize = 64;
const TRIGGER_TOKEN_LEN: usize = 40;

/// Where the ready daemon is, and how to tell it from a stranger on its port.
#[derive(Serialize, Deserialize, Clone)]
pub(super) struct HubFile {
    #[serde(flatten)]
    pub(super) endpoints: Endpoints,
    pub(super) started_at: DateTime<Utc>,
    /// Random for each start.
    pub(super) instance: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct Ports {
    pub(super) neon: Option<u16>,
    pub(super) trigger: Option<u16>,
}

/// Who holds the daemon's lock.
#[derive(Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) since: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct StartupError {
    code: String,
    message: String,
    fix: Vec<String>,
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, HubError> {
    let text = files::read_optional(path).map_err(HubError::io("could not read", path))?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| HubError::Damaged {
        path: path.to_owned(),
        // Only the place: what is there may be a secret.
        reason: format!("line {}, column {} is not as psn wrote it", e.line(), e.column()),
    })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), HubError> {
    let text = serde_json::to_vec_pretty(value).expect("maps with string keys are JSON");
    files::write_atomic(path, &text, 0o600).map_err(HubError::io("could not write", path))
}

fn remove(path: &Path) -> Result<(), HubError> {
    files::remove_file(path).map_err(HubError::io("could not delete", path))
}

impl Home {
    pub(super) fn hub_file(&self) -> Result<Option<HubFile>, HubError> {
        read(&self.file(HUB))
    }
    pub(super) fn write_hub_file(&self, hub: &HubFile) -> Result<(), HubError> {
        write(&self.file(HUB), hub)
    }
    pub(super) fn remove_hub_file(&self) -> Result<(), HubError> {
        remove(&self.file(HUB))
    }

    pub(super) fn ports(&self) -> Result<Ports, HubError> {
        Ok(read(&self.file(PORTS))?.unwrap_or_default())
    }
    pub(super) fn write_ports(&self, ports: &Ports) -> Result<(), HubError> {
        write(&self.file(PORTS), ports)
    }

    /// Of the process that wrote it last; current only while the lock is held.
    pub(super) fn holder(&self) -> Option<Holder> {
        let text = files::read_optional(&self.daemon_lock()).ok()??;
        serde_json::from_str(&text).ok()
    }

    pub(super) fn forget_startup_error(&self) -> Result<(), HubError> {
        remove(&self.file(STARTUP_ERROR))
    }
    pub(super) fn write_startup_error(&self, error: &HubError) -> Result<(), HubError> {
        let said = StartupError { code: error.code().to_owned(), message: error.message(), fix: error.fix() };
        write(&self.file(STARTUP_ERROR), &said)
    }
    pub(super) fn startup_error(&self) -> Option<HubError> {
        let said: StartupError = read(&self.file(STARTUP_ERROR)).ok()??;
        let code = super::error::CODES.iter().find(|c| **c == said.code)?;
        Some(HubError::Daemon { code, message: said.message, fix: said.fix })
    }

    pub(super) fn credentials(&self) -> Result<Option<Credentials>, HubError> {
        read(&self.file(CREDENTIALS))
    }
    /// Made once: what a person stored of them stays valid.
    pub(super) fn ensure_credentials(&self) -> Result<Credentials, HubError> {
        if let Some(kept) = self.credentials()? {
            return Ok(kept);
        }
        let made = Credentials {
            neon_api_key: tokens::generate("napi_", NEON_KEY_LEN),
            trigger_access_token: tokens::generate("tr_pat_", TRIGGER_TOKEN_LEN),
        };
        write(&self.file(CREDENTIALS), &made)?;
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    fn home(dir: &tempfile::TempDir) -> Home {
        let home = Home::new(dir.path().join("h"));
        home.prepare().unwrap();
        home
    }

    #[test]
    fn credentials_are_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir);
        let made = home.ensure_credentials().unwrap();
        let again = home.ensure_credentials().unwrap();
        assert!(made.neon_api_key.starts_with("napi_") && made.trigger_access_token.starts_with("tr_pat_"));
        assert_eq!(made.neon_api_key, again.neon_api_key);
        assert_eq!(made.trigger_access_token, again.trigger_access_token);
        let file = home.file(CREDENTIALS);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);

        fs::write(&file, format!("{{\"neon_api_key\": \"{}", made.neon_api_key)).unwrap();
        let error = home.ensure_credentials().err().unwrap();
        assert_eq!(error.code(), "local.damaged");
        assert!(!format!("{error} {error:?}").contains(&made.neon_api_key));
    }

    #[test]
    fn a_startup_error_comes_through_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(&dir);
        assert!(home.startup_error().is_none());
        let error = HubError::Postgres(crate::pg::port::taken("the Neon service", 1));
        home.write_startup_error(&error).unwrap();
        let read = home.startup_error().unwrap();
        assert_eq!((read.code(), read.message(), read.fix()), (error.code(), error.message(), error.fix()));
    }
}
