//! psn provisions and looks after a person's Personal Hub. Every setup step and every scheduled task is a WebAssembly
//! component that can touch only what its manifest asks for and its owner granted.
//!
//! ```text
//! cli/           commands; turn results into events and exit codes
//! pipeline/      steps in order: inspect → apply → verify; resume; the run lock
//! events/        event types, the NDJSON writer, the terminal view
//! plugins/       manifest, lock file, registry: which component, which digest, which grants
//! runtime/       engine, compile cache, store state, deadline, limiter, meter
//! capabilities/  one folder per interface of the contract: policy.rs decides, host.rs implements
//! hub/           the hub's folder, env files, connections, migrations, roles
//! secret, redact what every layer may use: the secret type, and the filter that every output passes
//! shell          words of the commands that psn tells people to type
//! worker         how psn knows its worker, by its bytes
//! boundary       the seams where tests watch what leaves the process
//! ```
//!
//! The arrows point down only.
//!
//! Without the feature `full` it is what runs one component of a deployment, and has no compiler: psn's worker.
// Not `forbid`: runtime/sealed/, which maps compiled code, is the one exception.
#![deny(unsafe_code)]

mod atomic;
pub mod boundary;
pub mod capabilities;
pub mod cli;
pub mod error;
pub mod events;
pub mod hub;
#[cfg(feature = "full")]
#[doc(hidden)]
pub mod invariants;
pub mod pipeline;
pub mod plugins;
pub mod redact;
pub mod runtime;
pub mod secret;
mod shell;
pub mod worker;
