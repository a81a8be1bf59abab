//! What a run says of itself while it executes: metadata, and tags.
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::auth::EnvironmentKey;
use super::error::{ApiError, Reply};
use super::model::Body;
use super::store::runs::Run;
use super::tasks::unpack;
use super::{AppState, store};

/// The vendor's limits: bytes of metadata, and tags of a run.
const MAX_METADATA: usize = 256 * 1024;
const MAX_TAGS: usize = 10;

/// What a run does to its own metadata, and to that of the run that started it and of the first one above it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Update {
    metadata: Option<Value>,
    operations: Vec<Operation>,
    parent_operations: Vec<Operation>,
    root_operations: Vec<Operation>,
}

/// As the SDK batches what a task does to its metadata. A key is a name; paths into it belong to the client.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Operation {
    Set {
        key: String,
        value: Value,
    },
    Delete {
        key: String,
    },
    Append {
        key: String,
        value: Value,
    },
    Remove {
        key: String,
        value: Value,
    },
    Increment {
        key: String,
        value: f64,
    },
    Update {
        value: Map<String, Value>,
    },
    #[serde(other)]
    Unknown,
}

impl Operation {
    fn apply(self, metadata: &mut Map<String, Value>) {
        match self {
            Self::Set { key, value } => drop(metadata.insert(key, value)),
            Self::Delete { key } => drop(metadata.remove(&key)),
            Self::Append { key, value } => match metadata.entry(key).or_insert_with(|| json!([])) {
                Value::Array(list) => list.push(value),
                other => *other = json!([other.clone(), value]),
            },
            Self::Remove { key, value } => {
                if let Some(Value::Array(list)) = metadata.get_mut(&key) {
                    list.retain(|v| *v != value);
                }
            }
            Self::Increment { key, value } => {
                let now = metadata.get(&key).and_then(Value::as_f64).unwrap_or_default();
                metadata.insert(key, json!(now + value));
            }
            Self::Update { value } => *metadata = value,
            Self::Unknown => {}
        }
    }
}

pub(crate) async fn update(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let update: Update = body.json("Invalid request body")?;
    let run = store::runs::find(&state.db, &environment.id, &id).await?;
    let run = run.ok_or_else(|| ApiError::not_found("Task Run not found"))?;
    Ok(Json(json!({ "metadata": apply(&state, &run, update).await? })))
}

/// Answers the run's own metadata as they are then.
pub(crate) async fn apply(state: &AppState, run: &Run, update: Update) -> Result<Value, ApiError> {
    // A run that nobody started is its own parent and root, as at the vendor.
    let parent = run.parent_run_id.as_ref().unwrap_or(&run.id);
    let root = run.root_run_id.as_ref().unwrap_or(&run.id);
    for (id, operations) in [(parent, update.parent_operations), (root, update.root_operations)] {
        if !operations.is_empty() {
            change(state, run, id, None, operations).await?;
        }
    }
    change(state, run, &run.id, update.metadata, update.operations).await
}

/// One run's metadata: new, or as they are, then each operation in turn.
async fn change(
    state: &AppState,
    by: &Run,
    id: &str,
    metadata: Option<Value>,
    operations: Vec<Operation>,
) -> Result<Value, ApiError> {
    let mut tx = state.db.begin().await?;
    let kept = store::runs::lock_metadata(&mut tx, &by.environment_id, id).await?;
    let kept = kept.and_then(|(text, kind)| unpack(&text?, kind.as_deref().unwrap_or("application/json")));
    let Some(Value::Object(mut object)) = metadata.or(kept).or_else(|| Some(json!({}))) else {
        return Err(ApiError::bad_request("Metadata must be an object"));
    };
    for operation in operations {
        operation.apply(&mut object);
    }
    let object = Value::Object(object);
    let text = object.to_string();
    if text.len() > MAX_METADATA {
        return Err(ApiError::Refused(
            axum::http::StatusCode::PAYLOAD_TOO_LARGE,
            format!("Metadata exceeds maximum size of {MAX_METADATA} bytes"),
        ));
    }
    store::runs::set_metadata(&mut tx, &by.environment_id, id, &text).await?;
    tx.commit().await?;
    Ok(object)
}

#[derive(Deserialize)]
struct AddTags {
    tags: Tags,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    One(String),
    Many(Vec<String>),
}

pub(crate) async fn add_tags(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    Path(id): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let AddTags { tags } = body.json("Invalid request body")?;
    let run = store::runs::find(&state.db, &environment.id, &id).await?;
    let run = run.ok_or_else(|| ApiError::not_found("Task Run not found"))?;
    let mut all = run.tags;
    let new = match tags {
        Tags::One(tag) => vec![tag],
        Tags::Many(tags) => tags,
    };
    for tag in new {
        if !all.contains(&tag) {
            all.push(tag);
        }
    }
    if all.len() > MAX_TAGS {
        return Err(ApiError::unprocessable(format!(
            "Runs can only have {MAX_TAGS} tags, you're trying to set {}.",
            all.len()
        )));
    }
    store::runs::set_tags(&state.db, &environment.id, &id, &all).await?;
    Ok(Json(json!({ "message": format!("Successfully set {} tags", all.len()) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_done_in_order() {
        let operations: Vec<Operation> = serde_json::from_value(json!([
            { "type": "set", "key": "a", "value": 1 },
            { "type": "increment", "key": "a", "value": 2 },
            { "type": "append", "key": "log", "value": "one" },
            { "type": "append", "key": "log", "value": "two" },
            { "type": "remove", "key": "log", "value": "one" },
            { "type": "stream", "key": "s", "value": "x" },
            { "type": "set", "key": "gone", "value": true },
            { "type": "delete", "key": "gone" },
        ]))
        .unwrap();
        let mut metadata = Map::new();
        for operation in operations {
            operation.apply(&mut metadata);
        }
        assert_eq!(Value::Object(metadata), json!({ "a": 3.0, "log": ["two"] }));
    }
}
