//! What is in a project: its branch, endpoint, roles and databases.
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{CREATION_SOURCE, HOST, NEVER, Operation, PROVISIONER};
use crate::neon::store::objects::{DatabaseRow, RoleRow};
use crate::neon::store::projects::{BranchRow, EndpointRow};

#[derive(Serialize)]
pub(crate) struct Branch {
    id: String,
    project_id: String,
    name: String,
    current_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_state: Option<&'static str>,
    state_changed_at: DateTime<Utc>,
    creation_source: &'static str,
    primary: bool,
    default: bool,
    protected: bool,
    cpu_used_sec: i64,
    compute_time_seconds: i64,
    active_time_seconds: i64,
    written_data_bytes: i64,
    data_transfer_bytes: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    init_source: &'static str,
}

impl From<&BranchRow> for Branch {
    fn from(row: &BranchRow) -> Self {
        Self {
            id: row.id.clone(),
            project_id: row.project_id.clone(),
            name: row.name.clone(),
            current_state: if row.ready { "ready" } else { "init" },
            pending_state: (!row.ready).then_some("ready"),
            state_changed_at: row.state_changed_at,
            creation_source: CREATION_SOURCE,
            primary: row.is_default,
            default: row.is_default,
            protected: false,
            cpu_used_sec: 0,
            compute_time_seconds: 0,
            active_time_seconds: 0,
            written_data_bytes: 0,
            data_transfer_bytes: 0,
            created_at: row.created_at,
            updated_at: row.updated_at,
            init_source: "parent-data",
        }
    }
}

#[derive(Serialize)]
pub(crate) struct BranchBody {
    pub(crate) branch: Branch,
    pub(crate) annotation: Annotation,
}

#[derive(Serialize)]
pub(crate) struct Annotation {
    pub(crate) object: AnnotationObject,
    pub(crate) value: BTreeMap<String, String>,
}

#[derive(Serialize)]
pub(crate) struct AnnotationObject {
    pub(crate) r#type: &'static str,
    pub(crate) id: String,
}

#[derive(Serialize)]
pub(crate) struct BranchList {
    pub(crate) branches: Vec<Branch>,
    pub(crate) annotations: BTreeMap<String, Annotation>,
    pub(crate) pagination: CursorPagination,
}

#[derive(Serialize)]
pub(crate) struct CursorPagination {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
    pub(crate) sort_by: &'static str,
    pub(crate) sort_order: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Endpoint {
    host: String,
    id: String,
    project_id: String,
    branch_id: String,
    autoscaling_limit_min_cu: f64,
    autoscaling_limit_max_cu: f64,
    region_id: String,
    r#type: &'static str,
    current_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_state: Option<&'static str>,
    settings: BTreeMap<String, String>,
    pooler_enabled: bool,
    pooler_mode: &'static str,
    disabled: bool,
    passwordless_access: bool,
    creation_source: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended_at: Option<DateTime<Utc>>,
    proxy_host: &'static str,
    suspend_timeout_seconds: i64,
    provisioner: &'static str,
}

impl Endpoint {
    /// `host` is what a client dials; it is known once the project's cluster exists.
    pub(crate) fn new(row: &EndpointRow, host: String) -> Self {
        Self {
            host,
            id: row.id.clone(),
            project_id: row.project_id.clone(),
            branch_id: row.branch_id.clone(),
            autoscaling_limit_min_cu: row.autoscaling_limit_min_cu,
            autoscaling_limit_max_cu: row.autoscaling_limit_max_cu,
            region_id: row.region_id.clone(),
            r#type: "read_write",
            current_state: row.state.clone(),
            pending_state: row.pending.as_deref().map(
                |action| {
                    if action == "suspend_compute" { "idle" } else { "active" }
                },
            ),
            settings: BTreeMap::new(),
            pooler_enabled: false,
            pooler_mode: "transaction",
            disabled: false,
            passwordless_access: false,
            creation_source: CREATION_SOURCE,
            created_at: row.created_at,
            updated_at: row.updated_at,
            started_at: row.started_at,
            suspended_at: row.suspended_at,
            proxy_host: HOST,
            suspend_timeout_seconds: NEVER,
            provisioner: PROVISIONER,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Endpoints {
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
pub(crate) struct EndpointBody {
    pub(crate) endpoint: Endpoint,
}

#[derive(Serialize)]
pub(crate) struct EndpointOperations {
    pub(crate) endpoint: Endpoint,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Serialize)]
pub(crate) struct Role {
    branch_id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    protected: bool,
    authentication_method: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<&RoleRow> for Role {
    fn from(row: &RoleRow) -> Self {
        Self {
            branch_id: row.branch_id.clone(),
            name: row.name.clone(),
            password: None,
            protected: false,
            authentication_method: if row.no_login { "no_login" } else { "password" },
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Role {
    /// Only the replies to creating a role and to resetting its password say it.
    pub(crate) fn with_password(self, password: Option<String>) -> Self {
        Self { password, ..self }
    }
}

#[derive(Serialize)]
pub(crate) struct Roles {
    pub(crate) roles: Vec<Role>,
}

#[derive(Serialize)]
pub(crate) struct RoleBody {
    pub(crate) role: Role,
}

#[derive(Serialize)]
pub(crate) struct RoleOperations {
    pub(crate) role: Role,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Serialize)]
pub(crate) struct RolePassword {
    pub(crate) password: String,
}

#[derive(Serialize)]
pub(crate) struct Database {
    id: i64,
    branch_id: String,
    name: String,
    owner_name: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<&DatabaseRow> for Database {
    fn from(row: &DatabaseRow) -> Self {
        Self {
            id: row.id,
            branch_id: row.branch_id.clone(),
            name: row.name.clone(),
            owner_name: row.owner_name.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Databases {
    pub(crate) databases: Vec<Database>,
}

#[derive(Serialize)]
pub(crate) struct DatabaseBody {
    pub(crate) database: Database,
}

#[derive(Serialize)]
pub(crate) struct DatabaseOperations {
    pub(crate) database: Database,
    pub(crate) operations: Vec<Operation>,
}
