//! Which settings a plugin may read, and how much randomness it gets at once.
use std::collections::{BTreeMap, BTreeSet};

use crate::plugins::manifest::{Manifest, covers};

/// Bytes in one answer. A guest that needs more asks again, and is counted again.
pub(super) const MAX_RANDOM: u32 = 64 * 1024;

/// Settings beginning so say which hub this is; every plugin may know.
const PUBLIC_PREFIX: &str = "hub.";

/// How many names that are not granted are reported in one call.
const MAX_WARNINGS: usize = 16;

pub(super) struct Policy {
    granted: Vec<String>,
    settings: BTreeMap<String, String>,
    warned: BTreeSet<String>,
}

impl Policy {
    pub(super) fn new(manifest: &Manifest, settings: BTreeMap<String, String>) -> Self {
        Self { granted: manifest.settings.names.clone(), settings, warned: BTreeSet::new() }
    }

    /// The value, or, the first time that a name is not granted, the manifest line that would allow it.
    pub(super) fn setting(&mut self, name: &str) -> (Option<&str>, Option<String>) {
        if name.starts_with(PUBLIC_PREFIX) || covers(&self.granted, name) {
            return (self.settings.get(name).map(String::as_str), None);
        }
        let first = self.warned.len() < MAX_WARNINGS && self.warned.insert(name.to_owned());
        let quoted = crate::capabilities::clean::quoted(name);
        (
            None,
            first.then(|| {
                format!(
                    "the setting {quoted} is not granted; the manifest line [settings] names = [\"{}\"] would allow it",
                    name.escape_debug()
                )
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_granted_by_name() {
        let manifest =
            crate::capabilities::testing::manifest("[settings]\nnames = [\"neon.org_id\", \"watchdog.*\"]\n");
        let settings = ["neon.org_id", "neon.region", "watchdog.task", "hub.kind"]
            .map(|n| (n.to_owned(), format!("value of {n}")))
            .into();
        let mut policy = Policy::new(&manifest, settings);
        for (name, granted) in
            [("neon.org_id", true), ("watchdog.task", true), ("hub.kind", true), ("neon.region", false)]
        {
            let (value, warning) = policy.setting(name);
            assert_eq!(value.is_some(), granted, "{name}");
            assert_eq!(warning.is_none(), granted, "{name}");
        }
        assert_eq!(policy.setting("neon.org_id").0, Some("value of neon.org_id"));
        assert_eq!(policy.setting("watchdog.lease"), (None, None), "granted, and not set");
        assert_eq!(policy.setting("neon.region"), (None, None), "reported once");
        let (_, warning) = policy.setting("trigger.org");
        assert!(warning.unwrap().contains("[settings] names = [\"trigger.org\"]"));
    }
}
