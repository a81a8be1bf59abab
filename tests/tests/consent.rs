//! Consent: it is to exactly what was shown, a person gives it, and any difference from it stops the plugin.
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use psn_tests::{Answer, Machine};
use serde_json::Value;

const PLUGIN: &str = env!("PSN_FIXTURE_UNGRANTED_ROUTE");
const NAME: &str = "ungranted-route";

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

/// Runs a command that psn printed.
fn run(m: &Machine, command: &Value) -> Answer {
    let command = command.as_str().expect("a command");
    m.psn(&command.strip_prefix("psn ").expect("psn's own").split(' ').collect::<Vec<_>>())
}

#[track_caller]
fn asked(answer: &Answer) -> &Value {
    answer.event(|e| e["status"] == "needs_consent" && e["type"] == "step")
}

fn agree_command(answer: &Answer) -> &Value {
    &asked(answer)["needs"][0]["next"][0]["command"]
}

/// The plugin, with something replaced by something as long.
fn changed(m: &Machine, from: &str, to: &str) -> PathBuf {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(PLUGIN).unwrap();
    let mut found = 0;
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{from}");
    write(m, "changed.wasm", &bytes)
}

/// Another component that does the same: a custom section more.
fn padded(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0, 5, 4, b'm', b'o', b'r', b'e']].concat()
}

fn write(m: &Machine, name: &str, bytes: &[u8]) -> PathBuf {
    let path = m.root().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn lock(m: &Machine) -> Option<String> {
    fs::read_to_string(m.project().join("psn.lock")).ok()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_grant_is_for_exactly_what_was_shown() {
    let m = machine();
    let first = m.psn(&["plugin", "add", PLUGIN]).exits(4);
    assert_eq!(
        asked(&first)["data"]["asks"][0],
        "call neon at https://console.neon.tech/api/v2, signed in with NEON_API_KEY: GET /projects"
    );
    let grant = asked(&first)["data"]["grant"].as_str().unwrap().to_owned();

    // Neither yes to everything, nor a part of the hash, nor another one, is a grant.
    let yes = m.psn(&["plugin", "add", PLUGIN, "--yes"]).exits(4);
    assert_eq!(yes.error()["code"], "plugin.yes-grants-nothing", "{}", yes.stdout);
    for wrong in [&grant[..63], "", &"0".repeat(64)] {
        let refused = m.psn(&["plugin", "add", PLUGIN, "--grant", wrong]).exits(1);
        assert_eq!(refused.error()["code"], "plugin.wrong-grant");
    }
    // A lock that lies beside the component is not the project's.
    let other = m.root().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(PLUGIN, other.join("x.wasm")).unwrap();
    assert_eq!(lock(&m), None);

    // The fix of --yes is the command that names the grant.
    run(&m, &yes.error()["fix"][0]).exits(0);
    let locked = lock(&m).expect("granted");
    assert!(locked.contains("\"http neon GET /projects\""), "{locked}");
    fs::write(other.join("psn.lock"), &locked).unwrap();
    let same = m.psn(&["plugin", "diff", NAME]).exits(0);
    assert_eq!(same.result()["same"], true);

    // The same grant for another component that asks for the same.
    let file = write(&m, "padded.wasm", &padded(&fs::read(PLUGIN).unwrap()));
    m.psn(&["plugin", "add", text(&file), "--grant", &grant]).exits(1);
    assert_eq!(lock(&m).as_ref(), Some(&locked));

    // Elsewhere nothing is granted.
    let elsewhere = machine();
    fs::copy(other.join("psn.lock"), elsewhere.root().join("psn.lock")).unwrap();
    fs::copy(other.join("x.wasm"), elsewhere.root().join("x.wasm")).unwrap();
    elsewhere.psn(&["plugin", "add", text(&elsewhere.root().join("x.wasm"))]).exits(4);
}

#[test]
fn a_difference_can_be_read() {
    let m = machine();
    let first = m.psn(&["plugin", "add", PLUGIN]).exits(4);
    run(&m, agree_command(&first)).exits(0);

    let file = changed(&m, "routes = [\"GET /projects\"]", "routes = [\"PUT /projects\"]");
    let diff = m.psn(&["plugin", "diff", text(&file)]).exits(4);
    assert_eq!(diff.result()["removed"], serde_json::json!(["http neon GET /projects"]));
    assert_eq!(diff.result()["added"], serde_json::json!(["http neon PUT /projects"]));
    for line in ["sha256", "capabilities", "  - http neon GET /projects", "  + http neon PUT /projects"] {
        assert!(diff.stderr.contains(line), "people see {line}: {}", diff.stderr);
    }
    // Adding it asks again, and says what is different.
    let again = m.psn(&["plugin", "add", text(&file)]).exits(4);
    let difference = asked(&again)["data"]["difference"].to_string();
    assert!(difference.contains("+ http neon PUT /projects"), "{difference}");
    run(&m, agree_command(&again)).exits(0);
    m.psn(&["plugin", "diff", NAME]).exits(0);

    // One that nobody granted: everything is new.
    m.psn(&["plugin", "remove", NAME]).exits(0);
    let new = m.psn(&["plugin", "diff", text(&file)]).exits(4);
    assert_eq!(new.result()["granted"], Value::Null);
    assert_eq!(m.psn(&["plugin", "diff", "no-such-plugin"]).exits(1).error()["code"], "plugin.unknown");
    assert_eq!(m.psn(&["plugin", "diff", "keys"]).exits(0).result()["same"], true);
}

#[test]
fn another_contract_is_said_before_anything_is_compiled() {
    let m = machine();
    for (version, fix) in [("0.9.0", "Install a psn"), ("0.0.1", "Build the plugin again")] {
        let file = changed(&m, "psn:plugin/step@0.1.0", &format!("psn:plugin/step@{version}"));
        let refused = m.psn(&["plugin", "check", text(&file)]).exits(1);
        assert_eq!(refused.error()["code"], "plugin.contract-version");
        assert!(refused.error()["message"].as_str().unwrap().contains(version));
        assert!(refused.error()["fix"][0].as_str().unwrap().starts_with(fix), "{}", refused.stdout);
    }
}

#[test]
fn a_changed_copy_and_a_damaged_lock_stop_what_needs_them_and_nothing_else() {
    let m = machine();
    m.psn(&["run", "keys"]).exits(0);
    let first = m.psn(&["plugin", "add", PLUGIN]).exits(4);
    run(&m, agree_command(&first)).exits(0);
    let kept = fs::read_dir(m.project().join(".psn/plugins")).unwrap().next().unwrap().unwrap().path();
    fs::write(&kept, padded(&fs::read(&kept).unwrap())).unwrap();

    let stopped = m.psn(&["run", NAME]).exits(4);
    let lines = asked(&stopped)["data"]["difference"].to_string();
    assert!(lines.contains("sha256"), "{lines}");
    assert_eq!(m.psn(&["plugin", "diff", NAME]).exits(4).result()["same"], false);
    m.psn(&["run", "keys"]).exits(0);
    // What psn says goes on from there does: it is the plugin that fails then, not its consent.
    run(&m, agree_command(&stopped)).exits(0);
    let ran = m.psn(&["run", NAME]).exits(1);
    assert!(ran.error().to_string().contains("DELETE /projects/"), "{}", ran.stdout);

    // A line of the lock that cannot be read.
    let good = lock(&m).unwrap();
    fs::write(m.project().join("psn.lock"), good.replace("sha256 =", "sha256 ==")).unwrap();
    let damaged = m.psn(&["run", NAME]).exits(1);
    assert_eq!(damaged.error()["code"], "plugin.lock-invalid");
    assert!(damaged.error()["message"].as_str().unwrap().contains("line "), "{}", damaged.stdout);
    assert_eq!(m.psn(&["plugin", "list"]).exits(1).error()["code"], "plugin.lock-invalid");
    m.psn(&["run", "keys"]).exits(0);
    assert_eq!(m.psn(&["plugin", "add", PLUGIN]).exits(1).error()["code"], "plugin.lock-invalid");
    // Rights that someone wrote into it are a difference, not a grant.
    let forged = good.replace("\"http neon GET /projects\"", "\"http neon GET /projects\", \"hub git\"");
    assert_ne!(forged, good);
    fs::write(m.project().join("psn.lock"), forged).unwrap();
    let stopped = m.psn(&["run", NAME]).exits(4);
    assert!(asked(&stopped)["data"]["difference"].to_string().contains("- hub git"), "{}", stopped.stdout);
}

/// psn with a terminal for standard input and error, at which `answer` is typed once the question has been read.
fn at_a_terminal(m: &Machine, args: &[&str], answer: impl Fn(&str) -> String) -> (Answer, String) {
    let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
    // Only what it is given as its own may reach psn: a copy of either end would keep the terminal open.
    for end in [&master, &slave] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).unwrap();
    }
    let other = slave.as_fd().try_clone_to_owned().unwrap();
    let mut command = m.command(args);
    let child = command
        .stdin(Stdio::from(slave))
        .stderr(Stdio::from(other))
        .stdout(Stdio::piped())
        .spawn()
        .expect("psn starts");
    // The ends that are this process's own, so that the terminal is closed when psn ends.
    drop(command);
    let mut terminal = fs::File::from(master);
    let mut shown = Vec::new();
    let mut typed = false;
    let mut buffer = [0; 4096];
    // Reading ends with an error when nobody holds the other end any more.
    while let Ok(n) = terminal.read(&mut buffer) {
        if n == 0 {
            break;
        }
        shown.extend_from_slice(&buffer[..n]);
        if !typed && shown.ends_with(b"psn> ") {
            typed = true;
            terminal.write_all(answer(&String::from_utf8_lossy(&shown)).as_bytes()).unwrap();
        }
    }
    (Answer::of(child.wait_with_output().unwrap()), String::from_utf8_lossy(&shown).into_owned())
}

