//! Who calls. A personal key acts for every organisation of its account and must name the one it means; an organisation's key
//! acts for that one, or for one project in it.
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::Service;
use super::error::{ApiError, NOT_FOR_ORG_KEYS, NOT_FOR_PROJECT_KEYS, ORG_ID_REQUIRED};
use super::store;
use crate::tokens;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Personal,
    Organization,
}

#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) key_id: i64,
    pub(crate) account_id: Uuid,
    pub(crate) kind: KeyKind,
    pub(crate) reach: Reach,
}

/// What exists for a key; the rest does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) orgs: Vec<String>,
    /// The one project that the key is for, where it is for one.
    pub(crate) project: Option<String>,
}

impl Caller {
    /// The organisation that a list or a creation is about.
    pub(crate) fn org(&self, requested: Option<&str>) -> Result<&str, ApiError> {
        match (self.kind, requested.filter(|org| !org.is_empty())) {
            (KeyKind::Personal, None) => Err(ApiError::bad_request(ORG_ID_REQUIRED)),
            (KeyKind::Organization, None) => self.reach.orgs.first().map(String::as_str).ok_or_else(ApiError::internal),
            (_, Some(org)) => self
                .reach
                .orgs
                .iter()
                .find(|own| *own == org)
                .map(String::as_str)
                .ok_or_else(|| ApiError::not_found("organization")),
        }
    }

    pub(crate) fn require_personal(&self) -> Result<(), ApiError> {
        match self.kind {
            KeyKind::Personal => Ok(()),
            KeyKind::Organization => Err(ApiError::forbidden(NOT_FOR_ORG_KEYS)),
        }
    }

    /// Making and deleting projects is not for a key that is for one of them.
    pub(crate) fn require_all_projects(&self) -> Result<(), ApiError> {
        match &self.reach.project {
            None => Ok(()),
            Some(_) => Err(ApiError::forbidden(NOT_FOR_PROJECT_KEYS)),
        }
    }
}

/// Lets a request through only with a known key. Handlers take the caller as `Arc<Caller>` through [`Authenticated`].
pub(crate) async fn authenticate(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let Some(key) = bearer(&request) else {
        return ApiError::unauthenticated().into_response();
    };
    // The index lookup is by digest, so its timing says nothing about any key.
    match store::caller(&service.db, &tokens::digest(key)).await {
        Ok(Some(caller)) => {
            if let Err(error) = store::keys::used(&service.db, caller.key_id).await {
                return ApiError::from(error).into_response();
            }
            request.extensions_mut().insert(Arc::new(caller));
            next.run(request).await
        }
        Ok(None) => ApiError::unauthenticated().into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, key) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim()).filter(|key| !key.is_empty())
}

pub(crate) struct Authenticated(pub(crate) Arc<Caller>);

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Arc<Caller>>().cloned().map(Self).ok_or_else(ApiError::unauthenticated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(kind: KeyKind, orgs: &[&str]) -> Caller {
        Caller {
            key_id: 1,
            account_id: Uuid::nil(),
            kind,
            reach: Reach { orgs: orgs.iter().map(|o| (*o).to_owned()).collect(), project: None },
        }
    }

    #[test]
    fn a_personal_key_names_its_organisation_and_an_organisations_key_need_not() {
        let personal = caller(KeyKind::Personal, &["org-a", "org-b"]);
        assert_eq!(personal.org(Some("org-b")).unwrap(), "org-b");
        for missing in [None, Some("")] {
            assert!(personal.org(missing).unwrap_err().to_string().contains(ORG_ID_REQUIRED));
        }
        assert!(personal.org(Some("org-c")).is_err());

        let organization = caller(KeyKind::Organization, &["org-a"]);
        assert_eq!(organization.org(None).unwrap(), "org-a");
        assert_eq!(organization.org(Some("org-a")).unwrap(), "org-a");
        assert!(organization.org(Some("org-b")).is_err());
        assert!(organization.require_personal().is_err());
        assert!(organization.require_all_projects().is_ok());

        let mut project = caller(KeyKind::Organization, &["org-a"]);
        project.reach.project = Some("calm-meadow-1".to_owned());
        assert_eq!(project.org(None).unwrap(), "org-a");
        assert!(project.require_all_projects().is_err());
    }

    #[test]
    fn only_a_bearer_key_counts() {
        let request =
            |value: &str| Request::builder().header(AUTHORIZATION, value).body(axum::body::Body::empty()).unwrap();
        assert_eq!(bearer(&request("Bearer napi_x")), Some("napi_x"));
        assert_eq!(bearer(&request("bearer napi_x")), Some("napi_x"));
        for bad in ["napi_x", "Basic napi_x", "Bearer ", "Bearer"] {
            assert_eq!(bearer(&request(bad)), None, "{bad}");
        }
    }
}
