use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Hub, assert_schema};

#[tokio::test]
async fn a_triggered_run_executes_and_completes() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    let base = format!("/api/v1/projects/{}/envvars/prod/import", project.reference);
    let import = json!({ "variables": { "DATABASE_URL": "postgres://s3cr3t" }, "isSecret": true, "override": true });
    hub.post(&base, &hub.token, import).await.ok("EnvironmentVariableResponseBody");
    let publish = json!({ "id": "publish", "filePath": "publish.wasm", "maxDuration": 60 });
    let version = hub.deploy(key, &[publish, json!("nul")]).await;

    let options = json!({
        "tags": ["user:2", "post:1"], "metadata": { "a": 1 }, "priority": 3, "concurrencyKey": "u2", "ttl": "1h",
        "queue": { "name": "posts" },
    });
    let (id, cached) = hub.trigger_with(key, "publish", json!({ "id": "1" }), options).await;
    assert!(!cached);
    let run = hub.reaches(key, &id, &["COMPLETED"]).await;
    assert_eq!(run["output"], json!({ "payload": { "id": "1" } }));
    assert_eq!((&run["payload"], &run["metadata"]), (&json!({ "id": "1" }), &json!({ "a": 1 })));
    assert_eq!((&run["version"], &run["attemptCount"], &run["isSuccess"]), (&json!(version), &json!(1), &json!(true)));
    assert_eq!((&run["tags"], &run["ttl"]), (&json!(["post:1", "user:2"]), &json!("1h")));
    assert!(run["startedAt"].is_string() && run["finishedAt"].is_string());
    assert_eq!(run["relatedRuns"], json!({ "children": [] }));

    let calls = hub.runner.calls_of(&id);
    let [call] = calls.as_slice() else { panic!("{} calls", calls.len()) };
    assert_eq!((call.task.as_str(), call.file_path.as_str(), call.attempt), ("publish", "publish.wasm", 1));
    assert_eq!((&call.payload, call.max_duration), (&json!({ "id": "1" }), Some(Duration::from_secs(60))));
    let expected = [
        ("DATABASE_URL", "postgres://s3cr3t"),
        ("TRIGGER_API_URL", hub.origin()),
        ("TRIGGER_PROJECT_REF", &project.reference),
        ("TRIGGER_SECRET_KEY", key),
    ];
    assert_eq!(call.env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());

    // Super-JSON, as the SDK sends it.
    let packet = json!("{\"json\":{\"at\":\"2026-01-01T00:00:00.000Z\"},\"meta\":{\"values\":{\"at\":[\"Date\"]}}}");
    let (id, _) = hub.trigger_with(key, "publish", packet, json!({ "payloadType": "application/super+json" })).await;
    hub.reaches(key, &id, &["COMPLETED"]).await;
    assert_eq!(hub.runner.calls_of(&id)[0].payload, json!({ "at": "2026-01-01T00:00:00.000Z" }));

    let (id, _) = hub.trigger(key, "nul", json!({})).await;
    assert_eq!(hub.reaches(key, &id, &["COMPLETED"]).await["output"]["text"], "a\u{0}b");

    // A child knows its parents.
    let (child, _) = hub.trigger(key, "publish", json!({ "parentRunId": id })).await;
    let shown = hub.reaches(key, &child, &["COMPLETED"]).await;
    assert_eq!((&shown["depth"], &shown["relatedRuns"]["parent"]["id"]), (&json!(1), &json!(id)));
    assert_eq!(hub.run(key, &id).await["relatedRuns"]["children"][0]["id"], json!(child));

    // Another environment's key and an unknown id look the same; the SDK is told that asking again may help.
    let unknown = hub.get(&format!("/api/v3/runs/{id}"), &project.dev).await;
    assert_eq!(unknown.headers["x-should-retry"], "true");
    unknown.refused(404, "Not found");
}

