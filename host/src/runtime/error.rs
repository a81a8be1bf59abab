//! What can go wrong before a call ([`RuntimeError`]) and in one ([`CallError`]), and what to do about it.
use std::time::Duration;

use super::compile_error::CompileError;
use super::precompiled::PrecompiledError;
use crate::error::{CodedError, coded_by_value};
use crate::plugins::withheld::POLICY_TOML;

/// A component cannot be made ready to run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("the WebAssembly engine cannot be started: {0}")]
    Engine(String),
    #[error("{plugin} cannot be compiled: {error}")]
    Compile { plugin: String, error: CompileError },
    #[error("{plugin}: {error}")]
    Precompiled { plugin: String, error: PrecompiledError },
    #[error("{plugin} was not compiled in time")]
    CompileDeadline { plugin: String },
    /// It imports or exports something in another shape than the contract's.
    #[error("{plugin} does not fit the contract: {reason}")]
    Contract { plugin: String, reason: String },
    #[error("{plugin} has {found} {what}; at most {limit} are allowed")]
    TooMany { plugin: String, what: &'static str, found: u32, limit: usize },
    #[error("the manifest asks for [limits] {field} = {asked}; here at most {ceiling} is allowed")]
    AboveCeiling { field: &'static str, asked: String, ceiling: String },
}

coded_by_value!(RuntimeError);

impl From<&RuntimeError> for CodedError {
    fn from(e: &RuntimeError) -> Self {
        let message = e.to_string();
        match e {
            RuntimeError::Engine(_) => CodedError::new(
                "runtime.engine",
                message,
                ["See that the process may use enough memory and threads (ulimit -v, ulimit -u), then try again."],
            ),
            RuntimeError::Compile { error, .. } => compile_error(error, message),
            RuntimeError::Precompiled { error, .. } => error.coded(message),
            RuntimeError::CompileDeadline { .. } => CodedError::new(
                "component.deadline",
                message,
                ["Try again: what has been compiled is kept. If it never ends, build the component smaller (opt-level \"s\", lto)."],
            )
            .retryable(),
            RuntimeError::Contract { .. } => CodedError::new(
                "component.contract-mismatch",
                message,
                ["Build the plugin against the wit/ folder of this psn's version."],
            ),
            RuntimeError::TooMany { .. } => {
                CodedError::new("component.limit", message, ["Build the plugin as one module: it needs one memory and a few tables."])
            }
            RuntimeError::AboveCeiling { field, .. } => CodedError::new(
                "component.above-ceiling",
                message,
                [format!("Ask for less under [limits] {field} in plugin.toml, or have the operator raise the ceiling.")],
            ),
        }
    }
}

const SMALLER: &str = "Build the component smaller (opt-level \"s\", lto), without very long functions, or split it into several plugins.";

fn compile_error(error: &CompileError, message: String) -> CodedError {
    match error {
        CompileError::Refused(_) => CodedError::new(
            "component.compile-failed",
            message,
            [
                "Build the component again with a current toolchain; if it fails the same way, report it with the component's sha256.",
            ],
        ),
        CompileError::Deadline(_) | CompileError::Cpu(_) | CompileError::Cancelled => CodedError::new(
            "component.compile-deadline",
            message,
            [
                SMALLER.to_owned(),
                "If it is only that this machine is slow: [compile] deadline = \"10m\" in config/policy.toml."
                    .to_owned(),
            ],
        )
        .retryable(),
        CompileError::Memory(_) => CodedError::new(
            "component.compile-memory",
            message,
            [
                SMALLER.to_owned(),
                "If it is worth that much memory: [compile] memory = \"4GiB\" in config/policy.toml.".to_owned(),
            ],
        ),
        CompileError::Crashed(_) => CodedError::new(
            "component.compiler-crashed",
            message,
            [
                "Do not run this component: remove it, and report it with its sha256 to the makers of psn. Nothing of it has run.",
            ],
        ),
        CompileError::NotStarted(_) => CodedError::new(
            "component.compiler-not-started",
            message,
            ["See that psn's program can be run and that the account may start processes and threads: ulimit -u"],
        )
        .retryable(),
        CompileError::NoCompiler => CodedError::new(
            "component.no-compiler",
            message,
            ["Run the component with the psn program; a program that embeds psn sets RuntimeOptions::compiler."],
        ),
    }
}

/// What a plugin that ran says about its failure. The texts are cleaned and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Kebab case, below the plugin's name.
    pub code: String,
    pub message: String,
    pub fix: Vec<String>,
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// As people and programs see it: `<plugin>.<code>`.
    pub fn into_coded(self, plugin: &str) -> CodedError {
        let fix = if self.fix.is_empty() { vec![author(plugin)] } else { self.fix };
        CodedError::new(format!("{plugin}.{}", self.code), self.message, fix).retry_after_ms(self.retry_after_ms)
    }
}

