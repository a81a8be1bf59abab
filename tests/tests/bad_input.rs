//! What bad input gets: a stable code, a fix, the exit code of the design; and nothing half-written.
use std::process::Stdio;
use std::time::Duration;

use psn_tests::{Answer, Machine};
use serde_json::Value;

const UNGRANTED_IMPORT: &str = env!("PSN_FIXTURE_UNGRANTED_IMPORT");
const UNGRANTED_ROUTE: &str = env!("PSN_FIXTURE_UNGRANTED_ROUTE");

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

#[track_caller]
fn assert_code(answer: &Answer, code: &str) {
    let error = answer.error();
    assert_eq!(error["code"], code, "{}", answer.stdout);
    let fix = error["fix"].as_array().expect("a list");
    assert!(!fix.is_empty(), "{error}");
}

#[test]
fn no_postgres_is_one_clear_error_with_three_ways_out() {
    let mut m = machine();
    // No PATH entry and no folder has one: psn looks where this says, and there is nothing.
    let empty = m.root().join("empty");
    std::fs::create_dir(&empty).unwrap();
    m.env.push(("PSN_PG_BIN".into(), empty.display().to_string()));
    let answer = m.psn(&["run", "setup"]).exits(1);
    assert_code(&answer, "local.postgres-unusable");
    assert!(answer.error()["fix"].as_array().unwrap().len() >= 3, "{}", answer.stdout);
    assert!(m.secret("DATABASE_URL").is_none());

    // The same command, with the fix: nothing of the failed one is in the way.
    m.env.clear();
    m.psn(&["run", "setup"]).exits(0);
}

#[test]
fn a_name_that_is_no_step_gets_the_nearest_one() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let answer = m.psn(&["run", "valdate"]).exits(1);
    assert_code(&answer, "run.unknown-step");
    assert_eq!(answer.error()["fix"][0], "psn run validate");
    // What nobody can have meant is not done by who types the fix.
    for name in ["nothing-like", ""] {
        let answer = m.psn(&["run", name]).exits(1);
        assert_code(&answer, "run.unknown-step");
        assert_eq!(answer.error()["fix"][0], "psn plugin list");
    }

    // A hub that nobody uses yet has no posts: that is no error.
    assert_eq!(m.psn(&["posts", "list"]).exits(0).result()["posts"], serde_json::json!([]));
    let unknown = m.psn(&["posts", "list", "--user", "who@example.org"]).exits(1);
    assert_code(&unknown, "posts.unknown-user");
    assert_eq!(unknown.error()["fix"][0], "psn posts list");

    // What the hub is known by is not replaced by a slip.
    for name in ["HUB_ENCRYPTION_KEY", "PSN_HUB_ID", "DATABASE_URL_DIRECT"] {
        let kept = m.secret(name);
        let mut set = m.command(&["keys", "set", name, "--from-env", "OTHER"]);
        let answer = Answer::of(set.env("OTHER", "0123456789abcdef0123456789abcdef").output().unwrap()).exits(1);
        assert_code(&answer, "keys.hubs-own");
        assert_eq!(m.secret(name), kept);
    }

    // A kind of hub that there is not leaves the settings alone.
    let answer = m.psn(&["config", "set", "hub.kind", "mars"]).exits(2);
    assert_code(&answer, "usage.hub-kind");
    assert_eq!(answer.error()["fix"][0], "psn config set hub.kind local");

    // Events that cannot be written are not lost in silence, and what was asked for is done all the same.
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let lost = m.command(&["run", "validate"]).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(lost.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&lost.stderr).contains("events were lost"));
    let schema = m.command(&["schema"]).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(schema.status.code(), Some(1), "{}", String::from_utf8_lossy(&schema.stderr));
    assert!(!String::from_utf8_lossy(&schema.stderr).contains("panicked"));

    let bash = m.command(&["completions", "bash"]).output().unwrap();
    let script = String::from_utf8_lossy(&bash.stdout);
    assert!(bash.status.success() && script.contains("teardown") && script.contains("--drift"), "{script}");
    assert!(!script.contains("compile-component") && !script.contains("serve"), "a command of psn's own is offered");

    // A path is bytes.
    use std::os::unix::ffi::OsStrExt as _;
    let mut bytes = m.command(&["status", "--project"]);
    let answer = Answer::of(bytes.arg(std::ffi::OsStr::from_bytes(b"/tmp/no-such-\xff")).output().unwrap());
    assert!(answer.exits(1).error()["code"].is_string());
}

