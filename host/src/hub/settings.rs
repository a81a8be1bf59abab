//! `config/psn.toml` and `config/services.toml`: what a person may choose.
use std::collections::BTreeMap;
use std::path::PathBuf;

use url::Url;

use super::atomic_file::{self, FileError};
use super::project::{PSN_TOML, ProjectDir, SERVICES_TOML};
use super::settings_edit;
use crate::error::CodedError;
use crate::plugins::manifest::is_kebab;

/// Where the hub lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubKind {
    /// On this machine.
    Local,
    /// At Neon and Trigger.dev.
    Cloud,
}

impl HubKind {
    pub fn as_str(self) -> &'static str {
        match self {
            HubKind::Local => "local",
            HubKind::Cloud => "cloud",
        }
    }

    pub fn parse(s: &str) -> Option<Self> {
        [HubKind::Local, HubKind::Cloud].into_iter().find(|k| k.as_str() == s)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} is not UTF-8")]
    NotUtf8 { file: &'static str },
    /// The text says line and column.
    #[error("{file} is not valid:\n{source}")]
    Toml { file: &'static str, source: toml::de::Error },
    #[error("{file}: {name}: {reason}")]
    Value { file: &'static str, name: String, reason: String },
}

impl SettingsError {
    pub fn coded(&self) -> CodedError {
        match self {
            SettingsError::File(e) => e.coded(),
            SettingsError::NotUtf8 { file } | SettingsError::Toml { file, .. } | SettingsError::Value { file, .. } => {
                CodedError::new("config.settings", self.to_string(), [format!("${{EDITOR:-vi}} {file}")])
            }
        }
    }
}

/// What config/psn.toml says, by dotted name: `neon.region`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    kind: Option<&'static str>,
}

impl Settings {
    pub fn load(project: &ProjectDir) -> Result<Self, SettingsError> {
        Self::parse(&read(project.path().join(PSN_TOML), PSN_TOML)?)
    }

    fn parse(text: &str) -> Result<Self, SettingsError> {
        let table: toml::Table =
            toml::from_str(text).map_err(|source| SettingsError::Toml { file: PSN_TOML, source })?;
        let mut values = BTreeMap::new();
        flatten("", table, &mut values)?;
        let kind = match values.get("hub.kind") {
            None => None,
            Some(kind) => Some(HubKind::parse(kind).map(HubKind::as_str).ok_or_else(|| SettingsError::Value {
                file: PSN_TOML,
                name: "hub.kind".to_owned(),
                reason: format!("`{kind}` is neither \"local\" nor \"cloud\""),
            })?),
        };
        Ok(Self { values, kind })
    }

    pub fn hub_kind(&self) -> Option<HubKind> {
        self.kind.and_then(HubKind::parse)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// For the plugins' `context.setting`.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.values.clone()
    }

    /// Writes one value into config/psn.toml; everything else stays as it is.
    pub fn set(project: &ProjectDir, name: &str, value: &str) -> Result<(), SettingsError> {
        Self::edit(project, name, |text, path| settings_edit::set(text, path, value))
    }

    /// Takes one value out of config/psn.toml. One that is not there is fine.
    pub fn unset(project: &ProjectDir, name: &str) -> Result<(), SettingsError> {
        Self::edit(project, name, settings_edit::unset)
    }

    fn edit(
        project: &ProjectDir,
        name: &str,
        change: impl FnOnce(&str, &[&str]) -> Option<String>,
    ) -> Result<(), SettingsError> {
        let wrong =
            |reason: &str| SettingsError::Value { file: PSN_TOML, name: name.to_owned(), reason: reason.to_owned() };
        let words: Vec<&str> = name.split('.').collect();
        let is_word =
            |w: &&str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if words.len() < 2 || !words.iter().all(is_word) {
            return Err(wrong("a setting's name is dotted, for example neon.region"));
        }
        let path = project.path().join(PSN_TOML);
        let _lock = atomic_file::Lock::exclusive(&project.env_lock())?;
        let text = read(path.clone(), PSN_TOML)?;
        let before = Self::parse(&text)?;
        let changed = change(&text, &words).ok_or_else(|| wrong("what stands there is no table"))?;
        // What could not be read back, or says something else besides, is not written.
        let mut after = Self::parse(&changed)?.values;
        let mut expected = before.values;
        after.remove(name);
        expected.remove(name);
        if after != expected {
            return Err(wrong("it cannot be changed without changing another"));
        }
        atomic_file::replace(&path, changed.as_bytes(), 0o644)?;
        Ok(())
    }

    /// Names that nobody asks for: misspelt ones, most likely.
    pub fn unknown(&self, known: impl Fn(&str) -> bool) -> Vec<&str> {
        self.values.keys().map(String::as_str).filter(|n| !n.starts_with("hub.") && !known(n)).collect()
    }
}

/// Services that are to be found elsewhere than their vendors say: config/services.toml, `name = "URL"`.
pub fn services(project: &ProjectDir) -> Result<BTreeMap<String, Url>, SettingsError> {
    let text = read(project.path().join(SERVICES_TOML), SERVICES_TOML)?;
    parse_services(&text)
}

fn parse_services(text: &str) -> Result<BTreeMap<String, Url>, SettingsError> {
    let table: BTreeMap<String, String> =
        toml::from_str(text).map_err(|source| SettingsError::Toml { file: SERVICES_TOML, source })?;
    table
        .into_iter()
        .map(|(name, url)| {
            let wrong = |reason: &str| SettingsError::Value {
                file: SERVICES_TOML,
                name: name.clone(),
                reason: reason.to_owned(),
            };
            if !is_kebab(&name) {
                return Err(wrong("a service's name is lower case, words joined by hyphens"));
            }
            let url = Url::parse(&url).map_err(|e| wrong(&format!("not a URL: {e}")))?;
            let plain = url.host().is_some()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none();
            match url.scheme() {
                "http" | "https" if plain => Ok((name, url)),
                "http" | "https" => Err(wrong("only scheme, host, port and path; keys belong in config/keys.env")),
                _ => Err(wrong("only http and https")),
            }
        })
        .collect()
}

fn read(path: PathBuf, file: &'static str) -> Result<String, SettingsError> {
    let bytes = atomic_file::read(&path)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| SettingsError::NotUtf8 { file })
}

