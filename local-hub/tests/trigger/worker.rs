//! A worker that fetches its runs, as `trigger dev` does; and what a person or a test switches.
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Hub, Project, assert_schema};

async fn development(hub: &Hub, project: &Project, tasks: Value) -> Value {
    let body = json!({
        "localOnly": true, "engine": "V2",
        "metadata": { "contentHash": "abc", "packageVersion": "4.8.3", "cliPackageVersion": "4.8.3", "tasks": tasks, "queues": [] },
    });
    let path = format!("/api/v1/projects/{}/background-workers", project.reference);
    hub.post(&path, &project.dev, body).await.ok("CreateBackgroundWorkerResponse")
}

/// The one run that is fetched: its id and its snapshot's.
async fn fetch(hub: &Hub, key: &str) -> Option<(String, String)> {
    let body = json!({ "currentWorker": "worker_x", "oldWorkers": [] });
    let reply = hub.post("/engine/v1/dev/dequeue", key, body).await.ok("DevDequeueResponseBody");
    let message = reply["dequeuedMessages"].as_array().unwrap().first()?.clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some((text(&message["run"]["friendlyId"]), text(&message["snapshot"]["friendlyId"])))
}

fn attempt(run: &str, snapshot: &str, what: &str) -> String {
    format!("/engine/v1/dev/runs/{run}/snapshots/{snapshot}/attempts/{what}")
}

#[tokio::test]
async fn a_development_worker_fetches_and_ends_its_runs() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.dev.as_str();
    hub.get("/engine/v1/dev/config", key).await.ok("DevConfigResponseBody");
    assert_eq!(hub.get("/engine/v1/dev/config", &project.prod).await.status, 403, "dev environments only");
    development(&hub, &project, json!([{ "id": "remote", "filePath": "src/a.ts", "maxDuration": 60 }])).await;
    assert!(fetch(&hub, key).await.is_none(), "nothing was triggered yet");

    let (id, _) = hub.trigger(key, "remote", json!({})).await;
    let (run, snapshot) = fetch(&hub, key).await.expect("the run");
    assert_eq!(run, id);
    assert!(hub.runner.calls().is_empty(), "the engine here leaves it alone");
    assert!(fetch(&hub, key).await.is_none(), "a run is given out once");

    let started = hub.post(&attempt(&id, &snapshot, "start"), key, json!({ "isWarmStart": false })).await;
    let started = started.ok("WorkerApiRunAttemptStartResponseBody");
    assert_eq!(started["execution"]["run"]["payload"], "{\"n\":1}");
    assert_eq!(started["envVars"]["TRIGGER_SECRET_KEY"], project.dev);
    let snapshot = started["snapshot"]["friendlyId"].as_str().unwrap().to_owned();
    let beat = format!("/engine/v1/dev/runs/{id}/snapshots/{snapshot}/heartbeat");
    assert_eq!(hub.post(&beat, key, json!({})).await.json(), json!({ "ok": true }));
    let latest = hub.get(&format!("/engine/v1/dev/runs/{id}/snapshots/latest"), key).await;
    assert_eq!(
        latest.ok("WorkerApiRunLatestSnapshotResponseBody")["execution"]["snapshot"]["executionStatus"],
        "EXECUTING"
    );

    // It fails and wants to be tried again at once; the second attempt ends well.
    let failed = json!({ "completion": {
        "ok": false, "id": id, "error": { "type": "BUILT_IN_ERROR", "name": "TypeError", "message": "no", "stackTrace": "" },
        "retry": { "timestamp": 0, "delay": 1 },
    }});
    let reply = hub.post(&attempt(&id, &snapshot, "complete"), key, failed).await;
    assert_eq!(reply.ok("WorkerApiRunAttemptCompleteResponseBody")["result"]["attemptStatus"], "RETRY_QUEUED");
    let (_, snapshot) = hub.eventually("the second attempt", async || fetch(&hub, key).await).await;
    hub.post(&attempt(&id, &snapshot, "start"), key, json!({})).await.ok("WorkerApiRunAttemptStartResponseBody");
    let done = json!({ "completion": {
        "ok": true, "id": id, "output": "{\"json\":{\"a\":1}}", "outputType": "application/super+json",
        "flushedMetadata": {
            "data": "{\"json\":{\"operations\":[{\"type\":\"set\",\"key\":\"progress\",\"value\":2}]}}",
            "dataType": "application/super+json",
        },
    }});
    let reply = hub.post(&attempt(&id, &snapshot, "complete"), key, done.clone()).await;
    assert_eq!(reply.ok("WorkerApiRunAttemptCompleteResponseBody")["result"]["attemptStatus"], "RUN_FINISHED");
    let run = hub.run(key, &id).await;
    assert_eq!(
        (&run["status"], &run["output"], &run["attemptCount"]),
        (&json!("COMPLETED"), &json!({ "a": 1 }), &json!(2))
    );
    assert_eq!(run["metadata"], json!({ "progress": 2 }));

    // A worker whose lease is gone changes nothing.
    let (id, _) = hub.trigger(key, "remote", json!({})).await;
    let (_, snapshot) = fetch(&hub, key).await.expect("the run");
    hub.sql("UPDATE trigger.runs SET lease_expires_at = now() - interval '1 second' WHERE id = $1", &id).await;
    hub.trigger(key, "remote", json!({ "delay": "1h" })).await;
    let (again, second) = hub.eventually("the run to be given out again", async || fetch(&hub, key).await).await;
    assert_eq!(again, id);
    assert_eq!(hub.post(&attempt(&id, &snapshot, "start"), key, json!({})).await.status, 401);
    hub.post(&attempt(&id, &second, "start"), key, json!({})).await.ok("WorkerApiRunAttemptStartResponseBody");
    hub.post(&attempt(&id, &snapshot, "complete"), key, done).await.ok("WorkerApiRunAttemptCompleteResponseBody");
    assert_eq!(hub.status(key, &id).await, "EXECUTING");
    let gone = hub.post("/engine/v1/dev/disconnect", key, json!({ "runFriendlyIds": [id] })).await;
    assert_eq!(gone.ok("DevDisconnectResponseBody"), json!({ "cancelled": 1 }));
    assert_eq!(hub.status(key, &id).await, "CANCELED");
}

