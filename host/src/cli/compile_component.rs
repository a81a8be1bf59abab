//! `psn compile-component`: psn's own compiler process.
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::runtime::compile::{ChildOptions, compile_child};

#[derive(ClapArgs, Clone, Copy)]
pub(super) struct CompileComponent {
    /// The process that waits for it
    #[arg(long)]
    pub(super) parent: u32,
    /// Bytes
    #[arg(long)]
    pub(super) memory: u64,
    /// Seconds
    #[arg(long)]
    pub(super) cpu: u64,
    /// For an engine that reserves all of a memory's address space
    #[arg(long)]
    pub(super) plenty: bool,
    /// For psn's worker on the cloud's machines
    #[arg(long, conflicts_with = "plenty")]
    pub(super) worker: bool,
}

impl CompileComponent {
    /// The whole process. To be called before any thread is started or file opened: it gives up its rights first.
    pub(super) fn run(self) -> ExitCode {
        let Self { parent, memory, cpu, plenty, worker } = self;
        compile_child(ChildOptions { parent, plenty, worker, memory, cpu })
    }
}
