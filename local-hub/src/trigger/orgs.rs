//! The account and its organization.
use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::AppState;
use super::auth::Account;
use super::error::{ApiError, Reply};
use super::model::{Body, Organization, Project};
use super::store;

/// The vendor's limits on a project's name.
pub(crate) const NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=255;

pub(crate) async fn whoami(
    State(state): State<AppState>,
    account: Account,
    Query(query): Query<HashMap<String, String>>,
) -> Reply {
    let mut identity = json!({ "userId": account.user_id, "email": account.email, "dashboardUrl": *state.origin });
    if let Some(reference) = query.get("projectRef")
        && let Some(project) = store::projects::find(&state.db, reference).await?
    {
        identity["project"] = json!({
            "name": project.name,
            "url": format!("{}/projects/v3/{}", state.origin, project.reference),
            "orgTitle": project.organization.title,
        });
    }
    Ok(Json(identity).into_response())
}

pub(crate) async fn list(State(state): State<AppState>, _: Account) -> Reply<Json<Vec<Organization>>> {
    Ok(Json(store::account::organizations(&state.db).await?))
}

/// The vendor's server answers so unless its operator allows making organizations by API.
pub(crate) async fn create(_: Account) -> Response {
    ApiError::not_found("Not found").into_response()
}

pub(crate) async fn projects(
    State(state): State<AppState>,
    _: Account,
    Path(org): Path<String>,
) -> Reply<Json<Vec<Project>>> {
    // An unknown organization has no projects; the vendor does not answer 404 here.
    let Some(org) = store::account::organization(&state.db, &org).await? else {
        return Ok(Json(Vec::new()));
    };
    Ok(Json(store::projects::list(&state.db, Some(&org.id)).await?))
}

#[derive(Deserialize)]
struct NewProject {
    name: String,
}

/// Names are not unique: two calls make two projects, as at the vendor.
pub(crate) async fn create_project(
    State(state): State<AppState>,
    _: Account,
    Path(org): Path<String>,
    body: Body,
) -> Reply<Json<Project>> {
    let new: NewProject = body.json("Invalid request body")?;
    if !NAME_CHARS.contains(&new.name.chars().count()) {
        return Err(ApiError::bad_request("Validation error: String must contain 1 to 255 character(s) at \"name\""));
    }
    let org = store::account::organization(&state.db, &org).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization not found"))?;
    Ok(Json(store::projects::create(&state.db, &org.id, &new.name).await?))
}
