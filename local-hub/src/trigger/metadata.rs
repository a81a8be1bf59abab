//! What a run says of itself while it executes: metadata, and tags.
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::auth::EnvironmentKey;
use super::error::{ApiError, Reply};
use super::model::Body;
use super::{AppState, store};

/// The vendor's limits: bytes of metadata, and tags of a run.
const MAX_METADATA: usize = 256 * 1024;
const MAX_TAGS: usize = 10;

#[derive(Deserialize)]
struct Update {
    metadata: Option<Value>,
    #[serde(default)]
    operations: Vec<Operation>,
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
    let Update { metadata, operations } = body.json("Invalid request body")?;
    let run = store::runs::find(&state.db, &environment.id, &id).await?;
    let run = run.ok_or_else(|| ApiError::not_found("Task Run not found"))?;
    let kept = || run.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let Some(Value::Object(mut object)) = metadata.or_else(kept).or_else(|| Some(json!({}))) else {
        return Err(ApiError::bad_request("Metadata must be an object"));
    };
    for operation in operations {
        operation.apply(&mut object);
    }
    let text = Value::Object(object.clone()).to_string();
    if text.len() > MAX_METADATA {
        return Err(ApiError::Refused(
            axum::http::StatusCode::PAYLOAD_TOO_LARGE,
            format!("Metadata exceeds maximum size of {MAX_METADATA} bytes"),
        ));
    }
    store::runs::set_metadata(&state.db, &environment.id, &id, &text).await?;
    Ok(Json(json!({ "metadata": object })))
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
