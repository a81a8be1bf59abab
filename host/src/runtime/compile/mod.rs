//! Compilation of components that are not psn's own: in a process that is killed when it takes too long or too much. The compiler
//! is no part of the sandbox: a component of a megabyte can occupy it for minutes, and no means of this process could stop it.
mod child;
mod process;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use child::COMPILE_STACK;
pub use child::{ChildOptions, compile_child};
pub(super) use process::{Compiled, run};

pub use super::compile_error::CompileError;
use super::engine;
pub(super) use super::engine::Target;

/// The hidden command by which psn runs itself as a compiler.
pub const COMMAND: &str = "compile-component";

/// Who compiles components that are not psn's own.
#[derive(Clone, Debug, Default)]
pub enum Compiler {
    /// Nobody: they are refused. psn's own are compiled all the same.
    #[default]
    None,
    /// This process, where nothing bounds what a hostile component costs: for tests.
    InProcess,
    /// A process for each of them.
    Process(CompilerProcess),
}

/// A program that compiles as [`compile_child`] does.
#[derive(Clone, Debug)]
pub struct CompilerProcess {
    pub program: PathBuf,
    /// Before those that say how.
    pub args: Vec<OsString>,
    pub bounds: CompileBounds,
}

/// What compiling one component may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileBounds {
    pub wall: Duration,
    /// Of all threads together. Whole seconds.
    pub cpu: Duration,
    /// Bytes of memory that is written to, as the kernel counts them against `RLIMIT_DATA`.
    pub memory: u64,
}

impl Default for CompileBounds {
    /// The largest component that is accepted takes most of a minute on two cores.
    fn default() -> Self {
        Self { wall: Duration::from_secs(100), cpu: Duration::from_secs(240), memory: 2 << 30 }
    }
}

impl Compiler {
    /// Code for psn's worker, which has no compiler. In the calling thread, for as long as that takes.
    pub fn for_worker(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        match self {
            Compiler::None => Err(CompileError::NoCompiler),
            Compiler::InProcess => {
                engine::precompile(Target::Worker, component).map_err(|e| CompileError::Refused(format!("{e:#}")))
            }
            Compiler::Process(process) => {
                run(process, Target::Worker, component.to_vec().into(), || false).map(Compiled::into_code)
            }
        }
    }

    /// The very program that runs now, which must be one whose main is [`crate::cli::main`].
    pub fn this_program(bounds: CompileBounds) -> Self {
        // On Linux by a name that means this program also when its file was replaced, by an update for example.
        let program = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            match std::env::current_exe() {
                Ok(program) => program,
                Err(_) => return Compiler::None,
            }
        };
        Compiler::Process(CompilerProcess { program, args: vec![COMMAND.into()], bounds })
    }
}
