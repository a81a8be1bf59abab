//! The hub that psn looks after: its folder, its env files, its database.
pub(crate) mod access;
pub mod atomic_file;
pub mod catalog;
pub mod connection;
pub mod env_files;
pub mod envfile;
pub mod git;
mod grants;
mod leftovers;
pub mod lint;
pub mod migrate;
pub mod migrations;
mod patience;
pub mod project;
pub mod roles;
mod scram;
pub mod settings;
mod settings_edit;
#[cfg(test)]
mod tests;
pub mod verify;

pub use atomic_file::FileError;
pub use catalog::catalog_checks;
pub use connection::{ConnectError, Purpose, TlsRoots, connect};
pub use env_files::{EnvFiles, EnvFilesError, PERSON_KEYS};
pub use leftovers::plugin_urls;
pub use migrate::{
    MigrateError, MigrateReport, MigrationFacts, Version, all_versions, drop_roles, inspect_catalog,
    inspect_migrations, migrate,
};
pub use migrations::{Migrations, MigrationsError};
pub use patience::Patience;
pub use project::{ProjectDir, ProjectError};
pub use settings::{HubKind, Settings, SettingsError};

crate::error::coded_by_method!(
    ConnectError,
    EnvFilesError,
    FileError,
    MigrateError,
    MigrationsError,
    ProjectError,
    SettingsError,
    verify::VerifyError,
);
