//! The Trigger.dev project of a hub's tasks, written from their manifests: TypeScript that starts the bundled psn, the components
//! with what they were granted, and psn itself or its worker. The same input gives the same bytes, and their hash names a deployment.
mod folder;
mod program;
mod schedule;
mod typescript;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use program::Kind;
pub use program::{FILE as PROGRAM_FILE, Program, SHA256 as PROGRAM_SHA256};
pub(super) use schedule::hourly;

use super::component_store::{self, StoreError};
use crate::error::CodedError;
use crate::plugins::OperatorPolicy;
use crate::plugins::manifest::parse_duration;
use crate::plugins::registry::Installed;
use crate::runtime::precompiled::digest_name;
use crate::runtime::{Compiler, RuntimeError};

/// What the tasks run under; a setting, since a person may rely on a package that only one of them knows.
pub const RUNTIME: &str = "trigger.runtime";
pub const RUNTIMES: [&str; 2] = ["bun-1.4", "node-24"];

/// What of `trigger/` is deployed as it stands.
const RUNTIME_FILES: [(&str, &str); 8] = [
    ("package.json", include_str!("../../../../trigger/package.json")),
    ("package-lock.json", include_str!("../../../../trigger/package-lock.json")),
    ("tsconfig.json", include_str!("../../../../trigger/tsconfig.json")),
    ("trigger.config.ts", include_str!("../../../../trigger/trigger.config.ts")),
    ("src/events.ts", include_str!("../../../../trigger/src/events.ts")),
    ("src/process.ts", include_str!("../../../../trigger/src/process.ts")),
    ("src/psn.ts", include_str!("../../../../trigger/src/psn.ts")),
    (".gitignore", "node_modules/\n.trigger/\n"),
];

/// Says what is in the folder: for people, for the local hub, and so that only psn's own folder is ever written over.
const INDEX: &str = "psn.json";
const PLAIN: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;

struct File {
    bytes: Vec<u8>,
    mode: u32,
}

/// All files of the project, by their path in it.
pub struct CloudProject {
    files: BTreeMap<String, File>,
    pub tasks: Vec<String>,
    pub program: ProgramFacts,
}

/// What people are told of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramFacts {
    /// `psn` or `psn-worker`.
    pub kind: &'static str,
    pub sha256: String,
    pub bytes: usize,
}

impl CloudProject {
    /// `tasks` in any order. Where the program has no compiler, `compiler` compiles them for it.
    pub fn new(
        tasks: &[Arc<Installed>],
        policy: &OperatorPolicy,
        runtime: &str,
        program: Program,
        compiler: &Compiler,
    ) -> Result<Self, CodedError> {
        let mut tasks: Vec<&Installed> = tasks.iter().map(AsRef::as_ref).collect();
        tasks.sort_by(|a, b| a.manifest.task_id().cmp(b.manifest.task_id()));
        let mut files = BTreeMap::new();
        let mut add = |path: String, bytes: Vec<u8>, mode| files.insert(path, File { bytes, mode });
        for (path, text) in RUNTIME_FILES {
            add(path.to_owned(), text.as_bytes().to_vec(), PLAIN);
        }
        add("src/settings.ts".into(), typescript::settings(runtime).into_bytes(), PLAIN);
        let mut listed = Vec::new();
        for installed in &tasks {
            let id = installed.manifest.task_id();
            let component = component_store::reference(installed);
            let code = match program.kind {
                Kind::Whole => None,
                Kind::Worker => Some(compiled(installed, compiler)?),
            };
            let digest = code.as_deref().map(|code| digest_name(&hex::encode(Sha256::digest(code))));
            let task = typescript::task(&installed.manifest, &component, digest.as_deref());
            add(format!("src/trigger/{id}.ts"), task.into_bytes(), PLAIN);
            if let Some(code) = code {
                add(format!("components/{}", component_store::code_file(&installed.sha256)), code, PLAIN);
            }
            for (name, bytes) in component_store::files(installed, policy).map_err(|e| unwritable(&e))? {
                add(format!("components/{name}"), bytes, PLAIN);
            }
            listed.push(json!({
                "id": id,
                "component": component,
                "plugin": installed.manifest.plugin.name,
                "version": installed.manifest.plugin.version,
            }));
        }
        let index = json!({
            "psn": env!("CARGO_PKG_VERSION"),
            "runtime": runtime,
            "program": { "platform": program::PLATFORM, "kind": program.kind.as_str(), "sha256": program.sha256 },
            "tasks": listed,
        });
        add(INDEX.into(), format!("{index:#}\n").into_bytes(), PLAIN);
        let facts = program.facts();
        add("bin/psn".into(), program.bytes, EXECUTABLE);
        let tasks = tasks.iter().map(|t| t.manifest.task_id().to_owned()).collect();
        Ok(Self { files, tasks, program: facts })
    }

    /// Of every path and every byte.
    pub fn content_hash(&self) -> String {
        let mut hash = Sha256::new();
        for (path, file) in &self.files {
            // Lengths first: no two projects can run into each other.
            hash.update((path.len() as u64).to_be_bytes());
            hash.update(path.as_bytes());
            hash.update((file.bytes.len() as u64).to_be_bytes());
            hash.update(&file.bytes);
        }
        hex::encode(hash.finalize())
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

/// `trigger.runtime`, or the default.
pub fn runtime_of(settings: &BTreeMap<String, String>) -> Result<&'static str, CodedError> {
    let Some(wanted) = settings.get(RUNTIME) else { return Ok(RUNTIMES[0]) };
    RUNTIMES.into_iter().find(|known| known == wanted).ok_or_else(|| {
        CodedError::new(
            "config.settings",
            format!("config/psn.toml: {RUNTIME}: `{wanted}` is none of {}", RUNTIMES.join(", ")),
            RUNTIMES.map(|known| format!("psn config set {RUNTIME} {known}")),
        )
    })
}

/// Seconds, at least one: Trigger.dev counts in whole ones.
fn max_duration(text: Option<&str>) -> Option<u64> {
    text.and_then(parse_duration).map(|d| d.as_secs().max(1))
}

/// psn's own components too are compiled in a process: a deployment is made now and then, and all are alike.
fn compiled(installed: &Installed, compiler: &Compiler) -> Result<Vec<u8>, CodedError> {
    let plugin = &installed.manifest.plugin.name;
    let code = compiler.for_worker(&installed.component);
    Ok(code.map_err(|error| RuntimeError::Compile { plugin: plugin.clone(), error })?)
}

fn unwritable(e: &StoreError) -> CodedError {
    CodedError::new("task.export", format!("the tasks cannot be bundled: {e}"), ["psn plugin list"])
}

#[cfg(test)]
mod tests;
