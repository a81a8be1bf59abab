//! `psn doctor`: the machine, and the hostile suite against this very psn.
use std::collections::BTreeSet;
use std::path::Path;

use psn_tests::{Answer, Machine, sample};
use serde_json::Value;

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

fn checks(answer: &Answer) -> Vec<&Value> {
    answer.events.iter().filter(|e| e["type"] == "check").collect()
}

/// Attacks in a plain test run, besides the controls: about a second each. `PSN_HOSTILE=full` takes all.
const SAMPLE: usize = 60;

/// Ids to run: those that PSN_HOSTILE_ONLY names, with blanks between them, while one is worked on; all of them (none is named); or
/// every control and a sample of the attacks that is spread over the groups and another one each time.
fn chosen() -> Vec<String> {
    if let Ok(only) = std::env::var("PSN_HOSTILE_ONLY") {
        return only.split_whitespace().map(str::to_owned).collect();
    }
    if std::env::var("PSN_HOSTILE").is_ok_and(|h| h == "full") {
        return Vec::new();
    }
    let seed = sample::seed();
    eprintln!("hostile suite: a sample, PSN_MATRIX_SEED={seed}");
    let all: Vec<(&str, &str)> = psn_hostile::attacks().iter().map(|a| (a.id, a.group)).collect();
    let (controls, attacks): (Vec<_>, Vec<_>) = all.into_iter().partition(|(id, _)| id.contains("control"));
    let taken = sample::spread(&attacks, |(_, group)| *group, SAMPLE, seed);
    controls.into_iter().chain(taken).map(|(id, _)| id.to_owned()).collect()
}

#[test]
fn attacks_hold_and_controls_are_seen() {
    let only = chosen();
    let mut args = vec!["doctor", "--hostile"];
    only.iter().for_each(|id| args.extend(["--only", id]));
    let m = machine();
    let answer = m.psn(&args);
    let failed: Vec<String> =
        checks(&answer).iter().filter(|c| c["status"] != "pass").map(|c| c["message"].to_string()).collect();
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), answer.stderr);
    let answer = answer.exits(0);

    // A row for each, on both channels.
    let told: BTreeSet<&str> = checks(&answer).iter().filter_map(|c| c["check"].as_str()).collect();
    for attack in psn_hostile::attacks().iter().filter(|a| only.is_empty() || only.iter().any(|id| id == a.id)) {
        assert!(told.contains(attack.id), "{} was not run", attack.id);
        assert!(answer.stderr.lines().any(|l| l.starts_with("held") && l.contains(attack.id)), "{}", attack.id);
    }
    assert!(told.contains("afterwards"));
    // The suite has a hub of its own, and takes it along.
    assert!(m.files().is_empty(), "{:?}", m.files());
}

#[test]
fn an_attack_that_there_is_none_of_is_a_usage_error() {
    let answer = machine().psn(&["doctor", "--hostile", "--only", "nonsense"]).exits(2);
    assert_eq!(answer.error()["code"], "usage.no-such-attack");
    machine().psn(&["doctor", "--only", "http"]).exits(2);
}

#[test]
fn the_doctor_looks_at_the_machine() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut m = machine();
    let answer = m.psn(&["doctor"]).exits(0);
    let names: Vec<&str> = checks(&answer).iter().filter_map(|c| c["check"].as_str()).collect();
    assert_eq!(names, ["postgres", "cache", "git"]);

    m.psn_with_input(&["keys", "set", "NEON_API_KEY", "--stdin"], "some-key-of-mine").exits(0);
    let keys = m.project().join("config/keys.env");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).unwrap();
    let empty = m.root().join("empty");
    std::fs::create_dir(&empty).unwrap();
    m.env.push(("PSN_PG_BIN".into(), empty.display().to_string()));
    let answer = m.psn(&["doctor"]).exits(1);
    for name in ["postgres", "keys.env"] {
        let check = answer.event(|e| e["check"] == name);
        assert_eq!(check["status"], "fail", "{check}");
        assert!(!check["fix"].as_array().unwrap().is_empty());
    }
}

#[test]
fn the_table_in_the_documentation_is_what_the_suite_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let text = std::fs::read_to_string(file).unwrap();
    let now = psn_hostile::table::replaced(&text).expect("docs/security.md has its place for the table");
    assert!(now == text, "docs/security.md is stale: just hostile-table");
}
