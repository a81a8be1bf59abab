//! Databases of a branch.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::auth::Authenticated;
use super::endpoints::apply_actions;
use super::error::ApiError;
use super::extract::Body;
use super::model::{DatabaseBody, DatabaseOperations, Databases};
use super::store::{objects, operations, projects};
use super::{Service, provision, worker};

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    database: CreateDatabase,
}

#[derive(Deserialize)]
struct CreateDatabase {
    name: String,
    owner_name: String,
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<Databases>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let branch = projects::branch(&service.db, &project, &branch).await?;
    let rows = objects::databases(&service.db, &branch.id).await?;
    Ok(Json(Databases { databases: rows.iter().map(Into::into).collect() }))
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch, database)): Path<(String, String, String)>,
) -> Result<Json<DatabaseBody>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let branch = projects::branch(&service.db, &project, &branch).await?;
    let row =
        objects::database(&service.db, &branch.id, &database).await?.ok_or_else(|| ApiError::not_found("database"))?;
    Ok(Json(DatabaseBody { database: (&row).into() }))
}

pub(crate) async fn create(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch)): Path<(String, String)>,
    Body(CreateBody { database: wish }): Body<CreateBody>,
) -> Result<(StatusCode, Json<DatabaseOperations>), ApiError> {
    provision::check_database_name(&wish.name).map_err(ApiError::bad_request)?;
    let mut tx = service.db.begin().await?;
    let project = projects::lock(&mut tx, &caller.reach, &project).await?;
    let branch = projects::branch(&mut *tx, &project.id, &branch).await?;
    objects::role(&mut *tx, &branch.id, &wish.owner_name).await?.ok_or_else(|| ApiError::not_found("role"))?;
    let already = || ApiError::conflict(format!("database \"{}\" already exists", wish.name));
    let row = objects::insert_database(&mut tx, &branch.id, &wish.name, &wish.owner_name).await?.ok_or_else(already)?;
    // One made with SQL.
    if let Some(cluster) = service.clusters.info(&project.id)
        && provision::database_exists(&cluster, &wish.name).await?
    {
        return Err(already());
    }
    let endpoint = projects::endpoint_of_branch(&mut *tx, &branch.id).await?;
    let scheduled = operations::schedule(&mut tx, &endpoint, apply_actions(&endpoint)).await?;
    tx.commit().await?;
    worker::spawn(&service, &project.id, None);
    let operations = scheduled.iter().map(Into::into).collect();
    Ok((StatusCode::CREATED, Json(DatabaseOperations { database: (&row).into(), operations })))
}

/// 204 when there is no such database, as Neon documents it.
pub(crate) async fn delete(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch, database)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let mut tx = service.db.begin().await?;
    let project = projects::lock(&mut tx, &caller.reach, &project).await?;
    let branch = projects::branch(&mut *tx, &project.id, &branch).await?;
    let Some(row) = objects::database(&mut *tx, &branch.id, &database).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    objects::drop_database(&mut tx, row.id).await?;
    let endpoint = projects::endpoint_of_branch(&mut *tx, &branch.id).await?;
    let scheduled = operations::schedule(&mut tx, &endpoint, apply_actions(&endpoint)).await?;
    tx.commit().await?;
    worker::spawn(&service, &project.id, None);
    let operations = scheduled.iter().map(Into::into).collect();
    Ok(Json(DatabaseOperations { database: (&row).into(), operations }).into_response())
}
