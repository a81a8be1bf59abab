//! Triggering a task.
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::EnvironmentKey;
use super::error::{ApiError, Reply};
use super::model::{Body, Environment, TextOrNumber};
use super::store::runs::{self, Created, NewRun};

/// The vendor's limit on a body that triggers a task.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
const MAX_TAGS: usize = 10;
const MAX_TAG_CHARS: usize = 128;
const MAX_KEY_CHARS: usize = 2_048;
/// The vendor's bounds on a run's time, in seconds.
const MIN_MAX_DURATION: f64 = 5.0;
const MAX_MAX_DURATION: f64 = 2_147_483_647.0;

pub(crate) fn clamp_max_duration(seconds: f64) -> f64 {
    seconds.clamp(MIN_MAX_DURATION, MAX_MAX_DURATION)
}

/// A number is seconds.
pub(crate) fn ttl_text(ttl: TextOrNumber) -> String {
    match ttl {
        TextOrNumber::Text(text) => text,
        TextOrNumber::Number(seconds) => format!("{seconds}s"),
    }
}

/// Without the characters that the vendor takes out of queue names; `None` when nothing is left.
pub(crate) fn queue_name(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/')).collect();
    (!name.is_empty()).then_some(name)
}

#[derive(Deserialize)]
struct TriggerBody {
    payload: Option<Value>,
    #[serde(default)]
    options: Options,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Options {
    queue: Option<QueueOption>,
    concurrency_key: Option<TextOrNumber>,
    delay: Option<String>,
    idempotency_key: Option<String>,
    #[serde(rename = "idempotencyKeyTTL")]
    idempotency_key_ttl: Option<String>,
    idempotency_key_options: Option<KeyOptions>,
    lock_to_version: Option<String>,
    machine: Option<String>,
    max_attempts: Option<i32>,
    max_duration: Option<f64>,
    metadata: Option<Value>,
    metadata_type: Option<String>,
    parent_run_id: Option<String>,
    resume_parent_on_completion: bool,
    payload_type: Option<String>,
    tags: Option<Tags>,
    test: bool,
    ttl: Option<TextOrNumber>,
    priority: Option<f64>,
}

#[derive(Deserialize)]
struct QueueOption {
    name: String,
}

#[derive(Deserialize)]
struct KeyOptions {
    key: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    One(String),
    Many(Vec<String>),
}

/// What the headers of a trigger call add to its body.
#[derive(Default)]
pub(crate) struct CallHeaders {
    idempotency_key: Option<String>,
    idempotency_key_ttl: Option<String>,
    request_key: Option<String>,
}

impl CallHeaders {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let text =
            |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned);
        Self {
            idempotency_key: text("idempotency-key"),
            idempotency_key_ttl: text("idempotency-key-ttl"),
            request_key: text("x-trigger-request-idempotency-key"),
        }
    }

    /// Item `index` of a batch is one call, however often it is sent.
    pub(crate) fn for_batch_item(batch: &str, index: i32) -> Self {
        Self { request_key: Some(format!("{batch}:{index}")), ..Self::default() }
    }
}

/// Text and its type, as stored.
pub(crate) fn packet(value: Option<Value>, kind: Option<String>) -> (String, String) {
    let kind = kind.unwrap_or_else(|| "application/json".to_owned());
    let text = match value {
        // A string is the packet as the client serialised it.
        Some(Value::String(text)) => text,
        Some(value) => value.to_string(),
        None => String::new(),
    };
    (text, kind)
}

/// A packet as a value. Super-JSON's plain part is JSON; its notes on types matter to JavaScript only.
pub(crate) fn unpack(text: &str, kind: &str) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    match kind {
        "application/json" => Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))),
        "application/super+json" => match serde_json::from_str(text) {
            Ok(Value::Object(mut packet)) => packet.remove("json"),
            Ok(other) => Some(other),
            Err(_) => Some(Value::String(text.to_owned())),
        },
        _ => Some(Value::String(text.to_owned())),
    }
}

