//! The lock file `psn.lock`: which component of a plugin may run, and what it was granted. A person's consent, in a form that can be
//! reviewed and committed; a component that differs from it does not run.
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::component::Described;
pub use super::consent::ConsentNeeded;
use super::consent::visible;
use super::manifest::Manifest;
use super::rights::rights;
use crate::atomic;
use crate::error::{CodedError, coded_by_value};

/// The lock file's name, in the project's folder.
pub const LOCK_FILE: &str = "psn.lock";

/// The version of the file's format that this psn reads and writes.
const FORMAT: u32 = 1;

/// The longest lock file, in bytes: about 10,000 plugins.
const MAX_LOCK_BYTES: u64 = 4 << 20;

const HEADER: &str =
    "# Which plugins may run here, and what each was granted. Written by psn; commit it, and review its changes.\n";

/// Where a plugin's component comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Built into psn.
    FirstParty,
    /// The file it was added from, as it was named then. It is not read again: psn keeps its own copy.
    Path(String),
}

/// What a person agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockEntry {
    pub name: String,
    pub version: String,
    pub world: String,
    /// Hex SHA-256 of the component.
    pub sha256: String,
    /// Hex hash of everything that its manifest asks for.
    pub capabilities: String,
    /// Hex hash of what the operator's policy left of that; absent where it left all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<String>,
    /// What was granted, one right a line: for people who review this file, and for differences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    pub granted_by: String,
    /// Absent for what is built in: that is granted with psn itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<DateTime<Utc>>,
    pub source: Source,
}

impl LockEntry {
    /// What differs between what was granted and what is there now, of which the operator's policy leaves `effective`; none where it
    /// is the same.
    pub fn compare(&self, found: &Described, effective: &Manifest) -> Option<LockDifference> {
        let about = &found.manifest.plugin;
        let capabilities = found.manifest.capabilities_hash();
        let locked_effective = self.effective.as_ref().unwrap_or(&self.capabilities);
        let effective_hash = effective.capabilities_hash();
        let mut differing: Vec<_> = [
            ("name", &self.name, &about.name),
            ("version", &self.version, &about.version),
            ("world", &self.world, &about.world),
            ("sha256", &self.sha256, &found.sha256),
            ("capabilities", &self.capabilities, &capabilities),
        ]
        .into_iter()
        .filter(|(_, locked, found)| locked != found)
        .map(|(field, locked, found)| Differing { field, locked: locked.clone(), found: found.clone() })
        .collect();
        // Where it asks for other things, what is left of them is another thing too, and says nothing new.
        if self.capabilities == capabilities && *locked_effective != effective_hash {
            differing.push(Differing { field: POLICY, locked: locked_effective.clone(), found: effective_hash });
        }
        let rights = rights(effective);
        // A lock of an earlier psn has none, and that is no difference.
        let lines = !self.grants.is_empty();
        let only = |here: &[String], there: &[String]| -> Vec<String> {
            here.iter().filter(|line| lines && !there.contains(line)).cloned().collect()
        };
        let (removed, added) = (only(&self.grants, &rights), only(&rights, &self.grants));
        let same = differing.is_empty() && removed.is_empty() && added.is_empty();
        (!same).then(|| LockDifference { name: self.name.clone(), differing, removed, added })
    }
}

/// One field in which a component is not the one that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    pub field: &'static str,
    pub locked: String,
    pub found: String,
}

/// In what a component is not the one that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockDifference {
    pub name: String,
    pub differing: Vec<Differing>,
    /// Rights that were granted and are not there now, one a line.
    pub removed: Vec<String>,
    /// Rights that are there now and were not granted.
    pub added: Vec<String>,
}

/// The field that differs where the operator's policy leaves something else of a plugin's wishes than it did.
const POLICY: &str = "policy";

impl LockDifference {
    /// Whether it asks for other things than it was granted.
    pub fn asks_differ(&self) -> bool {
        self.differing.iter().any(|d| matches!(d.field, "capabilities" | POLICY))
    }
}

