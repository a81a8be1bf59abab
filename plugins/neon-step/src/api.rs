//! What a step needs of Neon. `neon-provision` asks over HTTP, `neon-provision-cli` through Neon's own command-line program.

use psn_plugin::{Failure, http};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub region_id: Option<String>,
    pub pg_version: Option<u32>,
    pub deleted_at: Option<String>,
    pub recoverable_until: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub id: String,
    pub host: String,
    pub disabled: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Organization {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Database {
    pub name: String,
    pub owner_name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Operation {
    pub id: String,
    pub action: String,
    pub status: String,
    pub error: Option<String>,
}

/// Whose key it is.
pub enum Key {
    /// A person's, with the organizations it can act for.
    Person(Vec<Organization>),
    /// An organization's own, for all its projects or for one: it implies the organization.
    Organization,
}

/// What a search found, if Neon could look everywhere.
pub enum Search {
    Complete(Vec<Project>),
    /// Some projects could not be looked at: "not found" would be a guess.
    Incomplete,
}

/// A project that is to be made. What is None is Neon's choice.
#[derive(Debug, Clone)]
pub struct Wish {
    pub name: String,
    pub org_id: Option<String>,
    pub region: Option<String>,
    pub pg_version: Option<u32>,
    pub database: String,
    pub role: String,
}

pub struct Created {
    pub project: Project,
    pub operations: Vec<Operation>,
}

/// Why Neon did not do what was asked.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub failure: Failure,
    /// Neon's own words.
    pub message: String,
    /// The status of its answer, where that is known.
    pub status: Option<u16>,
    /// It may have been done all the same: look before asking again.
    pub unsure: bool,
}

impl From<http::Error> for Trouble {
    fn from(error: http::Error) -> Self {
        let (status, unsure, message) = (error.status(), error.may_have_been_applied(), error.message.clone());
        Self { failure: error.into(), message, status, unsure }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        trouble.failure
    }
}

/// Where the two connection strings are kept, or why they cannot be.
pub enum Kept {
    /// Under DATABASE_URL and DATABASE_URL_DIRECT, by the host: a step never sees them.
    Yes,
    /// The project has no such database with such a role.
    NoSuchDatabase,
}

pub trait Neon {
    fn key(&self) -> Result<Key, Trouble>;
    /// The regions there are; empty where that cannot be asked.
    fn regions(&self) -> Result<Vec<String>, Trouble>;
    /// Projects whose name or id contains `text`; with `deleted`, those that can still be recovered.
    fn search(&self, text: &str, org_id: Option<&str>, deleted: bool) -> Result<Search, Failure>;
    /// All projects that the key can see, or the first of many.
    fn visible(&self) -> Result<Vec<Project>, Trouble>;
    /// None where there is no such project any more.
    fn project(&self, id: &str) -> Result<Option<Project>, Trouble>;
    fn create(&self, wish: &Wish) -> Result<Created, Trouble>;
    fn recover(&self, id: &str) -> Result<(), Trouble>;
    /// When it can be recovered until, or none where it was gone before.
    fn delete(&self, id: &str) -> Result<Option<String>, Trouble>;
    fn databases(&self, project: &str) -> Result<Vec<Database>, Trouble>;
    /// The endpoint that takes writes.
    fn endpoint(&self, project: &str, database: &Database) -> Result<Option<Endpoint>, Trouble>;
    fn operations(&self, project: &str) -> Result<Vec<Operation>, Trouble>;
    /// None where Neon has forgotten it: operations are not kept for ever.
    fn operation(&self, project: &str, id: &str) -> Result<Option<Operation>, Trouble>;
    /// Has Neon make a new password for the role, which is in force when the operations have ended. Nobody here sees it.
    fn reset_password(&self, project: &str, role: &str) -> Result<Vec<Operation>, Trouble>;
    /// Has the host keep the pooled and the direct connection string.
    fn keep_connection_strings(&self, project: &str, database: &Database) -> Result<Kept, Trouble>;
}
