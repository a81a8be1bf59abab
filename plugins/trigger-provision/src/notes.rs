//! What this step remembers between runs. The intent is written before a project is asked for, the note as soon as its reference
//! is known: a crash between the two is healed by looking the name up.

use std::collections::BTreeMap;

use psn_plugin::{Timestamp, state};
use serde::{Deserialize, Serialize};

use crate::tasks::Limits;

const NOTED: &str = "project";
const INTENT: &str = "intent";
const IMPORTED: &str = "environment";
const LIMITS: &str = "plan-limits";

/// The hub's project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub id: String,
    /// `proj_…`, by which Trigger.dev's API and CLI know it.
    pub external_ref: String,
    pub name: String,
    /// The organisation's slug; empty where the credentials at hand do not tell.
    pub org: String,
    /// Created by this step on this machine; otherwise found by its name or chosen.
    pub created: bool,
    /// A person named it in config/psn.toml. It is theirs, and never deleted.
    pub chosen: bool,
}

/// A project of this name has been, or is about to be, asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub name: String,
    pub org: String,
    pub started_at: Timestamp,
}

/// What the project's environment was last told: secrets by fingerprint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Imported {
    pub external_ref: String,
    pub secrets: BTreeMap<String, String>,
    pub plain: BTreeMap<String, String>,
}

pub(crate) fn noted() -> Result<Option<Noted>, state::Error> {
    state::get(NOTED)
}

pub(crate) fn note(noted: &Noted) -> Result<(), state::Error> {
    state::put(NOTED, noted)
}

pub(crate) fn intent() -> Result<Option<Intent>, state::Error> {
    state::get(INTENT)
}

pub(crate) fn intend(intent: &Intent) -> Result<(), state::Error> {
    state::put(INTENT, intent)
}

/// The creation came to its end, or was refused: there is nothing left to look for.
pub(crate) fn settled() -> Result<(), state::Error> {
    state::delete(INTENT)
}

/// Nothing, where another project was told.
pub(crate) fn imported(noted: &Noted) -> Result<Imported, state::Error> {
    let imported: Option<Imported> = state::get(IMPORTED)?;
    let this = imported.filter(|imported| imported.external_ref == noted.external_ref);
    Ok(this.unwrap_or_else(|| Imported { external_ref: noted.external_ref.clone(), ..Imported::default() }))
}

pub(crate) fn note_imported(imported: &Imported) -> Result<(), state::Error> {
    state::put(IMPORTED, imported)
}

/// What the plan of this project's organisation refused before.
#[derive(Serialize, Deserialize)]
struct NotedLimits {
    external_ref: String,
    limits: Limits,
}

pub(crate) fn limits(noted: &Noted) -> Result<Limits, state::Error> {
    let there: Option<NotedLimits> = state::get(LIMITS)?;
    Ok(there.filter(|there| there.external_ref == noted.external_ref).map(|there| there.limits).unwrap_or_default())
}

pub(crate) fn note_limits(noted: &Noted, limits: &Limits) -> Result<(), state::Error> {
    state::put(LIMITS, &NotedLimits { external_ref: noted.external_ref.clone(), limits: limits.clone() })
}

pub(crate) fn forget() -> Result<(), state::Error> {
    state::delete(NOTED)?;
    state::delete(IMPORTED)?;
    state::delete(LIMITS)?;
    state::delete(INTENT)
}
