//! What setup did, for `psn status` and for telling whether a check says anything new. Never what is true: steps look for themselves.
use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic;
use crate::events::{Check, StepStatus};
use crate::hub::ProjectDir;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    #[serde(default)]
    pub steps: BTreeMap<String, StepRecord>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub status: StepStatus,
    pub message: String,
    pub at: DateTime<Utc>,
    /// Which component it was; absent for the host's own steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_sha256: Option<String>,
    /// Over what the step reported: see [`report_fingerprint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl Ledger {
    /// A ledger that is absent or cannot be read is empty: it only remembers.
    pub fn open(project: &ProjectDir, hub_id: &str) -> Self {
        let path = project.state_dir(hub_id).join("psn.ledger");
        let read = std::fs::read(&path).ok().and_then(|b| serde_json::from_slice::<Ledger>(&b).ok());
        Ledger { path, ..read.unwrap_or_default() }
    }

    pub fn record(&mut self, step: &str, record: StepRecord) -> std::io::Result<()> {
        self.steps.insert(step.to_owned(), record);
        self.save()
    }

    /// What the step did is undone.
    pub fn forget(&mut self, step: &str) -> std::io::Result<()> {
        match self.steps.remove(step) {
            Some(_) => self.save(),
            None => Ok(()),
        }
    }

    fn save(&self) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_vec_pretty(&self)?;
        atomic::write(&self.path, &text, 0o600)
    }

    pub fn fingerprint(&self, step: &str) -> Option<&str> {
        self.steps.get(step).filter(|r| r.status == StepStatus::Success).and_then(|r| r.fingerprint.as_deref())
    }
}

/// Tells two reports apart by what they say. Not by their data, which may hold times.
pub(super) fn report_fingerprint(message: &str, checks: &[Check]) -> String {
    let mut hash = Sha256::new();
    hash.update(message.as_bytes());
    for check in checks {
        hash.update([0]);
        hash.update(serde_json::to_string(&(&check.check, check.status)).unwrap_or_default().as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}
