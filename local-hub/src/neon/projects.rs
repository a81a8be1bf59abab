//! Projects: list, create, get, change, delete, recover.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::account::{DEFAULT_REGION, is_region};
use super::auth::{Authenticated, Caller};
use super::error::ApiError;
use super::extract::{self, Body, Params};
use super::model::{
    Endpoint, Pagination, ProjectBody, ProjectCreated, ProjectList, ProjectRecovered,
    ProjectUpdated,
};
use super::roles::new_secret;
use super::store::objects;
use super::store::operations::{self, Action, OperationRow};
use super::store::projects::{
    self, BranchRow, ComputeLimits, EndpointRow, Listing, NewProject, ProjectRow,
};
use super::{Service, connection, ids, provision, worker};

/// As Neon's API documents them.
const LIST_DEFAULT: i64 = 10;
const LIST_MAX: i64 = 400;
const NAME_MAX: usize = 256;
const DEFAULT_DATABASE: &str = "neondb";
const DEFAULT_BRANCH: &str = "main";
const DEFAULT_PG_VERSION: i32 = 17;
const PG_VERSIONS: std::ops::RangeInclusive<i32> = 14..=18;
const DEFAULT_RETENTION_SECONDS: i32 = 86_400;
const RETENTION_SECONDS: std::ops::RangeInclusive<i32> = 0..=2_592_000;
const DEFAULT_LIMITS: ComputeLimits = ComputeLimits {
    min_cu: 0.25,
    max_cu: 2.0,
};
const SMALLEST_CU: f64 = 0.25;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    org_id: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
    search: Option<String>,
    #[serde(default)]
    recoverable: bool,
}

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    project: CreateProject,
}

