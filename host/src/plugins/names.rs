//! Names of secrets that are not for every plugin to have kept.

/// What psn itself says about a hub in its env files, and what a person brings: no plugin may have anything kept under these names.
const RESERVED: [&str; 5] =
    ["HUB_ENCRYPTION_KEY", "TRIGGER_API_URL", "NEON_API_KEY", "TRIGGER_ACCESS_TOKEN", "DATABASE_URL_APP"];

/// psn's own settings and records; and connection strings of plugins' own roles: one that a plugin could choose would lead its
/// statements to a server of its choice.
const RESERVED_PREFIXES: [&str; 2] = ["PSN_", "DATABASE_URL_PLUGIN_"];

/// What psn's own plugins make: where the owner's password, the tasks' key and every role's password are sent.
const OWN: [&str; 4] = ["DATABASE_URL", "DATABASE_URL_DIRECT", "TRIGGER_PROJECT_REF", "TRIGGER_SECRET_KEY"];

/// Whether only psn itself keeps a secret under this name.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether only psn and its own plugins keep a secret under this name.
pub fn is_own(name: &str) -> bool {
    OWN.contains(&name) || is_reserved(name)
}
