//! The states of a run: the engine's names, and the names that the API shows, which depend on the version a client asks for.

/// The engine's own states, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunStatus {
    Delayed,
    Pending,
    PendingVersion,
    Dequeued,
    Executing,
    RetryingAfterFailure,
    CompletedSuccessfully,
    CompletedWithErrors,
    Canceled,
    Crashed,
    SystemFailure,
    Expired,
    TimedOut,
}

/// Which names a client understands. The older ones are used when it sends no `x-trigger-api-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiVersion {
    Unspecified,
    Current,
}

/// The value of `x-trigger-api-version` that asks for the current names.
pub(crate) const CURRENT_API_VERSION: &str = "2025-07-16";

use RunStatus as S;

const NAMES: [(RunStatus, &str); 13] = [
    (S::Delayed, "DELAYED"),
    (S::Pending, "PENDING"),
    (S::PendingVersion, "PENDING_VERSION"),
    (S::Dequeued, "DEQUEUED"),
    (S::Executing, "EXECUTING"),
    (S::RetryingAfterFailure, "RETRYING_AFTER_FAILURE"),
    (S::CompletedSuccessfully, "COMPLETED_SUCCESSFULLY"),
    (S::CompletedWithErrors, "COMPLETED_WITH_ERRORS"),
    (S::Canceled, "CANCELED"),
    (S::Crashed, "CRASHED"),
    (S::SystemFailure, "SYSTEM_FAILURE"),
    (S::Expired, "EXPIRED"),
    (S::TimedOut, "TIMED_OUT"),
];

#[derive(Debug, thiserror::Error)]
#[error("unknown run status {0:?}")]
pub(crate) struct UnknownStatus(String);

impl TryFrom<String> for RunStatus {
    type Error = UnknownStatus;
    fn try_from(name: String) -> Result<Self, UnknownStatus> {
        NAMES.iter().find(|(_, n)| *n == name).map(|(status, _)| *status).ok_or(UnknownStatus(name))
    }
}

impl RunStatus {
    /// The stored name.
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(status, _)| *status == self).map_or("", |(_, name)| name)
    }

    /// The states of a run that failed: a new trigger with its idempotency key starts a new run. Success and cancellation keep the key.
    pub(crate) const RELEASING_KEY: [Self; 5] =
        [Self::CompletedWithErrors, Self::SystemFailure, Self::Crashed, Self::TimedOut, Self::Expired];

    pub(crate) fn api(self, version: ApiVersion) -> &'static str {
        match (self, version) {
            (S::Pending, _) => "QUEUED",
            (S::Dequeued, ApiVersion::Unspecified) => "EXECUTING",
            (S::RetryingAfterFailure, ApiVersion::Unspecified) => "REATTEMPTING",
            (S::RetryingAfterFailure, ApiVersion::Current) => "EXECUTING",
            (S::CompletedSuccessfully, _) => "COMPLETED",
            (S::CompletedWithErrors, _) => "FAILED",
            (status, _) => status.name(),
        }
    }

    /// What a list filter on an API name (old or new) selects; `None` for a name that is neither. A name whose states this engine
    /// never enters (a run that waits) selects nothing.
    pub(crate) fn from_filter(name: &str) -> Option<&'static [RunStatus]> {
        Some(match name {
            "DELAYED" => &[S::Delayed],
            "PENDING_VERSION" | "WAITING_FOR_DEPLOY" => &[S::PendingVersion],
            "QUEUED" => &[S::Pending],
            "DEQUEUED" => &[S::Dequeued],
            "EXECUTING" => &[S::Executing],
            "REATTEMPTING" => &[S::RetryingAfterFailure],
            "WAITING" | "FROZEN" | "INTERRUPTED" => &[],
            "COMPLETED" => &[S::CompletedSuccessfully],
            "FAILED" => &[S::CompletedWithErrors],
            "CANCELED" => &[S::Canceled],
            "CRASHED" => &[S::Crashed],
            "SYSTEM_FAILURE" => &[S::SystemFailure],
            "EXPIRED" => &[S::Expired],
            "TIMED_OUT" => &[S::TimedOut],
            _ => return None,
        })
    }
}

/// The yes-and-no fields of a run. EXPIRED and TIMED_OUT are neither completed nor failed: clients must look at the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flags {
    is_queued: bool,
    is_executing: bool,
    is_waiting: bool,
    is_completed: bool,
    is_success: bool,
    is_failed: bool,
    is_cancelled: bool,
}

impl Flags {
    pub(crate) fn of(api_status: &str) -> Self {
        let is_completed =
            matches!(api_status, "COMPLETED" | "CANCELED" | "FAILED" | "CRASHED" | "INTERRUPTED" | "SYSTEM_FAILURE");
        Self {
            is_queued: matches!(api_status, "QUEUED" | "WAITING_FOR_DEPLOY" | "DELAYED" | "PENDING_VERSION"),
            is_executing: matches!(api_status, "EXECUTING" | "REATTEMPTING" | "FROZEN" | "DEQUEUED"),
            is_waiting: api_status == "WAITING",
            is_completed,
            is_success: api_status == "COMPLETED",
            is_failed: is_completed && api_status != "COMPLETED",
            is_cancelled: api_status == "CANCELED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_api_version() {
        for (status, old, new) in [
            (S::Delayed, "DELAYED", "DELAYED"),
            (S::Pending, "QUEUED", "QUEUED"),
            (S::PendingVersion, "PENDING_VERSION", "PENDING_VERSION"),
            (S::Dequeued, "EXECUTING", "DEQUEUED"),
            (S::Executing, "EXECUTING", "EXECUTING"),
            (S::RetryingAfterFailure, "REATTEMPTING", "EXECUTING"),
            (S::CompletedSuccessfully, "COMPLETED", "COMPLETED"),
            (S::CompletedWithErrors, "FAILED", "FAILED"),
            (S::TimedOut, "TIMED_OUT", "TIMED_OUT"),
        ] {
            assert_eq!(status.api(ApiVersion::Unspecified), old);
            assert_eq!(status.api(ApiVersion::Current), new);
        }
    }

    #[test]
    fn every_stored_name_reads_back() {
        for (status, name) in NAMES {
            assert_eq!(RunStatus::try_from(name.to_owned()).unwrap(), status);
            assert_eq!(status.name(), name);
        }
        assert!(RunStatus::try_from("DONE".to_owned()).is_err());
    }

    #[test]
    fn expired_and_timed_out_are_neither_completed_nor_failed() {
        for status in ["EXPIRED", "TIMED_OUT"] {
            let flags = Flags::of(status);
            assert!(!flags.is_completed && !flags.is_failed && !flags.is_queued && !flags.is_executing);
        }
        assert!(Flags::of("CANCELED").is_failed && Flags::of("CANCELED").is_cancelled);
    }
}
