//! The names that something reads in `config/psn.toml`: any other is misspelt, most likely.
use super::cloud_project::{PROGRAM_FILE, PROGRAM_SHA256, RUNTIME};
use super::environment::HTTP_TIMEOUT;
use super::facts::DEPLOY;
use super::setup::{MIGRATE, SETUP};
use crate::plugins::manifest::covers;
use crate::plugins::registry::Registry;

/// psn's own.
const OWN: [&str; 6] = ["hub.kind", HTTP_TIMEOUT, DEPLOY, RUNTIME, PROGRAM_FILE, PROGRAM_SHA256];

/// psn's own names, and those that the manifests of the plugins here ask for; one that ends with `*` stands for many.
pub struct KnownSettings(Vec<String>);

impl KnownSettings {
    /// A plugin that cannot be read has no say.
    pub fn of(registry: &Registry) -> Self {
        let slots = SETUP.iter().filter(|s| s.name != MIGRATE).map(|s| format!("steps.{}", s.name));
        let mut names: Vec<String> = OWN.iter().map(|name| (*name).to_owned()).chain(slots).collect();
        for plugin in registry.names().iter().filter_map(|name| registry.get(name).ok()) {
            names.extend(plugin.manifest.settings.names.iter().cloned());
        }
        names.sort();
        names.dedup();
        Self(names)
    }

    pub fn has(&self, name: &str) -> bool {
        covers(&self.0, name)
    }

    /// Those that stand for themselves.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| !name.ends_with('*'))
    }
}
