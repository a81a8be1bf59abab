//! Deployments: PENDING or BUILDING → (a worker registers) DEPLOYING → (finalize) DEPLOYED, or FAILED on the way.
use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::AppState;
use super::auth::EnvironmentKey;
use super::bundle;
use super::cron::Cron;
use super::duration;
use super::error::{ApiError, Reply};
use super::model::{Body, Date, Environment};
use super::store;
use super::store::deployments::{Deployment, Filter, Initialized, NewDeployment, Promotion};
use super::store::schedules::Declared;

pub(crate) const IMAGE_PLATFORM: &str = "linux/amd64";
/// The vendor's limit on an external id.
const MAX_EXTERNAL_ID: usize = 128;
const DEFAULT_PAGE: i64 = 20;
const PAGE: std::ops::RangeInclusive<i64> = 5..=100;

pub(crate) fn unknown() -> ApiError {
    ApiError::not_found("Deployment not found")
}

/// There is no registry here: the name only says which deployment it stands for.
fn image(environment: &Environment, deployment: &Deployment) -> String {
    let digest = deployment.image_digest.as_deref().map(|d| format!("@{d}")).unwrap_or_default();
    format!("local/{}:{}.{}{digest}", environment.project_ref, deployment.version(), environment.slug)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialize {
    content_hash: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    initial_status: Option<String>,
    external_id: Option<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    is_native_build: bool,
    #[serde(default)]
    from_bundle: bool,
    artifact_key: Option<String>,
    #[serde(default)]
    skip_promotion: bool,
    runtime: Option<String>,
    git_meta: Option<Value>,
}

pub(crate) async fn initialize(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    body: Body,
) -> Reply<Json<Value>> {
    let new: Initialize = body.json("Invalid body")?;
    let kind = new.kind.as_deref().unwrap_or("V1");
    let status = new.initial_status.as_deref().unwrap_or("BUILDING");
    if !["MANAGED", "UNMANAGED", "V1"].contains(&kind) || !["PENDING", "BUILDING"].contains(&status) {
        let message = format!("unknown type {kind:?} or initialStatus {status:?}");
        return Err(ApiError::Malformed { what: "Invalid body", message });
    }
    if new.external_id.as_ref().is_some_and(|id| id.chars().count() > MAX_EXTERNAL_ID) {
        let message = format!("externalId is longer than {MAX_EXTERNAL_ID} characters");
        return Err(ApiError::Malformed { what: "Invalid body", message });
    }
    if kind == "UNMANAGED" {
        return Err(ApiError::bad_request("UNMANAGED deployments are not supported"));
    }
    let artifact_key = match (new.is_native_build, new.from_bundle, new.artifact_key.as_deref()) {
        (false, ..) => None,
        (true, true, Some(key)) => {
            if store::artifacts::content(&state.db, &environment.id, key).await?.is_none() {
                return Err(ApiError::bad_request("Artifact not found"));
            }
            Some(key)
        }
        (true, ..) => {
            return Err(ApiError::bad_request(
                "The local hub has no build server. Deploy with `psn run trigger-provision`, or pass --local-bundle to the trigger.dev CLI.",
            ));
        }
    };
    let initialized = store::deployments::initialize(
        &state.db,
        &environment.id,
        NewDeployment {
            content_hash: &new.content_hash,
            kind,
            status,
            external_id: new.external_id.as_deref().filter(|id| !id.is_empty()),
            runtime: new.runtime.as_deref(),
            git: new.git_meta.as_ref(),
            force: new.force,
            artifact_key,
            skip_promotion: new.skip_promotion,
        },
    )
    .await?;
    let reply = |deployment: &Deployment, outcome: &str| {
        let mut reply = json!({
            "id": deployment.id,
            "contentHash": deployment.content_hash,
            "shortCode": deployment.short_code,
            "version": deployment.version(),
            "imageTag": image(&environment, deployment),
            "imagePlatform": IMAGE_PLATFORM,
            "outcome": outcome,
        });
        if let Some(external_id) = &deployment.external_id {
            reply["externalId"] = json!(external_id);
        }
        reply
    };
    match initialized {
        Initialized::Created { deployment, canceled } => {
            if let Some(key) = artifact_key {
                bundle::build(&state, &environment, &deployment, key, new.skip_promotion);
            }
            let mut reply = reply(&deployment, "created");
            // Placeholders, as the vendor sends them for a build that does not happen on its builders.
            reply["externalBuildData"] = json!({ "projectId": "-", "buildToken": "-", "buildId": "-" });
            reply["canceledDeployments"] = canceled
                .iter()
                .map(|(version, short_code)| json!({ "version": version, "shortCode": short_code }))
                .collect::<Vec<_>>()
                .into();
            Ok(Json(reply))
        }
        Initialized::Existing(deployment) => {
            let mut reply = reply(&deployment, "existing");
            reply["isPromoted"] = json!(deployment.promoted);
            Ok(Json(reply))
        }
        Initialized::InProgress(version) => Err(ApiError::Refused(
            StatusCode::CONFLICT,
            format!(
                "A deployment for external id \"{}\" is already in progress (version {version}). Wait for it to finish, or deploy \
                 again with --force to cancel it and start a new one.",
                new.external_id.unwrap_or_default()
            ),
        )),
    }
}

pub(crate) async fn get(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    let deployment = store::deployments::find(&state.db, &environment.id, &id).await?.ok_or_else(unknown)?;
    let mut reply = json!({
        "id": deployment.id,
        "status": deployment.status,
        "contentHash": deployment.content_hash,
        "shortCode": deployment.short_code,
        "version": deployment.version(),
        "imageReference": image(&environment, &deployment),
        "imagePlatform": IMAGE_PLATFORM,
        "commitSHA": deployment.git.as_ref().and_then(|g| g.get("commitSha")).and_then(Value::as_str),
        "externalBuildData": null,
        "errorData": deployment.error,
        "canceledReason": null,
    });
    if let Some(external_id) = &deployment.external_id {
        reply["externalId"] = json!(external_id);
    }
    if let Some(worker) = store::deployments::worker(&state.db, &deployment.id).await? {
        let tasks = store::deployments::tasks(&state.db, &worker.id).await?;
        reply["worker"] = json!({
            "id": worker.id,
            "version": deployment.version(),
            "tasks": tasks.iter().map(|t| json!({
                "id": t.id,
                "slug": t.slug,
                "filePath": t.file_path,
                "exportName": t.export_name.as_deref().unwrap_or("@deprecated"),
            })).collect::<Vec<_>>(),
        });
    }
    Ok(Json(reply))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    id: &'a str,
    created_at: Date,
    short_code: &'a str,
    version: String,
    runtime: Option<&'a str>,
    runtime_version: Option<&'a str>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployed_at: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    git: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Value>,
    external_id: Option<&'a str>,
}

impl<'a> From<&'a Deployment> for Summary<'a> {
    fn from(d: &'a Deployment) -> Self {
        Self {
            id: &d.id,
            created_at: d.created_at,
            short_code: &d.short_code,
            version: d.version(),
            runtime: d.runtime.as_deref(),
            runtime_version: d.runtime_version.as_deref(),
            // The list's schema has no INSTALLING; to a reader of the list it is a build.
            status: if d.status == "INSTALLING" { "BUILDING" } else { &d.status },
            deployed_at: d.deployed_at,
            git: d.git.as_ref(),
            error: d.error.as_ref(),
            external_id: d.external_id.as_deref(),
        }
    }
}

