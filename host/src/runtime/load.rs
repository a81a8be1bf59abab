//! Makes a component ready to run: its code, checked against the contract, once for each digest and grant.
use std::sync::Arc;

use psn_bindings::step::StepPre;
use psn_bindings::task::TaskPre;

use super::Runtime;
use super::error::RuntimeError;
use super::guest::Guest;
use super::limiter::{MAX_MEMORIES, MAX_TABLES};
use super::limits::CallLimits;
use crate::plugins::Installed;
use crate::plugins::manifest::{Manifest, World};

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
        let component = self.code.component(installed).await?;
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
}
