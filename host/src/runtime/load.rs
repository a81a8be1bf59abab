//! Makes a component ready to run: from the cache or by compiling it, checked against the contract, once for each digest and grant.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use psn_bindings::step::StepPre;
use psn_bindings::task::TaskPre;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::Runtime;
use super::cache::Cache;
use super::compile::{self, COMPILE_STACK, CompileError, Compiler};
use super::engine::AddressSpace;
use super::error::RuntimeError;
use super::guest::Guest;
use super::limiter::{MAX_MEMORIES, MAX_TABLES};
use super::limits::CallLimits;
use super::sealed::{self, Code};
use crate::plugins::manifest::{Manifest, World};
use crate::plugins::{Installed, Origin};

/// A component that is ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Loaded(Arc<Inner>);

struct Inner {
    manifest: Manifest,
    sha256: String,
    limits: CallLimits,
    pre: Pre,
}

/// With all imports resolved and all exports found.
pub(super) enum Pre {
    Step(StepPre<Guest>),
    Task(TaskPre<Guest>),
}

impl Loaded {
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Hex SHA-256 of the component.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// What a call of it may use up: the caller makes its deadline and its meter of this.
    pub fn limits(&self) -> &CallLimits {
        &self.0.limits
    }

    pub(super) fn pre(&self) -> &Pre {
        &self.0.pre
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("plugin", &self.0.manifest.plugin.name)
            .field("sha256", &self.0.sha256)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    pub(super) async fn prepare(&self, installed: &Installed) -> Result<Loaded, RuntimeError> {
        let plugin = &installed.manifest.plugin.name;
        let limits = CallLimits::of(&installed.manifest, &self.ceilings)?;
        let component = self.component(installed).await?;
        if let Some(required) = component.resources_required() {
            for (what, found, limit) in
                [("memories", required.num_memories, MAX_MEMORIES), ("tables", required.num_tables, MAX_TABLES)]
            {
                if found as usize > limit {
                    return Err(RuntimeError::TooMany { plugin: plugin.clone(), what, found, limit });
                }
            }
        }
        let mismatch = |e: wasmtime::Error| RuntimeError::Contract { plugin: plugin.clone(), reason: format!("{e:#}") };
        let pre = self.linkers.get(installed.wasi).instantiate_pre(&component).map_err(mismatch)?;
        let pre = match installed.manifest.world() {
            World::Step => Pre::Step(StepPre::new(pre).map_err(mismatch)?),
            World::Task => Pre::Task(TaskPre::new(pre).map_err(mismatch)?),
        };
        Ok(Loaded(Arc::new(Inner {
            manifest: installed.manifest.clone(),
            sha256: installed.sha256.clone(),
            limits,
            pre,
        })))
    }

    /// On a thread of its own, one at a time: compilation uses every core. Of psn's own components nothing can stop it, and whoever
    /// stops waiting for it finds it in the cache the next time; one from elsewhere is compiled in a process, which ends when nobody
    /// waits any more.
    async fn component(&self, installed: &Installed) -> Result<Component, RuntimeError> {
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
                let compiled = compile::run(process, self.space, self.bytes.clone(), cancelled)?;
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
