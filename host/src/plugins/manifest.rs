//! The manifest: what a plugin asks for. Written as TOML by its author, embedded in the component as the custom section
//! [`SECTION`]. Unknown fields are errors, so that a misspelt limit is not a missing one.
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use super::names::{is_own, is_reserved};
use super::withheld::Withheld;

/// The custom section of a component, or of the core module inside it, that holds the manifest as UTF-8 TOML.
pub const SECTION: &str = "psn:manifest";

/// The longest manifest, in bytes. The largest first-party one is about 4 KiB.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// Memory of a guest that asks for no amount, in bytes. A Rust guest uses 1 to 2 MiB, a JavaScript one about 30.
pub const DEFAULT_MEMORY: u64 = 64 << 20;

/// Time of a plugin that asks for none. Making a database, with the operations behind it, was seen to take half a minute.
pub fn default_deadline(world: World) -> Duration {
    Duration::from_secs(match world {
        World::Step => 120,
        World::Task => 60,
    })
}

/// In place of a captured secret's name: nobody keeps the value, and the guest does not see it either.
pub const WITHHELD: &str = "-";

/// The longest plugin name, in bytes: `psn_plugin_` and the name must fit a Postgres role name (63 bytes).
pub const MAX_NAME: usize = 40;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    pub plugin: About,
    #[serde(default)]
    pub http: Vec<HttpService>,
    /// Table or function, as written, and what may be done with it.
    #[serde(default)]
    pub db: BTreeMap<String, DbGrant>,
    #[serde(default)]
    pub secrets: SecretNames,
    #[serde(default)]
    pub tool: Vec<Tool>,
    #[serde(default)]
    pub hub: HubTopics,
    #[serde(default)]
    pub settings: SettingNames,
    #[serde(default)]
    pub vault: VaultContexts,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub task: Option<TaskSpec>,
    /// What the operator's policy took away from the wishes above: no part of what an author writes.
    #[serde(skip)]
    pub withheld: Vec<Withheld>,
    /// Whether the component is psn's own, by its digest: no part of what an author writes either.
    #[serde(skip)]
    pub own: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct About {
    pub name: String,
    pub version: String,
    /// `psn:plugin/step@0.1.0` or `psn:plugin/task@0.1.0`
    pub world: String,
    pub summary: String,
    /// A step that looks and changes nothing.
    #[serde(default)]
    pub checks_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    Step,
    Task,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpService {
    pub service: String,
    /// Absolute URL; https outside the local hub.
    pub base: String,
    #[serde(default)]
    pub auth: Option<Auth>,
    /// `METHOD /path/{parameter}`
    pub routes: Vec<String>,
    /// Route (with query parameters that must be equal, where given) → JSON pointer → name of the secret.
    #[serde(default)]
    pub capture: BTreeMap<String, BTreeMap<String, String>>,
    /// Route → JSON pointer into the request's body, in which `*` is any one key or index → secrets that may stand there by
    /// reference; a trailing `*` of a name is a prefix.
    #[serde(default)]
    pub inject: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl HttpService {
    /// Names and prefixes of the secrets that may be sent to the service.
    pub fn injected(&self) -> impl Iterator<Item = &String> {
        self.inject.values().flat_map(BTreeMap::values).flatten()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Auth {
    /// `Authorization: Bearer <secret>`
    Bearer(String),
    Header {
        name: String,
        secret: String,
    },
}

impl Auth {
    /// The name of the secret.
    pub fn secret(&self) -> &str {
        match self {
            Auth::Bearer(secret) | Auth::Header { secret, .. } => secret,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DbGrant {
    #[serde(default)]
    pub select: Vec<String>,
    #[serde(default)]
    pub insert: Vec<String>,
    #[serde(default)]
    pub update: Vec<String>,
    #[serde(default)]
    pub delete: bool,
    /// For functions.
    #[serde(default)]
    pub execute: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SecretNames {
    /// What may be asked about. A trailing `*` is a prefix.
    #[serde(default)]
    pub names: Vec<String>,
    /// What the host may be asked to make.
    #[serde(default)]
    pub generate: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tool {
    pub name: String,
    /// The argument lists it may be run with; `{}` stands for one argument that does not begin with `-`.
    pub args: Vec<Vec<String>>,
    /// Secrets that its environment holds.
    #[serde(default)]
    pub env: Vec<String>,
    /// Variable → service: where the service is, told only where that is not at the vendor's (config/services.toml, the local hub).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<String, String>,
    /// What of its output psn keeps; the guest gets a reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capture: Vec<ToolCapture>,
    /// How to install it, for the message when it is missing.
    #[serde(default)]
    pub install: Option<String>,
}

/// Secrets in the standard output of one argument list: all of it, or what stands at JSON pointers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ToolCapture {
    /// One of the tool's `args`, as it stands there.
    pub args: Vec<String>,
    /// The name under which the whole output is kept, without white space around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// JSON pointer → name of the secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, String>,
}

impl ToolCapture {
    /// The names under which something is kept.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.json.values().chain(&self.text)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HubTopics {
    #[serde(default)]
    pub facts: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SettingNames {
    #[serde(default)]
    pub names: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VaultContexts {
    /// Contexts that values may be sealed for and opened in. A trailing `*` is a prefix.
    #[serde(default)]
    pub contexts: Vec<String>,
}

/// What one call of the component may use up. Absent values have defaults; all have ceilings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// `64MiB`
    #[serde(default)]
    pub memory: Option<String>,
    /// `60s`
    #[serde(default)]
    pub deadline: Option<String>,
    #[serde(default)]
    pub http_calls: Option<u64>,
    #[serde(default)]
    pub db_calls: Option<u64>,
    #[serde(default)]
    pub log_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskSpec {
    /// Defaults to the plugin's name.
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub cron: Option<String>,
    #[serde(default)]
    pub timezone: Option<String>,
    #[serde(default)]
    pub max_duration: Option<String>,
    #[serde(default)]
    pub retry: Option<Retry>,
    #[serde(default)]
    pub queue: Option<String>,
    /// Secrets that the task needs where Trigger.dev runs it, besides its database URL.
    #[serde(default)]
    pub env: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Retry {
    pub max_attempts: u32,
    #[serde(default)]
    pub min: Option<String>,
    #[serde(default)]
    pub max: Option<String>,
    #[serde(default)]
    pub factor: Option<f64>,
    #[serde(default)]
    pub jitter: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the component has no manifest: no custom section `psn:manifest`")]
    Missing,
    #[error("the manifest is {0} bytes long; at most {MAX_MANIFEST_BYTES} are read")]
    TooLarge(usize),
    #[error("the manifest is not UTF-8 (byte {0})")]
    NotUtf8(usize),
    /// The text says line and column.
    #[error("the manifest is not valid:\n{0}")]
    Toml(#[from] toml::de::Error),
    /// The contract of another psn, most often of a later one.
    #[error("the plugin is of the world `{world}`; this psn speaks {}", WORLDS.join(" and "))]
    OtherWorld { world: String },
    #[error("the manifest is not valid: {field}: {reason}")]
    Invalid { field: String, reason: String },
    #[error("the manifest is not valid: capture: only psn's own plugins have {0} kept; choose another name")]
    OwnName(String),
    #[error(
        "the manifest is not valid: http: the service `{service}` is the one at {vendor}; give a service at {base:?} another name"
    )]
    OwnService { service: String, base: String, vendor: &'static str },
}

/// The worlds that a plugin can be of.
pub const WORLDS: [&str; 2] = ["psn:plugin/step@0.1.0", "psn:plugin/task@0.1.0"];

/// Only the world, whatever else there is.
#[derive(Deserialize)]
struct OnlyWorld {
    plugin: OnlyAbout,
}

#[derive(Deserialize)]
struct OnlyAbout {
    world: String,
}

impl Manifest {
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| ManifestError::NotUtf8(e.valid_up_to()))?;
        // First, because a later contract may have fields that this psn does not know.
        if let Ok(OnlyWorld { plugin }) = toml::from_str(text)
            && plugin.world.starts_with("psn:plugin/")
            && !WORLDS.contains(&plugin.world.as_str())
        {
            return Err(ManifestError::OtherWorld { world: plugin.world });
        }
        let manifest: Manifest = toml::from_str(text)?;
        manifest.validate()?;
        Ok(manifest)
    }

    pub fn world(&self) -> World {
        // `validate` let only these two through.
        if self.plugin.world.starts_with("psn:plugin/task@") { World::Task } else { World::Step }
    }

    /// The id under which Trigger.dev knows the task.
    pub fn task_id(&self) -> &str {
        self.task.as_ref().and_then(|t| t.id.as_deref()).unwrap_or(&self.plugin.name)
    }

    /// The hash of everything that the manifest asks for: what a person agrees to. Name, version and summary are not in it, so a
    /// new version that asks for the same needs no new consent for its capabilities (its component digest is pinned apart).
    pub fn capabilities_hash(&self) -> String {
        let asks = serde_json::json!({
            "world": self.plugin.world,
            "http": self.http,
            "db": self.db,
            "secrets": self.secrets,
            "tool": self.tool,
            "hub": self.hub,
            "settings": self.settings,
            "vault": self.vault,
            "limits": self.limits,
            "task": self.task,
        });
        hex::encode(Sha256::digest(asks.to_string().as_bytes()))
    }

    /// The names under which it has captured values kept.
    pub fn kept(&self) -> impl Iterator<Item = &String> {
        let captured = self.http.iter().flat_map(|s| s.capture.values()).flat_map(BTreeMap::values);
        let printed = self.tool.iter().flat_map(|t| &t.capture).flat_map(ToolCapture::names);
        captured.chain(printed).filter(|name| *name != WITHHELD)
    }

    /// Refuses what only psn's own plugins may have kept.
    pub fn foreign(&self) -> Result<(), ManifestError> {
        match self.kept().chain(&self.secrets.generate).find(|name| is_own(name)) {
            Some(name) => Err(ManifestError::OwnName(name.clone())),
            None => Ok(()),
        }
    }

    fn validate(&self) -> Result<(), ManifestError> {
        let invalid = |field: &str, reason: String| Err(ManifestError::Invalid { field: field.to_owned(), reason });
        if !is_kebab(&self.plugin.name) || self.plugin.name.len() > MAX_NAME {
            return invalid(
                "plugin.name",
                format!("`{}` is not kebab case of at most {MAX_NAME} characters", self.plugin.name),
            );
        }
        if !WORLDS.contains(&self.plugin.world.as_str()) {
            return invalid(
                "plugin.world",
                format!("`{}` is not a world this psn knows: {}", self.plugin.world, WORLDS.join(", ")),
            );
        }
        if self.task.is_some() && self.world() == World::Step {
            return invalid("task", "only a plugin of the world psn:plugin/task@0.1.0 has a [task]".into());
        }
        // It becomes a file's name, and a part of URLs.
        if !is_kebab(self.task_id()) || self.task_id().len() > MAX_NAME {
            let reason = format!("`{}` is not kebab case of at most {MAX_NAME} characters", self.task_id());
            return invalid("task.id", reason);
        }
        for (i, service) in self.http.iter().enumerate() {
            if !is_kebab(&service.service) {
                return invalid(&format!("http[{i}].service"), format!("`{}` is not kebab case", service.service));
            }
            if self.http[..i].iter().any(|s| s.service == service.service) {
                return invalid(&format!("http[{i}].service"), format!("`{}` is named twice", service.service));
            }
        }
        for name in self.kept().chain(&self.secrets.generate) {
            if is_reserved(name) {
                return invalid("capture", format!("{name} is psn's own; choose another name"));
            }
        }
        for tool in &self.tool {
            // What a plugin's service answers would be a variable of a program of the person's.
            let given = |name: &&String| self.kept().any(|kept| kept == *name) || covers(&self.secrets.generate, name);
            if let Some(name) = tool.env.iter().find(given) {
                return invalid(
                    "tool.env",
                    format!("{name} is captured or made by this plugin; a program gets what a person or psn keeps"),
                );
            }
            for capture in &tool.capture {
                if !tool.args.contains(&capture.args) {
                    return invalid(
                        "tool.capture.args",
                        format!("{:?} is not one of the args of {}", capture.args, tool.name),
                    );
                }
                if capture.text.is_some() != capture.json.is_empty() {
                    return invalid("tool.capture", "exactly one of text and json says what is kept".into());
                }
                if let Some(pointer) = capture.json.keys().find(|p| !p.is_empty() && !p.starts_with('/')) {
                    return invalid("tool.capture.json", format!("`{pointer}` is no JSON pointer"));
                }
            }
        }
        let limits = &self.limits;
        if let Some(m) = &limits.memory
            && parse_bytes(m).is_none()
        {
            return invalid("limits.memory", format!("`{m}` is not a size such as 64MiB"));
        }
        let task = self.task.clone().unwrap_or_default();
        let retry = task.retry.as_ref();
        for (field, value) in [
            ("limits.deadline", limits.deadline.as_ref()),
            ("task.max-duration", task.max_duration.as_ref()),
            ("task.retry.min", retry.and_then(|r| r.min.as_ref())),
            ("task.retry.max", retry.and_then(|r| r.max.as_ref())),
        ] {
            if let Some(v) = value
                && parse_duration(v).is_none()
            {
                return invalid(field, format!("`{v}` is not a duration such as 60s, 500ms or 5m"));
            }
        }
        Ok(())
    }
}

/// Lower-case letters and digits in words joined by single hyphens, beginning with a letter.
pub fn is_kebab(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_lowercase())
        && s.split('-').all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// Whether a list of names, where a trailing `*` is a prefix, covers a name.
pub fn covers(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|p| match p.strip_suffix('*') {
        Some(prefix) => !prefix.is_empty() && name.starts_with(prefix),
        None => p == name,
    })
}

/// `500ms`, `60s`, `5m`, `2h`
pub fn parse_duration(s: &str) -> Option<Duration> {
    let at = s.find(|c: char| !c.is_ascii_digit())?;
    let n: u64 = s[..at].parse().ok()?;
    let ms = match &s[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    n.checked_mul(ms).map(Duration::from_millis)
}

/// `512KiB`, `64MiB`, `1GiB`
pub fn parse_bytes(s: &str) -> Option<u64> {
    let at = s.find(|c: char| !c.is_ascii_digit())?;
    let n: u64 = s[..at].parse().ok()?;
    let unit: u64 = match &s[at..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    n.checked_mul(unit)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
