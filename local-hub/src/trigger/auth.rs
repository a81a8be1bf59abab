//! Who asks: the account's personal access token, or an environment's secret key.
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};

use super::AppState;
use super::error::ApiError;
use super::model::Environment;
use super::{jwt, store};
use crate::tokens;

pub(crate) const ACCESS_TOKEN_PREFIX: &str = "tr_pat_";
pub(crate) const ORGANIZATION_TOKEN_PREFIX: &str = "tr_oat_";

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty())
}

/// The holder of a personal access token; management routes take nothing else.
pub(crate) struct Account {
    pub(crate) user_id: String,
    pub(crate) email: String,
}

impl FromRequestParts<AppState> for Account {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token =
            bearer(&parts.headers).filter(|t| t.starts_with(ACCESS_TOKEN_PREFIX)).ok_or_else(ApiError::access_token)?;
        let user = store::account::by_token(&state.db, &tokens::digest(token)).await?;
        let (user_id, email) = user.ok_or_else(ApiError::access_token)?;
        Ok(Self { user_id, email })
    }
}

/// Whoever `whoami` knows: the account, or an organization with a token of its own.
pub(crate) struct Identity {
    pub(crate) user_id: String,
    pub(crate) email: String,
}

/// The vendor's reply has an address in every case.
const ORGANIZATION_EMAIL: &str = "organization@psn.invalid";

impl FromRequestParts<AppState> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        if let Some(user_id) = organization(parts, state).await? {
            return Ok(Self { user_id, email: ORGANIZATION_EMAIL.to_owned() });
        }
        let Account { user_id, email } = Account::from_request_parts(parts, state).await?;
        Ok(Self { user_id, email })
    }
}

/// The id of the organization whose token came; none where another kind of credential did.
async fn organization(parts: &Parts, state: &AppState) -> Result<Option<String>, ApiError> {
    let Some(token) = bearer(&parts.headers).filter(|token| token.starts_with(ORGANIZATION_TOKEN_PREFIX)) else {
        return Ok(None);
    };
    let organization = store::account::organization_by_token(&state.db, &tokens::digest(token)).await?;
    organization.map(Some).ok_or_else(ApiError::access_token)
}

/// The environment whose secret key came.
pub(crate) struct EnvironmentKey(pub(crate) Environment);

impl FromRequestParts<AppState> for EnvironmentKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let key = bearer(&parts.headers).ok_or_else(ApiError::api_key)?;
        if let Some(id) = jwt::subject(key) {
            let environment =
                store::projects::environment_by_id(&state.db, &id).await?.ok_or_else(ApiError::api_key)?;
            let claims = jwt::verify(&environment.api_key, key, chrono::Utc::now().timestamp());
            let claims = claims.ok_or_else(ApiError::api_key)?;
            return if claims.allow(parts.method.is_safe()) { Ok(Self(environment)) } else { Err(ApiError::Forbidden) };
        }
        let environment = store::projects::environment_by_key(&state.db, key).await?;
        environment.map(Self).ok_or_else(ApiError::api_key)
    }
}

/// Routes under a project that take either credential.
pub(crate) enum Caller {
    Account,
    /// Its id.
    Organization(String),
    Environment(Box<Environment>),
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        if let Some(organization) = organization(parts, state).await? {
            return Ok(Self::Organization(organization));
        }
        let token = bearer(&parts.headers).ok_or_else(ApiError::access_token)?;
        if token.starts_with(ACCESS_TOKEN_PREFIX) {
            Account::from_request_parts(parts, state).await?;
            return Ok(Self::Account);
        }
        let EnvironmentKey(environment) = EnvironmentKey::from_request_parts(parts, state).await?;
        Ok(Self::Environment(Box::new(environment)))
    }
}

impl Caller {
    /// The environment that the path names, if this caller may touch it.
    pub(crate) async fn environment(
        self,
        state: &AppState,
        project: &str,
        slug: &str,
    ) -> Result<Environment, ApiError> {
        // The path says `staging`, the stored slug is the vendor's `stg`.
        let slug = if slug == "staging" { "stg" } else { slug };
        match self {
            Self::Environment(environment) => {
                if environment.project_ref != project {
                    return Err(ApiError::bad_request(
                        "Invalid project ref for this API key. Make sure you are using an API key associated with that project.",
                    ));
                }
                if environment.slug != slug {
                    return Err(ApiError::bad_request(
                        "Invalid environment slug for this API key. Make sure you are using an API key associated with that environment.",
                    ));
                }
                Ok(*environment)
            }
            Self::Organization(id) => {
                let environment = store::projects::environment(&state.db, project, slug).await?;
                // Whether another organization has such a project is not its business.
                environment
                    .filter(|environment| environment.organization_id == id)
                    .ok_or_else(|| ApiError::not_found("Project not found"))
            }
            Self::Account => {
                if store::projects::find(&state.db, project).await?.is_none() {
                    return Err(ApiError::not_found("Project not found"));
                }
                let environment = store::projects::environment(&state.db, project, slug).await?;
                environment.ok_or_else(|| ApiError::not_found("Environment not found"))
            }
        }
    }
}
