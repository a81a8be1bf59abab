//! psn's worker: `psn cloud-run` alone.
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::cloud_run::{self, CloudRun};
#[cfg(feature = "full")]
use super::compile_component::CompileComponent;
use super::process;

/// Runs one component of a deployment's bundle, where psn's tasks are deployed. It has no compiler: psn compiled the component.
///
/// Standard output is NDJSON (`psn schema` prints its schema); people read standard error.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted.
#[derive(Parser)]
#[command(name = "psn-worker", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one component, with secrets from the environment; Trigger.dev's tasks start this
    CloudRun(CloudRun),
    /// Built together with psn, it has psn's compiler, and starts this for itself
    #[cfg(feature = "full")]
    #[command(hide = true)]
    CompileComponent(CompileComponent),
}

/// From the arguments to the exit code.
pub fn main() -> ExitCode {
    match Args::try_parse().map(|args| args.command) {
        Ok(Command::CloudRun(run)) => cloud_run::main(run),
        #[cfg(feature = "full")]
        Ok(Command::CompileComponent(how)) => how.run(),
        Err(e) => process::said(&e),
    }
}
