//! A program without a compiler runs the code that it was given.
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugins::Installed;
use crate::runtime::engine::{AddressSpace, Built};
use crate::runtime::precompiled::{Precompiled, PrecompiledError};
use crate::runtime::sealed::Named;
use crate::runtime::{RuntimeError, RuntimeOptions};

pub(in crate::runtime) struct Source {
    engine: Engine,
    space: AddressSpace,
    given: Option<Precompiled>,
}

impl Source {
    pub(in crate::runtime) fn open(options: RuntimeOptions, built: &Built) -> (Self, Option<String>) {
        (Self { engine: built.engine.clone(), space: built.space, given: options.precompiled }, None)
    }

    /// Nothing takes long here.
    pub(in crate::runtime) fn patience(&self) -> Duration {
        Duration::ZERO
    }

    pub(in crate::runtime) async fn component(&self, installed: &Installed) -> Result<Component, RuntimeError> {
        let plugin = &installed.manifest.plugin.name;
        self.given().map_err(|error| RuntimeError::Precompiled { plugin: plugin.clone(), error })
    }

    fn given(&self) -> Result<Component, PrecompiledError> {
        // Code is compiled for processes that have plenty. wasmtime would refuse it too, and not say what is short.
        if self.space == AddressSpace::Small {
            return Err(PrecompiledError::AddressSpace);
        }
        Named::verify(self.given.as_ref().ok_or(PrecompiledError::Unnamed)?)?.open(&self.engine)
    }
}