/// A run of `task` as these options describe it. The texts of refusals are the vendor's.
pub(crate) fn new_run(
    task: &str,
    payload: Option<Value>,
    options: Options,
    headers: CallHeaders,
) -> Result<NewRun, ApiError> {
    let tags = match options.tags {
        None => Vec::new(),
        Some(Tags::One(tag)) => vec![tag],
        Some(Tags::Many(tags)) => tags,
    };
    if tags.len() > MAX_TAGS {
        return Err(ApiError::unprocessable(format!(
            "Runs can only have {MAX_TAGS} tags, you're trying to set {}.",
            tags.len()
        )));
    }
    if tags.iter().any(|tag| tag.chars().count() > MAX_TAG_CHARS) {
        return Err(ApiError::bad_request(
            "Validation error: Tags must be less than 128 characters at \"options.tags\"",
        ));
    }
    let idempotency_key = headers.idempotency_key.or(options.idempotency_key).filter(|key| !key.is_empty());
    if idempotency_key.as_ref().is_some_and(|key| key.chars().count() > MAX_KEY_CHARS) {
        return Err(ApiError::bad_request(
            "Validation error: String must contain at most 2048 character(s) at \"options.idempotencyKey\"",
        ));
    }
    let (payload, payload_type) = packet(payload, options.payload_type);
    let (metadata, metadata_type) = match options.metadata {
        None | Some(Value::Null) => (None, None),
        Some(metadata) => {
            let (text, kind) = packet(Some(metadata), options.metadata_type);
            (Some(text), Some(kind))
        }
    };
    let new = NewRun {
        task: task.to_owned(),
        payload,
        payload_type,
        metadata,
        metadata_type,
        tags: tags.into_iter().filter(|tag| !tag.trim().is_empty()).collect(),
        is_test: options.test,
        idempotency_user_key: options.idempotency_key_options.map(|o| o.key),
        idempotency_key_ttl: headers.idempotency_key_ttl.or(options.idempotency_key_ttl),
        idempotency_key,
        request_key: headers.request_key,
        queue: options.queue.and_then(|q| queue_name(&q.name)),
        concurrency_key: options.concurrency_key.map(TextOrNumber::into_text),
        priority: options.priority.filter(|p| p.is_finite()).unwrap_or(0.0).clamp(-MAX_MAX_DURATION, MAX_MAX_DURATION),
        lock_to_version: options.lock_to_version,
        max_attempts: options.max_attempts.filter(|n| *n > 0),
        max_duration: options.max_duration.map(clamp_max_duration),
        machine: options.machine,
        ttl: options.ttl.map(ttl_text),
        delay: options.delay,
        parent_run_id: options.parent_run_id,
        waits: options.resume_parent_on_completion,
        ..NewRun::default()
    };
    let stored = [
        Some(&new.task),
        Some(&new.payload),
        new.metadata.as_ref(),
        new.idempotency_key.as_ref(),
        new.concurrency_key.as_ref(),
    ];
    if stored.into_iter().flatten().chain(&new.tags).any(|text| text.contains('\0')) {
        return Err(ApiError::bad_request("Validation error: a NUL character cannot be stored"));
    }
    Ok(new)
}

/// Makes the run. The flag tells whether it existed by its idempotency key.
pub(crate) async fn create(
    state: &AppState,
    environment: &Environment,
    new: &NewRun,
) -> Result<(String, bool), ApiError> {
    let created = runs::create(&state.db, &environment.id, environment.is_development(), new).await?;
    let is_new = matches!(created, Created::New(_));
    let made = made(created, &new.task)?;
    match is_new {
        true if new.starts_now() => state.engine.wake_ready(),
        true => state.engine.wake(),
        false => {}
    }
    Ok(made)
}

/// The run's id, and whether it existed by its idempotency key; or why there is none.
pub(crate) fn made(created: Created, task: &str) -> Result<(String, bool), ApiError> {
    match created {
        Created::New(id) | Created::Repeated(id) => Ok((id, false)),
        Created::Cached(id) => Ok((id, true)),
        Created::NoVersion(version) => Err(ApiError::unprocessable(format!(
            "Task locked to version '{version}', but no worker found with that version."
        ))),
        Created::NotOnVersion(version) => {
            Err(ApiError::unprocessable(format!("Task '{task}' not found on locked version '{version}'.")))
        }
    }
}