pub(crate) async fn current(State(state): State<AppState>, EnvironmentKey(environment): EnvironmentKey) -> Reply {
    let deployment = store::deployments::current(&state.db, &environment.id).await?;
    let deployment = deployment.ok_or(ApiError::Missing { retry: false })?;
    Ok(Json(Summary::from(&deployment)).into_response())
}

/// At the vendor this knows unmanaged deployments only, which neither it nor this service makes any more.
pub(crate) async fn latest(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
) -> Reply<Json<Value>> {
    let deployment = store::deployments::latest(&state.db, &environment.id, "UNMANAGED").await?.ok_or_else(unknown)?;
    Ok(Json(json!({
        "id": deployment.id,
        "status": deployment.status,
        "contentHash": deployment.content_hash,
        "shortCode": deployment.short_code,
        "version": deployment.version(),
        "imageReference": image(&environment, &deployment),
        "imagePlatform": IMAGE_PLATFORM,
        "errorData": deployment.error,
    })))
}

pub(crate) async fn list(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Query(query): Query<HashMap<String, String>>,
) -> Reply {
    let text = |name: &str| query.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let invalid =
        |name: &str, value: &str| ApiError::bad_request(format!("Invalid search query parameter: {name}={value}"));
    let date = |name: &'static str| match text(name) {
        None => Ok(None),
        Some(value) => duration::date(value).map(Some).ok_or_else(|| invalid(name, value)),
    };
    let size: i64 = match text("page[size]") {
        None => DEFAULT_PAGE,
        Some(size) => size.parse().map_err(|_| ApiError::query("page[size]", "Expected number"))?,
    };
    let size = size.clamp(*PAGE.start(), *PAGE.end());
    let status = text("status");
    if let Some(s) = status
        && !["PENDING", "BUILDING", "DEPLOYING", "DEPLOYED", "FAILED", "CANCELED", "TIMED_OUT"].contains(&s)
    {
        return Err(ApiError::query("status", "Invalid enum value"));
    }
    let period = match text("period") {
        None => None,
        Some(value) => Some(duration::parse(value).ok_or_else(|| invalid("period", value))?.as_secs_f64()),
    };
    let filter =
        Filter { status, after: text("page[after]"), from: date("from")?, to: date("to")?, period, limit: size + 1 };
    let mut deployments = store::deployments::list(&state.db, &environment.id, filter).await?;
    let more = i64::try_from(deployments.len()).unwrap_or(i64::MAX) > size;
    deployments.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    let mut pagination = json!({});
    if let Some(last) = deployments.last().filter(|_| more) {
        pagination["next"] = json!(last.id);
    }
    let data: Vec<Summary<'_>> = deployments.iter().map(Summary::from).collect();
    Ok(Json(json!({ "data": data, "pagination": pagination })).into_response())
}

