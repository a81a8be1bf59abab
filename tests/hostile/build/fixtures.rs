//! Attacks and expectations as they are written down.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What can be observed of an attack. An attack holds if none was; a control only if exactly these were.
pub const EFFECTS: &[&str] = &[
    "web",
    "inside",
    "secret",
    "seen",
    "database",
    "sessions",
    "files",
    "stream",
    "time",
    "memory",
    "installed",
    "outcome",
];

/// How long a run may take unless an expectation says otherwise, in milliseconds. A task may take a minute, and compiling on a busy machine another half.
pub const WITHIN_MS: u64 = 100_000;

/// Postgres role names have 63 bytes, `psn_plugin_` and `h_` among them.
const MAX_ID: usize = 38;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    attack: Vec<Attack>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    pub id: String,
    /// The guest that performs the script.
    guest: Option<String>,
    #[serde(default, rename = "do")]
    lines: Vec<Vec<String>>,
    /// The manifest after its [plugin] table.
    #[serde(default)]
    asks: String,
    /// The whole manifest instead.
    plugin: Option<String>,
    /// How many times the manifest is embedded.
    times: Option<usize>,
    /// A core module of a task as text: the body of `run`.
    pub body: Option<String>,
    #[serde(default)]
    pub imports: String,
    #[serde(default)]
    pub module: String,
    pub pages: Option<u32>,
    /// Whether it imports WASI.
    #[serde(default)]
    pub wasi: bool,
    /// Bytes that are made by build/raw.rs.
    raw: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    expect: Vec<Expectation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    pub id: String,
    pub title: String,
    /// The row of the threat list that it belongs to.
    #[serde(default)]
    pub threat: String,
    /// What other hosts do.
    #[serde(default)]
    pub others: String,
    /// It is refused when it is added, with this code.
    #[serde(default)]
    pub added: String,
    /// It is refused when its database role is made, with this code.
    #[serde(default)]
    pub migrated: String,
    /// The run ends with this code; where it is empty, with success.
    #[serde(default)]
    pub code: String,
    /// What the guest is answered, operation by operation.
    #[serde(default)]
    pub told: Vec<String>,
    /// Requests that may arrive at the service.
    #[serde(default)]
    pub web: Vec<String>,
    /// What must not stand in psn's output, whoever says it.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// For controls: what must be observed.
    #[serde(default)]
    pub effects: Vec<String>,
    #[serde(default = "within")]
    pub within_ms: u64,
    /// What someone does to psn's files between adding and running.
    #[serde(default)]
    pub tamper: String,
}

fn within() -> u64 {
    WITHIN_MS
}

pub enum Kind<'a> {
    Guest(&'a str),
    Wat,
    Raw(&'a str),
}

/// All groups, by file name.
pub fn read(dir: &Path) -> Result<Vec<(String, Vec<Attack>)>> {
    let mut files: Vec<_> = fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    files
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "toml"))
        .map(|file| {
            let name = file.file_stem().and_then(|n| n.to_str()).context("a name")?.to_owned();
            let group: Group =
                toml::from_str(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())?;
            for attack in &group.attack {
                let plain = attack.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                ensure!(plain && attack.id.len() <= MAX_ID, "{} is no id of at most {MAX_ID} characters", attack.id);
            }
            Ok((name, group.attack))
        })
        .collect()
}

pub fn expectations(file: &Path) -> Result<Vec<Expectation>> {
    let read: Expectations = toml::from_str(&fs::read_to_string(file)?).with_context(|| file.display().to_string())?;
    Ok(read.expect)
}

impl Attack {
    pub fn kind(&self) -> Result<Kind<'_>> {
        Ok(match (&self.guest, &self.body, &self.raw) {
            (Some(guest), None, None) => Kind::Guest(guest),
            (None, Some(_), None) => Kind::Wat,
            (None, None, Some(raw)) => Kind::Raw(raw),
            _ => bail!("one of `guest`, `body` and `raw`"),
        })
    }

    /// The plugin's name, unless its manifest is written in full.
    pub fn name(&self) -> String {
        format!("h-{}", self.id)
    }

    pub fn manifest(&self) -> String {
        let world = if self.guest.as_deref() == Some("step") { "step" } else { "task" };
        self.plugin.clone().unwrap_or_else(|| {
            format!(
                "[plugin]\nname = \"{}\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/{world}@0.1.0\"\nsummary = \"hostile\"\n{}",
                self.name(),
                self.asks
            )
        })
    }

    /// The manifests that are appended to the component.
    pub fn manifests(&self) -> Vec<String> {
        let times = self.times.unwrap_or(usize::from(self.raw.is_none()));
        vec![self.manifest(); times]
    }

    /// As the guests read it: the number of lines, their words' lengths, the words.
    pub fn script(&self) -> Vec<u8> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = number(self.lines.len()).to_vec();
        for line in &self.lines {
            out.extend(number(line.len()));
            line.iter().for_each(|word| out.extend(number(word.len())));
        }
        self.lines.iter().flatten().for_each(|word| out.extend(word.as_bytes()));
        out
    }
}
