//! The operator's policy: in force for every plugin, psn's own included, wherever a plugin is run.
use std::fs;

use psn_tests::{Answer, Machine};

const PLUGIN: &str = env!("PSN_FIXTURE_UNGRANTED_ROUTE");
const NAME: &str = "ungranted-route";

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

fn policy(m: &Machine, text: &str) {
    fs::create_dir_all(m.project().join("config")).unwrap();
    fs::write(m.project().join("config/policy.toml"), text).unwrap();
}

fn agree(m: &Machine, asked: &Answer) {
    let event = asked.event(|e| e["status"] == "needs_consent" && e["type"] == "step");
    let command = event["needs"][0]["next"][0]["command"].as_str().expect("a command");
    m.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
}

#[test]
fn what_it_takes_away_is_shown_and_not_granted() {
    let m = machine();
    policy(&m, "[plugin.\"*\"]\nhosts = [\"*.trigger.dev\"]\n");
    let checked = m.psn(&["plugin", "check", PLUGIN]).exits(0);
    let withheld = checked.result()["withheld"][0].as_str().unwrap();
    assert!(
        withheld.starts_with("http neon")
            && withheld.contains("[plugin.\"*\"] hosts = [\"*.trigger.dev\", \"console.neon.tech\"]"),
        "{withheld}"
    );
    assert!(!checked.result()["asks"].as_array().unwrap().is_empty());

    let asked = m.psn(&["plugin", "add", PLUGIN]).exits(4);
    let data = &asked.event(|e| e["status"] == "needs_consent" && e["type"] == "step")["data"];
    assert_eq!(data["asks"], serde_json::json!([]), "{data}");
    assert_eq!(data["withheld"].as_array().unwrap().len(), 1);
    // A grant under this policy is none under another.
    let grant = data["grant"].as_str().unwrap().to_owned();
    policy(&m, "");
    m.psn(&["plugin", "add", PLUGIN, "--grant", &grant]).exits(1);
    assert!(!m.project().join("psn.lock").exists());

    policy(&m, "third-party = false\n");
    assert_eq!(m.psn(&["plugin", "check", PLUGIN]).exits(0).result()["allowed"], false);
    let refused = m.psn(&["plugin", "add", PLUGIN, "--grant", &grant]).exits(1);
    assert_eq!(refused.error()["code"], "plugin.third-party-forbidden");
}

/// The same component, which calls the vendor's service by a name of its own.
#[test]
fn a_vendor_s_service_is_one_under_another_name() {
    let m = machine();
    let (from, to) = (b"service = \"neon\"", b"service = \"noon\"");
    let mut bytes = fs::read(PLUGIN).unwrap();
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "its manifest is in it");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    fs::create_dir_all(m.project()).unwrap();
    let renamed = m.project().join("renamed.wasm");
    fs::write(&renamed, bytes).unwrap();
    let file = renamed.to_str().unwrap();
    for (rules, line) in [
        ("[plugin.\"*\".deny-routes]\nneon = [\"GET /projects\"]\n", "neon without \"GET /projects\""),
        ("[plugin.\"*\".routes]\nneon = [\"POST /**\"]\n", "neon = [\"POST /**\", \"GET /projects\"]"),
        ("[plugin.\"*\"]\nservices = [\"noon\"]\n", "services = [\"noon\", \"neon\"]"),
    ] {
        policy(&m, rules);
        let checked = m.psn(&["plugin", "check", file]).exits(0);
        let withheld = checked.result()["withheld"][0].as_str().unwrap_or_default().to_owned();
        assert!(withheld.starts_with("http noon") && withheld.contains(line), "{rules}: {withheld}");
    }
    policy(&m, "[plugin.\"*\".deny-routes]\nneon = [\"DELETE /**\"]\n");
    assert!(m.psn(&["plugin", "check", file]).exits(0).result()["withheld"].as_array().unwrap().is_empty());
}

#[test]
fn it_is_in_force_on_the_path_and_a_change_stops_only_whom_it_concerns() {
    let m = machine();
    m.psn(&["run", "keys"]).exits(0);
    let asked = m.psn(&["plugin", "add", PLUGIN]).exits(4);
    agree(&m, &asked);

    // Compiling a stranger's component has limits, which the operator can lower; psn's own are compiled with psn's.
    policy(&m, "[compile]\ndeadline = \"1ms\"\n");
    let late = m.psn(&["run", NAME]).exits(1);
    assert_eq!(late.error()["code"], "component.compile-deadline", "{}", late.stdout);
    m.psn(&["run", "keys"]).exits(0);

    // A line that is none: nothing runs, and the line is said.
    policy(&m, "# mine\n[plugin.\"*\"]\nhots = []\n");
    for plugin in ["keys", NAME] {
        let stopped = m.psn(&["run", plugin]).exits(1);
        assert_eq!(stopped.error()["code"], "config.policy-invalid");
        let message = stopped.error()["message"].as_str().unwrap();
        assert!(message.contains("line 3") && message.contains("hots"), "{message}");
    }
    let status = m.psn(&["status"]).exits(0);
    assert_eq!(status.result()["stopped"][0]["error"]["code"], "config.policy-invalid", "{}", status.stdout);

    // A rule that takes nothing of it away concerns it not.
    policy(&m, "[plugin.\"*\"]\nhosts = [\"console.neon.tech\", \"api.trigger.dev\"]\n[plugin.other]\ntools = []\n");
    let ran = m.psn(&["run", NAME]).exits(1);
    assert!(ran.error().to_string().contains("the manifest line"), "{}", ran.stdout);

    // One that does stops it, says what is different, and leaves the others alone.
    policy(&m, "[plugin.ungranted-route.limits]\nmemory = \"32MiB\"\n");
    let stopped = m.psn(&["run", NAME]).exits(4);
    let event = stopped.event(|e| e["status"] == "needs_consent" && e["type"] == "step");
    let difference = event["data"]["difference"].to_string();
    assert!(difference.contains("policy") && difference.contains("+ limit memory 32MiB"), "{difference}");
    m.psn(&["run", "keys"]).exits(0);
    agree(&m, &stopped);
    m.psn(&["run", NAME]).exits(1);
    assert_eq!(m.psn(&["plugin", "diff", NAME]).exits(0).result()["same"], true);
    // Wider again is a difference too.
    policy(&m, "");
    m.psn(&["run", NAME]).exits(4);

    // psn's own plugins are subject to it, at once, and what stops them names the policy's line.
    policy(&m, "[plugin.keys.limits]\nhttp-calls = 0\n");
    let stopped = m.psn(&["run", "keys"]).exits(1);
    assert_eq!(stopped.error()["code"], "component.limit", "{}", stopped.stdout);
    let fix = stopped.error()["fix"][0].as_str().unwrap();
    assert_eq!(fix, "In config/policy.toml: [plugin.keys.limits] http-calls = 10");
}

#[test]
fn what_a_task_is_deployed_with_is_in_force_in_the_local_hub_too() {
    let m = machine();
    policy(&m, "[plugin.watchdog.limits]\ndb-calls = 0\n");
    m.psn(&["run", "setup"]).exits(0);
    // Not the project's file, but what was deployed, decides there; a run of another hub's deployment has another.
    policy(&m, "");
    let failed = m.psn(&["task", "trigger", "watchdog", "--wait", "120"]).exits(1);
    let said = failed.events.iter().map(|e| e.to_string()).collect::<String>();
    assert!(said.contains("its limit of 0 db-calls, which the operator's policy sets"), "{said}");
}
