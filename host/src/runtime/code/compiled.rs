//! Compiles components, and keeps what was compiled.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugins::{Installed, Origin};
use crate::runtime::cache::Cache;
use crate::runtime::compile::{self, COMPILE_STACK, CompileError, Compiler, Target};
use crate::runtime::engine::{AddressSpace, Built};
use crate::runtime::sealed::{self, Code};
use crate::runtime::{COMPILE_DEADLINE, RuntimeError, RuntimeOptions};

pub(in crate::runtime) struct Source {
    engine: Engine,
    space: AddressSpace,
    cache: Option<Arc<Cache>>,
    /// For components that are not psn's own.
    compiler: Compiler,
    compiling: Arc<Semaphore>,
}

impl Source {
    /// And what is not as it was asked for.
    pub(in crate::runtime) fn open(options: RuntimeOptions, built: &Built) -> (Self, Option<String>) {
        let (cache, note) = match options.cache_dir.map(|dir| Cache::open(&dir, &built.engine)) {
            Some(Ok(cache)) => (Some(Arc::new(cache)), None),
            // Everything works without it, a little later.
            Some(Err(e)) => (None, Some(format!("compiled code is not kept: {e}"))),
            None => (None, None),
        };
        let source = Self {
            engine: built.engine.clone(),
            space: built.space,
            cache,
            compiler: options.compiler,
            // Compilation uses every core by itself.
            compiling: Arc::new(Semaphore::new(1)),
        };
        (source, note)
    }

    /// How long one that is waited for may take by itself.
    pub(in crate::runtime) fn patience(&self) -> Duration {
        match &self.compiler {
            Compiler::Process(process) => process.bounds.wall + COMPILE_DEADLINE / 10,
            Compiler::None | Compiler::InProcess => Duration::ZERO,
        }
    }

    /// On a thread of its own, one at a time: compilation uses every core. Of psn's own components nothing can stop it, and whoever
    /// stops waiting for it finds it in the cache the next time; one from elsewhere is compiled in a process, which ends when nobody
    /// waits any more.
    pub(in crate::runtime) async fn component(&self, installed: &Installed) -> Result<Component, RuntimeError> {
        let failed = |error| RuntimeError::Compile { plugin: installed.manifest.plugin.name.clone(), error };
        let crashed = |reason: String| failed(CompileError::Crashed(reason));
        let permit = self.compiling.clone().acquire_owned().await.map_err(|e| crashed(e.to_string()))?;
        let (done, result) = oneshot::channel();
        let job = Job {
            engine: self.engine.clone(),
            space: self.space,
            cache: self.cache.clone(),
            compiler: match installed.origin {
                Origin::FirstParty => Compiler::InProcess,
                Origin::ThirdParty => self.compiler.clone(),
            },
            sha256: installed.sha256.clone(),
            bytes: installed.component.clone(),
            _permit: permit,
        };
        std::thread::Builder::new()
            .name("psn-compile".into())
            .stack_size(COMPILE_STACK)
            .spawn(move || {
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| job.run(|| done.is_closed())));
                // Nobody may be waiting any more.
                let _ = done.send(result.unwrap_or_else(|_| Err(CompileError::Crashed("it panicked".into()))));
            })
            .map_err(|e| failed(CompileError::NotStarted(format!("no thread for it: {e}"))))?;
        result.await.unwrap_or_else(|_| Err(CompileError::Crashed("it gave no answer".into()))).map_err(failed)
    }
}

struct Job {
    engine: Engine,
    space: AddressSpace,
    cache: Option<Arc<Cache>>,
    compiler: Compiler,
    sha256: String,
    bytes: std::borrow::Cow<'static, [u8]>,
    _permit: OwnedSemaphorePermit,
}

impl Job {
    fn run(&self, cancelled: impl Fn() -> bool) -> Result<Component, CompileError> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.get(&self.engine, &self.sha256)) {
            return Ok(component);
        }
        let refused = |e: wasmtime::Error| CompileError::Refused(format!("{e:#}"));
        match &self.compiler {
            Compiler::None => Err(CompileError::NoCompiler),
            Compiler::InProcess => {
                let component = Component::from_binary(&self.engine, &self.bytes).map_err(refused)?;
                if self.cache.is_some() {
                    self.keep(&Code::of(&component).map_err(refused)?);
                }
                Ok(component)
            }
            Compiler::Process(process) => {
                let compiled = compile::run(process, Target::Here(self.space), self.bytes.clone(), cancelled)?;
                let component = sealed::adopt(&self.engine, &compiled).map_err(refused)?;
                self.keep(&Code::from_process(&compiled));
                Ok(component)
            }
        }
    }

    fn keep(&self, code: &Code<'_>) {
        if let Some(cache) = &self.cache
            && let Err(e) = cache.put(&self.sha256, code)
        {
            // A full disk costs time at the next start, no more.
            tracing::warn!("compiled code is not kept: {e}");
        }
    }
}
