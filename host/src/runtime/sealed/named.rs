//! Code that was compiled elsewhere, known by its digest. Not in a psn that has a compiler.
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::runtime::precompiled::{Precompiled, PrecompiledError};

/// Code that is what whoever started this program said it is. Only [`Named::verify`] makes one.
pub(in crate::runtime) struct Named<'a>(&'a [u8]);

impl<'a> Named<'a> {
    pub(in crate::runtime) fn verify(precompiled: &'a Precompiled) -> Result<Self, PrecompiledError> {
        let found = hex::encode(Sha256::digest(&precompiled.code));
        if found != precompiled.sha256 {
            return Err(PrecompiledError::Damaged { found, named: precompiled.sha256.clone() });
        }
        Ok(Self(&precompiled.code))
    }

    /// The component, if wasmtime accepts the code for this engine.
    pub(in crate::runtime) fn open(&self, engine: &Engine) -> Result<Component, PrecompiledError> {
        // SAFETY: `deserialize` requires bytes that `Engine::precompile_component` returned, unmodified. These have the SHA-256 that
        // this program was started with. It was written by the psn that compiled them, into the very task that starts this program
        // from beside it: whoever can change it there can as well name, or be, another program. What lies in the bundle's files, or
        // what the component says, has no part in it. The bytes are in this process's memory, where nobody changes them between
        // check and use, and `deserialize` copies them. That they are for this version, configuration and processor, wasmtime checks.
        unsafe { Component::deserialize(engine, self.0) }.map_err(|e| PrecompiledError::Mismatch(format!("{e:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::engine::{AddressSpace, Target, precompile};

    fn code(target: Target) -> Precompiled {
        let text = "(component (core module (func (export \"f\"))))";
        let code = precompile(target, &wat::parse_str(text).unwrap()).unwrap();
        Precompiled { sha256: hex::encode(Sha256::digest(&code)), code }
    }

    fn engine() -> Engine {
        crate::runtime::engine::build(crate::runtime::Allocator::OnDemand, 1 << 30).unwrap().engine
    }

    #[test]
    fn code_that_is_not_what_was_named_is_not_opened() {
        let sound = code(Target::Worker);
        assert!(Named::verify(&sound).is_ok());
        for at in [0, sound.code.len() / 2, sound.code.len() - 1] {
            let mut changed = sound.clone();
            changed.code[at] ^= 1;
            assert!(matches!(Named::verify(&changed).err(), Some(PrecompiledError::Damaged { .. })), "byte {at}");
        }
        let cut = Precompiled { code: sound.code[..sound.code.len() - 1].to_vec(), ..sound.clone() };
        assert!(Named::verify(&cut).is_err());
        assert!(Named::verify(&Precompiled { sha256: "0".repeat(64), ..sound }).is_err());
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn code_for_another_engine_is_refused_by_wasmtime() {
        assert!(Named::verify(&code(Target::Worker)).unwrap().open(&engine()).is_ok());
        let small = code(Target::Here(AddressSpace::Small));
        let refused = Named::verify(&small).unwrap().open(&engine()).err();
        assert!(matches!(refused, Some(PrecompiledError::Mismatch(_))), "{refused:?}");
    }
}
