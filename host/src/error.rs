//! The one shape in which an error leaves psn: a stable code, words, and what to do.
use serde::{Deserialize, Serialize};

/// An error as people and programs see it. Layers below return their own enums; each of those says how it becomes one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CodedError {
    /// Stable, `area.reason` in kebab case, documented in docs/errors.md.
    pub code: String,
    pub message: String,
    /// What to do, most useful first. A command stands exactly as it can be typed. Never empty.
    pub fix: Vec<String>,
    /// Whether the same command may succeed later without a change.
    pub retryable: bool,
    /// Milliseconds after which another attempt makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Where the code is explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
}

impl CodedError {
    pub fn new(
        code: impl Into<String>,
        message: impl Into<String>,
        fix: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let code = code.into();
        let docs = Some(format!("docs/errors.md#{}", code.replace('.', "")));
        Self {
            code,
            message: message.into(),
            fix: fix.into_iter().map(Into::into).collect(),
            retryable: false,
            retry_after_ms: None,
            docs,
        }
    }

    /// The same command may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, ms: Option<u64>) -> Self {
        self.retryable |= ms.is_some();
        self.retry_after_ms = ms;
        self
    }
}

/// For error enums that say how a reference to them becomes a [`CodedError`]: the same for the value, so that `?` works.
macro_rules! coded_by_value {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for $crate::error::CodedError {
            fn from(e: $error) -> Self {
                (&e).into()
            }
        }
    )*};
}
pub(crate) use coded_by_value;

/// The same for those that say it by a method.
macro_rules! coded_by_method {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for $crate::error::CodedError {
            fn from(e: $error) -> Self {
                e.coded()
            }
        }
    )*};
}
pub(crate) use coded_by_method;

impl std::fmt::Display for CodedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for CodedError {}
