//! Environment variables of a project's environment. Secrets go out redacted, except to the environment's own key.
use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::{Caller, EnvironmentKey};
use super::error::{ApiError, Reply};
use super::model::{Body, Environment};
use super::store::{self, envvars::Listed};

/// Set by the platform for each run; nobody else may. The third is this service's own, like them.
pub(crate) const PLATFORM_NAMES: [&str; 3] = ["TRIGGER_SECRET_KEY", "TRIGGER_API_URL", "TRIGGER_PROJECT_REF"];

fn unknown() -> ApiError {
    ApiError::not_found("Environment variable not found")
}

/// The real values, for the deploy tool and for the runs themselves.
pub(crate) async fn resolved(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(project): Path<String>,
) -> Reply<Json<Value>> {
    if environment.project_ref != project {
        return Err(ApiError::not_found("Project not found"));
    }
    let variables = store::envvars::values(&state.db, &environment.id).await?;
    Ok(Json(json!({ "variables": variables, "allowEmptyEnvironmentVariableValues": false })))
}

pub(crate) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env)): Path<(String, String)>,
) -> Reply<Json<Vec<Listed>>> {
    let environment = caller.environment(&state, &project, &env).await?;
    Ok(Json(store::envvars::redacted(&state.db, &environment.id, None).await?))
}

pub(crate) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env, name)): Path<(String, String, String)>,
) -> Reply<Json<Listed>> {
    let environment = caller.environment(&state, &project, &env).await?;
    let mut found = store::envvars::redacted(&state.db, &environment.id, Some(&name)).await?;
    found.pop().map(Json).ok_or_else(unknown)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    name: String,
    value: String,
    is_secret: Option<bool>,
}

pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env)): Path<(String, String)>,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = caller.environment(&state, &project, &env).await?;
    let new: Create = body.json("Invalid request body")?;
    set(&state, &environment, BTreeMap::from([(new.name, new.value)]), new.is_secret, true).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Import {
    variables: BTreeMap<String, String>,
    #[serde(default, rename = "override")]
    overwrite: bool,
    is_secret: Option<bool>,
}

pub(crate) async fn import(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env)): Path<(String, String)>,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = caller.environment(&state, &project, &env).await?;
    let new: Import = serde_json::from_slice(&body.0).map_err(|_| ApiError::bad_request("Invalid body"))?;
    set(&state, &environment, new.variables, new.is_secret, new.overwrite).await
}

async fn set(
    state: &AppState,
    environment: &Environment,
    variables: BTreeMap<String, String>,
    is_secret: Option<bool>,
    overwrite: bool,
) -> Reply<Json<Value>> {
    let given = variables.len();
    let allowed: Vec<(String, String)> =
        variables.into_iter().filter(|(name, _)| !PLATFORM_NAMES.contains(&name.as_str())).collect();
    let removed = allowed.len() < given;
    // Postgres keeps no NUL, and no environment takes one.
    let valid: Vec<(String, String)> = allowed
        .into_iter()
        .filter(|(name, value)| {
            !name.trim().is_empty() && !value.trim().is_empty() && !name.contains('\0') && !value.contains('\0')
        })
        .collect();
    if valid.is_empty() {
        let more = if removed { " All the variables submitted are not allowed." } else { "" };
        return Err(ApiError::bad_request(format!("You must set at least one valid variable.{more}")));
    }
    let existing = store::envvars::import(&state.db, &environment.id, &valid, is_secret, overwrite).await?;
    if !existing.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Some of the variables are already set for these environments. Set override to true to override them. ({})",
            existing.join(", ")
        )));
    }
    Ok(Json(json!({ "success": true })))
}

#[derive(Deserialize)]
struct Update {
    value: String,
}

pub(crate) async fn update(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env, name)): Path<(String, String, String)>,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = caller.environment(&state, &project, &env).await?;
    let update: Update = body.json("Invalid request body")?;
    if update.value.contains('\0') {
        return Err(ApiError::bad_request("Invalid request body"));
    }
    if !store::envvars::update(&state.db, &environment.id, &name, &update.value).await? {
        return Err(unknown());
    }
    Ok(Json(json!({ "success": true })))
}

pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env, name)): Path<(String, String, String)>,
) -> Reply<Json<Value>> {
    let environment = caller.environment(&state, &project, &env).await?;
    if !store::envvars::delete(&state.db, &environment.id, &name).await? {
        return Err(unknown());
    }
    Ok(Json(json!({ "success": true })))
}
