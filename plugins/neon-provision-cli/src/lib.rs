//! The hub's Neon project through the `neon` program. What is decided, and in which order, is in `psn-neon-step`: this step and
//! `neon-provision` can take each other's place.

mod cli;

use cli::Cli;
use psn_plugin::prelude::*;

struct NeonProvisionCli;

psn_plugin::export_step!(NeonProvisionCli);

impl Step for NeonProvisionCli {
    fn inspect() -> Result<State, Failure> {
        psn_neon_step::inspect(&Cli)
    }

    fn apply() -> Result<Report, Failure> {
        psn_neon_step::apply(&Cli)
    }

    fn verify() -> Result<Report, Failure> {
        psn_neon_step::verify(&Cli)
    }

    fn destroy() -> Result<Report, Failure> {
        psn_neon_step::destroy(&Cli)
    }
}

#[cfg(test)]
mod tests;
