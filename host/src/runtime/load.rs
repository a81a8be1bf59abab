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
use super::error::RuntimeError;
use super::guest::Guest;
use super::limiter::{MAX_MEMORIES, MAX_TABLES};
use super::limits::CallLimits;
use crate::plugins::Installed;
use crate::plugins::manifest::{Manifest, World};

/// The stack of the thread that compiles, in bytes: what a process's first thread has. The compiler recurses.
const COMPILE_STACK: usize = 8 << 20;

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

    /// On a thread of its own, one at a time: compilation uses every core, and nothing can stop it. Whoever stops waiting for it
    /// finds it in the cache the next time.
    async fn component(&self, installed: &Installed) -> Result<Component, RuntimeError> {
        let failed = |reason: String| RuntimeError::Compile { plugin: installed.manifest.plugin.name.clone(), reason };
        let permit = self.compiling.clone().acquire_owned().await.map_err(|e| failed(e.to_string()))?;
        let (done, result) = oneshot::channel();
        let job = Job {
            engine: self.engine.clone(),
            cache: self.cache.clone(),
            sha256: installed.sha256.clone(),
            bytes: installed.component.clone(),
            _permit: permit,
        };
        std::thread::Builder::new()
            .name("psn-compile".into())
            .stack_size(COMPILE_STACK)
            .spawn(move || {
                let result = std::panic::catch_unwind(AssertUnwindSafe(|| job.run()));
                // Nobody may be waiting any more.
                let _ = done.send(result.unwrap_or_else(|_| Err("the compiler panicked".into())));
            })
            .map_err(|e| failed(format!("no thread for the compiler: {e}")))?;
        result.await.unwrap_or_else(|_| Err("the compiler ended without an answer".into())).map_err(failed)
    }
}

struct Job {
    engine: Engine,
    cache: Option<Arc<Cache>>,
    sha256: String,
    bytes: std::borrow::Cow<'static, [u8]>,
    _permit: OwnedSemaphorePermit,
}

impl Job {
    fn run(&self) -> Result<Component, String> {
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.get(&self.engine, &self.sha256)) {
            return Ok(component);
        }
        let component = Component::from_binary(&self.engine, &self.bytes).map_err(|e| format!("{e:#}"))?;
        if let Some(cache) = &self.cache
            && let Err(e) = cache.put(&self.sha256, &component)
        {
            // A full disk costs time at the next start, no more.
            tracing::warn!("compiled code is not kept: {e:#}");
        }
        Ok(component)
    }
}
