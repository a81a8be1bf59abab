//! The part of Neon's API v2 that this step uses.

use psn_plugin::{http, http::path, prelude::*};
use serde::Deserialize;

/// Projects per page; a shorter page is the last one.
const PAGE: usize = 100;
/// Pages read before something must be wrong: an account with this many projects of similar names does not exist.
const MOST_PAGES: usize = 50;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Project {
    pub id: String,
    pub name: String,
    pub region_id: Option<String>,
    pub pg_version: Option<u32>,
    pub deleted_at: Option<String>,
    pub recoverable_until: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Endpoint {
    pub id: String,
    pub host: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pub disabled: bool,
}

impl Endpoint {
    /// Which of an endpoint's two addresses a connection string leads to.
    pub(crate) const POOLED: bool = true;
    pub(crate) const DIRECT: bool = false;
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Organization {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Operation {
    pub id: String,
    pub action: String,
    pub status: String,
    pub error: Option<String>,
}

#[derive(Deserialize)]
struct ProjectReply {
    project: Project,
}

fn neon() -> http::Service<'static> {
    http::service("neon")
}

/// None where the key belongs to an organization itself: such a key may not ask, and needs no answer.
pub(crate) fn organizations() -> Result<Option<Vec<Organization>>, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        organizations: Vec<Organization>,
    }
    let reply = neon().get("/users/me/organizations").retry_when_busy().send()?;
    if reply.status() == 403 {
        return Ok(None);
    }
    Ok(Some(reply.success()?.json::<Reply>()?.organizations))
}

/// What a search found, if Neon could look everywhere.
pub(crate) enum Search {
    Complete(Vec<Project>),
    /// Some projects could not be looked at: "not found" would be a guess.
    Incomplete,
}

/// Projects whose name or id contains `text`; with `deleted`, those that can still be recovered.
pub(crate) fn search(text: &str, org_id: Option<&str>, deleted: bool) -> Result<Search, Failure> {
    #[derive(Deserialize)]
    struct Reply {
        projects: Vec<Project>,
        #[serde(default)]
        unavailable_project_ids: Vec<String>,
        pagination: Option<Pagination>,
    }
    #[derive(Deserialize)]
    struct Pagination {
        cursor: Option<String>,
    }
    let mut projects = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let request = neon()
            .get("/projects")
            .query("limit", PAGE)
            .query("search", text)
            .maybe_query("org_id", org_id)
            .maybe_query("recoverable", deleted.then_some(true))
            .maybe_query("cursor", cursor.as_deref());
        let reply: Reply = request.retry_when_busy().send()?.success()?.json()?;
        if !reply.unavailable_project_ids.is_empty() {
            return Ok(Search::Incomplete);
        }
        let last = reply.projects.len() < PAGE;
        projects.extend(reply.projects);
        // The cursor comes with the last page too; one that stands still would go on for ever.
        let next = reply.pagination.and_then(|pagination| pagination.cursor);
        if last || next.is_none() || next == cursor {
            return Ok(Search::Complete(projects));
        }
        cursor = next;
    }
    Err(Failure::new("too-many-projects", format!("Neon lists more than {} projects like `{text}`", MOST_PAGES * PAGE))
        .fix("Set neon.project_id in config/psn.toml to the project that this hub is to use"))
}

/// None where there is no such project any more.
pub(crate) fn project(id: &str) -> Result<Option<Project>, http::Error> {
    let reply = neon().get(path!("/projects/{}", id)).retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(None);
    }
    let project = reply.success()?.json::<ProjectReply>()?.project;
    Ok(Some(project).filter(|project| project.deleted_at.is_none()))
}

pub(crate) struct Created {
    pub project: Project,
    pub operations: Vec<Operation>,
}

/// Not repeatable: names are not unique, and Neon knows no idempotency key. 423, 429 and 503 promise that nothing was made.
pub(crate) fn create(name: &str, org_id: Option<&str>) -> Result<Created, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        project: Project,
        #[serde(default)]
        operations: Vec<Operation>,
    }
    let mut project = json!({
        "name": name,
        "branch": {
            "database_name": context::setting_or("neon.database", "hub"),
            "role_name": context::setting_or("neon.role", "hub_owner"),
        },
    });
    if let Some(org_id) = org_id {
        project["org_id"] = org_id.into();
    }
    if let Some(region) = context::setting("neon.region") {
        project["region_id"] = region.into();
    }
    if let Some(version) = context::setting("neon.pg_version").and_then(|text| text.parse::<u32>().ok()) {
        project["pg_version"] = version.into();
    }
    let reply = neon().post("/projects").json(&json!({ "project": project })).retry_when_busy().send()?;
    let Reply { project, operations } = reply.success()?.json()?;
    Ok(Created { project, operations })
}

/// When it can be recovered until, or none where it was gone before.
pub(crate) fn delete(id: &str) -> Result<Option<String>, http::Error> {
    // Deleting twice deletes once.
    let reply = neon().delete(path!("/projects/{}", id)).idempotent().retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(None);
    }
    let project = reply.success()?.json::<ProjectReply>()?.project;
    Ok(Some(project.recoverable_until.unwrap_or_else(|| "the end of Neon's recovery time".into())))
}

/// The endpoint that takes writes.
pub(crate) fn endpoint(project: &str) -> Result<Option<Endpoint>, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        endpoints: Vec<Endpoint>,
    }
    let reply = neon().get(path!("/projects/{}/endpoints", project)).retry_when_busy().send()?;
    let endpoints = reply.success()?.json::<Reply>()?.endpoints;
    Ok(endpoints.into_iter().find(|endpoint| endpoint.kind == "read_write"))
}

pub(crate) fn operations(project: &str) -> Result<Vec<Operation>, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        operations: Vec<Operation>,
    }
    let reply = neon().get(path!("/projects/{}/operations", project)).query("limit", PAGE).retry_when_busy().send()?;
    Ok(reply.success()?.json::<Reply>()?.operations)
}

/// None where Neon has forgotten it: operations are not kept for ever.
pub(crate) fn operation(project: &str, id: &str) -> Result<Option<Operation>, http::Error> {
    #[derive(Deserialize)]
    struct Reply {
        operation: Operation,
    }
    let reply = neon().get(path!("/projects/{}/operations/{}", project, id)).retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(None);
    }
    Ok(Some(reply.success()?.json::<Reply>()?.operation))
}

/// Has Neon answer the connection string; the manifest's `capture` puts it where the host keeps it.
pub(crate) fn keep_connection_uri(project: &str, database: &str, role: &str, pooled: bool) -> Result<(), Failure> {
    let reply = neon()
        .get(path!("/projects/{}/connection_uri", project))
        .query("database_name", database)
        .query("role_name", role)
        .maybe_query("pooled", pooled.then_some(true))
        .retry_when_busy()
        .send()?;
    if reply.status() == 404 {
        let message = format!(
            "The Neon project {project} has no database `{database}` with a role `{role}`: {}",
            reply.refusal().message
        );
        return Err(Failure::new("database-not-found", message)
            .fix("Set neon.database and neon.role in config/psn.toml to what the project has"));
    }
    reply.success()?;
    Ok(())
}