#[test]
fn a_task_of_a_hub_without_a_database_says_what_is_missing() {
    let m = machine();
    m.psn(&["run", "keys"]).exits(0);
    let answer = m.psn(&["run", "watchdog"]).exits(1);
    assert_code(&answer, "hub.no-database-url");
    assert_eq!(answer.error()["fix"][0], "psn run setup");

    // What git once kept it still has.
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let done = std::process::Command::new("git").current_dir(m.project()).args(who).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q"]);
    git(&["add", "-f", "config/hub.env"]);
    git(&["commit", "-qm", "all of it"]);
    git(&["rm", "-q", "--cached", "config/hub.env"]);
    git(&["commit", "-qm", "not that"]);
    let doctor = m.psn(&["doctor"]);
    let found = doctor.event(|e| e["check"] == "git-hygiene");
    assert!(found["status"] == "fail" && found["message"].as_str().unwrap().contains("history"), "{found}");
}

#[test]
fn two_at_once_the_second_is_told_who_is_first() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let private = m.project().join(".psn");
    // Held as psn holds it: by the kernel, for as long as this process has it open.
    let lock = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(private.join("run.lock"))
        .unwrap();
    lock.lock().unwrap();
    let answer = m.psn(&["run", "setup"]).exits(5);
    assert_code(&answer, "run.locked");
    assert_eq!(answer.error()["retryable"], true);
    drop(lock);
    m.psn(&["run", "setup"]).exits(0);
}

#[test]
fn two_setups_started_together_make_one_hub() {
    let m = machine();
    let start = || m.command(&["run", "setup"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let answers: Vec<Answer> =
        [start(), start()].into_iter().map(|child| Answer::of(child.wait_with_output().unwrap())).collect();
    let mut codes: Vec<_> = answers.iter().map(|a| a.code).collect();
    codes.sort();
    assert!(
        codes == [Some(0), Some(5)] || codes == [Some(0), Some(0)],
        "{codes:?}\n{}\n{}",
        answers[0].stdout,
        answers[1].stdout
    );
    for answer in answers.iter().filter(|a| a.code == Some(5)) {
        assert_code(answer, "run.locked");
    }
    m.psn(&["run", "setup"]).exits(0);
}

#[test]
fn a_config_that_cannot_be_written_is_said_so() {
    let m = machine();
    // Root writes anywhere, but nobody writes below a file.
    std::fs::write(m.project().join("config"), "not a folder").unwrap();
    let answer = m.psn(&["run", "setup"]).exits(1);
    let code = answer.error()["code"].as_str().unwrap().to_owned();
    assert!(code.starts_with("config."), "{}", answer.stdout);
    assert_eq!(std::fs::read_to_string(m.project().join("config")).unwrap(), "not a folder");
}

#[test]
fn a_key_that_the_service_rejects_and_a_service_that_is_down_are_told_apart() {
    let m = machine();
    let endpoints = m.psn(&["local", "up"]).exits(0).result()["endpoints"].clone();
    let cloud = |neon: &str, trigger: &str| {
        std::fs::create_dir_all(m.project().join("config")).unwrap();
        let services = format!("neon = \"{neon}\"\ntrigger = \"{trigger}\"\ntrigger-env = \"{trigger}\"\n");
        std::fs::write(m.project().join("config/services.toml"), services).unwrap();
    };
    let (neon, trigger) = (endpoints["neon"].as_str().unwrap(), endpoints["trigger"].as_str().unwrap());
    cloud(neon, trigger);

    // Nothing brought yet: asked for, one command each, and no value on any command line.
    let asked = m.psn(&["run", "setup", "--hub", "cloud"]).exits(4);
    let needs = &asked.event(|e| e["status"] == "needs_input")["needs"];
    let names: Vec<&str> = needs.as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["NEON_API_KEY", "TRIGGER_ACCESS_TOKEN"], "{needs}");
    assert_eq!(needs[0]["secret"], true);

    for name in names {
        m.psn_with_input(&["keys", "set", name, "--stdin"], "a-key-that-nobody-issued\n").exits(0);
    }
    let rejected = m.psn(&["run", "keys", "--hub", "cloud"]).exits(1);
    assert_code(&rejected, "keys.key-rejected");
    assert!(!rejected.stdout.contains("nobody-issued") && !rejected.stderr.contains("nobody-issued"));

    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cloud(&format!("http://127.0.0.1:{free}/api/v2"), trigger);
    let down = m.psn(&["run", "keys", "--hub", "cloud"]).exits(1);
    assert_ne!(down.error()["code"], "keys.key-rejected", "{}", down.stdout);
    assert!(!down.error()["fix"].as_array().unwrap().is_empty());
}

#[test]
fn a_folder_of_one_hub_is_not_used_for_the_other_by_mistake() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let key = m.secret("NEON_API_KEY").unwrap();
    let answer = m.psn(&["run", "setup", "--hub", "cloud"]).exits(1);
    assert_code(&answer, "hub.other-kind");
    assert_eq!(answer.error()["fix"][0], "psn hub use cloud");

    m.psn(&["hub", "use", "cloud"]).exits(0);
    assert_eq!(m.secret("NEON_API_KEY"), None, "the local hub's key must not be sent to Neon");
    m.psn(&["hub", "use", "local"]).exits(0);
    assert_eq!(m.secret("NEON_API_KEY"), Some(key));
    let again = m.psn(&["run", "setup"]).exits(0);
    assert!(again.steps().iter().all(|(_, status)| status == "skipped"), "{}", again.stdout);
}

