//! Steps in order: inspect → apply → verify; resume; the run lock.
mod component_store;
pub mod consent;
pub mod environment;
mod facts;
pub mod home;
mod ledger;
mod lock;
mod migrate_step;
mod outcome;
mod plugin_step;
pub mod session;
mod setup;
pub mod switch;
mod task;
pub mod task_runner;

pub use environment::Environment;
pub use ledger::{Ledger, StepRecord};
pub use lock::{Holder, LockError, RunLock};
pub use outcome::{Ended, Tally};
pub use session::{OpenOptions, Session};
pub use setup::{SETUP, Slot, run_setup, run_single};
pub use task::run_task;

use crate::plugins::registry::FirstParty;

/// psn's own plugins, embedded and pinned by the build.
pub static FIRST_PARTY: &[FirstParty] = include!(concat!(env!("OUT_DIR"), "/first_party.rs"));
