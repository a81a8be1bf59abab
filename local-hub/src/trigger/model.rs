//! Values that more than one route shows, and how dates and bodies are read and written.
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use sqlx::FromRow;

use super::error::ApiError;

/// A date as JavaScript writes it: UTC, milliseconds, `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct Date(pub(crate) DateTime<Utc>);

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Clone, Debug, FromRow, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Organization {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) slug: String,
    pub(crate) created_at: Date,
}

#[derive(Clone, Debug, FromRow, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Project {
    pub(crate) id: String,
    #[serde(rename = "externalRef")]
    #[sqlx(rename = "ref")]
    pub(crate) reference: String,
    pub(crate) name: String,
    pub(crate) slug: String,
    pub(crate) created_at: Date,
    #[sqlx(skip)]
    default_region: Option<String>,
    #[sqlx(skip)]
    default_runtime: Option<String>,
    #[sqlx(flatten)]
    pub(crate) organization: ProjectOrganization,
}

/// The columns of a joined organization, renamed so that they do not meet the project's own.
#[derive(Clone, Debug, FromRow, Serialize)]
pub(crate) struct ProjectOrganization {
    #[sqlx(rename = "organization_id")]
    pub(crate) id: String,
    #[sqlx(rename = "organization_title")]
    pub(crate) title: String,
    #[sqlx(rename = "organization_slug")]
    pub(crate) slug: String,
    #[sqlx(rename = "organization_created_at")]
    #[serde(rename = "createdAt")]
    pub(crate) created_at: Date,
}

/// One environment of a project that is not deleted. Holds its secret key, so it has no Debug.
#[derive(Clone, FromRow)]
pub(crate) struct Environment {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) kind: String,
    pub(crate) api_key: String,
    pub(crate) project_id: String,
    pub(crate) project_ref: String,
    pub(crate) project_name: String,
    pub(crate) project_slug: String,
    pub(crate) organization_id: String,
    pub(crate) organization_slug: String,
    pub(crate) organization_title: String,
    pub(crate) paused: bool,
    /// `none`, `free` or `unlimited`.
    pub(crate) plan: String,
}

impl Environment {
    pub(crate) fn is_development(&self) -> bool {
        self.kind == "DEVELOPMENT"
    }
}

/// The largest body of any route. A worker's registration carries the sources of its tasks.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// How much of a body that is too large is read and thrown away. A client that is still writing when the connection closes does not
/// see the answer.
const MAX_DRAINED_BYTES: usize = 64 * 1024 * 1024;

/// The body as it came; too large is answered in JSON like everything else.
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let mut chunks = request.into_body().into_data_stream();
        let mut body = Vec::new();
        let mut total: usize = 0;
        while let Some(chunk) = chunks.next().await {
            // The client went away: nobody reads this answer.
            let chunk = chunk.map_err(|_| ApiError::bad_request("The request body ended early"))?;
            total = total.saturating_add(chunk.len());
            if total > MAX_DRAINED_BYTES {
                break;
            }
            if total > MAX_BODY_BYTES {
                body = Vec::new();
            } else {
                body.extend_from_slice(&chunk);
            }
        }
        if total > MAX_BODY_BYTES { Err(ApiError::too_large()) } else { Ok(Self(body.into())) }
    }
}

impl Body {
    /// Reads JSON; `what` is the route's own wording of a refusal.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, ApiError> {
        serde_json::from_slice(&self.0).map_err(|error| ApiError::Malformed { what, message: error.to_string() })
    }
}

/// A JavaScript number or text where the vendor's schema allows either.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum TextOrNumber {
    Text(String),
    Number(serde_json::Number),
}

impl TextOrNumber {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_look_like_javascripts() {
        let date = DateTime::parse_from_rfc3339("2026-11-22T10:00:00.123456+01:00").unwrap().with_timezone(&Utc);
        assert_eq!(serde_json::to_string(&Date(date)).unwrap(), "\"2026-11-22T09:00:00.123Z\"");
    }
}
