//! The account and its organization.
use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::auth::{Account, Identity, ORGANIZATION_TOKEN_PREFIX};
use super::error::{ApiError, Reply};
use super::model::{Body, Organization, Project};
use super::store;
use crate::tokens;

/// The vendor's limits on a project's name.
pub(crate) const NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=255;
/// The vendor's limit on the projects of an organization.
const FREE_PROJECTS: i64 = 10;
/// Letters and digits after the prefix of an access token, as the vendor makes them.
const TOKEN_LEN: usize = 40;

pub(crate) async fn whoami(
    State(state): State<AppState>,
    identity: Identity,
    Query(query): Query<HashMap<String, String>>,
) -> Reply {
    let mut reply = json!({ "userId": identity.user_id, "email": identity.email, "dashboardUrl": *state.origin });
    if let Some(reference) = query.get("projectRef")
        && let Some(project) = store::projects::find(&state.db, reference).await?
    {
        reply["project"] = json!({
            "name": project.name,
            "url": format!("{}/projects/v3/{}", state.origin, project.reference),
            "orgTitle": project.organization.title,
        });
    }
    Ok(Json(reply).into_response())
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
    match store::account::plan(&state.db, &org.id).await? {
        (plan, _) if plan == "none" => Err(ApiError::Refused(
            StatusCode::PAYMENT_REQUIRED,
            "You must select a plan for this organization before creating projects.".to_owned(),
        )),
        (plan, projects) if plan == "free" && projects >= FREE_PROJECTS => {
            Err(ApiError::bad_request("This organization has reached the maximum number of projects."))
        }
        _ => Ok(Json(store::projects::create(&state.db, &org.id, &new.name).await?)),
    }
}

/// What the CLI calls after a 402, to try again.
pub(crate) async fn activate_free_plan(
    State(state): State<AppState>,
    _: Account,
    Path(org): Path<String>,
) -> Reply<Json<Value>> {
    let org = store::account::organization(&state.db, &org).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization not found"))?;
    if store::account::plan(&state.db, &org.id).await?.0 != "none" {
        return Err(ApiError::Refused(StatusCode::CONFLICT, "This organization has a plan already.".to_owned()));
    }
    store::account::set_plan(&state.db, &org.id, "free").await?;
    Ok(Json(json!({ "plan": "free" })))
}

#[derive(Deserialize)]
struct Plan {
    plan: String,
}

/// Not the vendor's: the switch that shows how its plans refuse things.
pub(crate) async fn set_plan(
    State(state): State<AppState>,
    _: Account,
    Path(org): Path<String>,
    body: Body,
) -> Reply<Json<Value>> {
    let Plan { plan } = body.json("Invalid request body")?;
    if !["none", "free", "unlimited"].contains(&plan.as_str()) {
        return Err(ApiError::bad_request("plan is none, free or unlimited"));
    }
    let org = store::account::organization(&state.db, &org).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization not found"))?;
    store::account::set_plan(&state.db, &org.id, &plan).await?;
    Ok(Json(json!({ "plan": plan })))
}

#[derive(Deserialize)]
struct NewOrganization {
    slug: String,
    title: String,
}

/// Not the vendor's, where a person does this in the dashboard: one more organization.
pub(crate) async fn add(State(state): State<AppState>, _: Account, body: Body) -> Reply<Json<Organization>> {
    let NewOrganization { slug, title } = body.json("Invalid request body")?;
    let added = store::account::add_organization(&state.db, &slug, &title).await?;
    added.map(Json).ok_or_else(|| ApiError::bad_request("There is an organization of this slug already."))
}

/// Not the vendor's, where a person does this in the dashboard: a token of an organization.
pub(crate) async fn add_token(
    State(state): State<AppState>,
    _: Account,
    Path(org): Path<String>,
) -> Reply<Json<Value>> {
    let org = store::account::organization(&state.db, &org).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization not found"))?;
    let token = tokens::generate(ORGANIZATION_TOKEN_PREFIX, TOKEN_LEN);
    store::account::add_organization_token(&state.db, &org.id, &tokens::digest(&token)).await?;
    Ok(Json(json!({ "token": token })))
}

/// Not the vendor's: an organization's tokens are revoked.
pub(crate) async fn revoke_tokens(
    State(state): State<AppState>,
    _: Account,
    Path(org): Path<String>,
) -> Reply<Json<Value>> {
    let org = store::account::organization(&state.db, &org).await?;
    let org = org.ok_or_else(|| ApiError::not_found("Organization not found"))?;
    store::account::revoke_organization_tokens(&state.db, &org.id).await?;
    Ok(Json(json!({})))
}
