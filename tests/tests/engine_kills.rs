//! The local hub's daemon, with its engine, killed by SIGKILL again and again while it executes real components: no run is lost, and
//! none is executed again but those that a kill interrupted.
//!
//! `PSN_MATRIX=N` makes it N kills, and 25 runs for each; `PSN_MATRIX_SEED` takes the same moments again.
use std::time::{Duration, Instant};

use psn_tests::edge::request;
use psn_tests::{Machine, sample};
use serde_json::{Value, json};

const FIXTURE: &str = env!("PSN_FIXTURE_NOOP_TASK");
const KILLS: usize = 4;
/// A batch has at most 1,000 runs.
const MOST_KILLS: usize = 10;
/// For each kill, so that there is always something under way.
const RUNS_FOR_EACH: usize = 100;
/// Milliseconds until a kill, from the first run that a new engine ended. An engine that never gets that far makes its runs look like
/// what kills it, and after four times they are given up: that is another test's.
const LONGEST_LIFE: u64 = 150;
const PATIENCE: Duration = Duration::from_secs(180);

struct Hub {
    machine: Machine,
    port: u16,
    key: String,
}

impl Hub {
    fn set() -> Self {
        let machine = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        let asked = machine.psn(&["plugin", "add", FIXTURE]).exits(4);
        let consent = asked.event(|e| e["status"] == "needs_consent");
        let command = consent["needs"][0]["next"][0]["command"].as_str().expect("a command").to_owned();
        machine.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
        machine.psn(&["run", "setup"]).exits(0);
        let key = machine.secret("TRIGGER_SECRET_KEY").expect("setup kept it");
        let mut hub = Self { machine, port: 0, key };
        hub.up();
        hub
    }

    fn up(&mut self) {
        let up = self.machine.psn(&["local", "up"]).exits(0);
        let origin = up.result()["endpoints"]["trigger"].as_str().expect("an address").trim_end_matches('/').to_owned();
        self.port = origin.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
    }

    /// SIGKILL to the daemon. Its Postgres goes on, as after a crash of the daemon alone.
    fn kill(&self) {
        let file = self.machine.home().join("local-hub/daemon.lock");
        let holder: Value = serde_json::from_slice(&std::fs::read(file).expect("the daemon's record")).expect("JSON");
        let pid = holder["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it was running");
        let patience = Instant::now() + PATIENCE;
        while rustix::process::test_kill_process(pid).is_ok() {
            assert!(Instant::now() < patience, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn call(&self, method: &str, path: &str, kind: &str, body: &str) -> std::io::Result<Value> {
        let headers = [
            ("authorization", format!("Bearer {}", self.key)),
            ("x-trigger-api-version", "2025-07-16".to_owned()),
            ("content-type", kind.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let reply = request(self.port, method, path, &headers, body.as_bytes())?;
        assert!((200..300).contains(&reply.status), "{path}: {}", String::from_utf8_lossy(&reply.body));
        Ok(reply.json())
    }

    /// All runs in one batch, each with what tells it from the others.
    fn trigger(&self, runs: usize) -> String {
        let made = self.call("POST", "/api/v3/batches", "application/json", &json!({ "runCount": runs }).to_string());
        let batch = made.expect("the hub answers")["id"].as_str().expect("an id").to_owned();
        let line = |n| {
            let options = json!({ "payloadType": "application/json", "idempotencyKey": format!("kill-{n}") });
            json!({ "index": n, "task": "noop-task", "payload": { "n": n }, "options": options }).to_string()
        };
        let lines: Vec<String> = (0..runs).map(line).collect();
        let items = format!("/api/v3/batches/{batch}/items");
        let sealed = self.call("POST", &items, "application/x-ndjson", &lines.join("\n")).expect("the hub answers");
        assert_eq!(sealed["sealed"], true);
        batch
    }

    /// Every run of the batch, over all pages.
    fn runs(&self, batch: &str) -> Vec<Value> {
        let (mut runs, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/runs?filter%5Bbatch%5D={batch}&page%5Bsize%5D=100{after}");
            let page = self.call("GET", &path, "application/json", "").expect("the hub answers");
            runs.extend(page["data"].as_array().expect("a page").iter().cloned());
            match page["pagination"]["next"].as_str() {
                Some(next) => after = format!("&page%5Bafter%5D={next}"),
                None => return runs,
            }
        }
    }
}

#[test]
fn a_killed_engine_loses_no_run_and_repeats_only_what_the_kill_interrupted() {
    let kills = sample::size(KILLS, MOST_KILLS);
    let total = kills * RUNS_FOR_EACH;
    let seed = sample::seed();
    // The engine's own concurrency, as documented: the most that one kill can interrupt.
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_mul(2).clamp(4, 16);
    let mut hub = Hub::set();
    let batch = hub.trigger(total);
    let is_open =
        |run: &Value| ["QUEUED", "DEQUEUED", "EXECUTING"].contains(&run["status"].as_str().unwrap_or_default());
    let mut interrupted = 0;
    let ended = |hub: &Hub| hub.runs(&batch).iter().filter(|run| !is_open(run)).count();
    for kill in 0..kills {
        let (before, patience) = (ended(&hub), Instant::now() + PATIENCE);
        while ended(&hub) == before && before < total {
            assert!(Instant::now() < patience, "nothing is executed");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(sample::chance(seed, kill) % LONGEST_LIFE));
        hub.kill();
        hub.up();
        interrupted += usize::from(ended(&hub) < total);
    }
    let patience = Instant::now() + PATIENCE;
    let runs = loop {
        let runs = hub.runs(&batch);
        if !runs.iter().any(is_open) {
            break runs;
        }
        assert!(Instant::now() < patience, "{:#?}", runs.iter().filter(|r| is_open(r)).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(100));
    };
    let full = |run: &Value| {
        let path = format!("/api/v3/runs/{}", run["id"].as_str().unwrap_or_default());
        hub.call("GET", &path, "application/json", "").expect("the hub answers")
    };
    let runs: Vec<Value> = runs.iter().map(full).collect();
    let bad: Vec<&Value> = runs.iter().filter(|run| run["status"] != "COMPLETED").collect();
    let attempts: u64 = runs.iter().map(|run| run["attemptCount"].as_u64().expect("a count")).sum();
    let attempts = usize::try_from(attempts).expect("a count");
    let doubled = attempts - runs.len();
    eprintln!(
        "seed {seed}: {total} runs, {kills} kills of the daemon, {interrupted} of them with runs still open afterwards: \
         {} lost, {} ended otherwise than well, {doubled} attempts repeated (at most {} could be)",
        total - runs.len(),
        bad.len(),
        kills * at_once
    );
    assert_eq!(runs.len(), total, "every run is there");
    assert!(bad.is_empty(), "every run ended well: {bad:#?}");
    assert!(doubled <= kills * at_once, "more was repeated than was under way");
    assert!(interrupted > 0, "no kill came in time: nothing was tested");
}
