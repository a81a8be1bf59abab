//! The part of Neon's API v2 that this step uses.

use psn_neon_step::{
    Created, Database, Endpoint, Kept, Key, Neon, Operation, Organization, Project, Search, Trouble, Wish,
};
use psn_plugin::{http, http::path, prelude::*};
use serde::Deserialize;

/// Projects per page; a shorter page is the last one.
const PAGE: usize = 100;
/// Pages read before something must be wrong: an account with this many projects of similar names does not exist.
const MOST_PAGES: usize = 50;
/// As GET /auth says of a key that is an organization's.
const ORGANIZATION_KEY: &str = "api_key_org";

pub(crate) struct Api;

#[derive(Deserialize)]
struct ProjectReply {
    project: Project,
}

fn neon() -> http::Service<'static> {
    http::service("neon")
}

fn keep(project: &str, database: &Database, pooled: bool) -> Result<Kept, Trouble> {
    let reply = neon()
        .get(path!("/projects/{}/connection_uri", project))
        .query("database_name", &database.name)
        .query("role_name", &database.owner_name)
        .maybe_query("pooled", pooled.then_some(true))
        .retry_when_busy()
        .send()?;
    if reply.status() == 404 {
        return Ok(Kept::NoSuchDatabase);
    }
    // The manifest's `capture` puts the string where the host keeps it.
    reply.success()?;
    Ok(Kept::Yes)
}

fn default_branch(project: &str) -> Result<Option<String>, Trouble> {
    #[derive(Deserialize)]
    struct Branches {
        branches: Vec<Branch>,
    }
    #[derive(Deserialize)]
    struct Branch {
        id: String,
        default: bool,
    }
    let branches: Branches =
        neon().get(path!("/projects/{}/branches", project)).retry_when_busy().send()?.success()?.json()?;
    Ok(branches.branches.into_iter().find(|branch| branch.default).map(|branch| branch.id))
}

impl Neon for Api {
    fn key(&self) -> Result<Key, Trouble> {
        #[derive(Deserialize)]
        struct Auth {
            auth_method: String,
        }
        #[derive(Deserialize)]
        struct Organizations {
            organizations: Vec<Organization>,
        }
        let auth: Auth = neon().get("/auth").retry_when_busy().send()?.success()?.json()?;
        if auth.auth_method == ORGANIZATION_KEY {
            return Ok(Key::Organization);
        }
        let reply = neon().get("/users/me/organizations").retry_when_busy().send()?;
        Ok(Key::Person(reply.success()?.json::<Organizations>()?.organizations))
    }

    fn regions(&self) -> Result<Vec<String>, Trouble> {
        #[derive(Deserialize)]
        struct Reply {
            regions: Vec<Region>,
        }
        #[derive(Deserialize)]
        struct Region {
            region_id: String,
        }
        let reply: Reply = neon().get("/regions").retry_when_busy().send()?.success()?.json()?;
        Ok(reply.regions.into_iter().map(|region| region.region_id).collect())
    }

    fn search(&self, text: &str, org_id: Option<&str>, deleted: bool) -> Result<Search, Failure> {
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
        let count = MOST_PAGES * PAGE;
        Err(Failure::new("too-many-projects", format!("Neon lists more than {count} projects like `{text}`"))
            .fix("Set neon.project_id in config/psn.toml to the project that this hub is to use"))
    }

    fn visible(&self) -> Result<Vec<Project>, Trouble> {
        #[derive(Deserialize)]
        struct Reply {
            projects: Vec<Project>,
        }
        let reply: Reply = neon().get("/projects").retry_when_busy().send()?.success()?.json()?;
        Ok(reply.projects)
    }

    fn project(&self, id: &str) -> Result<Option<Project>, Trouble> {
        let reply = neon().get(path!("/projects/{}", id)).retry_when_busy().send()?;
        if reply.status() == 404 {
            return Ok(None);
        }
        let project = reply.success()?.json::<ProjectReply>()?.project;
        Ok(Some(project).filter(|project| project.deleted_at.is_none()))
    }

