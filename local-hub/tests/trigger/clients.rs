//! The vendor's own clients, pinned in tests/clients, against this hub.
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Hub, Project};
use crate::wire::Record;

#[path = "../../../tests/src/clients.rs"]
mod pinned;

pub use pinned::{folder, installed};

/// Runs a script with each reply kept; answers how many of its checks passed.
async fn node(hub: &Hub, script: &'static str, record: &Record, env: Vec<(&'static str, String)>) -> usize {
    let mut command = Command::new("node");
    command
        .args(["--import", "./wire.mjs", script])
        .current_dir(folder())
        .envs(env)
        .env("PSN_WIRE_RECORD", &record.file)
        .env("PSN_WIRE_ORIGIN", hub.origin());
    let output = tokio::task::spawn_blocking(move || command.output().expect("node starts")).await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}:\n{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    stdout.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count()
}

/// Two versions of the same tasks. Answers the first.
async fn deployed_twice(hub: &Hub, project: &Project) -> String {
    let narrow = json!({ "name": "narrow", "concurrencyLimit": 1 });
    let tasks = [
        json!("ok"),
        json!("refuse"),
        json!("crash"),
        json!({ "id": "hang", "queue": narrow }),
        json!({ "id": "tick", "triggerSource": "schedule" }),
        json!({ "id": "hourly", "triggerSource": "schedule", "schedule": { "cron": "0 * * * *", "timezone": "UTC" } }),
    ];
    let old = hub.deploy(&project.prod, &tasks).await;
    hub.deploy(&project.prod, &tasks).await;
    old
}

/// A run that a schedule of `tick` started.
async fn scheduled(hub: &Hub, key: &str) -> String {
    let plan = json!({ "task": "tick", "cron": "0 0 1 1 *", "deduplicationKey": "suite" });
    let schedule = hub.post("/api/v1/schedules", key, plan).await.ok("ScheduleObject")["id"].clone();
    let schedule = schedule.as_str().unwrap();
    hub.sql("UPDATE trigger.schedules SET next_run_at = now() - interval '1 second' WHERE id = $1", schedule).await;
    // Whatever wakes the engine makes it look at its schedules.
    hub.trigger(key, "ok", json!({})).await;
    let path = format!("/api/v1/runs?filter%5Bschedule%5D={schedule}");
    hub.eventually("the schedule's run", async || {
        let runs = hub.get(&path, key).await.ok("ListRunResponse");
        Some(runs["data"].as_array().unwrap().first()?["id"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test]
async fn the_vendors_sdk_does_with_this_hub_what_it_does_with_the_vendors() {
    if !installed() {
        return;
    }
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let env = vec![
        ("PSN_OLD_VERSION", deployed_twice(&hub, &project).await),
        ("PSN_SCHEDULED_RUN", scheduled(&hub, &project.prod).await),
        ("TRIGGER_API_URL", hub.origin().to_owned()),
        ("TRIGGER_SECRET_KEY", project.prod.clone()),
        ("TRIGGER_ACCESS_TOKEN", hub.token.clone()),
        ("TRIGGER_PROJECT_REF", project.reference.clone()),
    ];
    let record = Record::new();
    let checks = node(&hub, "sdk/main.mjs", &record, env).await;
    assert!(checks >= 150, "{checks} checks");
    let routes = record.check();
    eprintln!("{checks} checks of the SDK; replies held against the vendor's schemas: {routes:#?}");
    assert!(routes.len() >= 24, "{routes:#?}");
    // Each run that was cancelled while it was executing was really stopped.
    assert!(hub.runner.stopped().len() >= 5, "{:?}", hub.runner.stopped());
}