impl LockDifference {
    /// For people: what was begins with `-`, what is with `+`.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Differing { field, locked, found } in &self.differing {
            lines.extend([(*field).to_owned(), format!("  - {}", visible(locked)), format!("  + {}", visible(found))]);
        }
        if !(self.removed.is_empty() && self.added.is_empty()) {
            lines.push("rights".to_owned());
            lines.extend(self.removed.iter().map(|line| format!("  - {}", visible(line))));
            lines.extend(self.added.iter().map(|line| format!("  + {}", visible(line))));
        }
        lines
    }
}

impl fmt::Display for LockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        self.lines().iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// All that was granted in a project, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    entries: BTreeMap<String, LockEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    #[serde(default)]
    plugin: Vec<LockEntry>,
}

/// Only the version, so that a later format is told apart from a damaged file.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{LOCK_FILE} cannot be read: {0}")]
    Read(#[source] std::io::Error),
    #[error("{LOCK_FILE} cannot be written: {0}")]
    Write(#[source] std::io::Error),
    #[error("{LOCK_FILE} is not valid: it is not UTF-8")]
    NotUtf8,
    #[error("{LOCK_FILE} is longer than {MAX_LOCK_BYTES} bytes")]
    TooLarge,
    /// The text says line and column.
    #[error("{LOCK_FILE} is not valid:\n{0}")]
    Toml(#[from] toml::de::Error),
    #[error("{LOCK_FILE} is of version {0}; this psn reads version {FORMAT}")]
    Version(u32),
    #[error("{LOCK_FILE} names {0} twice")]
    Twice(String),
    #[error("{LOCK_FILE} cannot be encoded: {0}")]
    Encode(#[from] toml::ser::Error),
}

coded_by_value!(LockError);

impl From<&LockError> for CodedError {
    fn from(e: &LockError) -> Self {
        let message = e.to_string();
        match e {
            LockError::Read(_) => {
                CodedError::new("plugin.lock-unreadable", message, [format!("chmod u+r {LOCK_FILE}")])
            }
            LockError::Write(_) | LockError::Encode(_) => CodedError::new(
                "plugin.lock-unwritable",
                message,
                [
                    "Make the project's folder writable for the account that runs psn, and see that its disk is not full.",
                ],
            ),
            LockError::Version(_) => {
                CodedError::new("plugin.lock-version", message, ["Use the psn that wrote it, or a later one."])
            }
            LockError::NotUtf8 | LockError::TooLarge | LockError::Toml(_) | LockError::Twice(_) => CodedError::new(
                "plugin.lock-invalid",
                message,
                ["Restore psn.lock from version control, or remove it and add the plugins again."],
            ),
        }
    }
}

impl LockFile {
    /// The project's lock file; empty where there is none.
    pub fn load(project: &Path) -> Result<Self, LockError> {
        let path = project.join(LOCK_FILE);
        match std::fs::metadata(&path) {
            Ok(m) if m.len() > MAX_LOCK_BYTES => Err(LockError::TooLarge),
            Ok(_) => {
                let bytes = std::fs::read(&path).map_err(LockError::Read)?;
                Self::parse(std::str::from_utf8(&bytes).map_err(|_| LockError::NotUtf8)?)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(LockError::Read(e)),
        }
    }

    pub fn parse(text: &str) -> Result<Self, LockError> {
        let Versioned { version } = toml::from_str(text)?;
        if version != FORMAT {
            return Err(LockError::Version(version));
        }
        let document: Document = toml::from_str(text)?;
        let mut lock = Self::default();
        for entry in document.plugin {
            if let Some(twice) = lock.entries.insert(entry.name.clone(), entry) {
                return Err(LockError::Twice(twice.name));
            }
        }
        Ok(lock)
    }

    /// Sorted by name, so that the same grants are the same bytes.
    pub fn encode(&self) -> Result<String, LockError> {
        let document = Document { version: FORMAT, plugin: self.entries.values().cloned().collect() };
        Ok(format!("{HEADER}{}", toml::to_string(&document)?))
    }

    /// On disk when this returns.
    pub fn save(&self, project: &Path) -> Result<(), LockError> {
        atomic::write(&project.join(LOCK_FILE), self.encode()?.as_bytes(), 0o644).map_err(LockError::Write)
    }

    pub fn get(&self, name: &str) -> Option<&LockEntry> {
        self.entries.get(name)
    }

    pub fn entries(&self) -> impl Iterator<Item = &LockEntry> {
        self.entries.values()
    }

    pub fn insert(&mut self, entry: LockEntry) -> Option<LockEntry> {
        self.entries.insert(entry.name.clone(), entry)
    }

    pub fn remove(&mut self, name: &str) -> Option<LockEntry> {
        self.entries.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> LockEntry {
        LockEntry {
            name: name.into(),
            version: "0.1.0".into(),
            world: "psn:plugin/step@0.1.0".into(),
            sha256: "ab".repeat(32),
            capabilities: "cd".repeat(32),
            effective: None,
            grants: vec![],
            granted_by: "ada".into(),
            granted_at: Some("2026-11-23T10:00:00Z".parse().unwrap()),
            source: Source::Path("plugins/x.wasm".into()),
        }
    }

    #[test]
    fn the_same_grants_are_the_same_bytes_and_come_back() {
        let (mut a, mut b) = (LockFile::default(), LockFile::default());
        let builtin = LockEntry { source: Source::FirstParty, granted_at: None, ..entry("keys") };
        for e in [entry("zeta"), builtin.clone(), entry("alpha")] {
            a.insert(e);
        }
        for e in [entry("alpha"), entry("zeta"), builtin] {
            b.insert(e);
        }
        assert_eq!(a.encode().unwrap(), b.encode().unwrap());
        assert_eq!(LockFile::parse(&a.encode().unwrap()).unwrap(), a);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LockFile::load(dir.path()).unwrap(), LockFile::default());
        a.save(dir.path()).unwrap();
        assert_eq!(LockFile::load(dir.path()).unwrap(), a);
    }

    #[test]
    fn what_it_does_not_understand_is_an_error() {
        let mut lock = LockFile::default();
        lock.insert(entry("x"));
        let text = lock.encode().unwrap();
        assert!(matches!(LockFile::parse(&text.replace("version = 1", "version = 2")), Err(LockError::Version(2))));
        assert!(matches!(LockFile::parse(&format!("{text}trusted = true\n")), Err(LockError::Toml(_))));
        assert!(matches!(LockFile::parse(&text.replace("sha256", "sha-256")), Err(LockError::Toml(_))));
        let twice = format!("{text}{}", &text[text.find("[[plugin]]").unwrap()..]);
        assert!(matches!(LockFile::parse(&twice), Err(LockError::Twice(name)) if name == "x"));
        assert!(matches!(LockFile::parse(""), Err(LockError::Toml(_))));
    }

    #[test]
    fn a_difference_says_what_was_and_what_is() {
        let manifest = Manifest::parse(
            b"[plugin]\nname = \"x\"\nversion = \"0.2.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n",
        )
        .unwrap();
        let found = Described { sha256: "ab".repeat(32), imports: vec![], exports: vec![], wasi: false, manifest };
        let same =
            LockEntry { version: "0.2.0".into(), capabilities: found.manifest.capabilities_hash(), ..entry("x") };
        let compare = |entry: &LockEntry| entry.compare(&found, &found.manifest);
        assert_eq!(compare(&same), None);
        let only_newer = compare(&LockEntry { version: "0.1.0".into(), ..same.clone() }).unwrap();
        assert!(!only_newer.asks_differ());
        assert_eq!(only_newer.to_string(), "x:\n  version\n    - 0.1.0\n    + 0.2.0");
        assert!(compare(&LockEntry { capabilities: "00".into(), ..same.clone() }).unwrap().asks_differ());
        let by_policy = compare(&LockEntry { effective: Some("00".into()), ..same.clone() }).unwrap();
        assert!(
            by_policy.asks_differ() && by_policy.to_string().starts_with("x:\n  policy\n    - 00\n"),
            "{by_policy}"
        );
        // Rights that someone wrote into the lock by hand, or that were taken out of it.
        let edited = compare(&LockEntry { grants: vec!["hub git\u{1b}[2K".into()], ..same }).unwrap();
        assert_eq!(edited.to_string(), "x:\n  rights\n    - hub git\\u{1b}[2K");
    }
}
