//! Roles of a branch. Those made here bypass row-level security, as on Neon; an app's own role is made with SQL.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::auth::Authenticated;
use super::connection::no_password;
use super::endpoints::apply_actions;
use super::error::ApiError;
use super::extract::Body;
use super::model::{Role, RoleBody, RoleOperations, RolePassword, Roles};
use super::store::objects::{self, RoleRow, Secret};
use super::store::{operations, projects};
use super::{Service, ids, provision, worker};
use crate::pg::scram_verifier;

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    role: CreateRole,
}

#[derive(Deserialize)]
struct CreateRole {
    name: String,
    #[serde(default)]
    no_login: bool,
}

/// A new password: what is stored of it, and what the caller is told.
pub(crate) fn new_secret(store_passwords: bool) -> (Secret, String) {
    let password = ids::password();
    let secret = Secret { verifier: scram_verifier(&password), password: store_passwords.then(|| password.clone()) };
    (secret, password)
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<Roles>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let branch = projects::branch(&service.db, &project, &branch).await?;
    let rows = objects::roles(&service.db, &branch.id).await?;
    Ok(Json(Roles { roles: rows.iter().map(Into::into).collect() }))
}

pub(crate) async fn get(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch, role)): Path<(String, String, String)>,
) -> Result<Json<RoleBody>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let row = find(&service, &project, &branch, &role).await?;
    Ok(Json(RoleBody { role: (&row).into() }))
}

pub(crate) async fn reveal_password(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch, role)): Path<(String, String, String)>,
) -> Result<Json<RolePassword>, ApiError> {
    projects::get(&service.db, &caller.reach, &project).await?;
    let row = find(&service, &project, &branch, &role).await?;
    let password = objects::password(&service.db, row.id).await?.ok_or_else(no_password)?;
    Ok(Json(RolePassword { password }))
}

async fn find(service: &Service, project: &str, branch: &str, role: &str) -> Result<RoleRow, ApiError> {
    let branch = projects::branch(&service.db, project, branch).await?;
    objects::role(&service.db, &branch.id, role).await?.ok_or_else(|| ApiError::not_found("role"))
}

pub(crate) async fn create(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch)): Path<(String, String)>,
    Body(CreateBody { role: wish }): Body<CreateBody>,
) -> Result<(StatusCode, Json<RoleOperations>), ApiError> {
    provision::check_role_name(&wish.name).map_err(ApiError::bad_request)?;
    let mut tx = service.db.begin().await?;
    let project = projects::lock(&mut tx, &caller.reach, &project).await?;
    let branch = projects::branch(&mut *tx, &project.id, &branch).await?;
    let secret = (!wish.no_login).then(|| new_secret(project.store_passwords));
    let already = || ApiError::conflict(format!("role \"{}\" already exists", wish.name));
    let row = objects::insert_role(&mut tx, &branch.id, &wish.name, secret.as_ref().map(|(secret, _)| secret))
        .await?
        .ok_or_else(already)?;
    // One made with SQL would otherwise gain BYPASSRLS and a new password here.
    if let Some(cluster) = service.clusters.info(&project.id)
        && provision::role_exists(&cluster, &wish.name).await?
    {
        return Err(already());
    }
    let endpoint = projects::endpoint_of_branch(&mut *tx, &branch.id).await?;
    let scheduled = operations::schedule(&mut tx, &endpoint, apply_actions(&endpoint)).await?;
    tx.commit().await?;
    worker::spawn(&service, &project.id, None);
    let role = Role::from(&row).with_password(secret.map(|(_, password)| password));
    Ok((StatusCode::CREATED, Json(RoleOperations { role, operations: scheduled.iter().map(Into::into).collect() })))
}

pub(crate) async fn reset_password(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch, role)): Path<(String, String, String)>,
) -> Result<Json<RoleOperations>, ApiError> {
    let mut tx = service.db.begin().await?;
    let project = projects::lock(&mut tx, &caller.reach, &project).await?;
    let branch = projects::branch(&mut *tx, &project.id, &branch).await?;
    let row = objects::role(&mut *tx, &branch.id, &role).await?.ok_or_else(|| ApiError::not_found("role"))?;
    if row.no_login {
        return Err(ApiError::unprocessable(format!("role \"{}\" cannot log in, so it has no password", row.name)));
    }
    let (secret, password) = new_secret(project.store_passwords);
    let row = objects::reset_password(&mut tx, row.id, &secret).await?;
    let endpoint = projects::endpoint_of_branch(&mut *tx, &branch.id).await?;
    let scheduled = operations::schedule(&mut tx, &endpoint, apply_actions(&endpoint)).await?;
    tx.commit().await?;
    worker::spawn(&service, &project.id, None);
    let role = Role::from(&row).with_password(Some(password));
    Ok(Json(RoleOperations { role, operations: scheduled.iter().map(Into::into).collect() }))
}

/// 204 when there is no such role, as Neon documents it.
pub(crate) async fn delete(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((project, branch, role)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let mut tx = service.db.begin().await?;
    let project = projects::lock(&mut tx, &caller.reach, &project).await?;
    let branch = projects::branch(&mut *tx, &project.id, &branch).await?;
    let Some(row) = objects::role(&mut *tx, &branch.id, &role).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let owned = objects::databases_of(&mut *tx, &branch.id, &row.name).await?;
    if !owned.is_empty() {
        let message = format!("role \"{}\" owns the databases {}; delete them first", row.name, owned.join(", "));
        return Err(ApiError::unprocessable(message));
    }
    objects::drop_role(&mut tx, row.id).await?;
    let endpoint = projects::endpoint_of_branch(&mut *tx, &branch.id).await?;
    let scheduled = operations::schedule(&mut tx, &endpoint, apply_actions(&endpoint)).await?;
    tx.commit().await?;
    worker::spawn(&service, &project.id, None);
    let operations = scheduled.iter().map(Into::into).collect();
    Ok(Json(RoleOperations { role: (&row).into(), operations }).into_response())
}
