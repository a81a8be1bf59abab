//! Runs: lists, one run, and what a caller can do to it.
use axum::Json;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::{Account, EnvironmentKey};
use super::error::{ApiError, Reply};
use super::list::{ListQuery, Query};
use super::model::{Body, Environment};
use super::run_view::{self, Relations};
use super::status::{ApiVersion, CURRENT_API_VERSION};
use super::store::runs::{NewRun, Rescheduled, Run};
use super::tasks::CallHeaders;
use super::{store, tasks};

fn api_version(headers: &HeaderMap) -> ApiVersion {
    match headers.get("x-trigger-api-version") {
        Some(version) if version == CURRENT_API_VERSION => ApiVersion::Current,
        _ => ApiVersion::Unspecified,
    }
}

pub(crate) async fn list(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<Query>,
) -> Reply<Json<Value>> {
    page(&state, &environment.id, &query, api_version(&headers)).await
}

/// For the holder of the access token; the environment is the first of `filter[env]`.
pub(crate) async fn list_for_project(
    State(state): State<AppState>,
    _: Account,
    Path(project): Path<String>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<Query>,
) -> Reply<Json<Value>> {
    if store::projects::find(&state.db, &project).await?.is_none() {
        return Err(ApiError::not_found("Project not found"));
    }
    let slug = query.get("filter[env]").and_then(|v| v.split(',').next()).unwrap_or_default();
    let environment = store::projects::environment(&state.db, &project, slug).await?;
    let environment = environment.ok_or_else(|| ApiError::bad_request("No environment found"))?;
    page(&state, &environment.id, &query, api_version(&headers)).await
}

async fn page(state: &AppState, environment: &str, query: &Query, version: ApiVersion) -> Reply<Json<Value>> {
    let query = ListQuery::parse(query)?;
    let page = store::list::runs(&state.db, environment, &query.filter, &query.cursor, query.size).await?;
    let page = page.ok_or_else(|| ApiError::bad_request("Invalid cursor"))?;
    let mut pagination = json!({});
    for (name, run) in [("next", page.next), ("previous", page.previous)] {
        if let Some(run) = run {
            pagination[name] = json!(run);
        }
    }
    let data: Vec<Value> = page.runs.iter().map(|run| run_view::list_item(run, version)).collect();
    Ok(Json(json!({ "data": data, "pagination": pagination })))
}

async fn find(state: &AppState, environment: &Environment, id: &str) -> Result<Option<Run>, ApiError> {
    Ok(store::runs::find(&state.db, &environment.id, id).await?)
}

async fn detail(
    state: &AppState,
    environment: &Environment,
    run: &Run,
    version: ApiVersion,
) -> Result<Value, ApiError> {
    let mut relations = Relations {
        root: None,
        parent: None,
        children: store::runs::children(&state.db, &environment.id, &run.id).await?,
        schedule: None,
    };
    if let Some(root) = &run.root_run_id {
        relations.root = find(state, environment, root).await?;
    }
    if let Some(parent) = &run.parent_run_id {
        relations.parent = find(state, environment, parent).await?;
    }
    if let Some(schedule) = &run.schedule_id {
        relations.schedule = store::schedules::find(&state.db, &environment.id, schedule).await?;
    }
    Ok(run_view::detail(run, &relations, version))
}

