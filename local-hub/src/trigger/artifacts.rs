//! Uploads: a place and a policy are asked for with the environment's key; the file itself comes as a form, without a key.
use axum::Json;
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::AppState;
use super::auth::EnvironmentKey;
use super::error::{ApiError, Reply};
use super::model::{Body, Date};
use super::{ids, store};
use crate::tokens;

/// Bytes. A bundle with a program for its tasks in it has about 40 MB.
pub(crate) const MAX_UPLOAD: usize = 100 * 1024 * 1024;
const MINUTES: i32 = 15;
/// Letters and digits of a policy: 190 bits.
const POLICY_LEN: usize = 32;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    #[serde(rename = "type", default = "context")]
    kind: String,
    content_length: Option<u64>,
}

fn context() -> String {
    "deployment_context".to_owned()
}

pub(crate) async fn create(
    State(state): State<AppState>,
    EnvironmentKey(environment): EnvironmentKey,
    body: Body,
) -> Reply {
    let Create { kind, content_length } = body.json("Invalid request body")?;
    // The CLI checks that a bundle's key begins like this.
    let folder = match kind.as_str() {
        "deployment_context" => "deployments",
        "deployment_bundle" => "bundles",
        other => {
            let message = format!("unknown type {other:?}");
            return Err(ApiError::Malformed { what: "Invalid request body", message });
        }
    };
    if content_length.is_some_and(|bytes| bytes > MAX_UPLOAD as u64) {
        return Err(ApiError::bad_request(format!(
            "Artifact size exceeds the allowed limit of {} MB",
            MAX_UPLOAD / 1024 / 1024
        )));
    }
    let key = format!("{folder}/{}/{}.tar.gz", environment.project_ref, ids::cuid());
    let policy = tokens::generate("", POLICY_LEN);
    let expires = store::artifacts::create(&state.db, &environment.id, &key, &policy, MINUTES).await?;
    let reply = json!({
        "artifactKey": key,
        "uploadUrl": format!("{}/upload", state.origin),
        "uploadFields": { "key": key, "policy": policy },
        "expiresAt": Date(expires),
    });
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

/// As an object store takes a form with a signed policy: 204, or 403.
pub(crate) async fn upload(State(state): State<AppState>, mut form: Multipart) -> Response {
    let mut fields = std::collections::HashMap::new();
    let mut file = None;
    loop {
        match form.next_field().await {
            Ok(None) => break,
            Ok(Some(field)) => {
                let name = field.name().unwrap_or_default().to_owned();
                let Ok(bytes) = field.bytes().await else { return ApiError::too_large().into_response() };
                if name == "file" {
                    file = Some(bytes);
                } else if let Ok(text) = String::from_utf8(bytes.to_vec()) {
                    fields.insert(name, text);
                }
            }
            Err(_) => return ApiError::bad_request("The form ended early").into_response(),
        }
    }
    let text = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let Some(file) = file else {
        return ApiError::bad_request("The form has no file").into_response();
    };
    match store::artifacts::fill(&state.db, text("key"), text("policy"), &file).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => ApiError::Refused(StatusCode::FORBIDDEN, "Access denied".to_owned()).into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}
