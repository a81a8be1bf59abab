//! Compiled code that is worth running. The one module with `unsafe` in it.
//!
//! Who has a compiler runs what that compiled, and nothing that comes as code. Who has none, psn's worker, runs the code whose digest it
//! was started with, and nothing else.
#![allow(unsafe_code, reason = "wasmtime maps compiled code as it is")]

#[cfg(feature = "full")]
mod kept;
#[cfg(any(test, not(feature = "full")))]
mod named;

#[cfg(feature = "full")]
pub(super) use kept::{Code, KEY_BYTES, Key, adopt, open, seal};
#[cfg(not(feature = "full"))]
pub(super) use named::Named;
