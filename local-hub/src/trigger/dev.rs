//! A worker that fetches its runs: the routes of Trigger.dev's development engine, as `trigger dev` calls them. A run that such a
//! worker holds has a lease like any other; the worker's heartbeats keep it, and its snapshot's id carries the lease's token.
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::EnvironmentKey;
use super::engine::queue::{self, Claimant, Ending, Lease};
use super::engine::retry::Problem;
use super::envvars::PLATFORM_NAMES;
use super::error::{ApiError, Reply};
use super::model::{Body, Date, Environment};
use super::status::RunStatus;
use super::store::runs::Run;
use super::{AppState, metadata, store, tasks, workers};

/// Milliseconds between two fetches, the vendor's.
const FETCH_WITH_RUN: u32 = 250;
const FETCH_WITHOUT_RUN: u32 = 1_000;
const MOST_RUNS: usize = 5;
/// However long a worker asks a run to be put off, it is tried again within a day.
const LONGEST_DELAY: Duration = Duration::from_secs(86_400);

fn development(environment: Environment) -> Result<Environment, ApiError> {
    match environment.is_development() {
        true => Ok(environment),
        false => Err(ApiError::Refused(
            StatusCode::FORBIDDEN,
            "This endpoint is only available for dev environments".to_owned(),
        )),
    }
}

pub(crate) async fn config(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    Ok(Json(json!({
        "environmentId": environment.id,
        "dequeueIntervalWithRun": FETCH_WITH_RUN,
        "dequeueIntervalWithoutRun": FETCH_WITHOUT_RUN,
        "maxConcurrentRuns": MOST_RUNS,
        "engineUrl": *state.origin,
    })))
}

/// A new version of the worker: its tasks are current from now on, and its schedules are the declared ones.
pub(crate) async fn register(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(project): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    if environment.project_ref != project {
        return Err(ApiError::not_found("Project not found"));
    }
    workers::register_development(&state, &environment, &body).await
}

/// The token of a lease in the id of a snapshot; the letter says which of the run's snapshots it is.
fn snapshot(state: char, token: Uuid, status: &str) -> Value {
    let id = format!("{state}{}", token.simple());
    json!({
        "id": id,
        "friendlyId": format!("snapshot_{id}"),
        "executionStatus": status,
        "description": status,
        "createdAt": Date(Utc::now()),
    })
}

fn token(snapshot: &str) -> Option<Uuid> {
    Uuid::try_parse(snapshot.strip_prefix("snapshot_")?.get(1..)?).ok()
}

fn machine() -> Value {
    json!({ "name": "small-1x", "cpu": 0.5, "memory": 0.5, "centsPerMs": 0 })
}

pub(crate) async fn dequeue(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    let claimed = queue::claim(&state.db, Claimant::Worker { environment: &environment.id }, 1).await?;
    let mut messages = Vec::new();
    for run in claimed {
        let worker = store::run_worker::worker_of_run(&state.db, &run.id).await?;
        let Some((worker, version)) = worker else { continue };
        messages.push(json!({
            "version": "1",
            "snapshot": snapshot('p', run.lease_token, "PENDING_EXECUTING"),
            "dequeuedAt": Date(Utc::now()),
            "completedWaitpoints": [],
            "backgroundWorker": { "id": worker, "friendlyId": worker, "version": version },
            "deployment": {},
            "run": {
                "id": run.id, "friendlyId": run.id, "isTest": false, "machine": machine(),
                "attemptNumber": run.attempt, "masterQueue": "main", "traceContext": {},
            },
            "environment": { "id": environment.id, "type": environment.kind },
            "organization": { "id": environment.organization_id },
            "project": { "id": environment.project_id },
        }));
    }
    Ok(Json(json!({ "dequeuedMessages": messages })))
}

fn gone() -> ApiError {
    ApiError::Refused(StatusCode::UNAUTHORIZED, "You don't have permissions for this run".to_owned())
}

async fn find(state: &AppState, environment: &Environment, id: &str) -> Result<Run, ApiError> {
    store::runs::find(&state.db, &environment.id, id).await?.ok_or_else(gone)
}

fn shown(run: &Run) -> Value {
    json!({ "id": run.id, "friendlyId": run.id, "status": run.status.name(), "attemptNumber": run.attempt })
}

