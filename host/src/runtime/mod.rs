//! Runs components: one engine, compiled code that is kept, a fresh instance for each call, and one deadline and one account of
//! memory around it.
#[cfg(feature = "full")]
mod cache;
mod call;
mod code;
#[cfg(feature = "full")]
pub mod compile;
mod compile_error;
mod convert;
mod engine;
mod error;
mod guest;
mod limiter;
mod limits;
mod linker;
mod load;
pub mod precompiled;
mod sealed;
mod stdio;
#[cfg(test)]
mod tests;
mod ticker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use wasmtime::Engine;

#[cfg(feature = "full")]
pub use cache::{CacheError, default_cache_dir};
pub use call::CallOutcome;
#[cfg(feature = "full")]
pub use compile::{CompileBounds, Compiler, CompilerProcess};
pub use compile_error::CompileError;
pub use convert::{Need, Report, StepState};
pub use engine::Allocator;
pub use error::{CallError, Failure, Phase, RuntimeError};
pub use guest::Capabilities;
pub use limits::{CallLimits, Ceilings};
pub use load::Loaded;
pub use precompiled::{Precompiled, PrecompiledError};

use crate::capabilities::Deadline;
use crate::plugins::Installed;

/// How long [`Runtime::load`] waits at least for a component to be compiled, and for others to be compiled before it. The largest
/// that is accepted takes most of a minute on two cores.
pub const COMPILE_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    pub allocator: Allocator,
    /// Where compiled code is kept; nowhere if none. See [`default_cache_dir`].
    #[cfg(feature = "full")]
    pub cache_dir: Option<std::path::PathBuf>,
    /// For components that are not psn's own.
    #[cfg(feature = "full")]
    pub compiler: Compiler,
    /// The code of the one component that this program is to run: it has no compiler.
    #[cfg(not(feature = "full"))]
    pub precompiled: Option<Precompiled>,
    pub ceilings: Ceilings,
}

impl Default for RuntimeOptions {
    /// As a command needs it, without a cache, and for psn's own components only.
    fn default() -> Self {
        Self {
            allocator: Allocator::OnDemand,
            #[cfg(feature = "full")]
            cache_dir: None,
            #[cfg(feature = "full")]
            compiler: Compiler::default(),
            #[cfg(not(feature = "full"))]
            precompiled: None,
            ceilings: Ceilings::default(),
        }
    }
}

/// Digest of a component, and hash of what it was granted.
type Key = (String, String);

/// Runs components. One for a process.
pub struct Runtime {
    engine: Engine,
    code: code::Source,
    allocator: Allocator,
    linkers: linker::Linkers,
    ticker: ticker::Ticker,
    ceilings: Ceilings,
    loaded: Mutex<HashMap<Key, Arc<OnceCell<Loaded>>>>,
    notes: Vec<String>,
}

impl Runtime {
    pub fn new(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        let failed = |e: &dyn std::fmt::Display| RuntimeError::Engine(e.to_string());
        let built = engine::build(options.allocator, options.ceilings.memory).map_err(|e| failed(&format!("{e:#}")))?;
        let ceilings = options.ceilings.clone();
        let (code, unkept) = code::Source::open(options, &built);
        Ok(Self {
            linkers: linker::Linkers::new(&built.engine).map_err(|e| failed(&format!("{e:#}")))?,
            ticker: ticker::Ticker::start(&built.engine).map_err(|e| failed(&e))?,
            engine: built.engine,
            code,
            allocator: built.allocator,
            ceilings,
            loaded: Mutex::default(),
            notes: built.note.into_iter().chain(unkept).collect(),
        })
    }

    /// What is in use, which may be another one than was asked for.
    pub fn allocator(&self) -> Allocator {
        self.allocator
    }

    /// What is not as it was asked for, to be said once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Makes a component ready, within [`COMPILE_DEADLINE`], or longer where the compiler may take longer.
    pub async fn load(&self, installed: &Installed) -> Result<Loaded, RuntimeError> {
        self.load_within(installed, Deadline::after(COMPILE_DEADLINE.max(self.code.patience()))).await
    }

    /// Makes a component ready, within the deadline of the call it is for. The same component with the same grants is made ready
    /// once, however many wait for it.
    pub async fn load_within(&self, installed: &Installed, deadline: Deadline) -> Result<Loaded, RuntimeError> {
        let key = (installed.sha256.clone(), installed.manifest.capabilities_hash());
        let cell = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let late = || RuntimeError::CompileDeadline { plugin: installed.manifest.plugin.name.clone() };
        // tokio's timers are a millisecond coarse, in which a small component can be ready.
        if deadline.passed() && !cell.initialized() {
            return Err(late());
        }
        match tokio::time::timeout_at(deadline.at().into(), cell.get_or_try_init(|| self.prepare(installed))).await {
            Ok(loaded) => loaded.cloned(),
            Err(_) => Err(late()),
        }
    }
}
