//! Errors as Trigger.dev words them. The bodies are part of the wire format: its clients show and match them.
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("no authorization header")]
    MissingAuthorization,
    #[error("{1}")]
    Unauthorized(StatusCode, &'static str),
    /// A token that does not allow this.
    #[error("unauthorized")]
    Forbidden,
    /// `{"error": message}` with this status.
    #[error("{1}")]
    Refused(StatusCode, String),
    /// This body, where a client looks at more than its message.
    #[error("refused")]
    Body(StatusCode, Value),
    /// A body or query of the wrong shape; `what` is the route's own wording.
    #[error("{what}: {message}")]
    Malformed { what: &'static str, message: String },
    #[error("query parameter {param}: {message}")]
    Query { param: String, message: String },
    /// The generic `Not found` of the newer routes; `retry` tells the SDK whether asking again can help.
    #[error("not found")]
    Missing { retry: bool },
    #[error("the control database failed")]
    Database(#[from] sqlx::Error),
}

impl ApiError {
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::Refused(StatusCode::NOT_FOUND, message.into())
    }
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::Refused(StatusCode::BAD_REQUEST, message.into())
    }
    /// What the vendor calls a service validation error, on the routes that answer it with 422.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::Refused(StatusCode::UNPROCESSABLE_ENTITY, message.into())
    }
    pub(crate) fn access_token() -> Self {
        Self::Unauthorized(StatusCode::UNAUTHORIZED, "Invalid or Missing Access Token")
    }
    pub(crate) fn api_key() -> Self {
        Self::Unauthorized(StatusCode::UNAUTHORIZED, "Invalid API Key")
    }
    pub(crate) fn too_large() -> Self {
        Self::Refused(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large".to_owned())
    }
    pub(crate) fn query(param: &str, message: impl Into<String>) -> Self {
        Self::Query { param: param.to_owned(), message: message.into() }
    }

    fn parts(self) -> (StatusCode, Value) {
        match self {
            Self::MissingAuthorization => {
                let detail = "No authorization header provided";
                (StatusCode::UNAUTHORIZED, problem(StatusCode::UNAUTHORIZED, "Unauthorized", detail))
            }
            Self::Unauthorized(status, message) => (status, json!({ "error": message })),
            Self::Body(status, body) => (status, body),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                json!({ "error": "Unauthorized", "code": "unauthorized", "param": "access_token", "type": "authorization" }),
            ),
            Self::Refused(status, message) => (status, json!({ "error": message })),
            Self::Malformed { what, message } => (
                StatusCode::BAD_REQUEST,
                json!({ "error": what, "issues": [{ "code": "custom", "path": [], "message": message }] }),
            ),
            Self::Query { param, message } => (
                StatusCode::BAD_REQUEST,
                json!({ "error": "Query Error", "details": [{ "code": "custom", "path": [param], "message": message }] }),
            ),
            Self::Missing { .. } => (StatusCode::NOT_FOUND, json!({ "error": "Not found" })),
            Self::Database(error) if is_bad_data(&error) => (
                StatusCode::BAD_REQUEST,
                json!({ "error": "Invalid request: it has a character or number that cannot be stored" }),
            ),
            Self::Database(error) => {
                tracing::error!(%error, "a Trigger.dev request failed in the control database");
                (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": "Internal Server Error" }))
            }
        }
    }
}

/// SQLSTATE class 22, data exception: a NUL in a text, a number out of range. The caller sent it.
fn is_bad_data(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code.starts_with("22"))
}

/// RFC 7807 with the vendor's extra `error`.
pub(crate) fn problem(status: StatusCode, title: &str, detail: &str) -> Value {
    json!({
        "title": title,
        "status": status.as_u16(),
        "type": format!("https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/{}", status.as_u16()),
        "detail": detail,
        "error": detail,
    })
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let is_problem = matches!(self, Self::MissingAuthorization);
        let retry = match self {
            Self::Missing { retry } => Some(retry),
            _ => None,
        };
        let (status, body) = self.parts();
        let mut response = (status, Json(body)).into_response();
        if is_problem {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            // What is left of the body would be taken for the next request.
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        if let Some(retry) = retry {
            let value = header::HeaderValue::from_static(if retry { "true" } else { "false" });
            response.headers_mut().insert("x-should-retry", value);
        }
        response
    }
}

pub(crate) type Reply<T = Response> = Result<T, ApiError>;
