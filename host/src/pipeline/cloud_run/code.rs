//! The code that a run executes: psn compiles it, its worker was given it.
use super::CloudRun;
use crate::error::CodedError;
use crate::runtime::RuntimeOptions;

/// Runs of one machine share what was compiled. Code that lies in the bundle is not for a program that has a compiler.
#[cfg(feature = "full")]
pub(super) fn options(_: &CloudRun) -> Result<RuntimeOptions, CodedError> {
    use crate::runtime::{CompileBounds, Compiler};
    Ok(RuntimeOptions {
        cache_dir: Some(std::env::temp_dir().join("psn-cache")),
        compiler: Compiler::this_program(CompileBounds::default()),
        ..RuntimeOptions::default()
    })
}

#[cfg(not(feature = "full"))]
pub(super) fn options(run: &CloudRun) -> Result<RuntimeOptions, CodedError> {
    use super::{ComponentStore, Reference, not_whole};
    use crate::runtime::{Precompiled, PrecompiledError};
    let Some(sha256) = run.compiled.clone() else { return Ok(RuntimeOptions::default()) };
    let reference = Reference::parse(&run.component).map_err(|e| not_whole(&e))?;
    let code = ComponentStore::new(&run.store).code(&reference).map_err(|e| {
        let error = PrecompiledError::Unreadable(e.to_string());
        error.coded(error.to_string())
    })?;
    Ok(RuntimeOptions { precompiled: Some(Precompiled { code, sha256 }), ..RuntimeOptions::default() })
}
