//! Where a component's code comes from: psn compiles it or has kept it; psn's worker was given it.
#[cfg(feature = "full")]
mod compiled;
#[cfg(not(feature = "full"))]
mod given;

#[cfg(feature = "full")]
pub(super) use compiled::Source;
#[cfg(not(feature = "full"))]
pub(super) use given::Source;
