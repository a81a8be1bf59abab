use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Hub, assert_schema};

#[tokio::test]
async fn a_deployment_goes_from_building_to_current() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.get("/api/v1/deployments/current", key).await.refused(404, "Not found");
    let worker_path = format!("/api/v1/projects/{}/prod/workers/current", project.reference);
    hub.get(&worker_path, &hub.token).await.refused(404, "Worker not found");

    let init = hub.initialize(key, json!({ "externalId": "rel-1" })).await.ok("InitializeDeploymentResponseBody");
    assert_eq!(init["outcome"], "created");
    let id = init["id"].as_str().unwrap();
    let version = init["version"].as_str().unwrap();
    let (day, number) = version.split_once('.').unwrap();
    assert!(day.len() == 8 && number == "1", "{version}");
    let path = format!("/api/v1/deployments/{id}");
    let shown = hub.get(&path, key).await.ok("GetDeploymentResponseBody");
    assert_eq!((&shown["status"], shown.get("worker")), (&json!("BUILDING"), None));

    // Out of order.
    let events = hub.finalize(key, id, json!({})).await;
    assert_eq!(
        events.last().unwrap(),
        &("error".to_owned(), json!({ "error": "Worker deployment does not have a worker" }))
    );
    let in_progress = hub.initialize(key, json!({ "externalId": "rel-1" })).await;
    assert_eq!(in_progress.status.as_u16(), 409);

    let tasks = [
        json!({ "id": "watchdog", "filePath": "watchdog.wasm", "maxDuration": 60, "retry": { "maxAttempts": 3 },
                "triggerSource": "schedule", "schedule": { "cron": "*/15 * * * *", "timezone": "UTC" } }),
        json!("publish"),
    ];
    let worker = hub.register(key, id, &tasks).await.ok("CreateBackgroundWorkerResponse");
    assert_eq!(worker["version"], version);
    // The indexer asks again when it lost the answer.
    assert_eq!(hub.register(key, id, &tasks).await.ok("CreateBackgroundWorkerResponse"), worker);
    let shown = hub.get(&path, key).await.ok("GetDeploymentResponseBody");
    assert_eq!(shown["status"], "DEPLOYING");
    assert_eq!(shown["worker"]["tasks"].as_array().unwrap().len(), 2);
    hub.get("/api/v1/deployments/current", key).await.refused(404, "Not found");

    let events = hub.finalize(key, id, json!({ "imageDigest": format!("sha256:{}", "a".repeat(64)) })).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ping", "log", "complete"]);
    assert_eq!(events[2].1, json!({ "id": id }));
    assert_eq!(hub.finalize(key, id, json!({})).await.last().unwrap().0, "complete", "asked again");
    assert_eq!(hub.get(&path, key).await.ok("GetDeploymentResponseBody")["status"], "DEPLOYED");
    let current = hub.get("/api/v1/deployments/current", key).await.ok("RetrieveCurrentDeploymentResponseBody");
    assert_eq!(
        (&current["id"], &current["status"], &current["externalId"]),
        (&json!(id), &json!("DEPLOYED"), &json!("rel-1"))
    );
    let worker = hub.get(&worker_path, &hub.token).await.ok("GetWorkerByTagResponse");
    assert_eq!(worker["worker"]["tasks"][1]["filePath"], "watchdog.wasm");
    assert_eq!(worker["worker"]["tasks"][1]["triggerSource"], "SCHEDULED");
    let runtimes = hub.get("/api/v1/projects/runtimes", &hub.token).await.ok("GetProjectRuntimesResponseBody");
    assert_eq!(runtimes[0]["deployment"]["runtime"], "node-24");

    let again = hub.initialize(key, json!({ "externalId": "rel-1" })).await.ok("InitializeDeploymentResponseBody");
    assert_eq!((&again["id"], &again["outcome"], &again["isPromoted"]), (&json!(id), &json!("existing"), &json!(true)));
    let forced = hub.initialize(key, json!({ "externalId": "rel-1", "force": true })).await;
    let forced = forced.ok("InitializeDeploymentResponseBody");
    assert_eq!(forced["version"], format!("{day}.2"));
    let forced_again = hub.initialize(key, json!({ "externalId": "rel-1", "force": true })).await;
    let forced_again = forced_again.ok("InitializeDeploymentResponseBody");
    assert_eq!(forced_again["canceledDeployments"][0]["version"], format!("{day}.2"));
    // The other environment's key sees none of it.
    hub.get(&path, &project.dev).await.refused(404, "Deployment not found");
}

