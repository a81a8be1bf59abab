mod applying;
mod deploying;
mod inspecting;
mod plans;

use psn_plugin::testing::Hub;

use super::*;

const NAME: &str = "psn-hub-7f3a0c1d";
const HASH: &str = "5b1ed3ff";
const PROJECT: &str = "/api/v1/projects/proj_abc";

/// A hub with a token, which Trigger.dev knows, and two tasks, one of them scheduled.
fn hub() -> Hub {
    known(unasked())
}

fn known(hub: Hub) -> Hub {
    let me = json!({"userId": "u1", "email": "me@example.com", "dashboardUrl": "https://cloud.trigger.dev"});
    hub.expect("trigger", "GET /api/v2/whoami").reply(200, me);
    hub
}

/// The same, where nobody asks who the token is of.
fn unasked() -> Hub {
    Hub::new(MANIFEST)
        .secret("TRIGGER_ACCESS_TOKEN")
        .secret("HUB_ENCRYPTION_KEY")
        .secret("DATABASE_URL_PLUGIN_WATCHDOG")
        .facts("tasks", facts())
}

fn facts() -> serde_json::Value {
    json!({
        "content_hash": HASH,
        "deploy": "cli",
        "tasks": [
            {
                "id": "watchdog", "file_path": "components/watchdog@sha256-aa.wasm", "cron": "*/15 * * * *",
                "hourly": "0 * * * *", "timezone": "UTC", "max_duration_s": 60, "queue": null,
                "retry": {"maxAttempts": 3, "minTimeoutInMs": 1000, "maxTimeoutInMs": 10000, "factor": 2, "randomize": true},
            },
            {
                "id": "publish-post", "file_path": "components/publish-post@sha256-bb.wasm", "cron": null,
                "timezone": null, "max_duration_s": null, "queue": "posts", "retry": null,
            },
        ],
        // The key of the environment itself is Trigger.dev's own affair.
        "env": ["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY", "TRIGGER_SECRET_KEY"],
        "plain_env": {"PSN_HUB_ID": "7f3a0c1d"},
    })
}

/// The same, provisioned before.
fn provisioned() -> Hub {
    known(provisioned_unasked())
}

fn provisioned_unasked() -> Hub {
    unasked()
        .secret("TRIGGER_SECRET_KEY")
        .secret("TRIGGER_PROJECT_REF")
        .note("project", noted())
        .note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]))
}

fn noted() -> serde_json::Value {
    json!({"id": "cm1", "external_ref": "proj_abc", "name": NAME, "org": "acme", "created": true, "chosen": false})
}

/// The notes of an import of these secrets in the values that `hub` gives them.
fn imported(secrets: &[&str]) -> serde_json::Value {
    let prints: serde_json::Map<_, _> =
        secrets.iter().map(|name| ((*name).to_owned(), json!(fingerprint_of(name)))).collect();
    json!({"external_ref": "proj_abc", "secrets": prints, "plain": {"PSN_HUB_ID": "7f3a0c1d"}})
}

/// As the doubles fingerprint a secret whose value is its name.
fn fingerprint_of(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

fn org(slug: &str) -> serde_json::Value {
    json!({"id": format!("id-{slug}"), "title": slug.to_uppercase(), "slug": slug, "createdAt": "2026-01-01T00:00:00Z"})
}

fn project(id: &str, external_ref: &str, name: &str) -> serde_json::Value {
    json!({"id": id, "externalRef": external_ref, "name": name, "slug": name, "createdAt": "", "organization": org("acme")})
}

fn expect_orgs(hub: &Hub, slugs: &[&str]) {
    let orgs: Vec<_> = slugs.iter().map(|slug| org(slug)).collect();
    hub.expect("trigger", "GET /api/v1/orgs").reply(200, json!(orgs));
}

fn expect_projects(hub: &Hub, projects: &[serde_json::Value]) {
    hub.expect("trigger", "GET /api/v1/orgs/acme/projects").reply(200, json!(projects));
}

fn expect_ours(hub: &Hub) {
    expect_projects(hub, &[project("cm0", "proj_other", "other"), project("cm1", "proj_abc", NAME)]);
}

fn expect_variables(hub: &Hub, names: &[&str]) {
    expect_variables_through(hub, "trigger", names);
}

fn expect_variables_through(hub: &Hub, service: &str, names: &[&str]) {
    let variables: Vec<_> =
        names.iter().map(|name| json!({"name": name, "value": "<redacted>", "isSecret": true})).collect();
    hub.expect(service, &format!("GET {PROJECT}/envvars/prod")).reply(200, json!(variables));
}

const ALL_VARIABLES: [&str; 3] = ["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY", "PSN_HUB_ID"];

fn deployment(id: &str, status: &str, external_id: &str) -> serde_json::Value {
    json!({"id": id, "status": status, "version": "20260101.1", "shortCode": "x", "externalId": external_id, "createdAt": ""})
}

fn expect_current(hub: &Hub, external_id: Option<&str>) {
    let request = hub.expect("trigger-env", "GET /api/v1/deployments/current");
    match external_id {
        Some(id) => request.reply(200, deployment("deployment_1", "DEPLOYED", id)),
        None => request.reply(404, json!({"error": "Deployment not found"})),
    }
}

fn expect_worker(hub: &Hub, slugs: &[&str]) {
    expect_worker_through(hub, "trigger", slugs);
}

fn expect_worker_through(hub: &Hub, service: &str, slugs: &[&str]) {
    let tasks: Vec<_> =
        slugs.iter().map(|slug| json!({"id": format!("task_{slug}"), "slug": slug, "filePath": ""})).collect();
    hub.expect(service, &format!("GET {PROJECT}/prod/workers/current"))
        .reply(200, json!({"worker": {"id": "w", "version": "20260101.1", "tasks": tasks}, "urls": {"runs": ""}}));
}

fn schedule(task: &str, active: bool) -> serde_json::Value {
    json!({
        "id": "sched_1", "type": "DECLARATIVE", "task": task, "active": active, "timezone": "UTC", "environments": [],
        "generator": {"type": "CRON", "expression": "*/15 * * * *", "description": ""},
    })
}

fn expect_schedules(hub: &Hub, schedules: &[serde_json::Value]) {
    hub.expect("trigger-env", "GET /api/v1/schedules")
        .query("page", "1")
        .header("x-trigger-api-version", "2025-07-16")
        .reply(200, json!({"data": schedules, "pagination": {"currentPage": 1, "totalPages": 1, "count": 1}}));
}

/// The promoted deployment is the one of these tasks, with everything in it.
fn expect_complete(hub: &Hub) {
    expect_current(hub, Some(HASH));
    expect_worker(hub, &["watchdog", "publish-post"]);
    expect_schedules(hub, &[schedule("watchdog", true)]);
}
