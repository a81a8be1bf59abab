//! A task that may have programs, the vault, facts and secrets.
#![cfg(target_family = "wasm")]
// The export macro of the bindings.
#![allow(unsafe_code)]

psn_hostile_kit::export_task!(psn_hostile_kit::local::operations);
