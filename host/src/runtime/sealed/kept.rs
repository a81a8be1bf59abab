//! Code that psn compiled itself: straight from the compiler, or from the cache with a seal that only this account can make.
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use crate::runtime::compile::Compiled;

/// Bytes of the key, and of a seal.
pub(in crate::runtime) const KEY_BYTES: usize = 32;
const SEAL_BYTES: usize = 32;

/// Set before everything that is sealed, so that a seal can never be one over something else.
const PURPOSE: &[u8] = b"psn compiled component 1\0";

/// What makes code ours.
pub(in crate::runtime) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    pub(in crate::runtime) fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    fn mac(&self, subject: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.as_slice()).expect("HMAC takes keys of any length");
        mac.update(PURPOSE);
        mac.update(&(subject.len() as u64).to_le_bytes());
        mac.update(subject.as_bytes());
        mac.update(code);
        mac
    }
}

/// Code as the compiler left it. Only this file makes one.
pub(in crate::runtime) struct Code<'a>(std::borrow::Cow<'a, [u8]>);

impl<'a> Code<'a> {
    pub(in crate::runtime) fn of(component: &Component) -> wasmtime::Result<Self> {
        Ok(Self(component.serialize()?.into()))
    }

    pub(in crate::runtime) fn from_process(compiled: &'a Compiled) -> Self {
        Self(compiled.code().into())
    }
}

/// The component that a compiler process of ours compiled, if wasmtime accepts the code for this engine.
pub(in crate::runtime) fn adopt(engine: &Engine, compiled: &Compiled) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` requires bytes that `Component::serialize` or `Engine::precompile_component` returned, unmodified.
    // `Compiled` is made by `compile::run` alone, of what came whole through the standard output of a process that it started
    // itself. The program is psn's own (`/proc/self/exe`, or one that the library's user names as psn's compiler), it hands back
    // what `precompile_component` returned, and nobody else has the other end of the pipe. A compiler that a component has taken
    // over could hand back anything: the compiler is trusted with the code that it makes, in this process or in another, and that
    // it runs in another does not make it less so. That the code is for this engine's configuration and version, wasmtime checks.
    unsafe { Component::deserialize(engine, compiled.code()) }
}

/// Compiled code with its seal. `subject` says of what, and for which engine, it is.
pub(in crate::runtime) fn seal(key: &Key, subject: &str, code: &Code<'_>) -> Vec<u8> {
    let code = &code.0;
    let mut sealed = Vec::with_capacity(SEAL_BYTES + code.len());
    sealed.extend_from_slice(&key.mac(subject, code).finalize().into_bytes());
    sealed.extend_from_slice(code);
    sealed
}

/// The component, if the seal is whole and wasmtime accepts the code for this engine.
pub(in crate::runtime) fn open(engine: &Engine, key: &Key, subject: &str, sealed: &[u8]) -> Option<Component> {
    let (seal, code) = sealed.split_at_checked(SEAL_BYTES)?;
    key.mac(subject, code).verify_slice(seal).ok()?;
    // SAFETY: `deserialize` requires bytes that `Component::serialize` returned, unmodified. The seal over exactly these bytes has
    // just been verified; it can only have been made by `seal` above, which seals nothing but `Code`: what `Component::serialize`
    // returned or a compiler process of ours handed back; or by someone who has the key. The key is a random one that lies in a file which only this account can read
    // (cache.rs checks owner and mode, of the file and its folder), and whoever can read it can already run any code as this
    // account. The bytes are in this process's memory, where nobody changes them between check and use, and `deserialize` copies
    // them. That they are for this very engine configuration and version is part of `subject`, and wasmtime checks it again.
    unsafe { Component::deserialize(engine, code) }.ok()
}