#[test]
fn a_component_that_imports_what_its_manifest_does_not_ask_for_is_refused() {
    let m = machine();
    let answer = m.psn(&["plugin", "add", UNGRANTED_IMPORT]).exits(1);
    assert_code(&answer, "plugin.import-not-granted");
    let text = answer.error().to_string();
    assert!(text.contains("[[http]]"), "the manifest line that would allow it: {text}");
    assert!(!m.project().join("psn.lock").exists());
}

#[test]
fn a_route_that_was_not_granted_is_denied_with_the_line_that_would_allow_it() {
    let m = machine();
    m.psn(&["run", "keys"]).exits(0);
    let asked = m.psn(&["plugin", "add", UNGRANTED_ROUTE]).exits(4);
    let command =
        asked.event(|e| e["status"] == "needs_consent")["needs"][0]["next"][0]["command"].as_str().unwrap().to_owned();
    m.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    let answer = m.psn(&["run", "ungranted-route"]).exits(1);
    let text = answer.error().to_string();
    assert!(text.contains("DELETE /projects/"), "the manifest line that would allow it: {text}");
    assert!(!answer.stdout.contains("It got through"));
}

#[test]
fn a_component_that_was_changed_after_it_was_granted_does_not_run() {
    let m = machine();
    m.psn(&["run", "keys"]).exits(0);
    let asked = m.psn(&["plugin", "add", UNGRANTED_ROUTE]).exits(4);
    let command =
        asked.event(|e| e["status"] == "needs_consent")["needs"][0]["next"][0]["command"].as_str().unwrap().to_owned();
    m.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    let kept = std::fs::read_dir(m.project().join(".psn/plugins")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&kept).unwrap();
    // Somewhere in the code: still a component, but another one.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    let answer = m.psn(&["run", "ungranted-route"]);
    // No valid component any more, or another one, which someone has to agree to first.
    match answer.code {
        Some(1) => assert!(answer.error()["code"].as_str().unwrap().starts_with("plugin."), "{}", answer.stdout),
        _ => drop(answer.exits(4).event(|e| e["status"] == "needs_consent").clone()),
    }
    // The rest of the hub is unharmed.
    m.psn(&["run", "keys"]).exits(0);
}

#[test]
fn what_is_no_component_is_refused_with_the_offset() {
    let m = machine();
    let file = m.root().join("x.wasm");
    let real = std::fs::read(UNGRANTED_ROUTE).unwrap();
    for bytes in [&b"hello"[..], &real[..real.len() / 2], &[0u8; 64][..]] {
        std::fs::write(&file, bytes).unwrap();
        let answer = m.psn(&["plugin", "check", file.to_str().unwrap()]).exits(1);
        assert!(answer.error()["code"].as_str().unwrap().starts_with("plugin."), "{}", answer.stdout);
    }
}

