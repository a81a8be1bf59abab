//! API keys: a person's, an organisation's, and an organisation's for one project alone.
use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::Service;
use super::auth::{Authenticated, Caller, Reach};
use super::error::ApiError;
use super::extract::Body;
use super::model::{KeyCreated, KeyItem, KeyRevoked};
use super::store::{keys, projects};
use crate::tokens;

/// As Neon's API documents it.
const NAME_MAX: usize = 64;
/// Letters and digits after the prefix, as the vendor's.
const KEY_LEN: usize = 64;

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    key_name: String,
    #[serde(default)]
    project_id: Option<String>,
}

/// What a request is about: the caller's own keys, or those of one of its organisations.
fn scope<'a>(caller: &'a Caller, org: Option<&str>) -> Result<Option<&'a str>, ApiError> {
    // A key of an organisation is a machine's: it makes no other keys.
    caller.require_personal()?;
    org.map(|org| caller.org(Some(org))).transpose()
}

pub(crate) async fn list(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Json<Vec<KeyItem>>, ApiError> {
    listed(&service, &caller, None).await
}

pub(crate) async fn list_of_org(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(org): Path<String>,
) -> Result<Json<Vec<KeyItem>>, ApiError> {
    listed(&service, &caller, Some(&org)).await
}

async fn listed(service: &Service, caller: &Caller, org: Option<&str>) -> Result<Json<Vec<KeyItem>>, ApiError> {
    let org = scope(caller, org)?;
    let rows = keys::list(&service.db, caller.account_id, org).await?;
    Ok(Json(rows.into_iter().map(Into::into).collect()))
}

pub(crate) async fn create(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Body(body): Body<CreateBody>,
) -> Result<Json<KeyCreated>, ApiError> {
    if body.project_id.is_some() {
        return Err(ApiError::bad_request("a personal key acts for all projects; project_id is for an organization's"));
    }
    created(&service, &caller, None, &body).await
}

pub(crate) async fn create_for_org(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(org): Path<String>,
    Body(body): Body<CreateBody>,
) -> Result<Json<KeyCreated>, ApiError> {
    created(&service, &caller, Some(&org), &body).await
}

async fn created(
    service: &Service,
    caller: &Caller,
    org: Option<&str>,
    body: &CreateBody,
) -> Result<Json<KeyCreated>, ApiError> {
    let org = scope(caller, org)?;
    if !(1..=NAME_MAX).contains(&body.key_name.chars().count()) || body.key_name.contains('\0') {
        return Err(ApiError::bad_request(format!("key_name must have 1 to {NAME_MAX} characters")));
    }
    if let (Some(project), Some(org)) = (&body.project_id, org) {
        let reach = Reach { orgs: vec![org.to_owned()], project: None };
        projects::get(&service.db, &reach, project).await?;
    }
    let key = tokens::generate("napi_", KEY_LEN);
    let new = keys::New {
        account: caller.account_id,
        org,
        project: body.project_id.as_deref(),
        name: &body.key_name,
        digest: &tokens::digest(&key),
    };
    let row = keys::insert(&service.db, &new).await?;
    Ok(Json(KeyCreated::new(row, key)))
}

pub(crate) async fn revoke(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(key): Path<i64>,
) -> Result<Json<KeyRevoked>, ApiError> {
    revoked(&service, &caller, None, key).await
}

pub(crate) async fn revoke_of_org(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path((org, key)): Path<(String, i64)>,
) -> Result<Json<KeyRevoked>, ApiError> {
    revoked(&service, &caller, Some(&org), key).await
}

async fn revoked(
    service: &Service,
    caller: &Caller,
    org: Option<&str>,
    key: i64,
) -> Result<Json<KeyRevoked>, ApiError> {
    let org = scope(caller, org)?;
    let row = keys::delete(&service.db, caller.account_id, org, key).await?;
    Ok(Json(row.ok_or_else(|| ApiError::not_found("API key"))?.into()))
}

/// What the control database says of a key; the key itself is nowhere.
#[derive(sqlx::FromRow)]
pub(crate) struct KeyRow {
    pub(crate) id: i64,
    pub(crate) account_id: uuid::Uuid,
    pub(crate) account_name: String,
    pub(crate) project_id: Option<String>,
    pub(crate) name: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}
