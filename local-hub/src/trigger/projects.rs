//! Projects and their environments, for the holder of the access token.
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::{Account, Caller};
use super::error::{ApiError, Reply};
use super::model::{Body, Project, TextOrNumber};
use super::{duration, jwt, orgs, store};

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
                "paused": environment.paused,
            }));
        }
    }
    Ok(Json(all))
}

/// The old key is rejected from now on.
pub(crate) async fn regenerate_key(
    State(state): State<AppState>,
    _: Account,
    Path((project, env)): Path<(String, String)>,
) -> Reply<Json<Value>> {
    let environment = Caller::Account.environment(&state, &project, &env).await?;
    Ok(Json(json!({ "apiKey": store::projects::new_key(&state.db, &environment).await? })))
}

pub(crate) async fn pause(
    State(state): State<AppState>,
    _: Account,
    Path((project, env)): Path<(String, String)>,
) -> Reply<Json<Value>> {
    set_paused(&state, &project, &env, true).await
}

pub(crate) async fn resume(
    State(state): State<AppState>,
    _: Account,
    Path((project, env)): Path<(String, String)>,
) -> Reply<Json<Value>> {
    set_paused(&state, &project, &env, false).await
}

/// What executes goes on; nothing new is started.
async fn set_paused(state: &AppState, project: &str, env: &str, paused: bool) -> Reply<Json<Value>> {
    let environment = Caller::Account.environment(state, project, env).await?;
    store::projects::pause(&state.db, &environment.id, paused).await?;
    state.engine.wake();
    Ok(Json(json!({ "paused": paused, "state": if paused { "paused" } else { "resumed" } })))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mint {
    claims: MintClaims,
    expiration_time: Option<TextOrNumber>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MintClaims {
    scopes: Vec<String>,
}

/// Above this a number is a time (2001), below it a number of seconds, as at the vendor.
const EXPIRY_IS_A_TIME: i64 = 1_000_000_000;
const EXPIRY_SECONDS: i64 = 3_600;

/// A short token for the environment, for those who must not have its key.
pub(crate) async fn mint(
    State(state): State<AppState>,
    _: Account,
    Path((project, env)): Path<(String, String)>,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = Caller::Account.environment(&state, &project, &env).await?;
    let Mint { claims, expiration_time } = body.json("Invalid request body")?;
    let now = chrono::Utc::now().timestamp();
    let expires = match expiration_time {
        None => now + EXPIRY_SECONDS,
        Some(TextOrNumber::Number(n)) => match n.as_i64() {
            Some(n) if n > EXPIRY_IS_A_TIME => n,
            n => now.saturating_add(n.unwrap_or(EXPIRY_SECONDS)),
        },
        Some(TextOrNumber::Text(text)) => {
            let seconds = duration::parse(&text).and_then(|d| i64::try_from(d.as_secs()).ok());
            now.saturating_add(seconds.unwrap_or(EXPIRY_SECONDS))
        }
    };
    let token = jwt::sign(&environment.api_key, &environment.id, &claims.scopes, now, expires);
    Ok(Json(json!({ "token": token })))
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