#[tokio::test]
async fn plans_pauses_keys_and_short_tokens() {
    let hub = Hub::start().await;
    let mut project = hub.project("psn hub").await;
    let orgs = hub.get("/api/v1/orgs", &hub.token).await.ok("GetOrgsResponseBody");
    let org = orgs[0]["slug"].as_str().unwrap();
    let plan = async |plan: &str| {
        let path = format!("/psn/v1/orgs/{org}/plan");
        let reply = hub.send(Method::PUT, &path, &hub.token, Some(json!({ "plan": plan }))).await;
        assert!(reply.status.is_success(), "{}", reply.text);
    };
    let projects = format!("/api/v1/orgs/{org}/projects");
    let activate = format!("/api/v1/orgs/{org}/activate-free-plan");
    plan("none").await;
    hub.post(&projects, &hub.token, json!({ "name": "x" }))
        .await
        .refused(402, "You must select a plan for this organization before creating projects.");
    assert_eq!(hub.post(&activate, &hub.token, json!({})).await.json(), json!({ "plan": "free" }));
    assert_eq!(hub.post(&activate, &hub.token, json!({})).await.status, 409);

    // The free plan: hourly at most, and the deployment says so in the vendor's words.
    let often = json!({ "id": "often", "schedule": { "cron": "*/15 * * * *", "timezone": "UTC" } });
    let id = hub.initialize(&project.prod, json!({})).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(hub.register(&project.prod, &id, std::slice::from_ref(&often)).await.status, 400);
    let failed = hub.get(&format!("/api/v1/deployments/{id}"), &project.prod).await.ok("GetDeploymentResponseBody");
    assert_eq!((&failed["status"], &failed["errorData"]["name"]), (&json!("FAILED"), &json!("SchedulePlanLimitError")));
    plan("unlimited").await;
    hub.deploy(&project.prod, &[often, json!("ok")]).await;

    // Paused, nothing is started.
    let env = format!("/api/v1/projects/{}/prod", project.reference);
    assert_eq!(hub.post(&format!("{env}/pause"), &hub.token, json!({})).await.json()["paused"], true);
    let (waiting, _) = hub.trigger(&project.prod, "ok", json!({})).await;
    let (sentinel, _) = hub.trigger(&project.prod, "ok", json!({ "delay": "1s" })).await;
    hub.reaches(&project.prod, &sentinel, &["QUEUED"]).await;
    assert_eq!(hub.status(&project.prod, &waiting).await, "QUEUED");
    hub.post(&format!("{env}/resume"), &hub.token, json!({})).await;
    hub.reaches(&project.prod, &waiting, &["COMPLETED"]).await;

    // A short token does what its scopes say.
    let mint = json!({ "claims": { "scopes": ["read:runs"] } });
    let token = hub.post(&format!("{env}/jwt"), &hub.token, mint).await.json()["token"].as_str().unwrap().to_owned();
    hub.get("/api/v1/runs", &token).await.ok("ListRunResponse");
    hub.post("/api/v1/tasks/ok/trigger", &token, json!({ "payload": {} })).await.refused(403, "Unauthorized");
    hub.get("/api/v1/runs", &format!("{token}x")).await.refused(401, "Invalid API Key");

    // A new key: the old one and its tokens are worth nothing.
    let new = hub.post(&format!("{env}/regenerate-api-key"), &hub.token, json!({})).await.json();
    hub.get("/api/v1/runs", &project.prod).await.refused(401, "Invalid API Key");
    hub.get("/api/v1/runs", &token).await.refused(401, "Invalid API Key");
    project.prod = new["apiKey"].as_str().unwrap().to_owned();
    hub.get("/api/v1/runs", &project.prod).await.ok("ListRunResponse");
}