fn author(plugin: &str) -> String {
    format!("Report this to the author of {plugin}, with the log lines before it.")
}

/// What a [`CallError::Limit`] calls memory.
pub(super) const MEMORY: &str = "memory";

/// When in a call something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Instantiation, start functions included.
    Start,
    Run,
}

/// A call did not come to an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    #[error("it was stopped after {} s{}", .after.as_secs_f32(), if *.phase == Phase::Start { ", while it was starting" } else { "" })]
    Deadline { after: Duration, phase: Phase },
    /// In the manifest's words, for example `http-calls`.
    #[error("it reached its limit of {} {what}", amount(.what, *.limit))]
    Limit { what: &'static str, limit: u64 },
    /// One that the operator's policy lowered; `line` would raise it.
    #[error("it reached its limit of {} {what}, which the operator's policy sets", amount(.what, *.limit))]
    PolicyLimit { what: &'static str, limit: u64, line: String },
    #[error("it crashed: {reason}{}", frames(.backtrace))]
    Trapped {
        reason: String,
        /// Names of the innermost functions, innermost first.
        backtrace: Vec<String>,
    },
    #[error("it could not be started: {reason}{}", frames(.backtrace))]
    StartFailed { reason: String, backtrace: Vec<String> },
    /// A WASI program's `exit`.
    #[error("it ended itself with exit code {0}")]
    Exited(i32),
    /// It answered with something that breaks the contract.
    #[error("its answer is not valid: {0}")]
    Output(String),
    #[error("too many components are running")]
    Busy,
    /// A defect of psn.
    #[error("psn failed while it ran")]
    HostPanicked,
    #[error("it is a {is}; {asked} is for a {needs}")]
    WrongWorld { asked: &'static str, is: &'static str, needs: &'static str },
}

/// Memory is counted in bytes, everything else in what it is.
fn amount(what: &str, limit: u64) -> String {
    if what == MEMORY { format!("{} MiB of", limit as f64 / f64::from(1 << 20)) } else { limit.to_string() }
}

fn frames(backtrace: &[String]) -> String {
    if backtrace.is_empty() { String::new() } else { format!(" (in {})", backtrace.join(" < ")) }
}

impl CallError {
    /// As people and programs see it.
    pub fn into_coded(self, plugin: &str) -> CodedError {
        let message = format!("{plugin}: {self}");
        match self {
            Self::Deadline { .. } => CodedError::new(
                "component.deadline",
                message,
                ["Try again: what was done so far is kept. If it needs longer by its nature, raise [limits] deadline in its plugin.toml, or in config/policy.toml where that sets less."],
            )
            .retryable(),
            Self::Limit { what, .. } => CodedError::new(
                "component.limit",
                message,
                [format!("Raise [limits] {what} in its plugin.toml, or have it do less at a time."), author(plugin)],
            ),
            Self::PolicyLimit { line, .. } => CodedError::new(
                "component.limit",
                message,
                [format!("In {POLICY_TOML}: {line}"), "Have it do less at a time.".to_owned()],
            ),
            Self::Trapped { .. } => CodedError::new("component.trapped", message, [author(plugin)]),
            Self::StartFailed { .. } => CodedError::new("component.start-failed", message, [author(plugin)]),
            Self::Exited(_) => CodedError::new("component.exited", message, [author(plugin)]),
            Self::Output(_) => CodedError::new("component.output-invalid", message, [author(plugin)]),
            Self::Busy => CodedError::new("component.busy", message, ["Try again when fewer are running."]).retryable(),
            Self::HostPanicked => CodedError::new("runtime.panicked", message, ["Report this to the makers of psn, with what stands on standard error."]),
            Self::WrongWorld { needs, .. } => CodedError::new("component.wrong-world", message, [format!("Name a plugin that is a {needs}.")]),
        }
    }
}