#[tokio::test]
async fn promotion_moves_forward_unless_told_otherwise() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    let first = hub.deploy(key, &[json!("a")]).await;
    let second = hub.initialize(key, json!({})).await.ok("InitializeDeploymentResponseBody");
    let id = second["id"].as_str().unwrap();
    let promote = |version: &str| format!("/api/v1/deployments/{version}/promote");
    let version = second["version"].as_str().unwrap();
    hub.post(&promote(version), key, json!({}))
        .await
        .refused(400, "Deployment is not associated with a worker and cannot be promoted.");
    hub.register(key, id, &[json!("b")]).await.ok("CreateBackgroundWorkerResponse");
    hub.post(&promote(version), key, json!({}))
        .await
        .refused(400, "Deployment must be in the DEPLOYED state to be promoted.");
    assert_eq!(hub.finalize(key, id, json!({ "skipPromotion": true })).await.last().unwrap().0, "complete");
    let current = async || {
        hub.get("/api/v1/deployments/current", key).await.ok("RetrieveCurrentDeploymentResponseBody")["version"].clone()
    };
    assert_eq!(current().await, json!(first));
    hub.post(&promote(version), key, json!({})).await.ok("PromoteDeploymentResponseBody");
    assert_eq!(current().await, json!(version));
    hub.post(&promote(version), key, json!({})).await.refused(400, "Deployment is already the current deployment.");
    hub.post(&promote(&first), key, json!({}))
        .await
        .refused(400, "Cannot promote a deployment that is older than the current deployment.");
    hub.post(&format!("{}?allowRollbacks=true", promote(&first)), key, json!({}))
        .await
        .ok("PromoteDeploymentResponseBody");
    assert_eq!(current().await, json!(first));
    hub.post(&promote("20200101.1"), key, json!({})).await.refused(404, "Deployment not found");

    let list = hub.get("/api/v1/deployments?page%5Bsize%5D=5", key).await.json();
    let versions: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|d| &d["version"]).collect();
    assert_eq!(versions, [&json!(version), &json!(first)], "newest first");
    list["data"].as_array().unwrap().iter().for_each(|d| assert_schema("ApiDeploymentListResponseItem", d));
    let after = format!("/api/v1/deployments?page%5Bafter%5D={id}&status=DEPLOYED&period=1d");
    assert_eq!(hub.get(&after, key).await.json()["data"].as_array().unwrap().len(), 1);
    hub.get("/api/v1/deployments?period=soon", key).await.refused(400, "Invalid search query parameter: period=soon");
    // Nobody makes unmanaged deployments any more.
    hub.get("/api/v1/deployments/latest", key).await.refused(404, "Deployment not found");
}

#[tokio::test]
async fn deployments_end_when_they_fail_or_are_forgotten() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    let begin = async || {
        let init = hub.initialize(key, json!({ "externalId": "rel" })).await.ok("InitializeDeploymentResponseBody");
        init["id"].as_str().unwrap().to_owned()
    };
    let shown =
        async |id: &str| hub.get(&format!("/api/v1/deployments/{id}"), key).await.ok("GetDeploymentResponseBody");

    let id = begin().await;
    let body = json!({ "error": { "name": "BuildError", "message": "no" } });
    assert_schema("FailDeploymentRequestBody", &body);
    hub.post(&format!("/api/v1/deployments/{id}/fail"), key, body.clone()).await.ok("FailDeploymentResponseBody");
    let failed = shown(&id).await;
    assert_eq!((&failed["status"], &failed["errorData"]["message"]), (&json!("FAILED"), &json!("no")));
    assert_eq!(hub.register(key, &id, &[json!("a")]).await.status.as_u16(), 500, "a failed one takes no worker");

    for (tasks, name) in [
        (
            [json!({ "id": "a", "schedule": { "cron": "whenever", "timezone": "UTC" } }), json!("b")],
            "CreateDeclarativeScheduleError",
        ),
        ([json!("a"), json!("a")], "DuplicateTaskIdsError"),
    ] {
        let id = begin().await;
        assert_eq!(hub.register(key, &id, &tasks).await.status.as_u16(), 400);
        let failed = shown(&id).await;
        assert_eq!((&failed["status"], &failed["errorData"]["name"]), (&json!("FAILED"), &json!(name)));
    }

    // Whoever began it was killed: it must not hold its external id for ever.
    let id = begin().await;
    hub.sql("UPDATE trigger.deployments SET status_at = now() - interval '9 minutes' WHERE id = $1", &id).await;
    hub.eventually("the timeout", async || (shown(&id).await["status"] == "TIMED_OUT").then_some(())).await;
    begin().await;

    for (more, message) in [
        (json!({ "type": "UNMANAGED" }), "UNMANAGED deployments are not supported"),
        (
            json!({ "isNativeBuild": true }),
            "The local hub has no build server. Deploy with `psn run trigger-provision`, or pass --local-bundle to the trigger.dev CLI.",
        ),
    ] {
        hub.initialize(key, more).await.refused(400, message);
    }
    hub.send(Method::POST, "/api/v1/deployments", key, Some(json!({ "type": "MANAGED" })))
        .await
        .refused(400, "Invalid body");
}
