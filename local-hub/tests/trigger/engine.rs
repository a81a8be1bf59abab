use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::Hub;

fn quick(attempts: u32) -> Value {
    json!({ "maxAttempts": attempts, "minTimeoutInMs": 10, "maxTimeoutInMs": 50, "factor": 2, "randomize": true })
}

#[tokio::test]
async fn failures_are_repeated_as_the_task_wishes() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    let task = |id: &str, attempts: u32| json!({ "id": id, "retry": quick(attempts) });
    hub.deploy(key, &[task("flaky", 3), task("fail", 2), task("refuse", 5), task("crash", 2), task("panic", 2)]).await;
    for (task, options, end, attempts, error) in [
        ("flaky", json!({}), "COMPLETED", 3, None),
        ("flaky", json!({ "maxAttempts": 2 }), "FAILED", 2, Some("test.no")),
        ("fail", json!({}), "FAILED", 2, Some("test.no")),
        ("refuse", json!({}), "FAILED", 1, Some("test.no")),
        ("crash", json!({}), "CRASHED", 2, Some("TASK_PROCESS_CRASHED")),
        ("panic", json!({ "maxAttempts": 1 }), "CRASHED", 1, Some("TASK_PROCESS_CRASHED")),
    ] {
        let (id, _) = hub.trigger(key, task, options).await;
        let run = hub.reaches(key, &id, &["COMPLETED", "FAILED", "CRASHED"]).await;
        assert_eq!((&run["status"], &run["attemptCount"]), (&json!(end), &json!(attempts)), "{task}");
        assert_eq!(run["error"]["name"].as_str(), error, "{task}");
        let numbers: Vec<u32> = hub.runner.calls_of(&id).iter().map(|c| c.attempt).collect();
        assert_eq!(numbers, (1..=attempts).collect::<Vec<u32>>(), "{task}");
    }
}

#[tokio::test]
async fn runs_end_at_their_maximum_duration() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!({ "id": "hang", "maxDuration": 1, "retry": quick(3) }), json!("deaf"), json!("ok")]).await;
    let (hanging, _) = hub.trigger(key, "hang", json!({})).await;
    // One that does not listen is dropped.
    let (deaf, _) = hub.trigger(key, "deaf", json!({ "maxDuration": 5 })).await;
    for id in [&hanging, &deaf] {
        let run = hub.reaches(key, id, &["TIMED_OUT"]).await;
        assert_eq!((&run["error"]["name"], &run["attemptCount"]), (&json!("MAX_DURATION_EXCEEDED"), &json!(1)));
        assert!(run["durationMs"].as_i64() >= Some(5_000), "the vendor's least limit is five seconds: {run:#}");
    }
    assert_eq!(hub.runner.stopped(), [hanging]);
}

#[tokio::test]
async fn queues_limit_what_executes_at_once() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!({ "id": "gate", "queue": { "name": "one", "concurrencyLimit": 1 } }), json!("ok")]).await;
    let (a, _) = hub.trigger(key, "gate", json!({ "concurrencyKey": "a" })).await;
    let (a2, _) = hub.trigger(key, "gate", json!({ "concurrencyKey": "a" })).await;
    let (b, _) = hub.trigger(key, "gate", json!({ "concurrencyKey": "b" })).await;
    // The limit counts for each key; what waits in a full queue does not hold up others.
    hub.reaches(key, &a, &["EXECUTING"]).await;
    hub.reaches(key, &b, &["EXECUTING"]).await;
    let (ok, _) = hub.trigger(key, "ok", json!({})).await;
    hub.reaches(key, &ok, &["COMPLETED"]).await;
    assert_eq!(hub.status(key, &a2).await, "QUEUED");
    // More are wanted than the engine runs at once, and than one of the two queues lets through.
    for _ in 0..3 {
        hub.runner.gate.notify_one();
        let executing = |runs: Value| runs["data"].as_array().unwrap().len();
        hub.eventually("one to end", async || {
            let done = hub.get("/api/v1/runs?filter%5Bstatus%5D=COMPLETED&filter%5BtaskIdentifier%5D=gate", key).await;
            (executing(done.ok("ListRunResponse")) > 0).then_some(())
        })
        .await;
    }
    for id in [&a, &a2, &b] {
        hub.eventually("the gate", async || {
            hub.runner.gate.notify_one();
            (hub.status(key, id).await == "COMPLETED").then_some(())
        })
        .await;
    }
    let order: Vec<String> = hub.runner.calls().iter().map(|c| c.run_id.clone()).collect();
    let place = |id: &String| order.iter().position(|o| o == id).unwrap();
    assert!(place(&a) < place(&a2));
}

