//! The vendor's own `trigger dev` as worker of this hub: real tasks, bundled and executed by the vendor's program, whose runs this
//! hub keeps. What it answers is held against the vendor's schemas.
#[path = "../../../tests/src/trigger_dev.rs"]
mod trigger_dev;

use serde_json::json;

use crate::clients::{folder, installed};
use crate::support::Hub;
use crate::wire::Record;
use trigger_dev::{TriggerDev, Worker, bun};

async fn serves(runtime: &str) {
    if !installed() {
        return;
    }
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.dev.as_str();
    let variables = json!({ "variables": { "GREETING": "hello" }, "override": true });
    let path = format!("/api/v1/projects/{}/envvars/dev/import", project.reference);
    hub.post(&path, key, variables).await.ok("EnvironmentVariableResponseBody");
    let record = Record::new();
    let clients = folder();
    let worker = Worker {
        clients: &clients,
        project: &clients.join("dev-project"),
        origin: hub.origin(),
        token: &hub.token,
        reference: &project.reference,
        runtime,
    };
    let mut dev = TriggerDev::prepare(&worker);
    dev.start::<&str>(&worker, Some(&record.file), &[]);

    // Triggered before there is anything that could execute it.
    let (early, _) = hub.trigger_with(key, "echo", json!({ "n": 1 }), json!({})).await;
    let run = hub.reaches(key, &early, &["COMPLETED", "FAILED", "CRASHED", "SYSTEM_FAILURE", "EXPIRED"]).await;
    let name = runtime.split('-').next().unwrap();
    let expected = json!({ "payload": { "n": 1 }, "greeting": "hello", "environment": "dev", "runtime": name });
    assert_eq!((&run["status"], &run["output"]), (&json!("COMPLETED"), &expected), "{run:#}");
    assert_eq!(run["metadata"], json!({ "seen": 1 }));

    // A failure is tried again as its task says, and the last one is the run's.
    let (flaky, _) = hub.trigger_with(key, "flaky", json!({ "failures": 2 }), json!({})).await;
    let (hopeless, _) = hub.trigger_with(key, "flaky", json!({ "failures": 9 }), json!({})).await;
    let run = hub.reaches(key, &flaky, &["COMPLETED", "FAILED"]).await;
    assert_eq!((&run["output"], &run["attemptCount"]), (&json!({ "attempt": 3 }), &json!(3)));
    let run = hub.reaches(key, &hopeless, &["COMPLETED", "FAILED"]).await;
    assert_eq!((&run["status"], &run["attemptCount"]), (&json!("FAILED"), &json!(3)));
    assert_eq!((&run["error"]["name"], &run["error"]["message"]), (&json!("TypeError"), &json!("attempt 3 fails")));

    // Cancelled while it executes: the vendor's program lets go of it, and takes the next.
    let (sleeper, _) = hub.trigger_with(key, "sleeper", json!({}), json!({})).await;
    hub.reaches(key, &sleeper, &["EXECUTING"]).await;
    hub.post(&format!("/api/v2/runs/{sleeper}/cancel"), key, json!({})).await.ok("CanceledRunResponse");
    assert_eq!(hub.status(key, &sleeper).await, "CANCELED");

    let (parent, _) = hub.trigger_with(key, "parent", json!({}), json!({})).await;
    let run = hub.reaches(key, &parent, &["COMPLETED", "FAILED"]).await;
    let child = run["output"]["child"].as_str().unwrap_or_else(|| panic!("{run:#}")).to_owned();
    let run = hub.reaches(key, &child, &["COMPLETED", "FAILED"]).await;
    assert_eq!(run["relatedRuns"]["parent"]["id"], json!(parent));

    // What the worker declared is a schedule here, and its run is given out like any other.
    let schedules = hub.get("/api/v1/schedules", key).await.ok("ListSchedulesResult");
    assert_eq!((&schedules["data"][0]["task"], &schedules["data"][0]["type"]), (&json!("tick"), &json!("DECLARATIVE")));
    let schedule = schedules["data"][0]["id"].as_str().unwrap();
    hub.sql("UPDATE trigger.schedules SET next_run_at = now() - interval '1 second' WHERE id = $1", schedule).await;
    let ticked = hub
        .eventually("the schedule's run", async || {
            let runs =
                hub.get(&format!("/api/v1/runs?filter%5Bschedule%5D={schedule}"), key).await.ok("ListRunResponse");
            Some(runs["data"].as_array().unwrap().first()?["id"].as_str().unwrap().to_owned())
        })
        .await;
    let run = hub.reaches(key, &ticked, &["COMPLETED", "FAILED"]).await;
    assert_eq!(run["output"], json!({ "date": true, "type": "DECLARATIVE" }));

    assert_eq!(hub.status(key, &sleeper).await, "CANCELED");
    assert!(hub.runner.calls().is_empty(), "nothing was executed by the hub itself");
    dev.stop();
    let routes = record.check();
    eprintln!("replies to trigger dev ({runtime}), held against the vendor's schemas: {routes:#?}");
    for route in [
        "POST /api/v1/projects/*/background-workers",
        "POST /engine/v1/dev/dequeue",
        "POST /engine/v1/dev/runs/*/snapshots/*/attempts/start",
        "POST /engine/v1/dev/runs/*/snapshots/*/attempts/complete",
    ] {
        assert!(routes.contains_key(route), "{route} was not kept: {routes:#?}");
    }
}

#[tokio::test]
async fn the_vendors_trigger_dev_serves_this_hub_with_node() {
    serves("node").await;
}

#[tokio::test]
async fn the_vendors_trigger_dev_serves_this_hub_with_bun() {
    if std::env::var("PSN_PARITY").as_deref() != Ok("full") {
        eprintln!("SKIPPED: scripts/parity.sh runs it; node is in each run");
        return;
    }
    if installed() && bun(&folder()).is_none() {
        assert!(std::env::var_os("PSN_REQUIRE_CLIENTS").is_none(), "no bun for this machine");
        eprintln!("SKIPPED: there is no bun for this machine");
        return;
    }
    serves("bun-1.4").await;
}
