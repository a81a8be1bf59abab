//! What a guest can ask of the host. One folder per interface of the contract, each the same shape: `policy.rs` decides, on
//! values alone; `host.rs` implements the interface on a [`View`] of the capability.
pub mod call;
mod captured;
mod clean;
pub mod context;
pub mod db;
pub mod events;
pub mod http;
pub mod hub_facts;
pub mod secrets;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod tool;
pub mod vault;

pub use call::{Call, Deadline, Exceeded, Has, Meter, MeterLimits, Usage, View};
