//! Exit codes, a public interface.
use crate::error::CodedError;
use crate::events::{StepStatus, Summary};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// `psn plan` found changes.
    ChangesPending = 3,
    /// A person must supply something, or agree to something.
    NeedsPerson = 4,
    /// Another run holds the lock.
    Locked = 5,
    Interrupted = 130,
}

impl Exit {
    pub(super) fn of(summary: &Summary) -> Self {
        match summary.status {
            StepStatus::Success | StepStatus::Skipped | StepStatus::Running => Exit::Done,
            StepStatus::Error => Exit::Failed,
            StepStatus::NeedsInput | StepStatus::NeedsConsent => Exit::NeedsPerson,
            StepStatus::Planned => Exit::ChangesPending,
        }
    }

    /// What psn did went well, and telling it did not.
    pub(super) fn or_failed(self) -> Self {
        if self == Exit::Done { Exit::Failed } else { self }
    }

    pub(super) fn of_error(error: &CodedError) -> Self {
        match error.code.as_str() {
            "run.locked" => Exit::Locked,
            "plugin.consent-needed" => Exit::NeedsPerson,
            code if code.starts_with("usage.") => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