pub(crate) async fn start(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path((id, snap)): Path<(String, String)>,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    let lease = Lease { run: id.clone(), token: token(&snap).ok_or_else(gone)? };
    let mut variables = queue::begin(&state.db, &lease).await?.ok_or_else(gone)?;
    let run = find(&state, &environment, &id).await?;
    let file = store::run_worker::file_of_run(&state.db, &id).await?.unwrap_or_default();
    let platform = [environment.api_key.as_str(), &state.origin, environment.project_ref.as_str()];
    for (name, value) in PLATFORM_NAMES.iter().zip(platform) {
        variables.insert((*name).to_owned(), value.to_owned());
    }
    variables.insert("TRIGGER_RUN_ID".to_owned(), id.clone());
    variables.insert("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("{}/otel", state.origin));
    let payload = if run.payload.is_empty() { "{}" } else { &run.payload };
    let mut execution_run = json!({
        "id": id, "payload": payload, "payloadType": run.payload_type, "tags": run.tags, "isTest": run.is_test,
        "createdAt": run.created_at, "startedAt": run.started_at, "version": run.version,
    });
    if let Some(seconds) = store::run_worker::limit_of_run(&state.db, &id).await? {
        execution_run["maxDuration"] = json!(seconds);
    }
    if let Some(metadata) = run.metadata.as_deref().and_then(|t| serde_json::from_str::<Value>(t).ok()) {
        execution_run["metadata"] = metadata;
    }
    Ok(Json(json!({
        "snapshot": snapshot('e', lease.token, "EXECUTING"),
        "run": shown(&run),
        "execution": {
            "attempt": { "number": run.attempt, "startedAt": Date(Utc::now()) },
            "run": execution_run,
            "task": { "id": run.task, "filePath": file },
            "queue": { "id": run.queue, "name": run.queue },
            "environment": { "id": environment.id, "slug": environment.slug, "type": environment.kind },
            "organization": { "id": environment.organization_id, "slug": environment.organization_slug, "name": environment.organization_title },
            "project": {
                "id": environment.project_id, "ref": environment.project_ref,
                "slug": environment.project_slug, "name": environment.project_name,
            },
            "machine": machine(),
        },
        "envVars": variables,
    })))
}

/// A run that was cancelled, or is somebody else's by now, shows as ended: its worker stops.
pub(crate) async fn latest(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    let run = find(&state, &environment, &id).await?;
    let lease = store::runs::lease(&state.db, &id).await?;
    let snapshot = match (lease, run.status) {
        (Some(token), RunStatus::Executing) => snapshot('e', token, "EXECUTING"),
        (Some(token), _) => snapshot('p', token, "PENDING_EXECUTING"),
        (None, RunStatus::Pending | RunStatus::RetryingAfterFailure) => snapshot('q', Uuid::nil(), "QUEUED"),
        (None, _) => snapshot('f', Uuid::nil(), "FINISHED"),
    };
    Ok(Json(
        json!({ "execution": { "version": "1", "snapshot": snapshot, "run": shown(&run), "completedWaitpoints": [] } }),
    ))
}

pub(crate) async fn heartbeat(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path((run, snap)): Path<(String, String)>,
) -> Reply<Json<Value>> {
    development(environment)?;
    let lease = Lease { run, token: token(&snap).ok_or_else(gone)? };
    Ok(Json(json!({ "ok": queue::heartbeat(&state.db, &lease).await? })))
}

pub(crate) async fn debug_log(EnvironmentKey(environment): EnvironmentKey) -> Reply<StatusCode> {
    development(environment)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Complete {
    completion: Completion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Completion {
    ok: bool,
    output: Option<String>,
    output_type: Option<String>,
    error: Option<TaskError>,
    retry: Option<Retry>,
    flushed_metadata: Option<Packet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Packet {
    data: Option<String>,
    data_type: Option<String>,
}

#[derive(Deserialize)]
struct Retry {
    /// Milliseconds.
    delay: f64,
}

#[derive(Deserialize)]
struct TaskError {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    message: Option<String>,
    code: Option<String>,
    raw: Option<String>,
}

impl TaskError {
    /// The status that the vendor gives a run that ended with it.
    fn status(&self) -> RunStatus {
        match self.code.as_deref() {
            Some("MAX_DURATION_EXCEEDED") => RunStatus::TimedOut,
            Some("TASK_RUN_CANCELLED") => RunStatus::Canceled,
            Some(code) if code.starts_with("TASK_PROCESS") => RunStatus::Crashed,
            Some(_) if self.kind == "INTERNAL_ERROR" => RunStatus::SystemFailure,
            _ => RunStatus::CompletedWithErrors,
        }
    }

    fn problem(&self) -> Problem {
        let name = self.name.as_deref().or(self.code.as_deref()).unwrap_or("Error");
        Problem::new(name, self.message.as_deref().or(self.raw.as_deref()).unwrap_or("the task failed"))
    }
}

pub(crate) async fn complete(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path((id, snap)): Path<(String, String)>,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    let Complete { completion } = body.json("Invalid request body")?;
    let lease = Lease { run: id.clone(), token: token(&snap).ok_or_else(gone)? };
    if let Some(flushed) = completion.flushed_metadata
        && store::runs::lease(&state.db, &id).await? == Some(lease.token)
    {
        flush(&state, &find(&state, &environment, &id).await?, flushed).await?;
    }
    let ending = match (completion.ok, completion.error, completion.retry) {
        (true, ..) => {
            let kind = completion.output_type.as_deref().unwrap_or("application/json");
            let output = tasks::unpack(&completion.output.unwrap_or_default(), kind).unwrap_or_default();
            Ending::Completed { output: output.to_string() }
        }
        (false, Some(error), Some(retry)) => {
            let after = Duration::try_from_secs_f64(retry.delay / 1_000.0).unwrap_or_default().min(LONGEST_DELAY);
            Ending::Again { after, error: error.problem() }
        }
        (false, Some(error), None) => Ending::Failed { status: error.status(), error: error.problem() },
        (false, None, _) => {
            return Err(ApiError::bad_request("Invalid request body: a completion that is not ok has an error"));
        }
    };
    if !queue::end(&state.db, &lease, &ending).await? {
        let run = find(&state, &environment, &id).await?;
        // It was cancelled meanwhile, or given to another worker: what this one has to say comes too late.
        return Ok(result("RUN_FINISHED", &snapshot('f', lease.token, "FINISHED"), &run));
    }
    state.engine.wake();
    let run = find(&state, &environment, &id).await?;
    let (status, snapshot) = match ending {
        Ending::Again { .. } => ("RETRY_QUEUED", snapshot('q', lease.token, "QUEUED")),
        _ => ("RUN_FINISHED", snapshot('f', lease.token, "FINISHED")),
    };
    Ok(result(status, &snapshot, &run))
}

/// What the task did to metadata and had not sent yet: operations, in the form of the SDK's packets.
async fn flush(state: &AppState, run: &Run, packet: Packet) -> Result<(), ApiError> {
    let kind = packet.data_type.as_deref().unwrap_or("application/json");
    let value = packet.data.as_deref().and_then(|text| tasks::unpack(text, kind));
    // What is no such thing is no reason to lose how the attempt ended.
    if let Some(update) = value.and_then(|v| serde_json::from_value::<metadata::Update>(v).ok()) {
        metadata::apply(state, run, update).await?;
    }
    Ok(())
}

fn result(status: &str, snapshot: &Value, run: &Run) -> Json<Value> {
    Json(json!({ "result": { "attemptStatus": status, "snapshot": snapshot, "run": shown(run) } }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disconnect {
    run_friendly_ids: Vec<String>,
}

/// The worker goes; the runs that it was executing end with it.
pub(crate) async fn disconnect(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    body: Body,
) -> Reply<Json<Value>> {
    let environment = development(environment)?;
    let Disconnect { run_friendly_ids } = body.json("Invalid request body")?;
    let mut cancelled = 0;
    for id in &run_friendly_ids {
        let open =
            store::runs::find(&state.db, &environment.id, id).await?.is_some_and(|run| run.finished_at.is_none());
        if open && store::runs::cancel(&state.db, &environment.id, id).await? {
            cancelled += 1;
        }
    }
    Ok(Json(json!({ "cancelled": cancelled })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_carries_its_lease() {
        let lease = Uuid::new_v4();
        let shown = snapshot('e', lease, "EXECUTING");
        assert_eq!(token(shown["friendlyId"].as_str().unwrap()), Some(lease));
        for bad in ["", "snapshot_", "snapshot_e", "snapshot_é", "run_1", "snapshot_exyz"] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let error = |json| serde_json::from_value::<TaskError>(json).unwrap();
        for (json, status, name) in [
            (
                json!({ "type": "BUILT_IN_ERROR", "name": "TypeError", "message": "x", "stackTrace": "" }),
                RunStatus::CompletedWithErrors,
                "TypeError",
            ),
            (json!({ "type": "STRING_ERROR", "raw": "no" }), RunStatus::CompletedWithErrors, "Error"),
            (
                json!({ "type": "INTERNAL_ERROR", "code": "MAX_DURATION_EXCEEDED" }),
                RunStatus::TimedOut,
                "MAX_DURATION_EXCEEDED",
            ),
            (
                json!({ "type": "INTERNAL_ERROR", "code": "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE" }),
                RunStatus::Crashed,
                "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE",
            ),
            (
                json!({ "type": "INTERNAL_ERROR", "code": "COULD_NOT_IMPORT_TASK" }),
                RunStatus::SystemFailure,
                "COULD_NOT_IMPORT_TASK",
            ),
        ] {
            let error = error(json);
            assert_eq!((error.status(), error.problem().name.as_str()), (status, name));
        }
    }
}