#[derive(Deserialize)]
struct Fail {
    error: FailError,
}

#[derive(Deserialize, Serialize)]
struct FailError {
    name: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
}

/// Idempotent; a deployment that has ended stays as it is.
pub(crate) async fn fail(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let fail: Fail = body.json("Invalid body")?;
    store::deployments::fail(&state.db, &environment.id, &id, &json!(fail.error)).await?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finalize {
    #[serde(default)]
    skip_promotion: bool,
    image_digest: Option<String>,
}

/// Answers with an event stream, whatever happens after the body was read: that is where its clients look.
pub(crate) async fn finalize(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    body: Body,
) -> Reply {
    let request: Finalize = body.json("Invalid body")?;
    let mut events = String::from("event: ping\ndata: {}\n\n");
    let mut event = |name: &str, data: Value| events.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    event("log", json!({ "message": "Registering tasks and schedules" }));
    let digest = request.image_digest.as_deref().map(str::trim).filter(|d| is_digest(d));
    match finish(&state, &environment, &id, digest, request.skip_promotion).await {
        Ok(()) => event("complete", json!({ "id": id })),
        Err(ApiError::Refused(_, message)) => event("error", json!({ "error": message })),
        Err(error) => {
            tracing::error!(%error, deployment = %id, "finalizing a deployment failed");
            event("error", json!({ "error": "Internal server error" }));
        }
    }
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, events).into_response())
}

/// DEPLOYING → DEPLOYED, and promoted unless that was not wanted.
pub(crate) async fn finish(
    state: &AppState,
    environment: &Environment,
    id: &str,
    digest: Option<&str>,
    skip_promotion: bool,
) -> Result<(), ApiError> {
    let deployment = store::deployments::find(&state.db, &environment.id, id).await?.ok_or_else(unknown)?;
    if store::deployments::worker(&state.db, id).await?.is_none() {
        return Err(ApiError::bad_request("Worker deployment does not have a worker"));
    }
    // A client that lost the answer asks again.
    if deployment.status == "DEPLOYED" {
        return Ok(());
    }
    let declared = declared_schedules(state, environment, id).await?;
    // In one transaction: killed between the two, a deployment would be DEPLOYED and never current.
    let mut tx = state.db.begin().await?;
    if !store::deployments::finish(&mut tx, &environment.id, id, digest).await? {
        return Err(ApiError::bad_request("Worker deployment is not in DEPLOYING status"));
    }
    let promotion = match skip_promotion {
        true => Promotion::Done,
        false => store::deployments::promote(&mut tx, &environment.id, &deployment, &declared, false).await?,
    };
    tx.commit().await?;
    promoted(state, &promotion)
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

async fn declared_schedules(state: &AppState, environment: &Environment, id: &str) -> Result<Vec<Declared>, ApiError> {
    let mut declared = Vec::new();
    for (task, expression, timezone) in store::deployments::declared_schedules(&state.db, id, &environment.kind).await?
    {
        let cron =
            Cron::parse(&expression, &timezone, &state.origin).map_err(|e| ApiError::bad_request(e.to_string()))?;
        declared.push(Declared { task, expression, timezone, cron });
    }
    Ok(declared)
}

fn promoted(state: &AppState, promotion: &Promotion) -> Result<(), ApiError> {
    match promotion {
        Promotion::Done => {
            state.engine.wake();
            Ok(())
        }
        Promotion::AlreadyCurrent => Err(ApiError::bad_request("Deployment is already the current deployment.")),
        Promotion::Older => {
            Err(ApiError::bad_request("Cannot promote a deployment that is older than the current deployment."))
        }
    }
}

pub(crate) async fn promote(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(version): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Reply<Json<Value>> {
    let deployment = store::deployments::by_version(&state.db, &environment.id, &version).await?.ok_or_else(unknown)?;
    let allow_rollback = query.get("allowRollbacks").is_some_and(|v| v == "true");
    if store::deployments::worker(&state.db, &deployment.id).await?.is_none() {
        return Err(ApiError::bad_request("Deployment is not associated with a worker and cannot be promoted."));
    }
    if deployment.status != "DEPLOYED" {
        return Err(ApiError::bad_request("Deployment must be in the DEPLOYED state to be promoted."));
    }
    let declared = declared_schedules(&state, &environment, &deployment.id).await?;
    let mut tx = state.db.begin().await?;
    let promotion =
        store::deployments::promote(&mut tx, &environment.id, &deployment, &declared, allow_rollback).await?;
    tx.commit().await?;
    promoted(&state, &promotion)?;
    Ok(Json(json!({ "id": deployment.id, "version": version, "shortCode": deployment.short_code })))
}
