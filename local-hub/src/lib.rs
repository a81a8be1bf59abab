//! A hub on this machine: services that speak Neon's and Trigger.dev's own APIs over a real, supervised Postgres.
//!
//! ```text
//! lifecycle/   up, attach, down, status, reset, logs; the daemon's `serve`
//! neon/        Neon's API v2: a project is a Postgres cluster of its own, with its own roles
//! trigger/     Trigger.dev's v1-v3 API: deployments, env vars, schedules, runs; a run is handed to a [`TaskRunner`]
//! pg/          finds Postgres binaries; makes, starts, attaches to, repairs and stops clusters
//! ```
//!
//! The arrows point down. The host (crate `psn`) depends on this crate, never the other way: what executes a run is given
//! to [`serve`](lifecycle) as a [`TaskRunner`].
#![forbid(unsafe_code)]

mod files;
pub mod lifecycle;
pub mod neon;
pub mod pg;
pub mod runner;
pub mod tokens;
pub mod trigger;

pub use runner::{RunOutcome, TaskRun, TaskRunner};
