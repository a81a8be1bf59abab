//! The hub's Neon project over Neon's API. What is decided, and in which order, is in `psn-neon-step`.

mod neon;

use neon::Api;
use psn_plugin::prelude::*;

struct NeonProvision;

psn_plugin::export_step!(NeonProvision);

impl Step for NeonProvision {
    fn inspect() -> Result<State, Failure> {
        psn_neon_step::inspect(&Api)
    }

    fn apply() -> Result<Report, Failure> {
        psn_neon_step::apply(&Api)
    }

    fn verify() -> Result<Report, Failure> {
        psn_neon_step::verify(&Api)
    }

    fn destroy() -> Result<Report, Failure> {
        psn_neon_step::destroy(&Api)
    }
}

#[cfg(test)]
mod tests;
