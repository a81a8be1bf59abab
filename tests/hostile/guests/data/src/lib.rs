//! A task that may have the database.
#![cfg(target_family = "wasm")]
// The export macro of the bindings.
#![allow(unsafe_code)]

psn_hostile_kit::export_task!(psn_hostile_kit::data::operations);
