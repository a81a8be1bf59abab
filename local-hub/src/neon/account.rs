//! Who calls, and the regions there are.
use axum::Json;
use axum::extract::{Path, State};

use super::auth::{Authenticated, KeyKind};
use super::error::ApiError;
use super::model::{AuthDetails, CurrentUser, OrganizationBody, Organizations, Region, Regions};
use super::{Service, store};

pub(crate) const DEFAULT_REGION: &str = "aws-us-east-1";

/// Neon's regions, so that a configuration made for the cloud works here. All of them are this machine.
const REGIONS: [(&str, &str, &str, &str); 8] = [
    ("aws-us-east-1", "AWS US East 1 (N. Virginia)", "38.13", "-78.45"),
    ("aws-us-east-2", "AWS US East 2 (Ohio)", "39.96", "-83"),
    ("aws-us-west-2", "AWS US West 2 (Oregon)", "46.15", "-123.88"),
    ("aws-eu-central-1", "AWS Europe Central 1 (Frankfurt)", "50", "8"),
    ("aws-eu-west-2", "AWS Europe West 2 (London)", "51.5", "-0.12"),
    ("aws-ap-southeast-1", "AWS Asia Pacific 1 (Singapore)", "1.37", "103.8"),
    ("aws-ap-southeast-2", "AWS Asia Pacific 2 (Sydney)", "-33.86", "151.2"),
    ("aws-sa-east-1", "AWS South America East 1 (São Paulo)", "-23.55", "-46.63"),
];

pub(crate) fn is_region(id: &str) -> bool {
    REGIONS.iter().any(|(region, ..)| *region == id)
}

pub(crate) async fn auth(Authenticated(caller): Authenticated) -> Json<AuthDetails> {
    let (account_id, auth_method) = match caller.kind {
        KeyKind::Personal => (caller.account_id.to_string(), "api_key_user"),
        KeyKind::Organization => (caller.reach.orgs.join(","), "api_key_org"),
    };
    Json(AuthDetails { account_id, auth_method, auth_data: caller.key_id.to_string() })
}

pub(crate) async fn me(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Json<CurrentUser>, ApiError> {
    caller.require_personal()?;
    Ok(Json(store::account(&service.db, caller.account_id).await?.into()))
}

pub(crate) async fn organizations(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
) -> Result<Json<Organizations>, ApiError> {
    caller.require_personal()?;
    let organizations =
        store::organizations(&service.db, caller.account_id).await?.into_iter().map(Into::into).collect();
    Ok(Json(Organizations { organizations }))
}

/// Any key may see its own organisation.
pub(crate) async fn organization(
    State(service): State<Service>,
    Authenticated(caller): Authenticated,
    Path(org): Path<String>,
) -> Result<Json<OrganizationBody>, ApiError> {
    let org = caller.org(Some(&org))?;
    let mut rows = store::organizations(&service.db, caller.account_id).await?;
    rows.retain(|row| row.id == org);
    Ok(Json(rows.pop().ok_or_else(|| ApiError::not_found("organization"))?.into()))
}

pub(crate) async fn regions() -> Json<Regions> {
    let regions = REGIONS
        .iter()
        .map(|&(region_id, name, geo_lat, geo_long)| Region {
            region_id,
            name,
            default: region_id == DEFAULT_REGION,
            geo_lat,
            geo_long,
        })
        .collect();
    Json(Regions { regions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_region_is_one_of_them() {
        assert!(is_region(DEFAULT_REGION));
        assert!(!is_region("local"));
    }
}
