//! How a step, and a whole run, ended.
use std::time::Instant;

use crate::events::{StepStatus, Summary};

/// How one step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Success,
    Skipped,
    Failed,
    NeedsInput,
    NeedsConsent,
    /// It would change something, and was only asked.
    Planned,
}

impl Ended {
    /// Whether the next step may run.
    pub fn goes_on(self) -> bool {
        matches!(self, Ended::Success | Ended::Skipped | Ended::Planned)
    }
}

/// Counts steps into the closing summary.
pub struct Tally {
    started: Instant,
    total: u32,
    succeeded: u32,
    skipped: u32,
    failed: u32,
    planned: bool,
    stopped: Option<Ended>,
}

impl Tally {
    pub fn new(total: u32) -> Self {
        Self { started: Instant::now(), total, succeeded: 0, skipped: 0, failed: 0, planned: false, stopped: None }
    }

    pub fn add(&mut self, ended: Ended) {
        match ended {
            Ended::Success => self.succeeded += 1,
            Ended::Skipped => self.skipped += 1,
            Ended::Failed => self.failed += 1,
            Ended::Planned => self.planned = true,
            Ended::NeedsInput | Ended::NeedsConsent => {}
        }
        if !ended.goes_on() {
            self.stopped = Some(ended);
        }
    }

    pub fn summary(&self) -> Summary {
        Summary {
            status: match self.stopped {
                None if self.planned => StepStatus::Planned,
                None | Some(Ended::Success | Ended::Skipped | Ended::Planned) => StepStatus::Success,
                Some(Ended::Failed) => StepStatus::Error,
                Some(Ended::NeedsInput) => StepStatus::NeedsInput,
                Some(Ended::NeedsConsent) => StepStatus::NeedsConsent,
            },
            steps: self.total,
            succeeded: self.succeeded,
            skipped: self.skipped,
            failed: self.failed,
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}