#[test]
fn a_manifest_with_an_unknown_field_is_refused_by_name() {
    let m = machine();
    let real = std::fs::read(UNGRANTED_ROUTE).unwrap();
    // The same length, so that the component around it stays well formed.
    let line = b"routes = [\"GET /projects\"]";
    let mut changed = real;
    while let Some(at) = find(&changed, line) {
        changed[at..at + 6].copy_from_slice(b"ruotes");
    }
    let file = m.root().join("x.wasm");
    std::fs::write(&file, changed).unwrap();
    let answer = m.psn(&["plugin", "check", file.to_str().unwrap()]).exits(1);
    assert!(answer.error()["message"].as_str().unwrap().contains("ruotes"), "{}", answer.stdout);
}

#[test]
fn a_port_that_somebody_else_took_is_named_and_new_ports_help() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    m.psn(&["local", "down"]).exits(0);
    let url = url::Url::parse(&m.secret("DATABASE_URL_DIRECT").unwrap()).unwrap();
    let port = url.port().unwrap();
    let stranger = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free after `down`");
    let answer = m.psn(&["run", "setup"]).exits(1);
    assert_code(&answer, "local.port-taken");
    let fix = answer.error()["fix"][0].as_str().unwrap().to_owned();
    assert_eq!(fix, "psn local up --new-ports");
    assert!(answer.error()["message"].as_str().unwrap().contains(&port.to_string()));
    m.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    // The connection strings are taken up anew, and everything is still there.
    m.psn(&["run", "setup"]).exits(0);
    assert_ne!(url::Url::parse(&m.secret("DATABASE_URL_DIRECT").unwrap()).unwrap().port(), Some(port));
    m.psn(&["run", "validate"]).exits(0);
    drop(stranger);
}

#[test]
fn a_key_too_short_to_be_kept_out_of_outputs_is_refused() {
    let m = machine();
    let refused = m.psn_with_input(&["keys", "set", "NEON_API_KEY", "--stdin"], "napi_x1\n").exits(1);
    assert_code(&refused, "keys.bad-value");
    assert!(!refused.stdout.contains("napi_x1"), "{}", refused.stdout);
    assert_eq!(m.secret("NEON_API_KEY"), None);
}

#[test]
fn usage_errors_exit_2_and_write_no_event() {
    let m = machine();
    for args in [&["run"][..], &["nonsense"], &["run", "setup", "--hub", "moon"], &["keys", "set", "X"]] {
        let answer = m.psn(args).exits(2);
        assert!(answer.stdout.is_empty(), "{}", answer.stdout);
        assert!(!answer.stderr.is_empty());
    }
}

#[test]
fn an_interrupted_setup_says_so_and_goes_on_later() {
    let m = machine();
    let child = m.command(&["run", "setup"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let answer = Answer::of(child.wait_with_output().unwrap());
    // On a fast machine it may have been done already.
    if answer.code != Some(0) {
        let answer = answer.exits(130);
        assert_code(&answer, "run.interrupted");
    }
    m.psn(&["run", "setup"]).exits(0);
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[test]
fn every_event_is_valid_by_the_committed_schema() {
    let committed: Value = serde_json::from_str(include_str!("../../docs/events.schema.json")).unwrap();
    assert_eq!(committed, psn::cli::events_schema(), "docs/events.schema.json is stale: just schema");
    let validator = jsonschema::validator_for(&committed).unwrap();
    let m = machine();
    let answers = [
        m.psn(&["run", "setup"]),
        m.psn(&["run", "setup"]),
        m.psn(&["run", "watchdog"]),
        m.psn(&["run", "nonsense"]),
        m.psn(&["status"]),
        m.psn(&["keys", "list"]),
        m.psn(&["config", "list"]),
        m.psn(&["plugin", "list"]),
        m.psn(&["plugin", "add", UNGRANTED_ROUTE]),
        m.psn(&["local", "logs"]),
        m.psn(&["local", "down"]),
    ];
    let mut lines = 0;
    for event in answers.iter().flat_map(|a| &a.events) {
        if let Err(e) = validator.validate(event) {
            panic!("{event}: {e}");
        }
        lines += 1;
    }
    assert!(lines > 30, "{lines} lines");
}
