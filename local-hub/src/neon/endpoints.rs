//! Endpoints: where a branch is reached, and whether its cluster runs.
use axum::Json;
use axum::extract::{Path, State};

use super::auth::Authenticated;
use super::connection::host;
use super::error::ApiError;
use super::model::{Endpoint, EndpointBody, EndpointOperations, Endpoints};
use super::store::operations::{self, Action};
use super::store::projects::{self, EndpointRow};
use super::{Service, worker};

const ACTIVE: &str = "active";
const IDLE: &str = "idle";

/// What a change of roles or databases needs: the cluster has to run for it.
pub(crate) fn apply_actions(endpoint: &EndpointRow) -> &'static [Action] {
    if endpoint.state == ACTIVE { &[Action::ApplyConfig] } else { &[Action::StartCompute, Action::ApplyConfig] }
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
) -> Result<Json<Endpoints>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    reply(projects::endpoints(&service.db, &project).await?)
}

pub(crate) async fn list_of_branch(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<Endpoints>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let branch = projects::branch(&service.db, &project, &branch).await?;
    let mut rows = projects::endpoints(&service.db, &project).await?;
    rows.retain(|row| row.branch_id == branch.id);
    reply(rows)
}

fn reply(rows: Vec<EndpointRow>) -> Result<Json<Endpoints>, ApiError> {
    let endpoints = rows.iter().map(|row| Ok(Endpoint::new(row, host(row)?))).collect::<Result<_, ApiError>>()?;
    Ok(Json(Endpoints { endpoints }))
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, endpoint)): Path<(String, String)>,
) -> Result<Json<EndpointBody>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let row = projects::endpoint(&service.db, &project, &endpoint).await?;
    Ok(Json(EndpointBody { endpoint: Endpoint::new(&row, host(&row)?) }))
}

pub(crate) async fn start(
    service: State<Service>,
    caller: Authenticated,
    path: Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    change(service, caller, path, |state| if state == ACTIVE { &[] } else { &[Action::StartCompute] }).await
}

pub(crate) async fn suspend(
    service: State<Service>,
    caller: Authenticated,
    path: Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    change(service, caller, path, |state| if state == IDLE { &[] } else { &[Action::SuspendCompute] }).await
}

pub(crate) async fn restart(
    service: State<Service>,
    caller: Authenticated,
    path: Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    change(service, caller, path, |state| {
        if state == IDLE { &[Action::StartCompute] } else { &[Action::SuspendCompute, Action::StartCompute] }
    })
    .await
}

async fn change(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, endpoint)): Path<(String, String)>,
    actions: fn(&str) -> &'static [Action],
) -> Result<Json<EndpointOperations>, ApiError> {
    let mut tx = service.db.begin().await?;
    projects::lock(&mut tx, &caller.reach, &project).await?;
    let row = projects::endpoint(&mut *tx, &project, &endpoint).await?;
    let scheduled = operations::schedule(&mut tx, &row, actions(&row.state)).await?;
    // Again, for the state that is to come.
    let row = projects::endpoint(&mut *tx, &project, &endpoint).await?;
    let reply = EndpointOperations {
        endpoint: Endpoint::new(&row, host(&row)?),
        operations: scheduled.iter().map(Into::into).collect(),
    };
    tx.commit().await?;
    if !scheduled.is_empty() {
        worker::spawn(&service, &project, None);
    }
    Ok(Json(reply))
}