#[tokio::test]
async fn only_so_many_execute_at_once_and_priority_jumps_the_queue() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("gate"), json!("ok")]).await;
    let mut gated = BTreeSet::new();
    // As documented: two for each processor, from 4 to 16.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for _ in 0..(2 * processors).clamp(4, 16) {
        let (id, _) = hub.trigger(key, "gate", json!({})).await;
        hub.reaches(key, &id, &["EXECUTING"]).await;
        gated.insert(id);
    }
    let (plain, _) = hub.trigger(key, "ok", json!({})).await;
    let (urgent, _) = hub.trigger(key, "ok", json!({ "priority": 3_600 })).await;
    let queued = hub.get("/api/v1/runs?filter%5Bstatus%5D=QUEUED", key).await.ok("ListRunResponse");
    assert_eq!(queued["data"].as_array().unwrap().len(), 2);
    // One place gets free: the urgent one takes it first, then the other.
    hub.runner.gate.notify_one();
    for id in [&urgent, &plain] {
        hub.reaches(key, id, &["COMPLETED"]).await;
    }
    for id in &gated {
        hub.eventually("the gate", async || {
            hub.runner.gate.notify_one();
            (hub.status(key, id).await == "COMPLETED").then_some(())
        })
        .await;
    }
    let order: Vec<String> =
        hub.runner.calls().into_iter().map(|c| c.run_id).filter(|id| *id == plain || *id == urgent).collect();
    assert_eq!(order, [urgent, plain]);
}

#[tokio::test]
async fn runs_of_a_killed_engine_are_taken_up_again() {
    let mut hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("gate"), json!("ok")]).await;
    let (killed, _) = hub.trigger(key, "gate", json!({})).await;
    hub.reaches(key, &killed, &["EXECUTING"]).await;
    let (delayed, _) = hub.trigger(key, "ok", json!({ "delay": "1s" })).await;
    hub.kill();
    hub.restart().await;
    hub.eventually("a second attempt", async || (hub.runner.calls_of(&killed).len() == 2).then_some(())).await;
    hub.eventually("the gate", async || {
        hub.runner.gate.notify_one();
        (hub.status(key, &killed).await == "COMPLETED").then_some(())
    })
    .await;
    let run = hub.run(key, &killed).await;
    assert_eq!((&run["attemptCount"], run.get("error")), (&json!(2), None));
    hub.reaches(key, &delayed, &["COMPLETED"]).await;

    // The last call may have come after the run was through: what it left would let the next run through at once.
    let _ = tokio::time::timeout(Duration::ZERO, hub.runner.gate.notified()).await;
    // A run that takes the engine with it each time is given up.
    let (poison, _) = hub.trigger(key, "gate", json!({})).await;
    for attempt in 1..=4 {
        hub.eventually("the next attempt", async || (hub.runner.calls_of(&poison).len() == attempt).then_some(()))
            .await;
        hub.kill();
        hub.restart().await;
    }
    let run = hub.reaches(key, &poison, &["SYSTEM_FAILURE"]).await;
    assert_eq!(run["error"]["name"], "TASK_RUN_STALLED_EXECUTING");
    assert_eq!(hub.runner.calls_of(&poison).len(), 4);
}

#[tokio::test]
async fn a_stopping_engine_puts_its_runs_back_uncounted() {
    let mut hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("hang"), json!("deaf")]).await;
    let (listens, _) = hub.trigger(key, "hang", json!({})).await;
    let (deaf, _) = hub.trigger(key, "deaf", json!({})).await;
    for id in [&listens, &deaf] {
        hub.reaches(key, id, &["EXECUTING"]).await;
    }
    hub.stop().await;
    assert_eq!(hub.runner.stopped(), std::slice::from_ref(&listens));
    let rows: Vec<(String, i32, i32)> =
        sqlx::query_as("SELECT status, attempt, stalls FROM trigger.runs").fetch_all(&hub.db).await.unwrap();
    assert_eq!(rows, [("PENDING".to_owned(), 0, 0), ("PENDING".to_owned(), 0, 0)]);
    hub.restart().await;
    for id in [&listens, &deaf] {
        let run = hub.reaches(key, id, &["EXECUTING"]).await;
        assert_eq!(run["attemptCount"], 1);
    }
}

/// An engine that was given up for dead and still works must not overwrite what came after it.
#[tokio::test]
async fn a_result_that_comes_after_the_lease_is_dropped() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("gate"), json!("ok")]).await;
    let (id, _) = hub.trigger(key, "gate", json!({})).await;
    hub.reaches(key, &id, &["EXECUTING"]).await;
    hub.sql("UPDATE trigger.runs SET lease_token = gen_random_uuid() WHERE id = $1", &id).await;
    hub.runner.gate.notify_one();
    // The worker's place is free again: it has seen that its lease is gone.
    let (ok, _) = hub.trigger(key, "ok", json!({})).await;
    hub.reaches(key, &ok, &["COMPLETED"]).await;
    assert_eq!(hub.status(key, &id).await, "EXECUTING");
    hub.sql("UPDATE trigger.runs SET lease_expires_at = now() - interval '1 second' WHERE id = $1", &id).await;
    hub.eventually("another attempt", async || (hub.runner.calls_of(&id).len() == 2).then_some(())).await;
    hub.runner.gate.notify_one();
    hub.reaches(key, &id, &["COMPLETED"]).await;
}
