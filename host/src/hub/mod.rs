//! The hub that psn looks after: its folder, its env files, its database.
pub mod connection;
pub mod migrate;
pub mod project;

pub use connection::{ConnectError, Purpose, TlsRoots, connect};
pub use migrate::{MigrateError, MigrateReport, MigrationFacts, inspect_migrations, migrate};
pub use project::ProjectDir;