pub(crate) async fn get(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Reply<Json<Value>> {
    // A run is stored before its trigger is answered, but the vendor tells its SDK to ask again, and clients count on it.
    let run = find(&state, &environment, &id).await?.ok_or(ApiError::Missing { retry: true })?;
    Ok(Json(detail(&state, &environment, &run, api_version(&headers)).await?))
}

/// Idempotent; a run that has ended stays as it is.
pub(crate) async fn cancel(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    if !store::runs::cancel(&state.db, &environment.id, &id).await? {
        return Err(ApiError::not_found("Resource not found"));
    }
    state.engine.cancel(&id);
    Ok(Json(json!({ "id": id })))
}

/// What a replay may change, in the body's names and in those of the options of a trigger.
const REPLAY_OPTIONS: [(&str, &str); 12] = [
    ("payloadType", "payloadType"),
    ("metadata", "metadata"),
    ("tags", "tags"),
    ("concurrencyKey", "concurrencyKey"),
    ("machine", "machine"),
    ("version", "lockToVersion"),
    ("delay", "delay"),
    ("ttl", "ttl"),
    ("idempotencyKey", "idempotencyKey"),
    ("idempotencyKeyTTL", "idempotencyKeyTTL"),
    ("maxAttempts", "maxAttempts"),
    ("maxDuration", "maxDuration"),
];

/// A new run of the same task, on the current deployment, of what the old one was given and the body does not change. It has no
/// idempotency key of its own accord: two replays are two runs.
pub(crate) async fn replay(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply<Json<Value>> {
    let run = find(&state, &environment, &id).await?.ok_or_else(|| ApiError::not_found("Run not found"))?;
    let changes: serde_json::Map<String, Value> = match body.0.trim_ascii() {
        [] => serde_json::Map::new(),
        _ => body.json("Invalid request body")?,
    };
    let new = replayed(run, &changes, CallHeaders::read(&headers))?;
    let (id, _) = tasks::create(&state, &environment, &new).await?;
    Ok(Json(json!({ "id": id })))
}

fn replayed(run: Run, changes: &serde_json::Map<String, Value>, call: CallHeaders) -> Result<NewRun, ApiError> {
    let given = |name: &str| changes.get(name).filter(|v| !v.is_null());
    let mut options = json!({ "priority": given("priority") });
    for (name, option) in REPLAY_OPTIONS {
        if let Some(value) = given(name) {
            options[option] = value.clone();
        }
    }
    if let Some(queue) = given("queue") {
        options["queue"] = json!({ "name": queue });
    }
    let options =
        serde_json::from_value(options).map_err(|e| ApiError::bad_request(format!("Validation error: {e}")))?;
    let mut new = tasks::new_run(&run.task, given("payload").cloned(), options, call)?;
    if given("payload").is_none() {
        (new.payload, new.payload_type) = (run.payload, run.payload_type);
    }
    if given("metadata").is_none() {
        (new.metadata, new.metadata_type) = (run.metadata, run.metadata_type);
    }
    if given("tags").is_none() {
        new.tags = run.tags;
    }
    new.is_test = run.is_test;
    new.queue = new.queue.or(Some(run.queue));
    new.concurrency_key = new.concurrency_key.or(run.concurrency_key);
    new.machine = new.machine.or(run.machine);
    new.replayed_from = Some(run.id);
    Ok(new)
}

#[derive(Deserialize)]
struct Reschedule {
    delay: String,
}

pub(crate) async fn reschedule(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply<Json<Value>> {
    let Reschedule { delay } =
        serde_json::from_slice(&body.0).map_err(|_| ApiError::bad_request("Invalid request body"))?;
    let unknown = || ApiError::not_found("Run not found");
    match store::runs::reschedule(&state.db, &environment.id, &id, &delay).await? {
        Rescheduled::Done => state.engine.wake(),
        Rescheduled::NotFound => return Err(unknown()),
        Rescheduled::NotDelayed => {
            return Err(ApiError::bad_request("Cannot reschedule a run that is not delayed"));
        }
        Rescheduled::InvalidDelay => {
            return Err(ApiError::bad_request(format!("Invalid delay: {delay}")));
        }
    }
    let run = find(&state, &environment, &id).await?.ok_or_else(unknown)?;
    Ok(Json(detail(&state, &environment, &run, api_version(&headers)).await?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResetKey {
    task_identifier: String,
}

/// `key` as the trigger call had it: the SDK's hash, not what its caller wrote.
pub(crate) async fn reset_key(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(key): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let ResetKey { task_identifier: task } = serde_json::from_slice(&body.0)
        .map_err(|_| ApiError::bad_request("Validation error: Required at \"taskIdentifier\""))?;
    if !store::runs::reset_key(&state.db, &environment.id, &task, &key).await? {
        return Err(ApiError::not_found(format!("No runs found with idempotency key: {key} and task: {task}")));
    }
    Ok(Json(json!({ "id": key })))
}
