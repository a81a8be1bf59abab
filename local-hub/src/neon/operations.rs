//! The history of a project's operations.
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use uuid::Uuid;

use super::Service;
use super::auth::Authenticated;
use super::error::ApiError;
use super::extract::{self, Params};
use super::model::{OperationBody, OperationList, Pagination};
use super::store::{operations, projects};

/// As Neon's API documents it; also what a list without a limit holds at most.
const LIST_MAX: i64 = 1000;

#[derive(Deserialize)]
pub(crate) struct ListParams {
    limit: Option<i64>,
    cursor: Option<String>,
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(project): Path<String>,
    Params(params): Params<ListParams>,
) -> Result<Json<OperationList>, ApiError> {
    let limit = extract::limit(params.limit, LIST_MAX, LIST_MAX)?;
    let before = extract::cursor(params.cursor.as_deref())?;
    projects::get(&service.db, &caller.reach, &project).await?;
    let rows = operations::list(&service.db, &project, before, limit).await?;
    let pagination = Pagination::after(rows.last().map(|row| row.seq), params.cursor);
    Ok(Json(OperationList { operations: rows.iter().map(Into::into).collect(), pagination }))
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, operation)): Path<(String, String)>,
) -> Result<Json<OperationBody>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let id = Uuid::parse_str(&operation).map_err(|_| ApiError::not_found("operation"))?;
    let row = operations::get(&service.db, &project, id).await?.ok_or_else(|| ApiError::not_found("operation"))?;
    Ok(Json(OperationBody { operation: (&row).into() }))
}
