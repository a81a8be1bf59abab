//! Builds a deployment from an uploaded bundle: unpacked into a folder of its own, where the bundle's own indexer says what is in it,
//! over this API, as it does in the vendor's builders.
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::json;
use tokio::process::Command;

use super::model::Environment;
use super::store::deployments::Deployment;
use super::{AppState, deployments, store};

/// What makes the list of tasks, in every bundle of the vendor's CLI.
const INDEXER: &str = "managed-index-controller.mjs";
/// It loads every task file once.
const INDEX_LIMIT: Duration = Duration::from_secs(120);
/// Bytes that a bundle may have unpacked.
const MAX_UNPACKED: u64 = 512 * 1024 * 1024;
/// Bytes of the indexer's words that a failed deployment shows.
const LAST_WORDS: usize = 2_000;

#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("the bundle is no archive: {0}")]
    Archive(#[from] std::io::Error),
    #[error("the bundle holds a path outside of its folder")]
    Escape,
    #[error("the bundle is larger than {MAX_UNPACKED} bytes unpacked")]
    TooLarge,
    #[error("the bundle has no {INDEXER}: make it with `trigger deploy --native-build --local-bundle`")]
    NoIndexer,
    #[error("indexing needs Node.js, and there is no `node` on this machine's PATH: {0}")]
    NoNode(std::io::Error),
    #[error("indexing took longer than {} s", INDEX_LIMIT.as_secs())]
    Slow,
    #[error("the indexer failed: {0}")]
    Index(String),
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
        let error = match index(&state, &environment, &id, &hash, &artifact).await {
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
    let into = folder.0.clone();
    tokio::task::spawn_blocking(move || unpack(&content, &into))
        .await
        .map_err(|e| BuildError::Index(e.to_string()))??;
    if !folder.0.join(INDEXER).is_file() {
        return Err(BuildError::NoIndexer);
    }
    // Only what the indexer needs: nothing else of this process' environment is a bundle's business.
    let child = Command::new("node")
        .arg(INDEXER)
        .current_dir(&folder.0)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", &folder.0)
        .env("NODE_ENV", "production")
        .env("TRIGGER_PROJECT_ID", &environment.project_id)
        .env("TRIGGER_PROJECT_REF", &environment.project_ref)
        .env("TRIGGER_API_URL", &*state.origin)
        .env("TRIGGER_SECRET_KEY", &environment.api_key)
        .env("TRIGGER_DEPLOYMENT_ID", id)
        .env("TRIGGER_CONTENT_HASH", hash)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(BuildError::NoNode)?;
    let output = tokio::time::timeout(INDEX_LIMIT, child.wait_with_output()).await.map_err(|_| BuildError::Slow)??;
    if !output.status.success() {
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words[words.len().saturating_sub(LAST_WORDS)..])
            .replace(&environment.api_key, "[key]");
        return Err(BuildError::Index(words.trim().to_owned()));
    }
    Ok(())
}

/// Files and folders only, all of them below `into`.
fn unpack(content: &[u8], into: &Path) -> Result<(), BuildError> {
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
        if !path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(BuildError::Escape);
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_file() {
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
        unpack(&archive("./a/b.mjs", tar::EntryType::Regular), &folder.0).unwrap();
        assert_eq!(std::fs::read(folder.0.join("a/b.mjs")).unwrap(), b"hi");
        for bad in ["../x", "/etc/x", "a/../../x"] {
            assert!(
                matches!(unpack(&archive(bad, tar::EntryType::Regular), &folder.0), Err(BuildError::Escape)),
                "{bad}"
            );
        }
        unpack(&archive("link", tar::EntryType::Symlink), &folder.0).unwrap();
        assert!(!folder.0.join("link").exists());
        assert!(unpack(b"no archive", &folder.0).is_err());
    }
}