/// The number that the question asks for.
fn number(question: &str) -> String {
    let words: String = question.split_whitespace().collect::<Vec<_>>().join(" ");
    let after = words.split("type the number ").nth(1).unwrap_or_else(|| panic!("no number: {question}"));
    after[..6].to_owned()
}

#[test]
fn at_a_terminal_a_person_types_the_number_that_psn_shows() {
    let m = machine();
    for wrong in ["yes\n", "y\n", "\n", "ungranted-route\n", "000000 \n", "\u{4}"] {
        let (refused, question) = at_a_terminal(&m, &["plugin", "add", PLUGIN], |_| wrong.to_owned());
        refused.exits(4);
        assert!(question.contains("  | call neon at https://console.neon.tech/api/v2"), "{question}");
        assert_eq!(lock(&m), None, "{wrong:?}");
    }
    // Not with --yes either.
    let (refused, question) = at_a_terminal(&m, &["plugin", "add", PLUGIN, "--yes"], |q| format!("{}\n", number(q)));
    refused.exits(4);
    assert!(!question.contains("psn> ") && lock(&m).is_none(), "{question}");
    let (added, _) = at_a_terminal(&m, &["plugin", "add", PLUGIN], |question| format!("{}\n", number(question)));
    assert_eq!(added.exits(0).result()["name"], NAME);
    m.psn(&["plugin", "diff", NAME]).exits(0);
}
