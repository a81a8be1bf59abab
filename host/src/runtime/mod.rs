//! Runs components: one engine, compiled code that is kept, a fresh instance for each call, and one deadline and one account of
//! memory around it.
mod cache;
mod call;
pub mod compile;
mod convert;
mod engine;
mod error;
mod guest;
mod limiter;
mod limits;
mod linker;
mod load;
mod sealed;
mod stdio;
#[cfg(test)]
mod tests;
mod ticker;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use wasmtime::Engine;

pub use cache::{CacheError, default_cache_dir};
pub use call::CallOutcome;
pub use compile::{CompileBounds, CompileError, Compiler, CompilerProcess};
pub use convert::{Need, Report, StepState};
pub use engine::Allocator;
pub use error::{CallError, Failure, Phase, RuntimeError};
pub use guest::Capabilities;
pub use limits::{CallLimits, Ceilings};
pub use load::Loaded;

use crate::capabilities::Deadline;
use crate::plugins::Installed;

/// How long [`Runtime::load`] waits at least for a component to be compiled, and for others to be compiled before it. The largest
/// that is accepted takes most of a minute on two cores.
pub const COMPILE_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    pub allocator: Allocator,
    /// Where compiled code is kept; nowhere if none. See [`default_cache_dir`].
    pub cache_dir: Option<PathBuf>,
    /// For components that are not psn's own.
    pub compiler: Compiler,
    pub ceilings: Ceilings,
}

impl Default for RuntimeOptions {
    /// As a command needs it, without a cache, and for psn's own components only.
    fn default() -> Self {
        Self {
            allocator: Allocator::OnDemand,
            cache_dir: None,
            compiler: Compiler::default(),
            ceilings: Ceilings::default(),
        }
    }
}

/// Digest of a component, and hash of what it was granted.
type Key = (String, String);

/// Runs components. One for a process.
pub struct Runtime {
    engine: Engine,
    space: engine::AddressSpace,
    compiler: Compiler,
    allocator: Allocator,
    linkers: linker::Linkers,
    ticker: ticker::Ticker,
    cache: Option<Arc<cache::Cache>>,
    ceilings: Ceilings,
    loaded: Mutex<HashMap<Key, Arc<OnceCell<Loaded>>>>,
    compiling: Arc<Semaphore>,
    notes: Vec<String>,
}

impl Runtime {
    pub fn new(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        let failed = |e: &dyn std::fmt::Display| RuntimeError::Engine(e.to_string());
        let built = engine::build(options.allocator, options.ceilings.memory).map_err(|e| failed(&format!("{e:#}")))?;
        let mut notes: Vec<String> = built.note.into_iter().collect();
        let cache = match options.cache_dir.map(|dir| cache::Cache::open(&dir, &built.engine)) {
            Some(Ok(cache)) => Some(Arc::new(cache)),
            // Everything works without it, a little later.
            Some(Err(e)) => {
                notes.push(format!("compiled code is not kept: {e}"));
                None
            }
            None => None,
        };
        Ok(Self {
            linkers: linker::Linkers::new(&built.engine).map_err(|e| failed(&format!("{e:#}")))?,
            ticker: ticker::Ticker::start(&built.engine).map_err(|e| failed(&e))?,
            engine: built.engine,
            space: built.space,
            compiler: options.compiler,
            allocator: built.allocator,
            cache,
            ceilings: options.ceilings,
            loaded: Mutex::default(),
            // Compilation uses every core by itself.
            compiling: Arc::new(Semaphore::new(1)),
            notes,
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
        let compiling = match &self.compiler {
            Compiler::Process(process) => process.bounds.wall + COMPILE_DEADLINE / 10,
            Compiler::None | Compiler::InProcess => Duration::ZERO,
        };
        self.load_within(installed, Deadline::after(COMPILE_DEADLINE.max(compiling))).await
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
