//! The hub that psn looks after: its folder, its env files, its database.
pub mod atomic_file;
pub mod catalog;
pub mod connection;
pub mod env_files;
pub mod envfile;
pub mod git;
mod grants;
pub mod migrate;
pub mod project;
pub mod roles;
mod scram;
pub mod settings;

pub use catalog::catalog_checks;
pub use connection::{ConnectError, Purpose, TlsRoots, connect};
pub use env_files::{EnvFiles, EnvFilesError, PERSON_KEYS};
pub use migrate::{
    MigrateError, MigrateReport, MigrationFacts, Version, drop_roles, inspect_catalog, inspect_migrations, migrate,
    migrations,
};
pub use project::{ProjectDir, ProjectError};
pub use settings::{HubKind, Settings, SettingsError};

crate::error::coded_by_method!(ConnectError, EnvFilesError, MigrateError, ProjectError, SettingsError);