#[tokio::test]
async fn uploads_need_their_policy_and_bundles_are_looked_into() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let ask = json!({ "type": "deployment_bundle", "contentType": "application/gzip", "contentLength": 4 });
    let reply = hub.post("/api/v1/artifacts", &project.prod, ask).await;
    assert_eq!(reply.status, 201);
    let artifact = reply.json();
    assert_schema("CreateArtifactResponseBody", &artifact);
    let key = artifact["artifactKey"].as_str().unwrap();
    assert!(key.starts_with("bundles/"), "{key}");
    let policy = artifact["uploadFields"]["policy"].as_str().unwrap();
    let form = |policy: &str| {
        let part =
            |head: &str, body: &str| format!("--psn\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n");
        part("name=\"key\"", key)
            + &part("name=\"policy\"", policy)
            + &part("name=\"file\"; filename=\"x\"", "none")
            + "--psn--\r\n"
    };
    let kind = "multipart/form-data; boundary=psn";
    assert_eq!(hub.raw("/upload", "x", kind, form("guessed")).await.status, 403);
    assert_eq!(hub.raw("/upload", "x", kind, form(policy)).await.status, 204);
    assert_eq!(hub.raw("/upload", "x", kind, form(policy)).await.status, 403, "once");

    let native =
        |key: &str| json!({ "isLocalBuild": false, "isNativeBuild": true, "fromBundle": true, "artifactKey": key });
    hub.initialize(&project.prod, native("bundles/nothing")).await.refused(400, "Artifact not found");
    // What was uploaded is no archive: the deployment fails with a reason, by itself.
    let id = hub.initialize(&project.prod, native(key)).await.ok("InitializeDeploymentResponseBody")["id"].clone();
    let path = format!("/api/v1/deployments/{}", id.as_str().unwrap());
    let failed = hub
        .eventually("the build to fail", async || {
            let deployment = hub.get(&path, &project.prod).await.ok("GetDeploymentResponseBody");
            (deployment["status"] == "FAILED").then_some(deployment)
        })
        .await;
    assert_eq!(failed["errorData"]["name"], "BuildError");
}

/// Killed in the middle of 40 runs, again and again: each run ends once, and no attempt is made beyond those that a kill interrupted.
#[tokio::test]
async fn killed_again_and_again_the_engine_loses_and_doubles_nothing() {
    const RUNS: usize = 40;
    const KILLS: usize = 4;
    /// The engine's own concurrency: the most that one kill can interrupt.
    const AT_ONCE: usize = 4;
    let mut hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.clone();
    hub.deploy(&key, &[json!("brief")]).await;
    let mut runs = Vec::new();
    for n in 0..RUNS {
        let options = json!({ "idempotencyKey": format!("k{n}") });
        runs.push(hub.trigger_with(&key, "brief", json!({ "n": n }), options).await.0);
    }
    for kill in 1..=KILLS {
        let enough = kill * RUNS / (KILLS + 2);
        hub.eventually("some to be under way", async || (hub.runner.calls().len() >= enough).then_some(())).await;
        hub.kill();
        hub.restart().await;
    }
    for (n, run) in runs.iter().enumerate() {
        let ended = hub.reaches(&key, run, &["COMPLETED", "FAILED", "CRASHED", "SYSTEM_FAILURE"]).await;
        assert_eq!((&ended["status"], &ended["output"]["payload"]["n"]), (&json!("COMPLETED"), &json!(n)));
        // The keys survive too: the same call finds the same run.
        let options = json!({ "idempotencyKey": format!("k{n}") });
        assert_eq!(hub.trigger_with(&key, "brief", json!({ "n": n }), options).await, (run.clone(), true));
    }
    let attempts = hub.runner.calls().len();
    assert!(
        (RUNS..=RUNS + KILLS * AT_ONCE).contains(&attempts),
        "{attempts} attempts of {RUNS} runs with {KILLS} kills"
    );
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM trigger.runs").fetch_one(&hub.db).await.unwrap();
    assert_eq!(stored, RUNS as i64);
}
