//! The operator's policy, `config/policy.toml`: what plugins may at most have in this hub, whatever their manifests ask for and
//! whoever agreed. It is applied once, when a plugin is opened: everything behind sees the manifest that is left.
mod file;
mod narrow;
mod routes;

use std::path::Path;
use std::time::Duration;

use file::{Document, Rules, Section};

pub use super::withheld::POLICY_TOML;
use crate::error::{CodedError, coded_by_value};

/// The section that is for every plugin.
const EVERY: &str = "*";

/// The longest policy, in bytes. One with a section for each of a hundred plugins has about 50 KiB.
const MAX_POLICY_BYTES: u64 = 256 << 10;

/// What plugins may at most have. The default takes nothing away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorPolicy {
    document: Document,
    /// As it was read: what a deployment takes along.
    text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{POLICY_TOML} cannot be read: {0}")]
    Read(#[source] std::io::Error),
    #[error("{POLICY_TOML} is longer than {MAX_POLICY_BYTES} bytes")]
    TooLarge,
    /// The text says line and column.
    #[error("{POLICY_TOML} is not valid:\n{0}")]
    Toml(#[from] toml::de::Error),
}

coded_by_value!(PolicyError);

impl From<&PolicyError> for CodedError {
    fn from(e: &PolicyError) -> Self {
        let message = e.to_string();
        match e {
            PolicyError::Read(_) => CodedError::new(
                "config.policy-unreadable",
                message,
                [
                    "Make config/policy.toml readable for the account that runs psn: no plugin runs while its policy is not known.",
                ],
            ),
            PolicyError::TooLarge | PolicyError::Toml(_) => CodedError::new(
                "config.policy-invalid",
                message,
                [
                    "Correct the line that the message shows; docs/policy.md has every field. No plugin runs while its policy is not known.",
                ],
            ),
        }
    }
}

impl OperatorPolicy {
    /// The project's policy; one that takes nothing away where there is none.
    pub fn load(project: &Path) -> Result<Self, PolicyError> {
        let path = project.join(POLICY_TOML);
        match std::fs::metadata(&path) {
            Ok(m) if m.len() > MAX_POLICY_BYTES => Err(PolicyError::TooLarge),
            Ok(_) => Self::parse(&std::fs::read_to_string(&path).map_err(PolicyError::Read)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(PolicyError::Read(e)),
        }
    }

    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        Ok(Self { document: toml::from_str(text)?, text: text.to_owned() })
    }

    /// What [`OperatorPolicy::parse`] reads.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether plugins that are not psn's own run here at all.
    pub fn allows_third_party(&self) -> bool {
        self.document.third_party.unwrap_or(true)
    }

    /// What compiling may take, where it is said: time, and bytes of memory.
    pub fn compile_bounds(&self) -> (Option<Duration>, Option<u64>) {
        let compile = &self.document.compile;
        (compile.deadline.as_ref().map(|d| d.duration), compile.memory.as_ref().map(|m| m.bytes))
    }

    /// The rule of the plugin's own section, which stands in place of the one for every plugin; with its section's name.
    fn rule<'a, T: ?Sized>(
        &'a self,
        plugin: &str,
        field: impl Fn(&'a Rules) -> Option<&'a T>,
    ) -> Option<(&'a str, &'a T)> {
        self.sections(plugin).find_map(|(section, rules)| Some((section, field(rules)?)))
    }

    /// The plugin's own section, then the one for every plugin.
    fn sections<'a>(&'a self, plugin: &str) -> impl Iterator<Item = (&'a str, &'a Rules)> {
        [plugin, EVERY]
            .map(|name| self.document.plugin.get_key_value(&Section(name.to_owned())))
            .into_iter()
            .flatten()
            .map(|(section, rules)| (section.0.as_str(), rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_does_not_understand_is_an_error_with_its_line() {
        for (text, line, says) in [
            ("third-party = \"yes\"\n", 1, "boolean"),
            ("\n[plugin.\"*\"]\ntool = []\n", 3, "tool"),
            ("[plugin.\"*\".limits]\nmemory = \"lots\"\n", 2, "lots"),
            ("[plugin.\"*\".limits]\nmemroy = \"1MiB\"\n", 2, "memroy"),
            ("[plugin.\"*\"]\nhosts = [\"https://api.trigger.dev\"]\n", 2, "https://api.trigger.dev"),
            ("[plugin.\"*\".routes]\nneon = [\"GET projects\"]\n", 2, "GET projects"),
            ("[plugin.\"*\".db]\nposts = { read = [\"id\"] }\n", 2, "read"),
            ("[plugin.Watchdog]\ntools = []\n", 1, "Watchdog"),
            ("[compile]\ndeadline = \"soon\"\n", 2, "soon"),
            ("[plugins.watchdog]\n", 1, "plugins"),
        ] {
            let e = OperatorPolicy::parse(text).unwrap_err();
            assert_eq!(CodedError::from(&e).code, "config.policy-invalid");
            let said = e.to_string();
            assert!(said.contains(&format!("line {line}")) && said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn without_a_file_nothing_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(OperatorPolicy::load(dir.path()).unwrap(), OperatorPolicy::default());
        std::fs::create_dir_all(dir.path().join(POLICY_TOML)).unwrap();
        let e = OperatorPolicy::load(dir.path()).unwrap_err();
        assert_eq!(CodedError::from(&e).code, "config.policy-unreadable");
    }
}
