//! Projects: list, create, get, change, delete, recover.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::auth::{Authenticated, Caller};
use super::error::ApiError;
use super::extract::{self, Body, Params};
use super::model::{Endpoint, Pagination, ProjectBody, ProjectCreated, ProjectList, ProjectRecovered, ProjectUpdated};
use super::plan::{CreateBody, UpdateBody, checked_limits, checked_name, checked_retention, plan};
use super::roles::new_secret;
use super::store::objects;
use super::store::operations::{self, Action, OperationRow};
use super::store::projects::{self, BranchRow, ComputeLimits, EndpointRow, Listing, ProjectRow};
use super::{Service, connection, ids, worker};

/// As Neon's API documents them.
const LIST_DEFAULT: i64 = 10;
const LIST_MAX: i64 = 400;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    org_id: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
    search: Option<String>,
    #[serde(default)]
    recoverable: bool,
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Params(params): Params<ListParams>,
) -> Result<Json<ProjectList>, ApiError> {
    let listing = Listing {
        org_id: caller.org(params.org_id.as_deref())?,
        project: caller.reach.project.as_deref(),
        search: params.search.as_deref(),
        recoverable: params.recoverable,
        after: extract::cursor(params.cursor.as_deref())?,
        limit: extract::limit(params.limit, LIST_DEFAULT, LIST_MAX)?,
    };
    let mut rows = projects::list(&service.db, &listing).await?;
    let pagination = Pagination::after(rows.last().map(|row| row.seq), params.cursor);
    let hidden = if service.faults.hides_projects() { rows.drain(..).map(|row| row.id).collect() } else { Vec::new() };
    Ok(Json(ProjectList {
        projects: rows.iter().map(Into::into).collect(),
        unavailable_project_ids: hidden,
        pagination,
        applications: Some(Default::default()),
        integrations: Some(Default::default()),
    }))
}

/// There is one account, so nobody shares anything with it.
pub(crate) async fn shared(Params(params): Params<ListParams>) -> Result<Json<ProjectList>, ApiError> {
    extract::limit(params.limit, LIST_DEFAULT, LIST_MAX)?;
    Ok(Json(ProjectList {
        projects: Vec::new(),
        unavailable_project_ids: Vec::new(),
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
    caller.require_all_projects()?;
    let plan = plan(&caller, body.project)?;
    let project = plan.project.id.clone();
    let (secret, password) = new_secret(plan.project.store_passwords);

    let mut tx = service.db.begin().await?;
    projects::insert(&mut tx, &plan.project).await?;
    let (branch, endpoint) = (ids::branch(), ids::endpoint());
    projects::insert_branch(&mut tx, &project, &branch, &plan.branch_name).await?;
    projects::insert_endpoint(&mut tx, &project, &branch, &endpoint).await?;
    // Both names are free: the branch is new.
    let role =
        objects::insert_role(&mut tx, &branch, &plan.role_name, Some(&secret)).await?.ok_or_else(ApiError::internal)?;
    let database = objects::insert_database(&mut tx, &branch, &plan.database_name, &plan.role_name)
        .await?
        .ok_or_else(ApiError::internal)?;
    let endpoint_row = projects::endpoint(&mut *tx, &project, &endpoint).await?;
    let scheduled =
        operations::schedule(&mut tx, &endpoint_row, &[Action::CreateTimeline, Action::StartCompute]).await?;
    tx.commit().await?;

    let (created, wait) = oneshot::channel();
    worker::spawn(&service, &project, Some(created));
    match wait.await {
        Ok(Ok(())) => {}
        // Nothing is left of it, so it is safe to send again: what 503 says.
        Ok(Err(error)) => {
            return Err(ApiError::unavailable(format!("the project could not be created; {error}")));
        }
        Err(_) => return Err(ApiError::internal()),
    }

    let Created { project, branch, endpoint, operations } = reread(&service, &caller, &project, &scheduled).await?;
    let host = connection::host(&endpoint)?;
    let pooler = connection::pooler_host(&service, &endpoint);
    let reply = ProjectCreated {
        project: (&project).into(),
        connection_uris: vec![connection::details(&role.name, &password, &host, pooler, &database.name)],
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
    let project = projects::get(&service.db, &caller.reach, project).await?;
    let branch = projects::default_branch(&service.db, &project.id).await?;
    let endpoint = projects::endpoint_of_branch(&service.db, &branch.id).await?;
    let mut operations = Vec::with_capacity(scheduled.len());
    for operation in scheduled {
        let now = operations::get(&service.db, &project.id, operation.id).await?;
        operations.push(now.ok_or_else(ApiError::internal)?);
    }
    Ok(Created { project, branch, endpoint, operations })
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<ProjectBody>, ApiError> {
    let row = projects::get(&service.db, &caller.reach, &project).await?;
    Ok(Json(ProjectBody { project: (&row).into() }))
}

pub(crate) async fn update(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
    Body(body): Body<UpdateBody>,
) -> Result<Json<ProjectUpdated>, ApiError> {
    let mut tx = service.db.begin().await?;
    let mut row = projects::lock(&mut tx, &caller.reach, &project).await?;
    if let Some(name) = body.project.name {
        row.name = checked_name("project.name", name)?;
    }
    if let Some(seconds) = body.project.history_retention_seconds {
        row.history_retention_seconds = checked_retention(seconds)?;
    }
    let current = ComputeLimits { min_cu: row.autoscaling_limit_min_cu, max_cu: row.autoscaling_limit_max_cu };
    let limits = checked_limits(&body.project.default_endpoint_settings, current)?;
    (row.autoscaling_limit_min_cu, row.autoscaling_limit_max_cu) = (limits.min_cu, limits.max_cu);
    projects::update(&mut tx, &row).await?;
    let row = projects::get(&mut *tx, &caller.reach, &project).await?;
    tx.commit().await?;
    Ok(Json(ProjectUpdated { project: (&row).into(), operations: Vec::new() }))
}

/// Hides the project and stops its cluster. Everything stays on disk for a week.
pub(crate) async fn delete(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<ProjectBody>, ApiError> {
    caller.require_all_projects()?;
    let mut tx = service.db.begin().await?;
    let row = projects::lock(&mut tx, &caller.reach, &project).await?;
    for endpoint in projects::endpoints(&mut *tx, &project).await? {
        operations::schedule(&mut tx, &endpoint, &[Action::SuspendCompute]).await?;
    }
    projects::mark_deleted(&mut tx, &project).await?;
    tx.commit().await?;
    worker::spawn(&service, &project, None);
    Ok(Json(ProjectBody { project: (&row).into() }))
}

pub(crate) async fn recover(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<ProjectRecovered>, ApiError> {
    caller.require_all_projects()?;
    let mut tx = service.db.begin().await?;
    projects::lock_deleted(&mut tx, &caller.reach, &project).await?;
    projects::mark_recovered(&mut tx, &project).await?;
    for endpoint in projects::endpoints(&mut *tx, &project).await? {
        operations::schedule(&mut tx, &endpoint, &[Action::StartCompute]).await?;
    }
    let row = projects::get(&mut *tx, &caller.reach, &project).await?;
    let branches = projects::branches(&mut *tx, &project).await?;
    tx.commit().await?;
    worker::spawn(&service, &project, None);
    Ok(Json(ProjectRecovered { project: (&row).into(), branches: branches.iter().map(Into::into).collect() }))
}
