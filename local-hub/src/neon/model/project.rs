//! Projects, alone and in lists.
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    Branch, CREATION_SOURCE, Database, Endpoint, HOST, NEVER, NO_PERIOD, Operation, PLATFORM, PROVISIONER, Pagination,
    Role,
};
use crate::neon::store::projects::ProjectRow;

#[derive(Serialize)]
pub(crate) struct DefaultEndpointSettings {
    autoscaling_limit_min_cu: f64,
    autoscaling_limit_max_cu: f64,
    suspend_timeout_seconds: i64,
}

/// Neon's defaults. What was asked for is not taken over, because nothing here would enforce it.
#[derive(Serialize)]
pub(crate) struct ProjectSettings {
    allowed_ips: AllowedIps,
    enable_logical_replication: bool,
    block_public_connections: bool,
    block_vpc_connections: bool,
    hipaa: bool,
}

#[derive(Serialize)]
struct AllowedIps {
    ips: [String; 0],
    protected_branches_only: bool,
}

/// The fields that a project has in a list and alone.
#[derive(Serialize)]
pub(crate) struct ProjectCore {
    id: String,
    platform_id: &'static str,
    region_id: String,
    name: String,
    provisioner: &'static str,
    default_endpoint_settings: DefaultEndpointSettings,
    settings: ProjectSettings,
    pg_version: i32,
    proxy_host: &'static str,
    /// MiB and bytes; 0 says that there is none.
    branch_logical_size_limit: i64,
    branch_logical_size_limit_bytes: i64,
    store_passwords: bool,
    cpu_used_sec: i64,
    creation_source: &'static str,
    history_retention_seconds: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    owner_id: String,
    org_id: String,
}

impl From<&ProjectRow> for ProjectCore {
    fn from(row: &ProjectRow) -> Self {
        Self {
            id: row.id.clone(),
            platform_id: PLATFORM,
            region_id: row.region_id.clone(),
            name: row.name.clone(),
            provisioner: PROVISIONER,
            default_endpoint_settings: DefaultEndpointSettings {
                autoscaling_limit_min_cu: row.autoscaling_limit_min_cu,
                autoscaling_limit_max_cu: row.autoscaling_limit_max_cu,
                suspend_timeout_seconds: NEVER,
            },
            settings: ProjectSettings {
                allowed_ips: AllowedIps { ips: [], protected_branches_only: false },
                enable_logical_replication: false,
                block_public_connections: false,
                block_vpc_connections: false,
                hipaa: false,
            },
            pg_version: row.pg_version,
            proxy_host: HOST,
            branch_logical_size_limit: 0,
            branch_logical_size_limit_bytes: 0,
            store_passwords: row.store_passwords,
            cpu_used_sec: 0,
            creation_source: CREATION_SOURCE,
            history_retention_seconds: row.history_retention_seconds,
            created_at: row.created_at,
            updated_at: row.updated_at,
            owner_id: row.org_id.clone(),
            org_id: row.org_id.clone(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Project {
    #[serde(flatten)]
    core: ProjectCore,
    data_storage_bytes_hour: i64,
    data_transfer_bytes: i64,
    written_data_bytes: i64,
    compute_time_seconds: i64,
    active_time_seconds: i64,
    consumption_period_start: &'static str,
    consumption_period_end: &'static str,
}

impl From<&ProjectRow> for Project {
    fn from(row: &ProjectRow) -> Self {
        Self {
            core: row.into(),
            data_storage_bytes_hour: 0,
            data_transfer_bytes: 0,
            written_data_bytes: 0,
            compute_time_seconds: 0,
            active_time_seconds: 0,
            consumption_period_start: NO_PERIOD,
            consumption_period_end: NO_PERIOD,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ProjectListItem {
    #[serde(flatten)]
    core: ProjectCore,
    active_time: i64,
    org_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recoverable_until: Option<DateTime<Utc>>,
}

impl From<&ProjectRow> for ProjectListItem {
    fn from(row: &ProjectRow) -> Self {
        Self {
            core: row.into(),
            active_time: 0,
            org_name: row.org_name.clone(),
            deleted_at: row.deleted_at,
            recoverable_until: row.recoverable_until,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ProjectList {
    pub(crate) projects: Vec<ProjectListItem>,
    pub(crate) unavailable_project_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pagination: Option<Pagination>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) applications: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) integrations: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize)]
pub(crate) struct ProjectBody {
    pub(crate) project: Project,
}

#[derive(Serialize)]
pub(crate) struct ProjectUpdated {
    pub(crate) project: Project,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Serialize)]
pub(crate) struct ProjectRecovered {
    pub(crate) project: Project,
    pub(crate) branches: Vec<Branch>,
}

#[derive(Serialize)]
pub(crate) struct ProjectCreated {
    pub(crate) project: Project,
    pub(crate) connection_uris: Vec<ConnectionDetails>,
    pub(crate) roles: Vec<Role>,
    pub(crate) databases: Vec<Database>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) branch: Branch,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
pub(crate) struct ConnectionDetails {
    pub(crate) connection_uri: String,
    pub(crate) connection_parameters: ConnectionParameters,
}

#[derive(Serialize)]
pub(crate) struct ConnectionParameters {
    pub(crate) database: String,
    pub(crate) password: String,
    pub(crate) role: String,
    pub(crate) host: String,
    pub(crate) pooler_host: String,
}

#[derive(Serialize)]
pub(crate) struct ConnectionUri {
    pub(crate) uri: String,
}
