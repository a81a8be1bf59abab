//! Code that psn compiled where it wrote a deployment, for the program without a compiler that runs there.
use crate::error::CodedError;

/// How a digest is written where it may be taken for something else.
const PREFIX: &str = "sha256-";

/// Compiled code, and what it must be.
#[derive(Clone)]
pub struct Precompiled {
    pub code: Vec<u8>,
    /// Hex SHA-256 that whoever starts the program named.
    pub sha256: String,
}

impl std::fmt::Debug for Precompiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Precompiled").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// A program without a compiler cannot run a component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrecompiledError {
    #[error("this program has no compiler, and was not told which compiled code is the component's")]
    Unnamed,
    #[error("the component's compiled code cannot be read: {0}")]
    Unreadable(String),
    #[error("the component's compiled code has the digest {found}, and the task names {named}")]
    Damaged { found: String, named: String },
    /// In wasmtime's words.
    #[error("the component's compiled code is for another program than this one: {0}")]
    Mismatch(String),
    #[error("compiled code needs more address space than this process may have (ulimit -v)")]
    AddressSpace,
}

/// What writes and deploys the bundle anew.
const AGAIN: &str = "psn run trigger-provision";

impl PrecompiledError {
    /// `message` says it, and of what.
    pub(crate) fn coded(&self, message: String) -> CodedError {
        match self {
            Self::Unnamed | Self::Unreadable(_) => CodedError::new("task.code-missing", message, [AGAIN]),
            Self::Damaged { .. } => CodedError::new("task.code-damaged", message, [AGAIN]),
            Self::Mismatch(_) => CodedError::new("task.code-mismatch", message, [AGAIN]),
            Self::AddressSpace => CodedError::new("runtime.address-space", message, ["ulimit -v unlimited"]),
        }
    }
}

/// `sha256-<64 hex digits>` as the task writes it.
pub fn digest_name(sha256: &str) -> String {
    format!("{PREFIX}{sha256}")
}

/// The digest in such a name.
pub fn named_digest(name: &str) -> Option<&str> {
    let digest = name.strip_prefix(PREFIX)?;
    (digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(digest)
}
