//! The replies, field by field as Neon's API v2 names them. What a local hub does not have (billing, quotas, consumption) is zero.
mod account;
mod branch;
mod key;
mod operation;
mod project;

pub(crate) use account::{AuthDetails, CurrentUser, OrganizationBody, Organizations, Region, Regions};
pub(crate) use branch::*;
pub(crate) use key::{KeyCreated, KeyItem, KeyRevoked};
pub(crate) use operation::{Operation, OperationBody, OperationList, Pagination};
pub(crate) use project::*;

/// Where the databases are. The port belongs to each host name, because every project has its own.
pub(crate) const HOST: &str = "127.0.0.1";
/// Values that Neon's clients take for granted.
const PLATFORM: &str = "aws";
const PROVISIONER: &str = "k8s-neonvm";
const CREATION_SOURCE: &str = "console";
const PLAN: &str = "local";
/// What Neon sends where no consumption is measured.
const NO_PERIOD: &str = "0001-01-01T00:00:00Z";
/// As `suspend_timeout_seconds`: an endpoint runs until it is told to stop. Nothing here would wake it when somebody connects.
const NEVER: i64 = -1;