    /// Not repeatable: names are not unique, and Neon knows no idempotency key. 423, 429 and 503 promise that nothing was made.
    fn create(&self, wish: &Wish) -> Result<Created, Trouble> {
        #[derive(Deserialize)]
        struct Reply {
            project: Project,
            #[serde(default)]
            operations: Vec<Operation>,
        }
        let mut project = json!({
            "name": wish.name,
            "branch": { "database_name": wish.database, "role_name": wish.role },
        });
        if let Some(org_id) = &wish.org_id {
            project["org_id"] = org_id.as_str().into();
        }
        if let Some(region) = &wish.region {
            project["region_id"] = region.as_str().into();
        }
        if let Some(version) = wish.pg_version {
            project["pg_version"] = version.into();
        }
        let reply = neon().post("/projects").json(&json!({ "project": project })).retry_when_busy().send()?;
        let Reply { project, operations } = reply.success()?.json()?;
        Ok(Created { project, operations })
    }

    fn recover(&self, id: &str) -> Result<(), Trouble> {
        let reply = neon().post(path!("/projects/{}/recover", id)).retry_when_busy().send()?;
        reply.success()?;
        Ok(())
    }

    fn delete(&self, id: &str) -> Result<Option<String>, Trouble> {
        // Deleting twice deletes once.
        let reply = neon().delete(path!("/projects/{}", id)).idempotent().retry_when_busy().send()?;
        if reply.status() == 404 {
            return Ok(None);
        }
        let project = reply.success()?.json::<ProjectReply>()?.project;
        Ok(Some(project.recoverable_until.unwrap_or_else(|| "the end of Neon's recovery time".into())))
    }

    fn databases(&self, project: &str) -> Result<Vec<Database>, Trouble> {
        #[derive(Deserialize)]
        struct Databases {
            databases: Vec<Database>,
        }
        let Some(branch) = default_branch(project)? else { return Ok(Vec::new()) };
        let path = path!("/projects/{}/branches/{}/databases", project, &branch);
        Ok(neon().get(path).retry_when_busy().send()?.success()?.json::<Databases>()?.databases)
    }

    fn endpoint(&self, project: &str, _: &Database) -> Result<Option<Endpoint>, Trouble> {
        #[derive(Deserialize)]
        struct Reply {
            endpoints: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            id: String,
            host: String,
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            disabled: bool,
        }
        let reply = neon().get(path!("/projects/{}/endpoints", project)).retry_when_busy().send()?;
        let endpoints = reply.success()?.json::<Reply>()?.endpoints;
        let found = endpoints.into_iter().find(|endpoint| endpoint.kind == "read_write");
        Ok(found.map(|Listed { id, host, disabled, .. }| Endpoint { id, host, disabled }))
    }

    fn operations(&self, project: &str) -> Result<Vec<Operation>, Trouble> {
        #[derive(Deserialize)]
        struct Reply {
            operations: Vec<Operation>,
        }
        let path = path!("/projects/{}/operations", project);
        let reply = neon().get(path).query("limit", PAGE).retry_when_busy().send()?;
        Ok(reply.success()?.json::<Reply>()?.operations)
    }

    fn operation(&self, project: &str, id: &str) -> Result<Option<Operation>, Trouble> {
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

    /// Twice makes two passwords, of which the second holds.
    fn reset_password(&self, project: &str, role: &str) -> Result<Vec<Operation>, Trouble> {
        #[derive(Deserialize)]
        struct Reply {
            #[serde(default)]
            operations: Vec<Operation>,
        }
        let branch = default_branch(project)?.unwrap_or_default();
        let path = path!("/projects/{}/branches/{}/roles/{}/reset_password", project, &branch, role);
        // The manifest's `capture` keeps the password out of this plugin's sight.
        let reply = neon().post(path).idempotent().retry_when_busy().send()?;
        Ok(reply.success()?.json::<Reply>()?.operations)
    }

    fn keep_connection_strings(&self, project: &str, database: &Database) -> Result<Kept, Trouble> {
        match keep(project, database, true)? {
            Kept::Yes => keep(project, database, false),
            Kept::NoSuchDatabase => Ok(Kept::NoSuchDatabase),
        }
    }
}
