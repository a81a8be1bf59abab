//! The vendor's own `trigger dev` as worker of this hub: real tasks, bundled and executed by the vendor's program, whose runs this
//! hub keeps. What it answers is held against the vendor's schemas.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::clients::{folder, installed};
use crate::support::{Hub, Project};
use crate::wire::Record;

/// What the program gets to stop its tasks after SIGTERM; then it is killed.
const STOP: Duration = Duration::from_secs(15);

/// A running `trigger dev`, and the project that it serves.
struct Dev {
    child: Child,
    dir: tempfile::TempDir,
}

impl Dev {
    fn start(hub: &Hub, project: &Project, runtime: &str, record: &Record) -> Dev {
        let clients = folder();
        let dir = tempfile::Builder::new().prefix("psn-dev-").tempdir().unwrap();
        copy(&clients.join("dev-project"), dir.path());
        for shared in ["node_modules", "package-lock.json"] {
            symlink(clients.join(shared), dir.path().join(shared)).unwrap();
        }
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("node")
            .arg(clients.join("node_modules/trigger.dev/dist/esm/index.js"))
            .args(["dev", "--skip-update-check", "--skip-mcp-install", "--skip-rules-install"])
            .args(["--skip-platform-notifications", "--log-level", "debug"])
            .current_dir(dir.path())
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", &home)
            .env("CI", "1")
            .env("TRIGGER_TELEMETRY_DISABLED", "1")
            .env("TRIGGER_API_URL", hub.origin())
            .env("TRIGGER_ACCESS_TOKEN", &hub.token)
            .env("TRIGGER_PROJECT_REF", &project.reference)
            .env("PSN_TRIGGER_RUNTIME", runtime)
            .env("BUN_INSTALL", clients.join("node_modules/bun"))
            .env("NODE_OPTIONS", format!("--import {}", clients.join("wire.mjs").display()))
            .env("PSN_WIRE_RECORD", &record.file)
            .env("PSN_WIRE_ORIGIN", hub.origin())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("node starts");
        Dev { child, dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal);
    }

    /// As Ctrl-C does: the program stops its tasks first.
    fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let patience = Instant::now() + STOP;
        while Instant::now() < patience {
            if self.child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: String = log.chars().rev().take(6_000).collect::<Vec<_>>().into_iter().rev().collect();
            eprintln!("the end of what trigger dev said:\n{tail}");
        }
        self.stop();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

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
    let mut dev = Dev::start(&hub, &project, runtime, &record);

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
    serves("bun-1.4").await;
}
