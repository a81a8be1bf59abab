//! The hostile suite. Each attack is a component of its own, made like any plugin and given to psn as a person would give it; what
//! it did is observed from outside: at the services it could call, in the database as its owner sees it, in the files, and in the
//! bytes that psn writes. A guest's own word counts for nothing.
//!
//! The crate knows psn by its binary alone. So it can be part of that binary (`psn doctor --hostile`) without a cycle, and shares
//! no code, and no mistake, with what it tests.
//!
//! ```text
//! attacks/*.toml      what is tried: a manifest, and a script for a guest, a module as text, or bytes
//! expectations.toml   what must be observed; build.rs fails where one has no other
//! guests/             the components that perform scripts
//! src/suite.rs        runs attacks; world.rs a machine of its own; listener.rs, database.rs, files.rs, process.rs what is observed
//! src/judge.rs        from observations to effects: an attack holds if there is none, a control if there is exactly its own
//! ```
#![forbid(unsafe_code)]

mod attack;
mod canary;
mod database;
mod files;
mod judge;
mod listener;
mod process;
mod stream;
mod suite;
pub mod table;
mod world;

pub use attack::{Attack, attacks};
pub use suite::{Options, Row, run_within as run};

/// The suite could not be run. That says nothing about psn's defences.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("the database of the suite's hub: {0}")]
    Database(#[from] sqlx::Error),
    #[error("preparing the suite's hub, `psn {command}` ended with {ended}: {words}")]
    Setup { command: String, ended: String, words: String },
    #[error("no attack's id begins with {0}")]
    NoSuchAttack(String),
    #[error("the suite was not done within {0} s")]
    Time(u64),
}

impl SuiteError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
