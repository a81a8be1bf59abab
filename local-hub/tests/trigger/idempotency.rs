use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{Hub, Project};

const KEY: &str = "6ab9f1eb0000000000000000000000000000000000000000000000000000aaaa";

async fn hub_with(tasks: &[&str]) -> (Hub, Project) {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let tasks: Vec<_> = tasks.iter().map(|t| json!(t)).collect();
    hub.deploy(&project.prod, &tasks).await;
    (hub, project)
}

#[tokio::test]
async fn success_and_cancellation_keep_a_key_failure_releases_it() {
    let (hub, project) = hub_with(&["ok", "refuse", "crash", "hang", "gate"]).await;
    let key = project.prod.as_str();
    let options = json!({ "idempotencyKey": KEY, "idempotencyKeyOptions": { "key": "post:1", "scope": "global" } });
    for (task, end, kept) in [
        ("ok", "COMPLETED", true),
        ("refuse", "FAILED", false),
        ("crash", "CRASHED", false),
        ("hang", "CANCELED", true),
    ] {
        let (first, cached) = hub.trigger(key, task, options.clone()).await;
        assert!(!cached);
        // The same key while the run goes on.
        if task == "hang" {
            hub.reaches(key, &first, &["EXECUTING"]).await;
            // The status is written before the task is called.
            let called = async {
                while hub.runner.calls_of(&first).is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), called).await.expect("it is called");
            assert_eq!(hub.trigger(key, task, options.clone()).await, (first.clone(), true));
            hub.send(Method::POST, &format!("/api/v2/runs/{first}/cancel"), key, None).await.ok("CanceledRunResponse");
        }
        let run = hub.reaches(key, &first, &[end]).await;
        assert_eq!(run["idempotencyKey"], "post:1", "shown as the caller wrote it");
        let (second, cached) = hub.trigger(key, task, options.clone()).await;
        assert_eq!((second == first, cached), (kept, kept), "{task}");
        if task == "hang" {
            assert_eq!(hub.runner.calls_of(&first).len(), 1, "nothing ran again");
        }
    }

    // Other tasks, environments and keys have nothing to do with it.
    let (other, cached) = hub.trigger(key, "gate", options.clone()).await;
    assert!(!cached);
    hub.runner.gate.notify_one();
    let (dev, cached) = hub.trigger(&project.dev, "ok", options).await;
    assert!(!cached && dev != other);
}

#[tokio::test]
async fn keys_end_with_their_time_or_when_they_are_reset() {
    let (hub, project) = hub_with(&["ok"]).await;
    let key = project.prod.as_str();
    let with_ttl = json!({ "idempotencyKey": KEY, "idempotencyKeyTTL": "60s" });
    let (first, _) = hub.trigger(key, "ok", with_ttl.clone()).await;
    let lives: Vec<(i64,)> = sqlx::query_as(
        "SELECT extract(epoch FROM idempotency_key_expires_at - created_at)::bigint FROM trigger.runs WHERE idempotency_key IS NOT NULL",
    )
    .fetch_all(&hub.db)
    .await
    .unwrap();
    assert_eq!(lives, [(60,)]);
    assert_eq!(hub.trigger(key, "ok", with_ttl.clone()).await, (first.clone(), true));
    hub.sql("UPDATE trigger.runs SET idempotency_key_expires_at = now() - interval '1 second' WHERE id = $1", &first)
        .await;
    let (second, cached) = hub.trigger(key, "ok", json!({ "idempotencyKey": KEY })).await;
    assert!(!cached && second != first);
    let (days,): (i64,) = sqlx::query_as(
        "SELECT extract(epoch FROM idempotency_key_expires_at - created_at)::bigint / 86400 FROM trigger.runs WHERE id = $1",
    )
    .bind(&second)
    .fetch_one(&hub.db)
    .await
    .unwrap();
    assert_eq!(days, 30);

    let reset = format!("/api/v1/idempotencyKeys/{KEY}/reset");
    let body = json!({ "taskIdentifier": "ok" });
    let reply = hub.post(&reset, key, body.clone()).await.ok("ResetIdempotencyKeyResponse");
    assert_eq!(reply["id"], KEY);
    let (third, cached) = hub.trigger(key, "ok", json!({ "idempotencyKey": KEY })).await;
    assert!(!cached && third != second);
    let other = json!({ "taskIdentifier": "other" });
    hub.post(&reset, key, other)
        .await
        .refused(404, &format!("No runs found with idempotency key: {KEY} and task: other"));
    hub.post(&reset, &project.dev, body)
        .await
        .refused(404, &format!("No runs found with idempotency key: {KEY} and task: ok"));
}

#[tokio::test]
async fn one_key_makes_one_run_however_many_ask_at_once() {
    let (hub, project) = hub_with(&["ok"]).await;
    let key = project.prod.as_str();
    let calls = (0..20).map(|_| hub.trigger(key, "ok", json!({ "idempotencyKey": KEY })));
    let replies = futures_util::future::join_all(calls).await;
    assert_eq!(replies.iter().filter(|(_, cached)| !cached).count(), 1);
    assert!(replies.iter().all(|(id, _)| *id == replies[0].0));
    hub.reaches(key, &replies[0].0, &["COMPLETED"]).await;
    assert_eq!(hub.runner.calls().len(), 1);

    // A client repeats a call whose answer it lost, under one key for the call: it is not told that the run existed.
    let header = [("x-trigger-request-idempotency-key", "0b2cf66c-1111-4f0e-9d1a-000000000000")];
    let again = async || {
        hub.send_with(Method::POST, "/api/v1/tasks/ok/trigger", key, Some(json!({ "payload": 1 })), &header)
            .await
            .ok("TriggerTaskResponse")
    };
    assert_eq!(again().await, again().await);
    // The older way, in headers.
    let header = [("idempotency-key", "from-a-header")];
    let old = async || {
        hub.send_with(Method::POST, "/api/v1/tasks/ok/trigger", key, Some(json!({})), &header)
            .await
            .ok("TriggerTaskResponse")
    };
    let (first, second) = (old().await, old().await);
    assert_eq!((&first["id"], &second["isCached"]), (&second["id"], &json!(true)));
}
