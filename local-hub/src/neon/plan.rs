//! What a project is to be: a request, checked and completed with Neon's defaults.
use serde::Deserialize;

use super::account::{DEFAULT_REGION, is_region};
use super::auth::Caller;
use super::error::ApiError;
use super::store::projects::{ComputeLimits, NewProject};
use super::{ids, provision};

/// As Neon's API documents them.
const NAME_MAX: usize = 256;
const DEFAULT_DATABASE: &str = "neondb";
const DEFAULT_BRANCH: &str = "main";
const DEFAULT_PG_VERSION: i32 = 17;
const PG_VERSIONS: std::ops::RangeInclusive<i32> = 14..=18;
const DEFAULT_RETENTION_SECONDS: i32 = 86_400;
const RETENTION_SECONDS: std::ops::RangeInclusive<i32> = 0..=2_592_000;
const DEFAULT_LIMITS: ComputeLimits = ComputeLimits { min_cu: 0.25, max_cu: 2.0 };
const SMALLEST_CU: f64 = 0.25;

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    pub(crate) project: CreateProject,
}

/// `settings` and `provisioner` are not read: the reply says what holds here.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct CreateProject {
    name: Option<String>,
    org_id: Option<String>,
    region_id: Option<String>,
    pg_version: Option<i32>,
    branch: CreateBranch,
    store_passwords: Option<bool>,
    history_retention_seconds: Option<i32>,
    default_endpoint_settings: Limits,
    autoscaling_limit_min_cu: Option<f64>,
    autoscaling_limit_max_cu: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CreateBranch {
    name: Option<String>,
    role_name: Option<String>,
    database_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Limits {
    autoscaling_limit_min_cu: Option<f64>,
    autoscaling_limit_max_cu: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct UpdateBody {
    pub(crate) project: UpdateProject,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct UpdateProject {
    pub(crate) name: Option<String>,
    pub(crate) history_retention_seconds: Option<i32>,
    pub(crate) default_endpoint_settings: Limits,
}

/// A checked wish for a project.
pub(crate) struct Plan {
    pub(crate) project: NewProject,
    pub(crate) branch_name: String,
    pub(crate) role_name: String,
    pub(crate) database_name: String,
}

pub(crate) fn plan(caller: &Caller, wish: CreateProject) -> Result<Plan, ApiError> {
    let org_id = caller.org(wish.org_id.as_deref())?.to_owned();
    let id = ids::project();
    let name = wish.name.map(|name| checked_name("project.name", name)).transpose()?.unwrap_or_else(|| id.clone());
    let region_id = wish.region_id.unwrap_or_else(|| DEFAULT_REGION.to_owned());
    if !is_region(&region_id) {
        return Err(ApiError::bad_request(format!(
            "region_id \"{}\" is unknown; GET /regions lists them",
            region_id.escape_debug()
        )));
    }
    // What is installed decides; the reply says what it is.
    let pg_version = wish.pg_version.unwrap_or(DEFAULT_PG_VERSION);
    if !PG_VERSIONS.contains(&pg_version) {
        return Err(ApiError::bad_request(format!(
            "pg_version {pg_version} is not supported; choose 14 to 18, or leave it out"
        )));
    }
    let top = Limits {
        autoscaling_limit_min_cu: wish.autoscaling_limit_min_cu,
        autoscaling_limit_max_cu: wish.autoscaling_limit_max_cu,
    };
    let compute = checked_limits(&wish.default_endpoint_settings, checked_limits(&top, DEFAULT_LIMITS)?)?;
    let branch_name = match wish.branch.name {
        Some(name) => checked_name("project.branch.name", name)?,
        None => DEFAULT_BRANCH.to_owned(),
    };
    let database_name = wish.branch.database_name.unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    provision::check_database_name(&database_name).map_err(ApiError::bad_request)?;
    let role_name = wish.branch.role_name.unwrap_or_else(|| format!("{database_name}_owner"));
    provision::check_role_name(&role_name).map_err(ApiError::bad_request)?;
    Ok(Plan {
        project: NewProject {
            id,
            org_id,
            name,
            region_id,
            pg_version,
            store_passwords: wish.store_passwords.unwrap_or(true),
            history_retention_seconds: checked_retention(
                wish.history_retention_seconds.unwrap_or(DEFAULT_RETENTION_SECONDS),
            )?,
            compute,
        },
        branch_name,
        role_name,
        database_name,
    })
}

pub(crate) fn checked_name(field: &str, name: String) -> Result<String, ApiError> {
    match name.chars().count() {
        1..=NAME_MAX if !name.contains('\0') => Ok(name),
        1..=NAME_MAX => Err(ApiError::bad_request(format!("{field} holds a NUL character"))),
        length => Err(ApiError::bad_request(format!("{field} must have 1 to {NAME_MAX} characters; it has {length}"))),
    }
}

pub(crate) fn checked_retention(seconds: i32) -> Result<i32, ApiError> {
    if RETENTION_SECONDS.contains(&seconds) {
        Ok(seconds)
    } else {
        let max = RETENTION_SECONDS.end();
        Err(ApiError::bad_request(format!("history_retention_seconds must be between 0 and {max}, not {seconds}")))
    }
}

pub(crate) fn checked_limits(wish: &Limits, current: ComputeLimits) -> Result<ComputeLimits, ApiError> {
    let limits = ComputeLimits {
        min_cu: wish.autoscaling_limit_min_cu.unwrap_or(current.min_cu),
        // A larger minimum alone lifts the maximum with it.
        max_cu: wish
            .autoscaling_limit_max_cu
            .unwrap_or_else(|| current.max_cu.max(wish.autoscaling_limit_min_cu.unwrap_or(0.0))),
    };
    if limits.min_cu >= SMALLEST_CU && limits.max_cu >= limits.min_cu && limits.max_cu.is_finite() {
        Ok(limits)
    } else {
        Err(ApiError::bad_request(format!(
            "autoscaling limits must be {SMALLEST_CU} or more, the minimum not above the maximum"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::auth::KeyKind;
    use super::*;

    fn caller() -> Caller {
        let reach = super::super::auth::Reach { orgs: vec!["org-a".into()], project: None };
        Caller { key_id: 1, account_id: uuid::Uuid::nil(), kind: KeyKind::Personal, reach }
    }

    fn planned(json: serde_json::Value) -> Result<Plan, ApiError> {
        plan(&caller(), serde_json::from_value(json).unwrap())
    }

    #[test]
    fn what_is_not_said_is_as_on_neon() {
        let plan = planned(serde_json::json!({"org_id": "org-a", "branch": {}})).unwrap();
        assert_eq!(plan.project.name, plan.project.id);
        assert_eq!(
            (plan.branch_name.as_str(), plan.database_name.as_str(), plan.role_name.as_str()),
            ("main", "neondb", "neondb_owner")
        );
        assert_eq!(plan.project.history_retention_seconds, 86_400);
        assert!(plan.project.store_passwords);

        let plan = planned(serde_json::json!({"org_id": "org-a", "branch": {"database_name": "hub"}})).unwrap();
        assert_eq!(plan.role_name, "hub_owner");
    }

    #[test]
    fn a_wrong_wish_is_refused_and_says_which_field() {
        for (wish, says) in [
            (serde_json::json!({}), "org_id is required"),
            (serde_json::json!({"org_id": "org-a", "name": ""}), "project.name"),
            (serde_json::json!({"org_id": "org-a", "name": "x".repeat(257)}), "257"),
            (serde_json::json!({"org_id": "org-a", "region_id": "mars"}), "GET /regions"),
            (serde_json::json!({"org_id": "org-a", "pg_version": 13}), "pg_version 13"),
            (serde_json::json!({"org_id": "org-a", "history_retention_seconds": -1}), "history_retention_seconds"),
            (serde_json::json!({"org_id": "org-a", "branch": {"role_name": "neon_superuser"}}), "reserved"),
            (serde_json::json!({"org_id": "org-a", "branch": {"database_name": "template1"}}), "reserved"),
            (serde_json::json!({"org_id": "org-a", "branch": {"database_name": "x".repeat(60)}}), "role name"),
            (serde_json::json!({"org_id": "org-a", "autoscaling_limit_max_cu": 0.1}), "autoscaling"),
        ] {
            let error = planned(wish.clone()).err().unwrap_or_else(|| panic!("{wish} was accepted"));
            assert!(error.to_string().contains(says), "{wish}: {error}");
        }
    }

    #[test]
    fn a_larger_minimum_lifts_the_maximum() {
        let wish = Limits { autoscaling_limit_min_cu: Some(4.0), autoscaling_limit_max_cu: None };
        let limits = checked_limits(&wish, DEFAULT_LIMITS).unwrap();
        assert_eq!((limits.min_cu, limits.max_cu), (4.0, 4.0));
    }
}