fn flatten(prefix: &str, table: toml::Table, into: &mut BTreeMap<String, String>) -> Result<(), SettingsError> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let text = match value {
            toml::Value::Table(t) => {
                flatten(&name, t, into)?;
                continue;
            }
            toml::Value::String(s) => s,
            toml::Value::Integer(n) => n.to_string(),
            toml::Value::Float(n) => n.to_string(),
            toml::Value::Boolean(b) => b.to_string(),
            toml::Value::Datetime(d) => d.to_string(),
            toml::Value::Array(_) => {
                return Err(SettingsError::Value {
                    file: PSN_TOML,
                    name,
                    reason: "a setting is one value, not a list".to_owned(),
                });
            }
        };
        into.insert(name, text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_by_dotted_name() {
        let s = Settings::parse(
            "[hub]\nkind = \"cloud\"\n[neon]\nregion = \"aws-eu-central-1\"\npg_version = 17\n[a.b]\nc = true\n",
        )
        .unwrap();
        assert_eq!(s.hub_kind(), Some(HubKind::Cloud));
        assert_eq!(
            (s.get("neon.region"), s.get("neon.pg_version"), s.get("a.b.c")),
            (Some("aws-eu-central-1"), Some("17"), Some("true"))
        );
        assert_eq!(s.unknown(|n| n.starts_with("neon.")), ["a.b.c"]);
        assert_eq!(Settings::parse("").unwrap().hub_kind(), None);
    }

    #[test]
    fn the_starter_is_valid_and_chooses_nothing() {
        assert_eq!(Settings::parse(include_str!("../../../config/psn.toml")).unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in
            [("[hub]\nkind = \"clowd\"\n", "clowd"), ("x = [1]\n", "x: a setting is one value"), ("[hub\n", "line 1")]
        {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.coded().code, "config.settings");
        }
    }

    #[test]
    fn services_are_plain_urls() {
        let s = parse_services("neon = \"http://127.0.0.1:4000/api/v2\"\n").unwrap();
        assert_eq!(s["neon"].as_str(), "http://127.0.0.1:4000/api/v2");
        for text in [
            "neon = \"ftp://x\"",
            "neon = \"https://k@x\"",
            "neon = \"https://x/?a\"",
            "Neon = \"https://x\"",
            "neon = 1",
            "neon = \"x\"",
        ] {
            assert!(parse_services(text).is_err(), "{text}");
        }
    }
}
