//! What setup did, for `psn status` and for telling whether a check says anything new. Never what is true: steps look for themselves.
use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic;
use crate::error::CodedError;
use crate::events::{Check, StepStatus};
use crate::hub::atomic_file;
use crate::hub::{FileError, ProjectDir, access};

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

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} does not hold what psn wrote there: {source}")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

impl From<LedgerError> for CodedError {
    fn from(e: LedgerError) -> Self {
        let message = e.to_string();
        match e {
            LedgerError::File(e) => e.into(),
            LedgerError::Damaged { path, .. } => {
                CodedError::new("config.ledger", message, ["psn run setup".to_owned(), access::aside(&path)])
            }
        }
    }
}

impl Ledger {
    /// Only one that is not there is empty: nothing was set up. What cannot be read says nothing about that.
    pub fn open(project: &ProjectDir, hub_id: &str) -> Result<Self, LedgerError> {
        let path = project.state_dir(hub_id).join("psn.ledger");
        let Some(bytes) = atomic_file::read(&path)? else { return Ok(Ledger { path, ..Ledger::default() }) };
        match serde_json::from_slice::<Ledger>(&bytes) {
            Ok(read) => Ok(Ledger { path, ..read }),
            Err(source) => Err(LedgerError::Damaged { path, source }),
        }
    }

    /// For a run that looks at every step anyway: keeps a damaged file beside its place, and begins a new one. Answers where it is kept.
    pub fn begin_anew(damaged: PathBuf) -> Result<(Self, PathBuf), LedgerError> {
        let kept = access::beside(&damaged);
        std::fs::rename(&damaged, &kept).map_err(FileError::io(&damaged))?;
        Ok((Ledger { path: damaged, ..Ledger::default() }, kept))
    }

    pub fn record(&mut self, step: &str, record: StepRecord) -> Result<(), FileError> {
        self.steps.insert(step.to_owned(), record);
        self.save()
    }

    /// What the step did is undone.
    pub fn forget(&mut self, step: &str) -> Result<(), FileError> {
        match self.steps.remove(step) {
            Some(_) => self.save(),
            None => Ok(()),
        }
    }

    fn save(&self) -> Result<(), FileError> {
        let folder = self.path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let text = folder.and_then(|()| Ok(serde_json::to_vec_pretty(&self)?));
        text.and_then(|text| atomic::write(&self.path, &text, 0o600)).map_err(FileError::io(&self.path))
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
