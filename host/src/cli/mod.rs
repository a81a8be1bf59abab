//! Commands: they turn results into events and exit codes. Nothing else in psn writes to standard output.
#[cfg(feature = "full")]
mod args;
mod cloud_run;
#[cfg(feature = "full")]
mod compile_component;
#[cfg(feature = "full")]
mod config;
#[cfg(feature = "full")]
mod consent_prompt;
#[cfg(feature = "full")]
mod db;
#[cfg(feature = "full")]
mod doctor;
mod exit;
#[cfg(feature = "full")]
mod keys;
#[cfg(feature = "full")]
mod local;
#[cfg(feature = "full")]
mod plan;
#[cfg(feature = "full")]
mod plugin;
#[cfg(feature = "full")]
mod posts;
mod process;
#[cfg(feature = "full")]
mod program;
#[cfg(feature = "full")]
mod run;
#[cfg(feature = "full")]
mod status;
#[cfg(feature = "full")]
mod task;
#[cfg(feature = "full")]
mod teardown;
mod view;
pub mod worker;

pub use exit::Exit;
#[cfg(feature = "full")]
use process::Done;
#[cfg(feature = "full")]
use program::{Context, shown};
#[cfg(feature = "full")]
pub use program::{events_schema, main};

/// psn's worker answers with steps, never with a result of another form.
#[cfg(not(feature = "full"))]
fn shown(_: &str, _: &serde_json::Value) -> Option<Vec<String>> {
    None
}
