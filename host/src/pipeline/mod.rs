//! Steps in order: inspect → apply → verify; resume; plan, drift, teardown; the run lock.
#[cfg(feature = "full")]
pub mod cloud_project;
pub mod cloud_run;
mod component_store;
#[cfg(feature = "full")]
pub mod consent;
#[cfg(feature = "full")]
mod drift;
pub mod environment;
#[cfg(feature = "full")]
pub mod facts;
#[cfg(feature = "full")]
pub mod home;
#[cfg(feature = "full")]
mod kept_ready;
#[cfg(feature = "full")]
mod known_settings;
#[cfg(feature = "full")]
mod ledger;
#[cfg(feature = "full")]
mod lock;
#[cfg(feature = "full")]
mod migrate_step;
mod outcome;
#[cfg(feature = "full")]
mod plan;
#[cfg(feature = "full")]
mod plugin_step;
#[cfg(feature = "full")]
pub mod session;
#[cfg(feature = "full")]
mod setup;
#[cfg(feature = "full")]
mod survey;
#[cfg(feature = "full")]
pub mod switch;
#[cfg(feature = "full")]
mod task;
#[cfg(feature = "full")]
pub mod task_runner;
#[cfg(feature = "full")]
mod teardown;
#[cfg(feature = "full")]
pub mod trigger_api;

#[cfg(feature = "full")]
pub use drift::drift;
pub use environment::Environment;
#[cfg(feature = "full")]
pub use known_settings::KnownSettings;
#[cfg(feature = "full")]
pub use ledger::{Ledger, LedgerError, StepRecord};
#[cfg(feature = "full")]
pub use lock::{Holder, LockError, RunLock};
pub use outcome::{Ended, Tally};
#[cfg(feature = "full")]
pub use plan::{Plan, apply, plan_setup};
#[cfg(feature = "full")]
pub use session::{OpenOptions, Session};
#[cfg(feature = "full")]
pub use setup::{SETUP, Slot, run_setup, run_single};
#[cfg(feature = "full")]
pub use task::run_task;
#[cfg(feature = "full")]
pub use teardown::{plan_teardown, teardown};

use crate::plugins::registry::FirstParty;

/// psn's own plugins, embedded and pinned by the build.
pub static FIRST_PARTY: &[FirstParty] = include!(concat!(env!("OUT_DIR"), "/first_party.rs"));
