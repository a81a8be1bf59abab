//! API keys as lists and creations show them.
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::HOST;
use crate::neon::keys::KeyRow;

#[derive(Serialize)]
pub(crate) struct KeyCreated {
    id: i64,
    key: String,
    name: String,
    created_at: DateTime<Utc>,
    created_by: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
}

impl KeyCreated {
    pub(crate) fn new(row: KeyRow, key: String) -> Self {
        let KeyRow { id, account_id, project_id, name, created_at, .. } = row;
        Self { id, key, name, created_at, created_by: account_id, project_id }
    }
}

#[derive(Serialize)]
pub(crate) struct KeyItem {
    id: i64,
    name: String,
    created_at: DateTime<Utc>,
    created_by: Creator,
    last_used_at: Option<DateTime<Utc>>,
    last_used_from_addr: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
}

#[derive(Serialize)]
struct Creator {
    id: Uuid,
    name: String,
    image: &'static str,
}

impl From<KeyRow> for KeyItem {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            created_at: row.created_at,
            created_by: Creator { id: row.account_id, name: row.account_name, image: "" },
            last_used_at: row.last_used_at,
            last_used_from_addr: address(row.last_used_at),
            project_id: row.project_id,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct KeyRevoked {
    id: i64,
    name: String,
    created_at: DateTime<Utc>,
    created_by: Uuid,
    last_used_at: Option<DateTime<Utc>>,
    last_used_from_addr: &'static str,
    revoked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<String>,
}

impl From<KeyRow> for KeyRevoked {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            created_at: row.created_at,
            created_by: row.account_id,
            last_used_at: row.last_used_at,
            last_used_from_addr: address(row.last_used_at),
            revoked: true,
            project_id: row.project_id,
        }
    }
}

/// Only this machine can ask.
fn address(used: Option<DateTime<Utc>>) -> &'static str {
    if used.is_some() { HOST } else { "" }
}