#[tokio::test]
async fn wrong_triggers_are_refused() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("ok")]).await;
    let path = "/api/v1/tasks/ok/trigger";
    hub.raw(path, key, "application/json", String::new()).await.refused(400, "Request body is empty");
    hub.raw(path, key, "application/json", "{".to_owned()).await.refused(400, "Invalid JSON");
    let eleven: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    hub.post(path, key, json!({ "options": { "tags": eleven } }))
        .await
        .refused(422, "Runs can only have 10 tags, you're trying to set 11.");
    hub.post(path, key, json!({ "options": { "maxAttempts": "many" } }))
        .await
        .refused(400, "Validation error: invalid type: string \"many\", expected i32");
    hub.post(path, key, json!({ "options": { "lockToVersion": "20200101.1" } }))
        .await
        .refused(422, "Task locked to version '20200101.1', but no worker found with that version.");
    let large = "x".repeat(3 * 1024 * 1024);
    hub.post(path, key, json!({ "payload": large })).await.refused(413, "Request body too large");
    let larger = "x".repeat(17 * 1024 * 1024);
    hub.raw("/api/v1/deployments", key, "application/json", larger).await.refused(413, "Request body too large");
    hub.post("/api/v1/tasks/a%00b/trigger", key, json!({}))
        .await
        .refused(400, "Validation error: a NUL character cannot be stored");
    assert!(hub.runner.calls().is_empty());
}

/// The vendor accepts the trigger of a task that is not deployed: the run waits for a deployment that has the task.
#[tokio::test]
async fn a_run_of_an_unknown_task_waits_for_its_deployment() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    let (early, _) = hub.trigger(key, "late", json!({})).await;
    assert_eq!(hub.status(key, &early).await, "PENDING_VERSION");
    let first = hub.deploy(key, &[json!("other")]).await;
    let (unknown, _) = hub.trigger(key, "late", json!({})).await;
    let (delayed, _) = hub.trigger(key, "late", json!({ "delay": "1h" })).await;
    hub.sql("UPDATE trigger.runs SET delay_until = now() WHERE id = $1", &delayed).await;
    for id in [&early, &unknown, &delayed] {
        let run = hub.reaches(key, id, &["PENDING_VERSION"]).await;
        assert_eq!((&run["isQueued"], &run["isCompleted"]), (&json!(true), &json!(false)));
    }
    let second = hub.deploy(key, &[json!("late")]).await;
    for id in [&early, &unknown, &delayed] {
        assert_eq!(hub.reaches(key, id, &["COMPLETED"]).await["version"], json!(second));
    }
    // A lock on an older version finds the task there, whatever is current.
    let (locked, _) = hub.trigger(key, "other", json!({ "lockToVersion": first })).await;
    assert_eq!(hub.reaches(key, &locked, &["COMPLETED"]).await["version"], json!(first));
    let path = "/api/v1/tasks/late/trigger";
    hub.post(path, key, json!({ "options": { "lockToVersion": first } }))
        .await
        .refused(422, &format!("Task 'late' not found on locked version '{first}'."));
}

#[tokio::test]
async fn delayed_runs_are_put_off_brought_forward_and_cancelled() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("ok"), json!("hang"), json!("gate")]).await;
    let delayed = async |delay: &str| {
        let (id, _) = hub.trigger(key, "ok", json!({ "delay": delay })).await;
        let run = hub.run(key, &id).await;
        assert_eq!(run["status"], "DELAYED", "{delay}");
        assert!(run["delayedUntil"].is_string());
        id
    };
    let in_minutes = delayed("10m").await;
    delayed("2099-01-01T00:00:00.000Z").await;
    // The past and nonsense mean now, as at the vendor.
    for now in ["2001-01-01T00:00:00Z", "later"] {
        let (id, _) = hub.trigger(key, "ok", json!({ "delay": now })).await;
        hub.reaches(key, &id, &["COMPLETED"]).await;
    }

    let reschedule = |id: &str| format!("/api/v1/runs/{id}/reschedule");
    let body = json!({ "delay": "2h" });
    assert_schema("RescheduleRunRequestBody", &body);
    let before = hub.run(key, &in_minutes).await["delayedUntil"].clone();
    let after = hub.post(&reschedule(&in_minutes), key, body.clone()).await.ok("RetrieveRunResponse");
    assert!(after["delayedUntil"].as_str() > before.as_str());
    hub.post(&reschedule(&in_minutes), key, json!({ "delay": "never" })).await.refused(400, "Invalid delay: never");
    hub.post(&reschedule(&in_minutes), key, json!({ "delay": "2001-01-01T00:00:00Z" }))
        .await
        .refused(400, "Invalid delay: 2001-01-01T00:00:00Z");
    hub.post(&reschedule("run_none"), key, body.clone()).await.refused(404, "Run not found");
    hub.post(&reschedule(&in_minutes), key, json!({ "delay": "1s" })).await.ok("RetrieveRunResponse");
    hub.reaches(key, &in_minutes, &["COMPLETED"]).await;
    hub.post(&reschedule(&in_minutes), key, body).await.refused(400, "Cannot reschedule a run that is not delayed");

    let cancel = |id: &str| format!("/api/v2/runs/{id}/cancel");
    let waiting = delayed("10m").await;
    for _ in 0..2 {
        let reply = hub.send(Method::POST, &cancel(&waiting), key, None).await.ok("CanceledRunResponse");
        assert_eq!(reply["id"], json!(waiting));
    }
    assert_eq!(hub.status(key, &waiting).await, "CANCELED");
    hub.send(Method::POST, &cancel(&in_minutes), key, None).await.ok("CanceledRunResponse");
    assert_eq!(hub.status(key, &in_minutes).await, "COMPLETED", "an ended run stays as it is");
    hub.send(Method::POST, &cancel("run_none"), key, None).await.refused(404, "Resource not found");

    // A cancelled run that is executing is told to stop, and is shown as cancelled at once.
    let (hanging, _) = hub.trigger(key, "hang", json!({})).await;
    hub.reaches(key, &hanging, &["EXECUTING"]).await;
    hub.send(Method::POST, &cancel(&hanging), key, None).await.ok("CanceledRunResponse");
    assert_eq!(hub.status(key, &hanging).await, "CANCELED");
    hub.eventually("the runner to stop", async || hub.runner.stopped().contains(&hanging).then_some(())).await;
    // A runner that finishes anyway changes nothing.
    let (gated, _) = hub.trigger(key, "gate", json!({})).await;
    hub.reaches(key, &gated, &["EXECUTING"]).await;
    hub.send(Method::POST, &cancel(&gated), key, None).await.ok("CanceledRunResponse");
    hub.runner.gate.notify_one();
    let (next, _) = hub.trigger(key, "ok", json!({})).await;
    hub.reaches(key, &next, &["COMPLETED"]).await;
    let gated = hub.run(key, &gated).await;
    assert_eq!((&gated["status"], gated.get("output")), (&json!("CANCELED"), None::<&Value>));
}

