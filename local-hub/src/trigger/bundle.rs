//! Builds a deployment from an uploaded bundle, as the vendor's builders do: its dependencies are installed, then its own indexer says
//! over this API what is in it. Afterwards nothing of it is kept but what the engine runs.
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::model::Environment;
use super::store::deployments::Deployment;
use super::{AppState, deployments, store};

/// What the CLI says of a bundle, among it where the indexer is.
const MANIFEST: &str = "build.json";
const PACKAGE: &str = "package.json";
/// What psn says of one: which component is which task.
const INDEX: &str = "psn.json";
/// Where a bundle believes to lie.
const IMAGE_ROOT: &str = "/app";
/// It loads every task file once.
const INDEX_LIMIT: Duration = Duration::from_secs(120);
/// A bundle names a few packages of the vendor's.
const INSTALL_LIMIT: Duration = Duration::from_secs(180);
/// Bytes that a bundle may have unpacked.
const MAX_UNPACKED: u64 = 512 * 1024 * 1024;
/// Bytes of a program's words that a failed deployment shows.
const LAST_WORDS: usize = 2_000;

#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("the bundle is no archive: {0}")]
    Archive(#[from] std::io::Error),
    #[error("the bundle holds a path outside of its folder")]
    Escape,
    #[error("the bundle is larger than {MAX_UNPACKED} bytes unpacked")]
    TooLarge,
    #[error("the bundle is none that `trigger deploy --native-build --local-bundle` made: {0}")]
    Foreign(String),
    #[error("a bundle needs `{program}`, which cannot be started here: {source}")]
    NoProgram { program: &'static str, source: std::io::Error },
    #[error(
        "the bundle is for bun, which is not on this machine: npm install --global bun@1.4.5, or psn config set trigger.runtime node-24"
    )]
    NoBun,
    #[error("`{program}` took longer than {} s", .limit.as_secs())]
    Slow { program: &'static str, limit: Duration },
    #[error("`{program}` failed: {words}")]
    Failed { program: &'static str, words: String },
    #[error("the builder itself failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("the control database failed")]
    Database(#[from] sqlx::Error),
}

/// Goes on after the deployment was answered; its status says how it ended.
pub(crate) fn build(
    state: &AppState,
    environment: &Environment,
    deployment: &Deployment,
    artifact: &str,
    skip_promotion: bool,
) {
    let (state, environment, id) = (state.clone(), environment.clone(), deployment.id.clone());
    let (hash, artifact) = (deployment.content_hash.clone(), artifact.to_owned());
    tokio::spawn(async move {
        let indexed = index(&state, &environment, &id, &hash, &artifact).await;
        // Nobody reads it again, and it has the size of a program.
        if let Err(error) = store::artifacts::remove(&state.db, &environment.id, &artifact).await {
            tracing::warn!(%error, "an artifact could not be removed");
        }
        let error = match indexed {
            Ok(()) => match deployments::finish(&state, &environment, &id, None, skip_promotion).await {
                Ok(()) => return,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(deployment = %id, %error, "a bundle could not be deployed");
        let error = json!({ "name": "BuildError", "message": error });
        // Does nothing where the indexer has failed the deployment by itself, with a better reason.
        if let Err(error) = store::deployments::fail(&state.db, &environment.id, &id, &error).await {
            tracing::warn!(deployment = %id, %error, "a failed deployment could not be marked");
        }
    });
}

async fn index(
    state: &AppState,
    environment: &Environment,
    id: &str,
    hash: &str,
    artifact: &str,
) -> Result<(), BuildError> {
    let content = store::artifacts::content(&state.db, &environment.id, artifact).await?.unwrap_or_default();
    // Removed with everything in it when this ends.
    let folder = Folder::new()?;
    let root = folder.0.clone();
    let content = tokio::task::spawn_blocking(move || {
        unpack(&content, &root, |path| path == Path::new(PACKAGE)).map(|()| content)
    })
    .await??;
    // Before the rest of the bundle is there: npm removes from node_modules what it did not put there.
    install(&folder.0).await?;
    let root = folder.0.clone();
    let manifest = tokio::task::spawn_blocking(move || {
        unpack(&content, &root, |_| true)?;
        Manifest::move_to(&root)
    })
    .await??;

    let mut command = Command::new("node");
    // Only what the indexer needs: nothing else of this process' environment is a bundle's business.
    command
        .arg(&manifest.indexer)
        .current_dir(&folder.0)
        .env_clear()
        .env("HOME", &folder.0)
        .env("NODE_ENV", "production")
        .env("TRIGGER_PROJECT_ID", &environment.project_id)
        .env("TRIGGER_PROJECT_REF", &environment.project_ref)
        .env("TRIGGER_API_URL", &*state.origin)
        .env("TRIGGER_SECRET_KEY", &environment.api_key)
        .env("TRIGGER_DEPLOYMENT_ID", id)
        .env("TRIGGER_CONTENT_HASH", hash);
    if manifest.runtime.starts_with("bun") {
        command.env("BUN_INSTALL", bun_beside(&folder.0)?);
    }
    run("node", command, INDEX_LIMIT, Some(&environment.api_key)).await?;
    if let Some(components) = components(&folder.0) {
        store::deployments::set_components(&state.db, id, &components).await?;
    }
    Ok(())
}

/// What the image would get. No package's script is run.
async fn install(folder: &Path) -> Result<(), BuildError> {
    #[derive(Deserialize)]
    struct Package {
        #[serde(default)]
        dependencies: serde_json::Map<String, Value>,
    }
    let text = std::fs::read(folder.join(PACKAGE)).map_err(|e| BuildError::Foreign(format!("{PACKAGE}: {e}")))?;
    let package: Package = serde_json::from_slice(&text).map_err(|e| BuildError::Foreign(format!("{PACKAGE}: {e}")))?;
    if package.dependencies.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("npm");
    command
        .args([
            "install",
            "--omit=dev",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--no-package-lock",
        ])
        .current_dir(folder)
        .env_clear()
        // Where a person's own registry is set, and what npm fetched before.
        .envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
    run("npm", command, INSTALL_LIMIT, None).await
}

async fn run(
    program: &'static str,
    mut command: Command,
    limit: Duration,
    secret: Option<&str>,
) -> Result<(), BuildError> {
    let child = command
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| BuildError::NoProgram { program, source })?;
    let ended = tokio::time::timeout(limit, child.wait_with_output()).await;
    let Output { status, stdout, stderr } = ended.map_err(|_| BuildError::Slow { program, limit })??;
    if status.success() {
        return Ok(());
    }
    let words = [stdout, stderr].concat();
    let mut words = String::from_utf8_lossy(&words[words.len().saturating_sub(LAST_WORDS)..]).trim().to_owned();
    if let Some(secret) = secret {
        words = words.replace(secret, "[key]");
    }
    Err(BuildError::Failed { program, words })
}

/// The part of `build.json` that matters here.
struct Manifest {
    indexer: PathBuf,
    runtime: String,
}

impl Manifest {
    /// The bundle's paths are those of an image; here it lies in a folder of its own.
    fn move_to(folder: &Path) -> Result<Self, BuildError> {
        let foreign = |what: &dyn std::fmt::Display| BuildError::Foreign(format!("{MANIFEST}: {what}"));
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).map_err(|e| foreign(&e))?;
        let mut manifest: Value = serde_json::from_slice(&text).map_err(|e| foreign(&e))?;
        // The text of sources is not a path, whatever it begins with.
        let sources = manifest.get_mut("sources").map(Value::take);
        relocate(&mut manifest, &folder.to_string_lossy());
        if let Some(sources) = sources {
            manifest["sources"] = sources;
        }
        std::fs::write(&path, manifest.to_string())?;
        let indexer = manifest["indexControllerEntryPoint"].as_str().map(PathBuf::from).unwrap_or_default();
        let inside = indexer.strip_prefix(folder).is_ok_and(is_plain);
        if !inside || !indexer.is_file() {
            return Err(foreign(&"it names no indexer in the bundle"));
        }
        let runtime = manifest["runtime"].as_str().unwrap_or_default().to_owned();
        Ok(Self { indexer, runtime })
    }
}

fn relocate(value: &mut Value, to: &str) {
    match value {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix(IMAGE_ROOT).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                *text = format!("{to}{rest}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, to)),
        Value::Object(fields) => fields.values_mut().for_each(|field| relocate(field, to)),
        _ => {}
    }
}

/// Task → the component that it starts. A bundle that psn did not write has none, and its tasks need a worker of the vendor's.
fn components(folder: &Path) -> Option<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Index {
        tasks: Vec<Task>,
    }
    #[derive(Deserialize)]
    struct Task {
        id: String,
        component: String,
    }
    let index: Index = serde_json::from_slice(&std::fs::read(folder.join(INDEX)).ok()?).ok()?;
    Some(index.tasks.into_iter().map(|task| (task.id, task.component)).collect())
}

/// A folder whose `bin/bun` is this machine's bun: that is how the indexer looks for it.
fn bun_beside(folder: &Path) -> Result<PathBuf, BuildError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let known = [variable("BUN_INSTALL"), variable("HOME").map(|home| home.join(".bun"))];
    if let Some(installed) = known.into_iter().flatten().find(|installed| installed.join("bin/bun").is_file()) {
        return Ok(installed);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("bun")).find(|bun| bun.is_absolute() && bun.is_file());
    let found = found.ok_or(BuildError::NoBun)?;
    let installed = folder.join(".bun-of-this-machine");
    std::fs::create_dir_all(installed.join("bin"))?;
    std::os::unix::fs::symlink(found, installed.join("bin/bun"))?;
    Ok(installed)
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
}

/// Files and folders only, all of them below `into`; of these the ones that are wanted, by their paths in the bundle.
fn unpack(content: &[u8], into: &Path, wanted: impl Fn(&Path) -> bool) -> Result<(), BuildError> {
    // A few bytes more than allowed, so that the archive's end is not mistaken for a damaged one.
    let mut archive = tar::Archive::new(GzDecoder::new(content).take(MAX_UNPACKED + 1));
    let mut total: u64 = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        total = total.saturating_add(entry.size());
        if total > MAX_UNPACKED {
            return Err(BuildError::TooLarge);
        }
        let path = entry.path()?.into_owned();
        if !is_plain(&path) {
            return Err(BuildError::Escape);
        }
        let kind = entry.header().entry_type();
        let inner = path.components().filter(|c| matches!(c, Component::Normal(_))).collect::<PathBuf>();
        if wanted(&inner) && (kind.is_dir() || kind.is_file()) {
            entry.unpack_in(into)?;
        }
    }
    Ok(())
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("psn-bundle-{}", uuid::Uuid::new_v4().simple()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(path: &str, kind: tar::EntryType) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(2);
        // Not `set_path`, which refuses what an attacker would write by hand.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        tar.append(&header, &b"hi"[..]).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_bundle_stays_in_its_folder() {
        let folder = Folder::new().unwrap();
        let all = |_: &Path| true;
        unpack(&archive("./a/b.mjs", tar::EntryType::Regular), &folder.0, |path| path == Path::new("c")).unwrap();
        assert!(!folder.0.join("a").exists());
        unpack(&archive("./a/b.mjs", tar::EntryType::Regular), &folder.0, |path| path == Path::new("a/b.mjs")).unwrap();
        assert_eq!(std::fs::read(folder.0.join("a/b.mjs")).unwrap(), b"hi");
        for bad in ["../x", "/etc/x", "a/../../x"] {
            assert!(
                matches!(unpack(&archive(bad, tar::EntryType::Regular), &folder.0, all), Err(BuildError::Escape)),
                "{bad}"
            );
        }
        unpack(&archive("link", tar::EntryType::Symlink), &folder.0, all).unwrap();
        assert!(!folder.0.join("link").exists());
        assert!(unpack(b"no archive", &folder.0, all).is_err());
    }

    fn moved(manifest: &Value) -> (Folder, Result<Manifest, BuildError>) {
        let folder = Folder::new().unwrap();
        std::fs::create_dir(folder.0.join("bin")).unwrap();
        std::fs::write(folder.0.join("bin/index.mjs"), "").unwrap();
        std::fs::write(folder.0.join(MANIFEST), manifest.to_string()).unwrap();
        let moved = Manifest::move_to(&folder.0);
        (folder, moved)
    }

    #[test]
    fn an_images_paths_become_those_of_the_folder() {
        let (folder, manifest) = moved(&json!({
            "runtime": "bun-1.4",
            "indexControllerEntryPoint": "/app/bin/index.mjs",
            "files": [{ "entry": "src/a.ts", "out": "/app/src/a.mjs" }],
            "outputPath": "/app",
            "other": "/apple/x",
            "sources": { "src/a.ts": { "contents": "/app/is/no/path" } },
        }));
        let manifest = manifest.unwrap();
        assert_eq!((manifest.indexer, manifest.runtime.as_str()), (folder.0.join("bin/index.mjs"), "bun-1.4"));
        let written: Value = serde_json::from_slice(&std::fs::read(folder.0.join(MANIFEST)).unwrap()).unwrap();
        let at = |path: &str| format!("{}{path}", folder.0.display());
        assert_eq!(written["files"][0]["out"], at("/src/a.mjs"));
        assert_eq!((&written["outputPath"], &written["other"]), (&json!(at("")), &json!("/apple/x")));
        assert_eq!(written["sources"]["src/a.ts"]["contents"], "/app/is/no/path");
    }

    #[test]
    fn an_indexer_outside_of_the_bundle_is_not_started() {
        for path in ["/app/../bin/index.mjs", "/etc/passwd", "/app/bin/none.mjs", "bin/index.mjs"] {
            let (_folder, manifest) = moved(&json!({ "indexControllerEntryPoint": path }));
            assert!(matches!(manifest, Err(BuildError::Foreign(_))), "{path}");
        }
        assert!(matches!(moved(&json!([])).1, Err(BuildError::Foreign(_))));
    }
}
