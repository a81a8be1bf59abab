//! Why a component has no code.
use std::time::Duration;

/// Why a component was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// In the compiler's words.
    #[error("{0}")]
    Refused(String),
    #[error("compiling it took longer than {} s and was stopped", .0.as_secs_f32())]
    Deadline(Duration),
    #[error("compiling it took more than {} s of processor time and was stopped", .0.as_secs())]
    Cpu(Duration),
    #[error("compiling it took more than {} MiB of memory and was stopped", .0 >> 20)]
    Memory(u64),
    #[error("the compiler crashed on it ({0})")]
    Crashed(String),
    #[error("the compiler could not be started: {0}")]
    NotStarted(String),
    #[error("no compiler is set up for components from elsewhere")]
    NoCompiler,
    /// Nobody waits for it any more.
    #[error("it is no longer waited for")]
    Cancelled,
}
