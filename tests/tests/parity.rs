//! One component, three places: the watchdog over the same database, executed by the local hub's engine, and by the vendor's own
//! `trigger dev` with node and with bun, where the thin task of trigger/ starts psn. What it reports and what it leaves in the
//! database must be the same.
//!
//! `PSN_PARITY=full` adds bun to the ordinary sample.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use psn_tests::clients::{folder, installed};
use psn_tests::edge::request;
use psn_tests::ticks::{POSTS, STATE, same_everywhere};
use psn_tests::trigger_dev::{TriggerDev, Worker, bun};
use psn_tests::{Machine, secret_in};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

/// Nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(180);
const OPEN: [&str; 6] = ["PENDING_VERSION", "DELAYED", "QUEUED", "DEQUEUED", "EXECUTING", "WAITING"];

struct Stage {
    machine: Machine,
    threads: tokio::runtime::Runtime,
    db: PgConnection,
    origin: String,
}

impl Stage {
    fn set() -> Self {
        let machine = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        machine.psn(&["run", "setup"]).exits(0);
        let threads = tokio::runtime::Runtime::new().expect("threads");
        let url = machine.secret("DATABASE_URL_DIRECT").expect("setup kept it");
        let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
        let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca(&machine));
        let db = threads.block_on(PgConnection::connect_with(&options)).expect("the database");
        let up = machine.psn(&["local", "up"]).exits(0);
        let origin = up.result()["endpoints"]["trigger"].as_str().expect("an address").trim_end_matches('/').to_owned();
        let stage = Self { machine, threads, db, origin };
        // Only what the test starts runs: a tick of its own at the quarter of an hour would come in between.
        let key = stage.secret("TRIGGER_SECRET_KEY");
        for schedule in stage.call("GET", "/api/v1/schedules", &key, None)["data"].as_array().expect("schedules") {
            let id = schedule["id"].as_str().expect("an id");
            stage.call("POST", &format!("/api/v1/schedules/{id}/deactivate"), &key, None);
        }
        stage
    }

    fn secret(&self, name: &str) -> String {
        secret_in(&self.machine.project(), name).unwrap_or_else(|| panic!("setup kept no {name}"))
    }

    fn call(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> Value {
        let port = self.origin.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
        let headers = [("authorization", format!("Bearer {key}")), ("x-trigger-api-version", "2025-07-16".to_owned())];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        let mut headers = headers.to_vec();
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let bytes = body.map(|b| b.to_string()).unwrap_or_default();
        let reply = request(port, method, path, &headers, bytes.as_bytes()).expect("the hub answers");
        assert_eq!(reply.status, 200, "{method} {path}: {}", String::from_utf8_lossy(&reply.body));
        reply.json()
    }

    /// The posts as at the start, one run of the watchdog in the key's environment, what it answers and what is left.
    fn tick(&mut self, key: &str) -> Seen {
        self.threads.block_on(sqlx::raw_sql(POSTS).execute(&mut self.db)).expect("the posts");
        let body = json!({ "payload": {}, "options": { "payloadType": "application/json" } });
        let id = self.call("POST", "/api/v1/tasks/watchdog/trigger", key, Some(body))["id"].clone();
        let path = format!("/api/v3/runs/{}", id.as_str().expect("an id"));
        let patience = Instant::now() + PATIENCE;
        let run = loop {
            let run = self.call("GET", &path, key, None);
            if !OPEN.contains(&run["status"].as_str().unwrap_or_default()) {
                break run;
            }
            assert!(Instant::now() < patience, "the run does not end: {run:#}");
            std::thread::sleep(Duration::from_millis(200));
        };
        let state = sqlx::query_scalar::<_, String>(STATE).fetch_one(&mut self.db);
        let state = self.threads.block_on(state).expect("the state");
        Seen {
            status: run["status"].as_str().unwrap_or_default().to_owned(),
            output: same_everywhere(run["output"].clone()),
            state: serde_json::from_str(&state).expect("JSON"),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    status: String,
    output: Value,
    state: Value,
}

fn ca(machine: &Machine) -> std::path::PathBuf {
    machine.home().join("local-hub/tls/ca.pem")
}

/// The project that setup would deploy, with one task for this hub's watchdog.
fn dev(stage: &Stage, clients: &Path, runtime: &str) -> TriggerDev {
    let (token, reference) = (stage.secret("TRIGGER_ACCESS_TOKEN"), stage.secret("TRIGGER_PROJECT_REF"));
    let project = folder().join("../../trigger");
    let worker =
        Worker { clients, project: &project, origin: &stage.origin, token: &token, reference: &reference, runtime };
    let mut dev = TriggerDev::prepare(&worker);
    let current = format!("/api/v1/projects/{reference}/prod/workers/current");
    let tasks = stage.call("GET", &current, &token, None)["worker"]["tasks"].clone();
    let task = tasks.as_array().expect("tasks").iter().find(|t| t["slug"] == "watchdog").expect("the watchdog").clone();
    let source = format!(
        "import {{ psnTask }} from '../psn.js';\n\
         export const watchdog = psnTask({{ id: 'watchdog', component: {}, maxDurationSeconds: 60 }});\n",
        task["filePath"]
    );
    let tasks = dev.folder().join("src/trigger");
    std::fs::create_dir_all(&tasks).expect("a folder");
    std::fs::write(tasks.join("watchdog.ts"), source).expect("a task");
    std::os::unix::fs::symlink(stage.machine.home().join("components"), dev.folder().join("components"))
        .expect("a link");

    // What setup gave to the production environment, and the authority that signs this hub's certificates.
    let prod =
        stage.call("GET", &format!("/api/v1/projects/{reference}/envvars"), &stage.secret("TRIGGER_SECRET_KEY"), None);
    let mut variables: BTreeMap<String, Value> =
        serde_json::from_value(prod["variables"].clone()).expect("the environment's variables");
    variables.insert("PSN_DATABASE_CA_FILE".to_owned(), json!(ca(&stage.machine)));
    let import = format!("/api/v1/projects/{reference}/envvars/dev/import");
    stage.call("POST", &import, &dev_key(stage), Some(json!({ "variables": variables, "override": true })));
    dev.start(&worker, None, &[("PSN_PROGRAM", env!("CARGO_BIN_EXE_psn-tested"))]);
    dev
}

fn dev_key(stage: &Stage) -> String {
    let path = format!("/api/v1/projects/{}/dev", stage.secret("TRIGGER_PROJECT_REF"));
    let environment = stage.call("GET", &path, &stage.secret("TRIGGER_ACCESS_TOKEN"), None);
    environment["apiKey"].as_str().expect("a key").to_owned()
}

/// Every value in it, by where it stands.
fn leaves(value: &Value, place: &str, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, v)| leaves(v, &format!("{place} / {name}"), into)),
        other => drop(into.insert(place.trim_start_matches(" / ").to_owned(), other.to_string())),
    }
}