/// `settings` and `provisioner` are not read: the reply says what holds here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CreateProject {
    name: Option<String>,
    org_id: Option<String>,
    region_id: Option<String>,
    pg_version: Option<i32>,
    branch: CreateBranch,
    store_passwords: Option<bool>,
    history_retention_seconds: Option<i32>,
    default_endpoint_settings: Limits,
    autoscaling_limit_min_cu: Option<f64>,
    autoscaling_limit_max_cu: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CreateBranch {
    name: Option<String>,
    role_name: Option<String>,
    database_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Limits {
    autoscaling_limit_min_cu: Option<f64>,
    autoscaling_limit_max_cu: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct UpdateBody {
    project: UpdateProject,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UpdateProject {
    name: Option<String>,
    history_retention_seconds: Option<i32>,
    default_endpoint_settings: Limits,
}

/// A checked wish for a project.
struct Plan {
    project: NewProject,
    branch_name: String,
    role_name: String,
    database_name: String,
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Params(params): Params<ListParams>,
) -> Result<Json<ProjectList>, ApiError> {
    let listing = Listing {
        org_id: caller.org(params.org_id.as_deref())?,
        search: params.search.as_deref(),
        recoverable: params.recoverable,
        after: extract::cursor(params.cursor.as_deref())?,
        limit: extract::limit(params.limit, LIST_DEFAULT, LIST_MAX)?,
    };
    let rows = projects::list(&service.db, &listing).await?;
    let pagination = Pagination::after(rows.last().map(|row| row.seq), params.cursor);
    Ok(Json(ProjectList {
        projects: rows.iter().map(Into::into).collect(),
        unavailable_project_ids: [],
        pagination,
        applications: Some(Default::default()),
        integrations: Some(Default::default()),
    }))
}

/// There is one account, so nobody shares anything with it.
pub(crate) async fn shared(
    Params(params): Params<ListParams>,
) -> Result<Json<ProjectList>, ApiError> {
    extract::limit(params.limit, LIST_DEFAULT, LIST_MAX)?;
    Ok(Json(ProjectList {
        projects: Vec::new(),
        unavailable_project_ids: [],
        pagination: Pagination::after(None, params.cursor),
        applications: None,
        integrations: None,
    }))
}

/// Answers as soon as the project's cluster exists and so its address is known; the database in it is ready when the
/// operations have finished.
pub(crate) async fn create(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Body(body): Body<CreateBody>,
) -> Result<(StatusCode, Json<ProjectCreated>), ApiError> {
    let plan = plan(&caller, body.project)?;
    let project = plan.project.id.clone();
    let (secret, password) = new_secret(plan.project.store_passwords);

    let mut tx = service.db.begin().await?;
    projects::insert(&mut tx, &plan.project).await?;
    let (branch, endpoint) = (ids::branch(), ids::endpoint());
    projects::insert_branch(&mut tx, &project, &branch, &plan.branch_name).await?;
    projects::insert_endpoint(&mut tx, &project, &branch, &endpoint).await?;
    // Both names are free: the branch is new.
    let role = objects::insert_role(&mut tx, &branch, &plan.role_name, Some(&secret))
        .await?
        .ok_or_else(ApiError::internal)?;
    let database = objects::insert_database(&mut tx, &branch, &plan.database_name, &plan.role_name)
        .await?
        .ok_or_else(ApiError::internal)?;
    let endpoint_row = projects::endpoint(&mut *tx, &project, &endpoint).await?;
    let scheduled = operations::schedule(
        &mut tx,
        &endpoint_row,
        &[Action::CreateTimeline, Action::StartCompute],
    )
    .await?;
    tx.commit().await?;

    let (created, wait) = oneshot::channel();
    worker::spawn(&service, &project, Some(created));
    match wait.await {
        Ok(Ok(())) => {}
        // Nothing is left of it, so it is safe to send again: what 503 says.
        Ok(Err(error)) => {
            return Err(ApiError::unavailable(format!(
                "the project could not be created; {error}"
            )));
        }
        Err(_) => return Err(ApiError::internal()),
    }

    let Created {
        project,
        branch,
        endpoint,
        operations,
    } = reread(&service, &caller, &project, &scheduled).await?;
    let host = connection::host(&endpoint)?;
    let reply = ProjectCreated {
        project: (&project).into(),
        connection_uris: vec![connection::details(
            &role.name,
            &password,
            &host,
            &database.name,
        )],
        roles: vec![super::model::Role::from(&role).with_password(Some(password))],
        databases: vec![(&database).into()],
        operations: operations.iter().map(Into::into).collect(),
        branch: (&branch).into(),
        endpoints: vec![Endpoint::new(&endpoint, host)],
    };
    Ok((StatusCode::CREATED, Json(reply)))
}

struct Created {
    project: ProjectRow,
    branch: BranchRow,
    endpoint: EndpointRow,
    operations: Vec<OperationRow>,
}

/// The rows as they are after the cluster was made.
async fn reread(
    service: &Service,
    caller: &Caller,
    project: &str,
    scheduled: &[OperationRow],
) -> Result<Created, ApiError> {
    let project = projects::get(&service.db, &caller.orgs, project).await?;
    let branch = projects::default_branch(&service.db, &project.id).await?;
    let endpoint = projects::endpoint_of_branch(&service.db, &branch.id).await?;
    let mut operations = Vec::with_capacity(scheduled.len());
    for operation in scheduled {
        let now = operations::get(&service.db, &project.id, operation.id).await?;
        operations.push(now.ok_or_else(ApiError::internal)?);
    }
    Ok(Created {
        project,
        branch,
        endpoint,
        operations,
    })
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<ProjectBody>, ApiError> {
    let row = projects::get(&service.db, &caller.orgs, &project).await?;
    Ok(Json(ProjectBody {
        project: (&row).into(),
    }))
}

pub(crate) async fn update(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
    Body(body): Body<UpdateBody>,
) -> Result<Json<ProjectUpdated>, ApiError> {
    let mut tx = service.db.begin().await?;
    let mut row = projects::lock(&mut tx, &caller.orgs, &project).await?;
    if let Some(name) = body.project.name {
        row.name = checked_name("project.name", name)?;
    }
    if let Some(seconds) = body.project.history_retention_seconds {
        row.history_retention_seconds = checked_retention(seconds)?;
    }
    let current = ComputeLimits {
        min_cu: row.autoscaling_limit_min_cu,
        max_cu: row.autoscaling_limit_max_cu,
    };
    let limits = checked_limits(&body.project.default_endpoint_settings, current)?;
    (row.autoscaling_limit_min_cu, row.autoscaling_limit_max_cu) = (limits.min_cu, limits.max_cu);
    projects::update(&mut tx, &row).await?;
    let row = projects::get(&mut *tx, &caller.orgs, &project).await?;
    tx.commit().await?;
    Ok(Json(ProjectUpdated {
        project: (&row).into(),
        operations: Vec::new(),
    }))
}

/// Hides the project and stops its cluster. Everything stays on disk for a week.
pub(crate) async fn delete(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<ProjectBody>, ApiError> {
    let mut tx = service.db.begin().await?;
    let row = projects::lock(&mut tx, &caller.orgs, &project).await?;
    for endpoint in projects::endpoints(&mut *tx, &project).await? {
        operations::schedule(&mut tx, &endpoint, &[Action::SuspendCompute]).await?;
    }
    projects::mark_deleted(&mut tx, &project).await?;
    tx.commit().await?;
    worker::spawn(&service, &project, None);
    Ok(Json(ProjectBody {
        project: (&row).into(),
    }))
}

pub(crate) async fn recover(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<ProjectRecovered>, ApiError> {
    let mut tx = service.db.begin().await?;
    projects::lock_deleted(&mut tx, &caller.orgs, &project).await?;
    projects::mark_recovered(&mut tx, &project).await?;
    for endpoint in projects::endpoints(&mut *tx, &project).await? {
        operations::schedule(&mut tx, &endpoint, &[Action::StartCompute]).await?;
    }
    let row = projects::get(&mut *tx, &caller.orgs, &project).await?;
    let branches = projects::branches(&mut *tx, &project).await?;
    tx.commit().await?;
    worker::spawn(&service, &project, None);
    Ok(Json(ProjectRecovered {
        project: (&row).into(),
        branches: branches.iter().map(Into::into).collect(),
    }))
}

fn plan(caller: &Caller, wish: CreateProject) -> Result<Plan, ApiError> {
    let org_id = caller.org(wish.org_id.as_deref())?.to_owned();
    let id = ids::project();
    let name = wish
        .name
        .map(|name| checked_name("project.name", name))
        .transpose()?
        .unwrap_or_else(|| id.clone());
    let region_id = wish.region_id.unwrap_or_else(|| DEFAULT_REGION.to_owned());
    if !is_region(&region_id) {
        return Err(ApiError::bad_request(format!(
            "region_id \"{}\" is unknown; GET /regions lists them",
            region_id.escape_debug()
        )));
    }
    // What is installed decides; the reply says what it is.
    let pg_version = wish.pg_version.unwrap_or(DEFAULT_PG_VERSION);
    if !PG_VERSIONS.contains(&pg_version) {
        return Err(ApiError::bad_request(format!(
            "pg_version {pg_version} is not supported; choose 14 to 18, or leave it out"
        )));
    }
    let top = Limits {
        autoscaling_limit_min_cu: wish.autoscaling_limit_min_cu,
        autoscaling_limit_max_cu: wish.autoscaling_limit_max_cu,
    };
    let compute = checked_limits(
        &wish.default_endpoint_settings,
        checked_limits(&top, DEFAULT_LIMITS)?,
    )?;
    let branch_name = match wish.branch.name {
        Some(name) => checked_name("project.branch.name", name)?,
        None => DEFAULT_BRANCH.to_owned(),
    };
    let database_name = wish
        .branch
        .database_name
        .unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    provision::check_database_name(&database_name).map_err(ApiError::bad_request)?;
    let role_name = wish
        .branch
        .role_name
        .unwrap_or_else(|| format!("{database_name}_owner"));
    provision::check_role_name(&role_name).map_err(ApiError::bad_request)?;
    Ok(Plan {
        project: NewProject {
            id,
            org_id,
            name,
            region_id,
            pg_version,
            store_passwords: wish.store_passwords.unwrap_or(true),
            history_retention_seconds: checked_retention(
                wish.history_retention_seconds
                    .unwrap_or(DEFAULT_RETENTION_SECONDS),
            )?,
            compute,
        },
        branch_name,
        role_name,
        database_name,
    })
}

fn checked_name(field: &str, name: String) -> Result<String, ApiError> {
    match name.chars().count() {
        1..=NAME_MAX if !name.contains('\0') => Ok(name),
        1..=NAME_MAX => Err(ApiError::bad_request(format!(
            "{field} holds a NUL character"
        ))),
        length => Err(ApiError::bad_request(format!(
            "{field} must have 1 to {NAME_MAX} characters; it has {length}"
        ))),
    }
}

fn checked_retention(seconds: i32) -> Result<i32, ApiError> {
    if RETENTION_SECONDS.contains(&seconds) {
        Ok(seconds)
    } else {
        let max = RETENTION_SECONDS.end();
        Err(ApiError::bad_request(format!(
            "history_retention_seconds must be between 0 and {max}, not {seconds}"
        )))
    }
}

fn checked_limits(wish: &Limits, current: ComputeLimits) -> Result<ComputeLimits, ApiError> {
    let limits = ComputeLimits {
        min_cu: wish.autoscaling_limit_min_cu.unwrap_or(current.min_cu),
        // A larger minimum alone lifts the maximum with it.
        max_cu: wish.autoscaling_limit_max_cu.unwrap_or_else(|| {
            current
                .max_cu
                .max(wish.autoscaling_limit_min_cu.unwrap_or(0.0))
        }),
    };
    if limits.min_cu >= SMALLEST_CU && limits.max_cu >= limits.min_cu && limits.max_cu.is_finite() {
        Ok(limits)
    } else {
        Err(ApiError::bad_request(format!(
            "autoscaling limits must be {SMALLEST_CU} or more, the minimum not above the maximum"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::auth::KeyKind;
    use super::*;

    fn caller() -> Caller {
        Caller {
            key_id: 1,
            account_id: uuid::Uuid::nil(),
            kind: KeyKind::Personal,
            orgs: vec!["org-a".into()],
        }
    }

    fn planned(json: serde_json::Value) -> Result<Plan, ApiError> {
        plan(&caller(), serde_json::from_value(json).unwrap())
    }

    #[test]
    fn what_is_not_said_is_as_on_neon() {
        let plan = planned(serde_json::json!({"org_id": "org-a", "branch": {}})).unwrap();
        assert_eq!(plan.project.name, plan.project.id);
        assert_eq!(
            (
                plan.branch_name.as_str(),
                plan.database_name.as_str(),
                plan.role_name.as_str()
            ),
            ("main", "neondb", "neondb_owner")
        );
        assert_eq!(plan.project.history_retention_seconds, 86_400);
        assert!(plan.project.store_passwords);

        let plan =
            planned(serde_json::json!({"org_id": "org-a", "branch": {"database_name": "hub"}}))
                .unwrap();
        assert_eq!(plan.role_name, "hub_owner");
    }

    #[test]
    fn a_wrong_wish_is_refused_and_says_which_field() {
        for (wish, says) in [
            (serde_json::json!({}), "org_id is required"),
            (
                serde_json::json!({"org_id": "org-a", "name": ""}),
                "project.name",
            ),
            (
                serde_json::json!({"org_id": "org-a", "name": "x".repeat(257)}),
                "257",
            ),
            (
                serde_json::json!({"org_id": "org-a", "region_id": "mars"}),
                "GET /regions",
            ),
            (
                serde_json::json!({"org_id": "org-a", "pg_version": 13}),
                "pg_version 13",
            ),
            (
                serde_json::json!({"org_id": "org-a", "history_retention_seconds": -1}),
                "history_retention_seconds",
            ),
            (
                serde_json::json!({"org_id": "org-a", "branch": {"role_name": "neon_superuser"}}),
                "reserved",
            ),
            (
                serde_json::json!({"org_id": "org-a", "branch": {"database_name": "template1"}}),
                "reserved",
            ),
            (
                serde_json::json!({"org_id": "org-a", "branch": {"database_name": "x".repeat(60)}}),
                "role name",
            ),
            (
                serde_json::json!({"org_id": "org-a", "autoscaling_limit_max_cu": 0.1}),
                "autoscaling",
            ),
        ] {
            let error = planned(wish.clone())
                .err()
                .unwrap_or_else(|| panic!("{wish} was accepted"));
            assert!(error.to_string().contains(says), "{wish}: {error}");
        }
    }

    #[test]
    fn a_larger_minimum_lifts_the_maximum() {
        let wish = Limits {
            autoscaling_limit_min_cu: Some(4.0),
            autoscaling_limit_max_cu: None,
        };
        let limits = checked_limits(&wish, DEFAULT_LIMITS).unwrap();
        assert_eq!((limits.min_cu, limits.max_cu), (4.0, 4.0));
    }
}
