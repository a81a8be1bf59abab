//! Bodies and query strings, refused in Neon's shape.
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A JSON body. The content type is not looked at: Neon's clients differ in it.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(|error| ApiError::bad_request(error.body_text()))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("invalid request body: {error}")))
    }
}

pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::from_request_parts(parts, state)
            .await
            .map_err(|error: QueryRejection| ApiError::bad_request(format!("invalid query: {}", error.body_text())))?;
        Ok(Self(params))
    }
}

/// `limit`, within what the API allows.
pub(crate) fn limit(requested: Option<i64>, default: i64, max: i64) -> Result<i64, ApiError> {
    match requested {
        None => Ok(default),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::bad_request(format!("limit must be between 1 and {max}, not {limit}"))),
    }
}

/// A cursor that an earlier reply ended with.
pub(crate) fn cursor(requested: Option<&str>) -> Result<Option<i64>, ApiError> {
    requested
        .filter(|cursor| !cursor.is_empty())
        .map(|cursor| {
            cursor.parse().map_err(|_| {
                ApiError::bad_request("cursor is not one that this API returned; leave it out to start over")
            })
        })
        .transpose()
}
