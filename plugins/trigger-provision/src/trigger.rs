//! The part of Trigger.dev's API that this step uses: `account` calls with the person's or an organisation's token, `environment`
//! calls with the key of the project's production environment, `either` calls with the token where there is one.

use psn_plugin::{http, http::path, prelude::*};
use serde::Deserialize;

use crate::error::Error;

/// Without it Trigger.dev answers in older words.
const API_VERSION: (&str, &str) = ("x-trigger-api-version", "2025-07-16");
/// Schedules per page, and pages read at most.
const SCHEDULES: u32 = 100;
const MOST_PAGES: u32 = 20;
/// Deployments looked through for one that was just started.
const DEPLOYMENTS: u32 = 20;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Org {
    pub id: String,
    pub title: String,
    pub slug: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Project {
    pub id: String,
    pub external_ref: String,
    pub name: String,
    pub organization: Org,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    pub id: String,
    pub status: String,
    pub version: String,
    pub external_id: Option<String>,
    /// Called `errorData` where one deployment is asked for, `error` where several are listed.
    #[serde(alias = "errorData")]
    pub error: Option<DeploymentError>,
}

impl Deployment {
    /// Well or badly.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "DEPLOYED" | "FAILED" | "CANCELED" | "TIMED_OUT")
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeploymentError {
    pub name: String,
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Schedule {
    pub task: String,
    pub active: bool,
    pub generator: Generator,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Generator {
    pub expression: String,
}

fn account() -> http::Service<'static> {
    http::service("trigger")
}

fn environment() -> http::Service<'static> {
    http::service("trigger-env")
}

fn either() -> http::Service<'static> {
    if secrets::exists(crate::TOKEN) { account() } else { environment() }
}

/// Says only whether the token is one: an organisation's is nobody's, and what comes back is of no use here.
pub(crate) fn whoami() -> Result<(), Error> {
    account().get("/api/v2/whoami").retry_when_busy().send()?.success()?;
    Ok(())
}

/// A project as an organisation's token sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Production {
    pub name: String,
    pub project_id: String,
}

/// None where the token sees no such project. Its key is kept by the manifest's `capture`.
pub(crate) fn production(external_ref: &str) -> Result<Option<Production>, Error> {
    let reply = account().get(path!("/api/v1/projects/{}/prod", external_ref)).retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(None);
    }
    Ok(Some(reply.success()?.json()?))
}

pub(crate) fn orgs() -> Result<Vec<Org>, Error> {
    Ok(account().get("/api/v1/orgs").retry_when_busy().send()?.success()?.json()?)
}

/// None where there is no such organisation any more.
pub(crate) fn projects(org: &str) -> Result<Option<Vec<Project>>, Error> {
    let reply = account().get(path!("/api/v1/orgs/{}/projects", org)).retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(None);
    }
    Ok(Some(reply.success()?.json()?))
}

/// Not repeatable: names are not unique, and the route knows no idempotency key.
pub(crate) fn create(org: &str, name: &str) -> Result<Project, Error> {
    let request = account().post(path!("/api/v1/orgs/{}/projects", org)).json(&json!({ "name": name }));
    Ok(request.send()?.success()?.json()?)
}

/// An organisation without a plan cannot have projects. 409: it has one already.
pub(crate) fn activate_free_plan(org: &str) -> Result<(), Error> {
    let request = account().post(path!("/api/v1/orgs/{}/activate-free-plan", org)).json(&json!({}));
    let reply = request.idempotent().send()?;
    if reply.status() == 409 {
        return Ok(());
    }
    reply.success()?;
    Ok(())
}

/// Whether it was there.
pub(crate) fn delete(external_ref: &str) -> Result<bool, Error> {
    let reply = account().delete(path!("/api/v1/projects/{}", external_ref)).idempotent().retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(false);
    }
    reply.success()?;
    Ok(true)
}

/// Has Trigger.dev answer the project's reference; the manifest's `capture` puts it where the host keeps it.
pub(crate) fn keep_project_ref(external_ref: &str) -> Result<(), Error> {
    account().get(path!("/api/v1/projects/{}", external_ref)).retry_when_busy().send()?.success()?;
    Ok(())
}

/// Has Trigger.dev answer the production key; the manifest's `capture` puts it where the host keeps it.
pub(crate) fn keep_environment_key(external_ref: &str) -> Result<(), Error> {
    account().get(path!("/api/v1/projects/{}/prod", external_ref)).retry_when_busy().send()?.success()?;
    Ok(())
}

/// Names only: Trigger.dev shows no values of secrets.
pub(crate) fn variables(external_ref: &str) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Variable {
        name: String,
    }
    let reply = either().get(path!("/api/v1/projects/{}/envvars/prod", external_ref)).retry_when_busy().send()?;
    Ok(reply.success()?.json::<Vec<Variable>>()?.into_iter().map(|variable| variable.name).collect())
}

/// Sets all of them, whatever they were.
pub(crate) fn import_variables(external_ref: &str, variables: serde_json::Value, secret: bool) -> Result<(), Error> {
    either()
        .post(path!("/api/v1/projects/{}/envvars/prod/import", external_ref))
        .json(&json!({ "variables": variables, "override": true, "isSecret": secret }))
        .idempotent()
        .retry_when_busy()
        .send()?
        .success()?;
    Ok(())
}