#[tokio::test]
async fn runs_that_wait_too_long_expire() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!({ "id": "gate", "queue": { "name": "one", "concurrencyLimit": 1 } })]).await;
    let (first, _) = hub.trigger(key, "gate", json!({})).await;
    hub.reaches(key, &first, &["EXECUTING"]).await;
    let (late, _) = hub.trigger(key, "gate", json!({ "ttl": 1 })).await;
    let run = hub.reaches(key, &late, &["EXPIRED"]).await;
    assert_eq!(run["error"]["message"], "Run expired because the TTL (1s) was reached");
    assert_eq!(
        (&run["isCompleted"], &run["isFailed"], run["expiredAt"].is_string()),
        (&json!(false), &json!(false), true)
    );
    hub.runner.gate.notify_one();
    hub.reaches(key, &first, &["COMPLETED"]).await;
    assert!(hub.runner.calls_of(&late).is_empty());
    // A delayed run's time to live begins when its delay ends; one that is started in time does not expire later.
    let (delayed, _) = hub.trigger(key, "gate", json!({ "delay": "1s", "ttl": "1h" })).await;
    hub.reaches(key, &delayed, &["EXECUTING"]).await;
    hub.sql("UPDATE trigger.runs SET expires_at = now() - interval '1 minute' WHERE id = $1", &delayed).await;
    hub.runner.gate.notify_one();
    hub.reaches(key, &delayed, &["COMPLETED"]).await;
}

#[tokio::test]
async fn a_replay_is_a_new_run_of_the_same_payload() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("ok")]).await;
    let options = json!({ "tags": ["post:1"], "metadata": { "a": 1 }, "idempotencyKey": "k" });
    let (id, _) = hub.trigger_with(key, "ok", json!({ "id": "7" }), options).await;
    hub.reaches(key, &id, &["COMPLETED"]).await;
    let second = hub.deploy(key, &[json!("ok")]).await;
    let replay = async || {
        let reply =
            hub.send(Method::POST, &format!("/api/v1/runs/{id}/replay"), key, None).await.ok("ReplayRunResponse");
        reply["id"].as_str().unwrap().to_owned()
    };
    let (one, two) = (replay().await, replay().await);
    assert!(one != id && two != one, "no key keeps replays apart");
    let run = hub.reaches(key, &one, &["COMPLETED"]).await;
    assert_eq!(
        (&run["payload"], &run["tags"], &run["metadata"]),
        (&json!({ "id": "7" }), &json!(["post:1"]), &json!({ "a": 1 }))
    );
    assert_eq!((run.get("idempotencyKey"), &run["version"]), (None, &json!(second)));
    hub.send(Method::POST, "/api/v1/runs/run_none/replay", key, None).await.refused(404, "Run not found");
}