fn print(places: &[(&str, Seen)]) {
    let columns: Vec<BTreeMap<String, String>> = places
        .iter()
        .map(|(_, seen)| {
            let mut column = BTreeMap::from([("status".to_owned(), seen.status.clone())]);
            leaves(&seen.output, "output", &mut column);
            leaves(&seen.state, "database", &mut column);
            column
        })
        .collect();
    let names: Vec<&str> = places.iter().map(|(name, _)| *name).collect();
    eprintln!("| what | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let rows: std::collections::BTreeSet<&String> = columns.iter().flat_map(BTreeMap::keys).collect();
    for row in rows {
        let cells: Vec<&str> = columns.iter().map(|c| c.get(row).map_or("", String::as_str)).collect();
        eprintln!("| {row} | {} |", cells.join(" | "));
    }
}

#[test]
fn one_watchdog_does_the_same_in_each_place() {
    if !installed() {
        return;
    }
    let clients = folder();
    let mut stage = Stage::set();
    let prod = stage.secret("TRIGGER_SECRET_KEY");
    let mut places = vec![("local engine", stage.tick(&prod))];
    let full = std::env::var("PSN_PARITY").is_ok_and(|v| v == "full");
    for (name, runtime) in [("trigger dev, node", "node-24"), ("trigger dev, bun", "bun-1.4")] {
        if runtime.starts_with("bun") && !(full && bun(&clients).is_some()) {
            eprintln!("SKIPPED: {name}: {}", if full { "no bun for this machine" } else { "PSN_PARITY=full adds it" });
            continue;
        }
        let mut dev = dev(&stage, &clients, runtime);
        let key = dev_key(&stage);
        places.push((name, stage.tick(&key)));
        dev.stop();
    }
    print(&places);

    // It did something: the comparison is not one of nothing with nothing.
    let (_, first) = &places[0];
    assert_eq!(first.status, "COMPLETED", "{first:#?}");
    for (what, count) in [("claimed", 4), ("retriggered", 2), ("parked", 1), ("failed", 1)] {
        assert_eq!(first.output[what], count, "{what}: {:#}", first.output);
    }
    assert_eq!(first.state["posts"]["tomorrow"]["status"], "scheduled");
    for (name, seen) in &places[1..] {
        assert_eq!(seen, first, "{name} differs from the local engine");
    }
}
