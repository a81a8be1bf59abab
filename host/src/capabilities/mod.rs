//! What a guest can ask of the host. One folder per interface of the contract, each the same shape: `policy.rs` decides, on
//! values alone; `host.rs` implements the interface on a [`View`] of the capability.
pub mod call;

pub use call::{Call, Deadline, Exceeded, Has, Meter, MeterLimits, Usage, View};