/// A task that the current deployment does not have is no error, as at the vendor: the run waits for a deployment that has it.
pub(crate) async fn trigger(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(task): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    if body.0.len() > MAX_BODY_BYTES {
        return Err(ApiError::too_large());
    }
    if body.0.is_empty() {
        return Err(ApiError::bad_request("Request body is empty"));
    }
    let value: Value = serde_json::from_slice(&body.0).map_err(|_| ApiError::bad_request("Invalid JSON"))?;
    let TriggerBody { payload, options } =
        serde_json::from_value(value).map_err(|e| ApiError::bad_request(format!("Validation error: {e}")))?;
    let new = new_run(&task, payload, options, CallHeaders::read(&headers))?;
    let (id, is_cached) = create(&state, &environment, &new).await?;
    Ok(with_claims(&environment, StatusCode::OK, json!({ "id": id, "isCached": is_cached })))
}

const CLAIMS: HeaderName = HeaderName::from_static("x-trigger-jwt-claims");

/// The SDK signs a token of its own from these claims with the environment's key.
pub(crate) fn with_claims(environment: &Environment, status: StatusCode, body: Value) -> Response {
    let claims = json!({ "sub": environment.id, "pub": true }).to_string();
    let mut response = (status, Json(body)).into_response();
    if let Ok(claims) = HeaderValue::try_from(claims) {
        response.headers_mut().insert(CLAIMS, claims);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_read_back_as_values() {
        for (value, kind, read) in [
            (json!({ "id": 1 }), None, json!({ "id": 1 })),
            (json!("{\"id\":1}"), Some("application/json"), json!({ "id": 1 })),
            (json!("plain words"), Some("application/json"), json!("plain words")),
            (
                json!("{\"json\":{\"at\":\"2026\"},\"meta\":{\"values\":{\"at\":[\"Date\"]}}}"),
                Some("application/super+json"),
                json!({ "at": "2026" }),
            ),
            (json!("words"), Some("text/plain"), json!("words")),
            (json!([1, 2]), None, json!([1, 2])),
        ] {
            let (text, kind) = packet(Some(value.clone()), kind.map(str::to_owned));
            assert_eq!(unpack(&text, &kind), Some(read), "{value}");
        }
        assert_eq!(unpack("", "application/json"), None);
    }

    #[test]
    fn the_header_key_wins_over_the_bodys() {
        let options: Options =
            serde_json::from_value(json!({ "idempotencyKey": "body", "idempotencyKeyTTL": "1h" })).unwrap();
        let headers = CallHeaders { idempotency_key: Some("header".to_owned()), ..CallHeaders::default() };
        let new = new_run("t", None, options, headers).unwrap();
        assert_eq!(new.idempotency_key.as_deref(), Some("header"));
        assert_eq!(new.idempotency_key_ttl.as_deref(), Some("1h"));
    }

    #[test]
    fn options_are_checked_and_normalised() {
        let options = |json| serde_json::from_value::<Options>(json).unwrap();
        let new = new_run(
            "t",
            None,
            options(json!({ "tags": "one", "ttl": 60, "concurrencyKey": 7, "maxDuration": 1, "queue": { "name": "a b" }, "priority": 3 })),
            CallHeaders::default(),
        )
        .unwrap();
        assert_eq!(new.tags, ["one"]);
        assert_eq!(new.ttl.as_deref(), Some("60s"));
        assert_eq!(new.concurrency_key.as_deref(), Some("7"));
        assert_eq!(new.max_duration, Some(5.0));
        assert_eq!(new.queue.as_deref(), Some("ab"));
        for bad in [
            json!({ "tags": vec!["x"; 11] }),
            json!({ "tags": ["y".repeat(129)] }),
            json!({ "idempotencyKey": "k".repeat(2_049) }),
        ] {
            assert!(new_run("t", None, options(bad), CallHeaders::default()).is_err());
        }
        assert!(new_run("t", Some(json!("a\0b")), Options::default(), CallHeaders::default()).is_err());
    }
}
