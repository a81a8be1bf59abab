//! What holds for all clusters of a Home at once, also while no daemon runs: what there is, which ports are taken, the end of all.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::place::{self, Place, Record};
use super::{CLUSTER_PATIENCE, CONTROL, LOCKS, PgError, PoolerChoice, init, pooler, server};
use crate::files::{self, FileLock};

/// What is known of a cluster without starting anything.
pub(crate) struct Summary {
    pub(crate) id: String,
    pub(crate) major: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) pooler_port: Option<u16>,
    pub(crate) running: bool,
    pub(crate) log: PathBuf,
    pub(crate) pooler_log: PathBuf,
}

/// What a folder is renamed to before it is deleted.
pub(super) const DELETED: &str = ".deleted-";

pub(super) async fn lock(path: &Path, patience: Duration) -> Result<FileLock, PgError> {
    FileLock::acquire(path, patience)
        .await
        .map_err(PgError::io("could not lock", path))?
        .ok_or_else(|| PgError::Busy { path: path.to_owned(), seconds: patience.as_secs() })
}

/// What a crash while deleting left.
pub(super) fn remove_deleted(pg_dir: &Path) -> Result<(), PgError> {
    for entry in fs::read_dir(pg_dir).map_err(PgError::io("could not read", pg_dir))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(DELETED) {
            files::remove_dir(&entry.path()).map_err(PgError::io("could not delete", &entry.path()))?;
        }
    }
    Ok(())
}

pub(super) fn superuser_password(home: &Path, pg_dir: &Path) -> Result<Arc<str>, PgError> {
    let file = superuser_file(home);
    let kept = files::read_optional(&file).map_err(PgError::io("could not read", &file))?;
    if let Some(kept) = kept.filter(|k| !k.trim().is_empty()) {
        return Ok(kept.trim().into());
    }
    init::forget_templates(pg_dir)?;
    let fresh = crate::tokens::generate("", 32);
    files::write_atomic(&file, fresh.as_bytes(), 0o600).map_err(PgError::io("could not write", &file))?;
    Ok(fresh.into())
}

pub(crate) fn superuser_file(home: &Path) -> PathBuf {
    home.join("superuser.secret")
}

/// The folder as every psn sees it, or `None` when nothing was made there.
fn canonical_pg_dir(home: &Path) -> Option<PathBuf> {
    fs::canonicalize(home.join("pg")).ok()
}

pub(crate) fn summaries(home: &Path) -> Vec<Summary> {
    let places = canonical_pg_dir(home).map(|dir| place::all(&dir)).unwrap_or_default();
    places
        .into_iter()
        .map(|place| Summary {
            major: place.major().ok().flatten(),
            port: place.record().ok().flatten().map(|r| r.port),
            pooler_port: place.record().ok().flatten().and_then(|r| r.pooler_port).filter(|_| pooler::runs(&place)),
            running: server::runs(&place),
            log: place.log(),
            pooler_log: pooler::log_file(&place),
            id: place.id,
        })
        .collect()
}

/// The ports of all clusters, also those that do not run.
pub(crate) fn recorded_ports(pg_dir: &Path) -> BTreeSet<u16> {
    let places = place::all(pg_dir);
    places.iter().filter_map(|p| p.record().ok().flatten()).flat_map(Record::ports).collect()
}

/// What the pooled ports of a Home are answered by; None where pooled is direct.
pub(crate) fn pooler_version() -> Option<String> {
    pooler::version(&pooler::find(&PoolerChoice::Find)?)
}

/// New numbers for recorded ports that strangers listen on. For a Home whose daemon does not run.
pub(crate) fn renew_taken_ports(home: &Path, reserved: &BTreeSet<u16>) -> Result<(), PgError> {
    let Some(dir) = canonical_pg_dir(home) else {
        return Ok(());
    };
    for place in place::all(&dir) {
        let reserved = reserved.union(&recorded_ports(&dir)).copied().collect();
        place::renew_taken_port(&place, &reserved)?;
    }
    Ok(())
}

/// Stops all servers of a Home whose daemon does not run.
pub(crate) async fn stop_home(home: &Path) -> Result<bool, PgError> {
    match canonical_pg_dir(home) {
        Some(dir) => stop_all(&dir).await,
        None => Ok(false),
    }
}

/// The sockets' folders that lie outside of the Home.
pub(crate) fn remove_outside(home: &Path) -> Result<(), PgError> {
    let places = canonical_pg_dir(home).map(|dir| place::all(&dir)).unwrap_or_default();
    places.iter().try_for_each(Place::remove_outside)
}

pub(super) async fn stop_all(pg_dir: &Path) -> Result<bool, PgError> {
    let mut places = place::all(pg_dir);
    // The services may still write their last words while the projects' servers go.
    places.sort_by_key(|p| p.id == CONTROL);
    let mut any = false;
    let mut first_error = None;
    for place in &places {
        let locks = pg_dir.join(LOCKS);
        let stopped = async {
            let _lock = lock(&locks.join(format!("{}.lock", place.id)), CLUSTER_PATIENCE).await?;
            let pooled = pooler::stop(place).await;
            Ok::<_, PgError>(server::stop(place).await? || pooled)
        };
        match stopped.await {
            Ok(ran) => any |= ran,
            // The others are stopped all the same.
            Err(e) => first_error = first_error.or(Some(e)),
        }
    }
    any |= pooler::end_orphans(pg_dir).await > 0;
    first_error.map_or(Ok(any), Err)
}
