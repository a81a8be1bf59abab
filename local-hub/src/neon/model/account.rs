//! Who calls, and where projects can be.
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::PLAN;
use crate::neon::store::{Account, Organization};

#[derive(Serialize)]
pub(crate) struct AuthDetails {
    pub(crate) account_id: String,
    pub(crate) auth_method: &'static str,
    pub(crate) auth_data: String,
}

#[derive(Serialize)]
pub(crate) struct CurrentUser {
    active_seconds_limit: i64,
    auth_accounts: [AuthAccount; 1],
    email: String,
    id: String,
    image: &'static str,
    login: String,
    name: String,
    last_name: String,
    projects_limit: i64,
    branches_limit: i64,
    max_autoscaling_limit: f64,
    plan: &'static str,
}

#[derive(Serialize)]
struct AuthAccount {
    email: String,
    image: &'static str,
    login: String,
    name: String,
    provider: &'static str,
}

impl From<Account> for CurrentUser {
    fn from(account: Account) -> Self {
        let full_name = format!("{} {}", account.name, account.last_name);
        Self {
            active_seconds_limit: 0,
            auth_accounts: [AuthAccount {
                email: account.email.clone(),
                image: "",
                login: account.email.clone(),
                name: full_name,
                provider: "keycloak",
            }],
            login: account.email.clone(),
            email: account.email,
            id: account.id.to_string(),
            image: "",
            name: account.name,
            last_name: account.last_name,
            projects_limit: 0,
            branches_limit: 0,
            max_autoscaling_limit: 0.0,
            plan: PLAN,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct OrganizationBody {
    id: String,
    name: String,
    handle: String,
    plan: &'static str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    managed_by: &'static str,
}

impl From<Organization> for OrganizationBody {
    fn from(row: Organization) -> Self {
        Self {
            id: row.id,
            name: row.name,
            handle: row.handle,
            plan: PLAN,
            created_at: row.created_at,
            updated_at: row.updated_at,
            managed_by: "console",
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Organizations {
    pub(crate) organizations: Vec<OrganizationBody>,
}

#[derive(Serialize)]
pub(crate) struct Region {
    pub(crate) region_id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) default: bool,
    pub(crate) geo_lat: &'static str,
    pub(crate) geo_long: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Regions {
    pub(crate) regions: Vec<Region>,
}