/// The task ids of the deployment that runs now; none where nothing runs.
pub(crate) fn current_tasks(external_ref: &str) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Reply {
        worker: Worker,
    }
    #[derive(Deserialize)]
    struct Worker {
        tasks: Vec<WorkerTask>,
    }
    #[derive(Deserialize)]
    struct WorkerTask {
        slug: String,
    }
    let reply =
        either().get(path!("/api/v1/projects/{}/prod/workers/current", external_ref)).retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(Vec::new());
    }
    Ok(reply.success()?.json::<Reply>()?.worker.tasks.into_iter().map(|task| task.slug).collect())
}

/// The promoted deployment.
pub(crate) fn current_deployment() -> Result<Option<Deployment>, Error> {
    let reply = environment().get("/api/v1/deployments/current").retry_when_busy().send()?;
    if reply.status() == 404 {
        return Ok(None);
    }
    Ok(Some(reply.success()?.json()?))
}

pub(crate) fn deployment(id: &str) -> Result<Deployment, Error> {
    Ok(environment().get(path!("/api/v1/deployments/{}", id)).retry_when_busy().send()?.success()?.json()?)
}

/// The newest deployment that was given this id of ours.
pub(crate) fn deployment_by_external_id(external_id: &str) -> Result<Option<Deployment>, Error> {
    #[derive(Deserialize)]
    struct Reply {
        data: Vec<Deployment>,
    }
    let request = environment().get("/api/v1/deployments").query("page[size]", DEPLOYMENTS);
    let reply: Reply = request.retry_when_busy().send()?.success()?.json()?;
    Ok(reply.data.into_iter().find(|deployment| deployment.external_id.as_deref() == Some(external_id)))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Started {
    pub id: String,
    pub version: String,
    /// `created`, or `existing` where the external id was used before.
    pub outcome: Option<String>,
}

/// `force` makes a new one even where the external id was used before.
pub(crate) fn start_deployment(content_hash: &str, external_id: &str, force: bool) -> Result<Started, Error> {
    let request = environment().post("/api/v1/deployments").json(&json!({
        "contentHash": content_hash,
        "externalId": external_id,
        "type": "MANAGED",
        "isLocalBuild": true,
        "triggeredVia": "cli:manual",
        "force": force,
    }));
    // The external id makes a second request answer the first one's deployment.
    let request = if force { request } else { request.idempotent() };
    Ok(request.retry_when_busy().send()?.success()?.json()?)
}

/// Answers Trigger.dev's warnings about the tasks.
pub(crate) fn register_tasks(deployment: &str, body: &serde_json::Value) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        warnings: Vec<Warning>,
    }
    #[derive(Deserialize)]
    struct Warning {
        message: String,
    }
    let request = environment().post(path!("/api/v1/deployments/{}/background-workers", deployment)).json(body);
    let reply: Reply = request.retry_when_busy().send()?.success()?.json()?;
    Ok(reply.warnings.into_iter().map(|warning| warning.message).collect())
}

/// A stream of events; the last one says how it ended. None: well; else Trigger.dev's words.
pub(crate) fn finalize(deployment: &str, image_digest: &str) -> Result<Option<String>, Error> {
    let body = json!({ "imageDigest": image_digest, "skipPromotion": false, "skipPushToRegistry": true });
    let request = environment().post(path!("/api/v3/deployments/{}/finalize", deployment)).json(&body);
    let reply = request.retry_when_busy().send()?.success()?;
    Ok(error_event(&reply.text()))
}

/// Also of a version that is older than the one in use: the tasks are those of the settings, which may have gone back.
pub(crate) fn promote(version: &str) -> Result<(), Error> {
    let request = environment()
        .post(path!("/api/v1/deployments/{}/promote", version))
        .query("allowRollbacks", true)
        .json(&json!({}));
    request.idempotent().retry_when_busy().send()?.success()?;
    Ok(())
}

pub(crate) fn schedules() -> Result<Vec<Schedule>, Error> {
    #[derive(Deserialize)]
    struct Reply {
        data: Vec<Schedule>,
        pagination: Pagination,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pagination {
        total_pages: u32,
    }
    let mut schedules = Vec::new();
    for page in 1..=MOST_PAGES {
        let request = environment().get("/api/v1/schedules").query("page", page).query("perPage", SCHEDULES);
        let reply: Reply = request.header(API_VERSION.0, API_VERSION.1).retry_when_busy().send()?.success()?.json()?;
        schedules.extend(reply.data);
        if page >= reply.pagination.total_pages {
            break;
        }
    }
    Ok(schedules)
}

/// The message of the first `error` event in a `text/event-stream`.
fn error_event(stream: &str) -> Option<String> {
    let stream = stream.replace("\r\n", "\n");
    let event = stream.split("\n\n").find(|event| event.lines().any(|line| line.trim_end() == "event: error"))?;
    let data = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_default().trim();
    let message =
        serde_json::from_str::<serde_json::Value>(data).ok().and_then(|data| Some(data["error"].as_str()?.to_owned()));
    Some(message.unwrap_or_else(|| data.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::error_event;

    #[test]
    fn error_events() {
        for (stream, expected) in [
            ("event: ping\ndata: {}\n\nevent: complete\ndata: {\"id\":\"deployment_1\"}\n\n", None),
            ("event: log\ndata: {\"message\":\"event: error\"}\n\n", None),
            ("event: ping\ndata: {}\n\nevent: error\ndata: {\"error\":\"no image\"}\n\n", Some("no image")),
            ("event: error\r\ndata: not json\r\n\r\n", Some("not json")),
            ("", None),
        ] {
            assert_eq!(error_event(stream).as_deref(), expected, "{stream}");
        }
    }
}
