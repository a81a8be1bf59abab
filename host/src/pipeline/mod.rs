//! Steps in order: inspect → apply → verify; resume; plan, drift, teardown; the run lock.
pub mod cloud_project;
pub mod cloud_run;
mod component_store;
pub mod consent;
mod drift;
pub mod environment;
pub mod facts;
pub mod home;
mod kept_ready;
mod known_settings;
mod ledger;
mod lock;
mod migrate_step;
mod outcome;
mod plan;
mod plugin_step;
pub mod session;
mod setup;
mod survey;
pub mod switch;
mod task;
pub mod task_runner;
mod teardown;
pub mod trigger_api;

pub use drift::drift;
pub use environment::Environment;
pub use known_settings::KnownSettings;
pub use ledger::{Ledger, LedgerError, StepRecord};
pub use lock::{Holder, LockError, RunLock};
pub use outcome::{Ended, Tally};
pub use plan::{Plan, apply, plan_setup};
pub use session::{OpenOptions, Session};
pub use setup::{SETUP, Slot, run_setup, run_single};
pub use task::run_task;
pub use teardown::{plan_teardown, teardown};

use crate::plugins::registry::FirstParty;

/// psn's own plugins, embedded and pinned by the build.
pub static FIRST_PARTY: &[FirstParty] = include!(concat!(env!("OUT_DIR"), "/first_party.rs"));
