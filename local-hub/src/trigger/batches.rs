//! Many runs in one go: a batch is made, then its items come as lines of JSON.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::AppState;
use super::auth::EnvironmentKey;
use super::error::{ApiError, Reply};
use super::model::{Body, Environment};
use super::store;
use super::store::batches::Item;
use super::store::runs::{self, Resolved};
use super::tasks::{self, CallHeaders, Options};

/// The vendor's limit.
const MAX_RUNS: i32 = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    run_count: i32,
    idempotency_key: Option<String>,
}

pub(crate) async fn create(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    body: Body,
) -> Reply {
    let new: Create = body.json("Invalid request body")?;
    if new.run_count <= 0 {
        return Err(ApiError::bad_request("runCount must be a positive integer"));
    }
    if new.run_count > MAX_RUNS {
        return Err(ApiError::bad_request(format!(
            "Batch runCount of {} exceeds maximum allowed of {MAX_RUNS}.",
            new.run_count
        )));
    }
    let key = new.idempotency_key.as_deref().filter(|k| !k.is_empty());
    let (batch, is_cached) = store::batches::create(&state.db, &environment.id, new.run_count, key).await?;
    let mut reply = json!({ "id": batch.id, "runCount": batch.run_count, "isCached": is_cached });
    if let Some(key) = key {
        reply["idempotencyKey"] = json!(key);
    }
    let status = if is_cached { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(tasks::with_claims(&environment, status, reply))
}

#[derive(Deserialize)]
struct Line {
    index: i32,
    task: String,
    payload: Option<Value>,
    #[serde(default)]
    options: Options,
}

pub(crate) async fn add_items(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply<Json<Value>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.contains("application/x-ndjson") && !kind.contains("application/ndjson") {
        return Err(ApiError::Refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/x-ndjson or application/ndjson".to_owned(),
        ));
    }
    let batch = store::batches::find(&state.db, &environment.id, &id).await?;
    let batch = batch.ok_or_else(|| ApiError::unprocessable(format!("Batch {id} not found")))?;
    // Read all of it first: a line that is wrong must not leave half a batch behind.
    let mut lines = Vec::new();
    for (at, line) in body.0.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let value: Value = serde_json::from_slice(line)
            .map_err(|e| ApiError::bad_request(format!("Invalid JSON at line {}: {e}", at + 1)))?;
        let line: Line = serde_json::from_value(value)
            .map_err(|e| ApiError::unprocessable(format!("Invalid item at line {}: {e}", at + 1)))?;
        if !(0..batch.run_count).contains(&line.index) {
            let message = format!("Item index {} is not below the batch's runCount of {}", line.index, batch.run_count);
            return Err(ApiError::unprocessable(message));
        }
        lines.push(line);
    }
    // One transaction: a crash leaves all of these lines or none, and a thousand runs do not wait for a thousand commits.
    let mut tx = state.db.begin().await?;
    let sealed = store::batches::lock(&mut tx, &id).await?;
    let mut known = store::batches::indexes(&mut tx, &id).await?;
    let (mut items, mut deduplicated, mut resolved) = (Vec::new(), 0, Resolved::default());
    for line in lines {
        // Also where the call itself has an index twice.
        if sealed || !known.insert(line.index) {
            deduplicated += 1;
            continue;
        }
        items.push(add(&mut tx, &environment, &id, line, &mut resolved).await?);
    }
    store::batches::add_items(&mut tx, &id, &items).await?;
    let (count, sealed) = store::batches::seal(&mut tx, &id).await?;
    tx.commit().await?;
    state.engine.wake();
    Ok(Json(json!({
        "id": id,
        "itemsAccepted": items.len(),
        "itemsDeduplicated": deduplicated,
        "sealed": sealed,
        "enqueuedCount": count,
        "expectedCount": batch.run_count,
    })))
}

/// One item that is refused does not stop the others. The call's key makes a batch that is sent again find its runs.
async fn add(
    tx: &mut PgConnection,
    environment: &Environment,
    batch: &str,
    line: Line,
    resolved: &mut Resolved,
) -> Result<Item, ApiError> {
    let call = CallHeaders::for_batch_item(batch, line.index);
    let made = match tasks::new_run(&line.task, line.payload, line.options, call) {
        Ok(mut new) => {
            new.batch_id = Some(batch.to_owned());
            let development = environment.is_development();
            let created = runs::create_with(tx, &environment.id, development, &new, resolved).await?;
            tasks::made(created, &new.task)
        }
        Err(refusal) => Err(refusal),
    };
    let (run_id, error) = match made {
        Ok((run, _)) => (Some(run), None),
        Err(ApiError::Refused(_, message)) => (None, Some(message)),
        Err(error) => return Err(error),
    };
    Ok(Item { index: line.index, task: line.task, run_id, error })
}

pub(crate) async fn get(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
) -> Reply<Json<Value>> {
    let batch =
        store::batches::find(&state.db, &environment.id, &id).await?.ok_or(ApiError::Missing { retry: false })?;
    let items = store::batches::items(&state.db, &id).await?;
    let errors: Vec<Value> = items
        .iter()
        .filter_map(|item| {
            let error = item.error.as_ref()?;
            Some(json!({ "index": item.index, "taskIdentifier": item.task, "error": error }))
        })
        .collect();
    let status = match (batch.sealed, store::batches::unfinished(&state.db, &id).await?) {
        (false, _) => "PENDING",
        (true, 0) if errors.is_empty() => "COMPLETED",
        (true, 0) if errors.len() < items.len() => "PARTIAL_FAILED",
        (true, 0) => "ABORTED",
        (true, _) => "PROCESSING",
    };
    Ok(Json(json!({
        "id": batch.id,
        "status": status,
        "createdAt": batch.created_at,
        "updatedAt": batch.updated_at,
        "runCount": batch.run_count,
        "runs": items.iter().filter_map(|item| item.run_id.as_ref()).collect::<Vec<_>>(),
        "processing": { "errors": errors },
    })))
}
