//! Components by digest, for runs in the local hub: what pushing an image to a registry is in Trigger.dev's cloud.
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::atomic;
use crate::plugins::lock::LockEntry;
use crate::plugins::registry::Installed;

/// `<PSN_HOME>/components`: `<sha256>.wasm`, and beside it `<sha256>.json` with what was granted.
pub(super) struct ComponentStore(PathBuf);

#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("`{0}` does not say which component is meant: components/<name>@sha256-<64 hex digits>.wasm")]
    BadReference(String),
    #[error("component {0} is not in the store")]
    Missing(String),
    #[error("component {0} is damaged: its digest is another")]
    Damaged(String),
    #[error("component store: {0}")]
    Io(#[from] std::io::Error),
    #[error("component store: {0}")]
    Grant(#[from] serde_json::Error),
}

impl ComponentStore {
    pub(super) fn new(psn_home: &Path) -> Self {
        Self(psn_home.join("components"))
    }

    /// Idempotent.
    pub(super) fn put(&self, installed: &Installed) -> Result<(), StoreError> {
        std::fs::create_dir_all(&self.0)?;
        atomic::sweep(&self.0)?;
        let grant = self.0.join(format!("{}.json", installed.sha256));
        // The component first: a grant without it is an answer of `Missing`, not a run of something else.
        let component = self.0.join(format!("{}.wasm", installed.sha256));
        if !component.is_file() {
            atomic::write(&component, &installed.component, 0o600)?;
        }
        atomic::write(&grant, &serde_json::to_vec_pretty(&installed.lock)?, 0o600)?;
        Ok(())
    }

    /// The component's bytes, verified, and what it was granted.
    pub(super) fn get(&self, sha256: &str) -> Result<(Vec<u8>, LockEntry), StoreError> {
        let read = |suffix: &str| match std::fs::read(self.0.join(format!("{sha256}.{suffix}"))) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Missing(sha256.to_owned())),
            other => Ok(other?),
        };
        let bytes = read("wasm")?;
        if hex::encode(Sha256::digest(&bytes)) != sha256 {
            return Err(StoreError::Damaged(sha256.to_owned()));
        }
        Ok((bytes, serde_json::from_slice(&read("json")?)?))
    }
}

/// Where a deployment says a task's component is.
pub(super) fn reference(name: &str, sha256: &str) -> String {
    format!("components/{name}@sha256-{sha256}.wasm")
}

/// The digest in a [`reference`].
pub(super) fn digest_of(reference: &str) -> Result<&str, StoreError> {
    reference
        .strip_prefix("components/")
        .and_then(|r| r.strip_suffix(".wasm"))
        .and_then(|r| r.split_once("@sha256-"))
        .map(|(_, digest)| digest)
        .filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .ok_or_else(|| StoreError::BadReference(reference.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_strictly() {
        let digest = "ab".repeat(32);
        assert_eq!(digest_of(&reference("watchdog", &digest)).unwrap(), digest);
        for bad in [
            "components/x.wasm".to_owned(),
            format!("components/x@sha256-{}.wasm", "../".repeat(21) + "x"),
            format!("components/x@sha256-{}.wasm", "AB".repeat(32)),
            format!("/etc/x@sha256-{digest}.wasm"),
        ] {
            assert!(digest_of(&bad).is_err(), "{bad}");
        }
    }
}
