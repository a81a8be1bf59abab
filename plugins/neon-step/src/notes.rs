//! What this step remembers between runs. The intent is written before a project is asked for, the note as soon as its id is
//! known: a crash between the two is healed by looking the name up.

use psn_plugin::{Timestamp, state};
use serde::{Deserialize, Serialize};

use crate::api::Database;

const NOTED: &str = "project";
const INTENT: &str = "intent";

/// The hub's project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Noted {
    pub id: String,
    pub name: String,
    pub region_id: Option<String>,
    pub pg_version: Option<u32>,
    /// Created for this hub by this step, and so its own to delete. Any other was adopted, and stays.
    pub created: bool,
    /// Operations of its creation that have not been seen to end.
    pub operations: Vec<String>,
    /// The endpoint that the kept connection strings lead to.
    pub host: Option<String>,
    /// The database that they lead to, and the role they log in as, where settings did not say.
    #[serde(default)]
    pub database: Option<String>,
    #[serde(default)]
    pub role: Option<String>,
    /// The role has been, or is about to be, given a new password that is not yet kept.
    #[serde(default)]
    pub resetting: bool,
}

impl Noted {
    /// What the connection strings are for.
    pub(crate) fn database(&self) -> Database {
        use psn_plugin::context::setting;
        let name = setting("neon.database").or_else(|| self.database.clone());
        let owner = setting("neon.role").or_else(|| self.role.clone());
        Database {
            name: name.unwrap_or_else(|| crate::DATABASE.into()),
            owner_name: owner.unwrap_or_else(|| crate::ROLE.into()),
        }
    }
}

/// A project of this name has been, or is about to be, asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intent {
    pub name: String,
    pub org_id: Option<String>,
    pub started_at: Timestamp,
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

pub(crate) fn forget() -> Result<(), state::Error> {
    state::delete(NOTED)?;
    state::delete(INTENT)
}
