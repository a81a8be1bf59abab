//! What would change is said before, done only while it holds, and missed when it is gone; and one psn at a time does it.
use std::process::Stdio;
use std::time::{Duration, Instant};

use psn_tests::edge::Fault;
use psn_tests::rig::Rig;
use psn_tests::{Answer, Machine, secret_in};
use serde_json::Value;
use sqlx::Connection as _;

const PROGRAM: &str = env!("CARGO_BIN_EXE_psn-tested");

fn typed(fix: &str) -> Vec<String> {
    let words = fix.strip_prefix("psn ").unwrap_or_else(|| panic!("no psn command: {fix}"));
    words.split_whitespace().map(str::to_owned).collect()
}

fn statuses(answer: &Answer, status: &str) -> Vec<String> {
    answer.steps().into_iter().filter(|(_, s)| s == status).map(|(step, _)| step).collect()
}

#[track_caller]
fn assert_code(answer: &Answer, code: &str) {
    assert_eq!(answer.error()["code"], code, "{}", answer.stdout);
}

#[test]
fn a_plan_is_what_setup_does_and_holds_until_something_changes() {
    let m = Machine::new(PROGRAM);
    let planned = m.psn(&["plan", "setup", "--out", "plan.json"]).exits(3);
    assert_eq!(statuses(&planned, "planned"), ["neon-provision", "migrate", "trigger-provision"]);
    let left: Vec<_> = std::fs::read_dir(m.project()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["plan.json"], "planning changes nothing in the folder");
    let plan: Value = serde_json::from_slice(&std::fs::read(m.project().join("plan.json")).unwrap()).unwrap();
    let id = plan["hub_id"].as_str().unwrap().to_owned();
    let change = &planned.event(|e| e["step"] == "neon-provision")["changes"][0];
    assert_eq!(change, &format!("Create the Neon project psn-hub-{id}"));

    let told = |answer: &Answer| answer.stdout.contains("this folder has no hub yet");
    assert!(told(&planned), "that the id is this plan's alone: {}", planned.stdout);
    assert!(m.psn(&["status"]).exits(1).error()["code"] == "config.not-found", "and a status has none to show");

    let applied = m.psn(&["apply", "plan.json"]).exits(0);
    assert_eq!(statuses(&applied, "success").len(), 5, "{}", applied.stdout);
    assert_eq!(m.secret("PSN_HUB_ID"), Some(id), "the hub that was planned is the one that was made");
    let again = m.psn(&["plan", "setup"]).exits(0);
    assert_eq!(statuses(&again, "skipped").len(), 5, "{}", again.stdout);
    assert!(!told(&again));

    // What was planned is done, so the plan is no longer one.
    let stale = m.psn(&["apply", "plan.json"]).exits(1);
    assert_code(&stale, "plan.stale");
    let fixes: Vec<String> =
        stale.error()["fix"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().into()).collect();
    m.psn(&typed(&fixes[0])).exits(0);
    m.psn(&typed(&fixes[1])).exits(0);

    // A setting, a component, another hub.
    m.psn(&["config", "set", "neon.region", "aws-eu-central-1"]).exits(0);
    assert_code(&m.psn(&["apply", "plan.json"]).exits(1), "plan.stale");
    m.psn(&typed(&fixes[0])).exits(0);
    let path = m.project().join("plan.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let digest = plan["steps"][1]["component_sha256"].as_str().unwrap();
    for (there, instead, code) in [
        (digest, "0".repeat(64), "plan.stale"),
        (plan["hub_id"].as_str().unwrap(), "0123abcd".to_owned(), "plan.other-folder"),
    ] {
        std::fs::write(&path, text.replace(there, &instead)).unwrap();
        assert_code(&m.psn(&["apply", "plan.json"]).exits(1), code);
    }

    // What is no plan.
    for bad in ["", "{}", &text.replace("psn.plan/1", "psn.plan/9"), &text.replace("\"steps\"", "\"stops\"")] {
        std::fs::write(&path, bad).unwrap();
        assert_code(&m.psn(&["apply", "plan.json"]).exits(1), "plan.invalid");
    }
    assert_code(&m.psn(&["apply", "no-such-plan.json"]).exits(1), "plan.invalid");
    let unwritten = m.psn(&["plan", "setup", "--out", "no/such/folder/plan.json"]).exits(1);
    assert_code(&unwritten, "plan.not-written");
    m.psn(&typed(unwritten.error()["fix"][0].as_str().unwrap())).exits(0);
    m.psn(&["plan", "nonsense"]).exits(2);
}

#[test]
fn what_is_no_longer_as_setup_left_it_is_drift() {
    let rig = Rig::new(PROGRAM);
    let case = rig.case();
    case.psn(&["run", "setup"]).answer.exits(0);
    let fine = case.psn(&["status", "--drift"]).answer.exits(0);
    assert_eq!(statuses(&fine, "skipped").len(), 5, "{}", fine.stdout);

    let url: sqlx::postgres::PgConnectOptions = case.secret("DATABASE_URL_DIRECT").unwrap().parse().unwrap();
    let url = url.ssl_root_cert(rig.machine.home().join("local-hub/tls/ca.pem"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut db = sqlx::PgConnection::connect_with(&url).await.unwrap();
        sqlx::raw_sql("REVOKE SELECT (status) ON posts FROM psn_plugin_watchdog").execute(&mut db).await.unwrap();
    });
    let token = case.secret("TRIGGER_ACCESS_TOKEN").unwrap();
    let project = case.secret("TRIGGER_PROJECT_REF").unwrap();
    let reply = rig.trigger("DELETE", &format!("/api/v1/projects/{project}"), &token);
    assert!(reply.status < 300, "{}", reply.status);

    let before = std::fs::read(case.folder.join("config/hub.env")).unwrap();
    let drifted = case.psn(&["status", "--drift"]).answer.exits(3);
    assert_eq!(statuses(&drifted, "planned"), ["migrate", "trigger-provision"], "{}", drifted.stdout);
    let changes = drifted.event(|e| e["step"] == "migrate")["changes"].to_string();
    assert!(changes.contains("psn_plugin_watchdog"), "{changes}");
    assert_eq!(std::fs::read(case.folder.join("config/hub.env")).unwrap(), before, "looking changes nothing");

    case.psn(&["run", "setup"]).answer.exits(0);
    case.psn(&["status", "--drift"]).answer.exits(0);
}

#[test]
fn who_holds_the_run_lock_is_said_and_the_dead_hold_nothing() {
    let rig = Rig::new(PROGRAM);
    let case = rig.case();
    // A setup that waits for an answer.
    case.psn(&["run", "keys"]).answer.exits(0);
    let call = rig.http.calls()[0].clone();
    rig.http.begin();
    rig.http.spoil(&call, None, Fault::Timeout);
    let mut holder = rig
        .machine
        .command(&["run", "setup"])
        .current_dir(&case.folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !rig.http.fired() {
        assert!(Instant::now() < until, "the setup never called");
        std::thread::sleep(Duration::from_millis(10));
    }

    let locked = case.spawn(&["run", "setup"], &[]).answer.exits(5);
    assert_code(&locked, "run.locked");
    let message = locked.error()["message"].as_str().unwrap();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for said in ["run setup", &holder.id().to_string(), &host, " s"] {
        assert!(message.contains(said), "{said} in {message}");
    }
    let status = case.spawn(&["status"], &[]).answer.exits(0);
    assert_eq!(status.result()["running"]["pid"], holder.id(), "{}", status.stdout);
    // A plan is a look at something that moves: it waits its turn too.
    assert_code(&case.spawn(&["plan", "setup"], &[]).answer.exits(5), "run.locked");

    holder.kill().unwrap();
    holder.wait().unwrap();
    let status = case.psn(&["status"]).answer.exits(0);
    assert_eq!(status.result()["running"], Value::Null);
    case.psn(&["run", "setup"]).answer.exits(0);
    assert!(secret_in(&case.folder, "DATABASE_URL").is_some());
}

#[test]
fn the_time_out_of_a_call_is_a_setting_and_a_wrong_one_is_named() {
    let m = Machine::new(PROGRAM);
    m.psn(&["config", "set", "http.timeout", "forever"]).exits(0);
    let refused = m.psn(&["run", "keys"]).exits(1);
    assert_code(&refused, "config.settings");
    m.psn(&typed(refused.error()["fix"][0].as_str().unwrap())).exits(0);
    m.psn(&["run", "keys"]).exits(0);
}
