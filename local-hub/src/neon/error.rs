//! What the API says when it says no: Neon's `GeneralError`, with the request's id in the body and in a header.
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

/// Neon's own words; clients look for them.
pub(crate) const UNAUTHENTICATED: &str = "supplied credentials do not pass authentication";
pub(crate) const ORG_ID_REQUIRED: &str = "org_id is required, you can find it on your organization settings page";
pub(crate) const NOT_FOR_ORG_KEYS: &str = "not allowed for organization API keys";
/// Not Neon's words, which are not known; that it refuses is documented.
pub(crate) const NOT_FOR_PROJECT_KEYS: &str = "not allowed for API keys of one project";
pub(crate) const LOCKED: &str =
    "project already has running conflicting operations, scheduling of new ones is prohibited";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where Neon's CLI reads the id for its error texts.
const REPLY_REQUEST_ID: HeaderName = HeaderName::from_static("x-neon-ret-request-id");
/// Longest request id taken over from a caller: it goes into a header and a log line. A UUID has 36 characters.
const REQUEST_ID_MAX: usize = 128;

#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {message}")]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, UNAUTHENTICATED)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// `thing` is a noun: "project", "role".
    pub(crate) fn not_found(thing: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{thing} not found"))
    }

    pub(crate) fn no_such_route(method: &axum::http::Method, path: &str) -> Self {
        let message = format!("the local hub has no route {method} {path}");
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "the local hub serves this path, but not with this method")
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn precondition_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, message)
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// Nothing was changed; always safe to send again.
    pub(crate) fn locked() -> Self {
        Self::new(StatusCode::LOCKED, LOCKED)
    }

    /// Nothing was changed; always safe to send again.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the local hub failed to answer; `psn local logs` shows why")
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        // Display, not Debug: an error's DETAIL can quote a row.
        tracing::error!(%error, "control database");
        Self::internal()
    }
}

/// The body is written by [`envelope`], which knows the request's id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
struct GeneralError<'a> {
    request_id: &'a str,
    code: &'a str,
    message: &'a str,
}

/// Gives each request its id and each error its body.
pub(crate) async fn envelope(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.bytes().all(|b| b.is_ascii_graphic()))
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        // Neon sends an empty `code` for all of these.
        let body = GeneralError { request_id: &id, code: "", message: &error.message };
        response = (error.status, axum::Json(body)).into_response();
    }
    let status = response.status();
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if (status.is_client_error() || status.is_server_error()) && !is_json {
        // What the HTTP library refused by itself: a path that is no UTF-8, a body that is too large.
        let body = GeneralError { request_id: &id, code: "", message: status.canonical_reason().unwrap_or("refused") };
        response = (status, axum::Json(body)).into_response();
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REPLY_REQUEST_ID, value);
    }
    response
}
