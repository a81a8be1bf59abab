//! Which names a plugin may ask about, and which it may have made.
use std::collections::BTreeSet;

use crate::capabilities::clean::quoted;
use crate::plugins::manifest::{Manifest, covers, is_own, is_reserved};
use crate::secret::is_secret_name;

/// How many bytes a made secret has: below, it could be guessed; above, nothing gets safer.
pub(super) const BYTES: std::ops::RangeInclusive<u32> = 16..=1024;

/// How many names that are not granted are reported in one call.
const MAX_WARNINGS: usize = 16;

pub(super) struct Policy {
    names: Vec<String>,
    generate: Vec<String>,
    /// Whether it is psn's own plugin.
    own: bool,
    warned: BTreeSet<String>,
}

impl Policy {
    /// A plugin may ask about every name that its manifest mentions.
    pub(super) fn new(manifest: &Manifest) -> Self {
        let mut names = manifest.secrets.names.clone();
        names.extend_from_slice(&manifest.secrets.generate);
        for service in &manifest.http {
            names.extend(service.auth.iter().map(|a| a.secret().to_owned()));
            names.extend(service.capture.values().flat_map(|c| c.values().cloned()));
            names.extend(service.injected().cloned());
        }
        for tool in &manifest.tool {
            names.extend_from_slice(&tool.env);
            names.extend(tool.capture.iter().flat_map(|capture| capture.names().cloned()));
        }
        names.extend(manifest.task.iter().flat_map(|t| t.env.iter().cloned()));
        Self { names, generate: manifest.secrets.generate.clone(), own: manifest.own, warned: BTreeSet::new() }
    }

    /// Whether the name may be asked about; the first time it may not, also what to say.
    pub(super) fn may_ask(&mut self, name: &str) -> Result<(), Option<String>> {
        if covers(&self.names, name) {
            return Ok(());
        }
        let first = self.warned.len() < MAX_WARNINGS && self.warned.insert(name.to_owned());
        Err(first.then(|| {
            format!(
                "the secret {} may not be asked about; the manifest line [secrets] names = [\"{}\"] would allow it",
                quoted(name),
                name.escape_debug()
            )
        }))
    }

    pub(super) fn may_generate(&self, name: &str, bytes: u32) -> Result<(), String> {
        if !covers(&self.generate, name) {
            return Err(format!(
                "the secret {} may not be made; the manifest line [secrets] generate = [\"{}\"] would allow it",
                quoted(name),
                name.escape_debug()
            ));
        }
        // A prefix may cover more than its author meant to be granted.
        if is_reserved(name) || (!self.own && is_own(name)) {
            return Err(format!("{name} is psn's own; choose another name"));
        }
        if !is_secret_name(name) {
            return Err(format!("{} is not a secret's name: use capital letters, digits and _", quoted(name)));
        }
        if !BYTES.contains(&bytes) {
            return Err(format!(
                "a secret is made of {} to {} bytes; {bytes} were asked for",
                BYTES.start(),
                BYTES.end()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::manifest;

    #[test]
    fn what_the_manifest_mentions_may_be_asked_about() {
        let mut policy = Policy::new(&manifest(
            r#"
[secrets]
names = ["OWN_*"]
generate = ["MADE"]
[[http]]
service = "neon"
base = "https://console.neon.tech/api/v2"
auth = { bearer = "NEON_API_KEY" }
routes = ["POST /projects"]
capture = { "POST /projects" = { "/uri" = "DATABASE_URL" } }
inject = { "POST /projects" = { "/url" = ["DATABASE_URL_PLUGIN_*"] } }
[[tool]]
name = "trigger"
args = [["deploy"]]
env = ["TRIGGER_ACCESS_TOKEN"]
"#,
        ));
        for name in
            ["OWN_ONE", "MADE", "NEON_API_KEY", "DATABASE_URL", "DATABASE_URL_PLUGIN_WATCHDOG", "TRIGGER_ACCESS_TOKEN"]
        {
            assert_eq!(policy.may_ask(name), Ok(()), "{name}");
        }
        for name in ["HUB_ENCRYPTION_KEY", "DATABASE_URL_APP", "", "*", "own_one"] {
            assert!(policy.may_ask(name).unwrap_err().unwrap().contains("[secrets] names = "), "{name}");
            assert_eq!(policy.may_ask(name), Err(None), "{name} is reported once");
        }
    }

    #[test]
    fn only_named_secrets_of_a_sensible_size_are_made() {
        let asked = manifest("[secrets]\nnames = [\"ASKED\"]\ngenerate = [\"MADE\", \"MANY_*\", \"TRIGGER_*\"]\n");
        let policy = Policy::new(&Manifest { own: false, ..asked });
        assert_eq!(policy.may_generate("MADE", 32), Ok(()));
        assert_eq!(policy.may_generate("MANY_1", 16), Ok(()));
        for (name, bytes, says) in [
            ("ASKED", 32, "generate = [\"ASKED\"]"),
            ("MANY_x y", 32, "capital letters"),
            ("TRIGGER_API_URL", 32, "psn's own"),
            ("TRIGGER_SECRET_KEY", 32, "psn's own"),
            ("MADE", 8, "16 to 1024"),
            ("MADE", 100_000, "16 to 1024"),
        ] {
            let e = policy.may_generate(name, bytes).unwrap_err();
            assert!(e.contains(says), "{e}");
        }
    }
}
