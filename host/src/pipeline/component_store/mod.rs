//! Components by digest, for runs in the local hub: what pushing an image to a registry is in Trigger.dev's cloud.
#[cfg(feature = "full")]
mod filling;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::plugins::lock::LockEntry;
use crate::plugins::{OperatorPolicy, PolicyError};
#[cfg(feature = "full")]
pub(super) use filling::{files, reference};

/// `<PSN_HOME>/components`: `<sha256>.wasm`, and beside it `<sha256>.json` with what was granted; where a hub's policy takes something
/// away, `<sha256>-<hash of what is left>.json`, since another hub may have another policy.
pub(super) struct ComponentStore(PathBuf);

/// What was granted, and the policy under which.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    lock: LockEntry,
    /// The operator's, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    policy: String,
}

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
    #[error("component store: {0}")]
    Policy(#[from] PolicyError),
}

impl ComponentStore {
    pub(super) fn new(psn_home: &Path) -> Self {
        Self(psn_home.join("components"))
    }

    /// What was granted to it, as it is written down at this moment.
    pub(super) fn grant(&self, reference: &Reference) -> Result<Vec<u8>, StoreError> {
        self.read(reference, reference.grant_file())
    }

    /// The component's bytes, verified, what it was granted, and the policy that narrows it. `grant` is what [`Self::grant`] answered.
    pub(super) fn get(
        &self,
        reference: &Reference,
        grant: &[u8],
    ) -> Result<(Vec<u8>, LockEntry, OperatorPolicy), StoreError> {
        let sha256 = &reference.sha256;
        let bytes = self.read(reference, format!("{sha256}.wasm"))?;
        if hex::encode(Sha256::digest(&bytes)) != *sha256 {
            return Err(StoreError::Damaged(sha256.clone()));
        }
        let granted: Granted = serde_json::from_slice(grant)?;
        Ok((bytes, granted.lock, OperatorPolicy::parse(&granted.policy)?))
    }

    /// The component's compiled code, for a program that has no compiler; not verified.
    #[cfg(not(feature = "full"))]
    pub(super) fn code(&self, reference: &Reference) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.0.join(code_file(&reference.sha256)))
    }

    fn read(&self, reference: &Reference, file: String) -> Result<Vec<u8>, StoreError> {
        match std::fs::read(self.0.join(file)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Missing(reference.sha256.clone())),
            other => Ok(other?),
        }
    }
}

/// Where a bundle has the compiled code of the component with this digest.
pub(super) fn code_file(sha256: &str) -> String {
    format!("{sha256}.cwasm")
}

/// Which component a deployment means, and which grant of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    sha256: String,
    /// Hash of what a policy leaves of its wishes, where it takes something away.
    effective: Option<String>,
}

impl Reference {
    /// `components/<name>@sha256-<digest>.wasm`, or `components/<name>@sha256-<digest>-<effective>.wasm`
    pub(super) fn parse(reference: &str) -> Result<Self, StoreError> {
        let hashes = reference
            .strip_prefix("components/")
            .and_then(|r| r.strip_suffix(".wasm"))
            .and_then(|r| r.split_once("@sha256-"))
            .map(|(_, hashes)| hashes.split_once('-').map_or((hashes, None), |(d, e)| (d, Some(e))))
            .filter(|(digest, effective)| is_digest(digest) && effective.is_none_or(is_digest));
        let (sha256, effective) = hashes.ok_or_else(|| StoreError::BadReference(reference.to_owned()))?;
        Ok(Self { sha256: sha256.to_owned(), effective: effective.map(str::to_owned) })
    }

    fn hashes(&self) -> String {
        let effective = self.effective.as_ref().map(|e| format!("-{e}")).unwrap_or_default();
        format!("{}{effective}", self.sha256)
    }

    fn grant_file(&self) -> String {
        format!("{}.json", self.hashes())
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_strictly() {
        let (digest, effective) = ("ab".repeat(32), "cd".repeat(32));
        let parsed = Reference::parse(&format!("components/watchdog@sha256-{digest}.wasm")).unwrap();
        assert_eq!(parsed, Reference { sha256: digest.clone(), effective: None });
        let parsed = Reference::parse(&format!("components/watchdog@sha256-{digest}-{effective}.wasm")).unwrap();
        assert_eq!(parsed.grant_file(), format!("{digest}-{effective}.json"));
        for bad in [
            "components/x.wasm".to_owned(),
            format!("components/x@sha256-{}.wasm", "../".repeat(21) + "x"),
            format!("components/x@sha256-{}.wasm", "AB".repeat(32)),
            format!("/etc/x@sha256-{digest}.wasm"),
            format!("components/x@sha256-{digest}-../../x.wasm"),
        ] {
            assert!(Reference::parse(&bad).is_err(), "{bad}");
        }
    }
}
