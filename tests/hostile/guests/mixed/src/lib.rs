//! A task that may have services and the database.
#![cfg(target_family = "wasm")]
// The export macro of the bindings.
#![allow(unsafe_code)]

use psn_hostile_kit::{Machine, Told, data, net};

fn operations(machine: &mut Machine, line: &[String]) -> Option<Told> {
    net::operations(machine, line).or_else(|| data::operations(machine, line))
}

psn_hostile_kit::export_task!(operations);
