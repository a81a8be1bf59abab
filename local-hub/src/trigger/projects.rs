//! Projects and their environments, for the holder of the access token.
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::{Account, Caller};
use super::error::{ApiError, Reply};
use super::model::{Body, Project};
use super::{orgs, store};

fn unknown() -> ApiError {
    ApiError::not_found("Project not found")
}

pub(crate) async fn list(State(state): State<AppState>, _: Account) -> Reply<Json<Vec<Project>>> {
    Ok(Json(store::projects::list(&state.db, None).await?))
}

pub(crate) async fn get(
    State(state): State<AppState>,
    _: Account,
    Path(project): Path<String>,
) -> Reply<Json<Project>> {
    Ok(Json(store::projects::find(&state.db, &project).await?.ok_or_else(unknown)?))
}

#[derive(Deserialize)]
struct Rename {
    name: String,
}

pub(crate) async fn rename(
    State(state): State<AppState>,
    _: Account,
    Path(project): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    if store::projects::find(&state.db, &project).await?.is_none() {
        return Err(unknown());
    }
    let invalid = || ApiError::bad_request("Invalid request body");
    let Rename { name } = serde_json::from_slice(&body.0).map_err(|_| invalid())?;
    let name = name.trim();
    if !orgs::NAME_CHARS.contains(&name.chars().count()) {
        return Err(invalid());
    }
    let id = store::projects::rename(&state.db, &project, name).await?.ok_or_else(unknown)?;
    Ok(Json(json!({ "id": id, "name": name })))
}

pub(crate) async fn delete(
    State(state): State<AppState>,
    _: Account,
    Path(project): Path<String>,
) -> Reply<Json<Value>> {
    let (id, runs) = store::projects::delete(&state.db, &project).await?.ok_or_else(unknown)?;
    for run in runs {
        state.engine.cancel(&run);
    }
    Ok(Json(json!({ "id": id })))
}

const SLUGS: [&str; 4] = ["dev", "staging", "prod", "preview"];

/// How a person with only an access token gets the secret key of an environment.
pub(crate) async fn environment(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, env)): Path<(String, String)>,
) -> Reply {
    if !SLUGS.contains(&env.as_str()) {
        return Err(ApiError::bad_request("Invalid Params"));
    }
    let environment = caller.environment(&state, &project, &env).await?;
    Ok(Json(json!({
        "apiKey": environment.api_key,
        "name": environment.project_name,
        "apiUrl": *state.origin,
        "projectId": environment.project_id,
        "defaultRuntime": null,
    }))
    .into_response())
}

pub(crate) async fn environments(
    State(state): State<AppState>,
    _: Account,
    Path(project): Path<String>,
) -> Reply<Json<Vec<Value>>> {
    if store::projects::find(&state.db, &project).await?.is_none() {
        return Err(unknown());
    }
    let mut all = Vec::new();
    for slug in ["dev", "prod"] {
        if let Some(environment) = store::projects::environment(&state.db, &project, slug).await? {
            all.push(json!({
                "id": environment.id,
                "slug": environment.slug,
                "type": environment.kind,
                "isBranchableEnvironment": false,
                "branchName": null,
                "paused": false,
            }));
        }
    }
    Ok(Json(all))
}

/// What runs where: each project's production environment and its current deployment.
pub(crate) async fn runtimes(State(state): State<AppState>, _: Account) -> Reply<Response> {
    let mut rows = Vec::new();
    for project in store::projects::list(&state.db, None).await? {
        let Some(environment) = store::projects::environment(&state.db, &project.reference, "prod").await? else {
            continue;
        };
        let deployment = store::deployments::current(&state.db, &environment.id).await?.map(|d| {
            json!({
                "runtime": d.runtime,
                "runtimeVersion": d.runtime_version,
                "nodeMajor": null,
                "deployedAt": d.deployed_at,
                "shortCode": d.short_code,
            })
        });
        rows.push(json!({
            "organization": { "title": project.organization.title, "slug": project.organization.slug },
            "project": { "name": project.name, "slug": project.slug, "externalRef": project.reference },
            "environment": { "slug": environment.slug },
            "deployment": deployment,
        }));
    }
    Ok(Json(rows).into_response())
}
