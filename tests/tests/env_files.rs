//! Env files, as others read them: dotenv, node, bun and shells, on what psn wrote; and readers that look while psn writes.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use psn::hub::{EnvFiles, ProjectDir};
use psn::secret::Secret;
use psn_tests::Machine;

/// Values that some reader somewhere gets wrong, and plain ones.
const VALUES: &[&str] = &[
    "plain",
    "postgresql://hub_owner:npg_aB3@ep-cool-1.eu-central-1.aws.neon.tech/hub?sslmode=require&channel_binding=require",
    "a b",
    " leading",
    "trailing ",
    "a#b",
    "a #b",
    "#all",
    "a=b==",
    "a\"b",
    "\"quoted\"",
    "a'b",
    "back\\slash",
    "ends\\",
    "new\\nline",
    "one\ntwo",
    "tab\there",
    "$5 and 5$",
    "5$ and $",
    "a$$b",
    "$HOME",
    "${HOME}",
    "a$(id)b",
    "a`id`b",
    "!history",
    "ünïcode 🐘",
    "{\"json\": [1, 2]}",
    "it's \"both\"",
    "a;b|c>d&e",
    "*?[x]~",
    "%41+%2B",
    "export X=1",
    "",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn project(m: &Machine) -> ProjectDir {
    let project = ProjectDir::at(&m.project()).expect("a folder");
    project.lay_out().expect("a tree");
    project
}

/// The values that psn agreed to write, by name.
fn written(files: &EnvFiles) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    let mut refused = Vec::new();
    for (i, value) in VALUES.iter().enumerate() {
        let name = format!("PSN_V{i}");
        match files.write(&name, &Secret::new(*value)) {
            Ok(()) => {
                kept.insert(name, (*value).to_owned());
            }
            Err(e) => {
                assert_eq!(e.coded().code, "config.env-value", "{value:?}");
                refused.push(*value);
            }
        }
    }
    assert_eq!(
        refused,
        ["ends\\", "$5 and 5$", "a$$b", "$HOME", "${HOME}", "it's \"both\""],
        "what no form carries to every reader is refused"
    );
    kept
}

fn json(output: &Output) -> BTreeMap<String, String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect("JSON");
    all.into_iter().filter(|(name, _)| name.starts_with("PSN_V")).collect()
}

fn clean(program: impl AsRef<std::ffi::OsStr>, m: &Machine) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", m.root());
    command.current_dir(m.root());
    command
}

const PRINT: &str = "console.log(JSON.stringify(process.env))";

#[test]
fn shells_read_the_bytes_that_were_written() {
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    let project = project(&m);
    let kept = written(&EnvFiles::new(&project));
    for shell in ["sh", "bash"] {
        let output = clean(shell, &m)
            .args(["-c", "set -a; . \"$1\"; exec env -0", "sh"])
            .arg(project.hub_env())
            .output()
            .expect("a shell");
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let read: BTreeMap<String, String> = text
            .split('\0')
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| name.starts_with("PSN_V"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(read, kept, "{shell}");
    }
}

#[test]
fn dotenv_node_and_bun_read_the_bytes_that_were_written() {
    let installed = Command::new(workspace().join("scripts/clients.sh")).output().expect("scripts/clients.sh starts");
    if installed.status.code() == Some(3) && std::env::var_os("PSN_REQUIRE_CLIENTS").is_none() {
        eprintln!("SKIPPED: {}", String::from_utf8_lossy(&installed.stderr).trim());
        return;
    }
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    let project = project(&m);
    let kept = written(&EnvFiles::new(&project));
    let file = project.hub_env();
    let clients = workspace().join("tests/clients");

    let dotenv = clean("node", &m).arg(clients.join("dotenv.mjs")).arg(&file).output().expect("node");
    assert_eq!(json(&dotenv), kept, "dotenv");
    let mut flag = std::ffi::OsString::from("--env-file=");
    flag.push(&file);
    let node = clean("node", &m).arg(&flag).args(["-e", PRINT]).output().expect("node");
    assert_eq!(json(&node), kept, "node");
    // The package's own program is put in place by a script at install time, and none runs here; this is what it would put there.
    let bun = std::fs::read_dir(clients.join("node_modules/@oven"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/bun"))
        .find(|file| Command::new(file).arg("--version").output().is_ok_and(|o| o.status.success()));
    let Some(bun) = bun else {
        assert!(std::env::var_os("PSN_REQUIRE_CLIENTS").is_none(), "no bun for this machine");
        eprintln!("SKIPPED: there is no bun for this machine");
        return;
    };
    let bun = clean(bun, &m).arg(&flag).args(["-e", PRINT]).output().expect("bun");
    assert_eq!(json(&bun), kept, "bun");
}

#[test]
fn what_a_person_wrote_stays_and_a_file_that_git_keeps_is_refused() {
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    let project = project(&m);
    let mine = "# mine\r\n\r\nexport EDITOR_OF_MINE='vi -u NONE' # a note\r\nnot an assignment\r\nMY_LINE=1\r\n";
    std::fs::write(project.keys_env(), mine).expect("written");
    let set = |name: &str| m.psn_with_input(&["keys", "set", name, "--stdin"], "napi_0123456789\n");
    set("NEON_API_KEY").exits(0);
    let text = std::fs::read_to_string(project.keys_env()).expect("a file");
    assert_eq!(text, format!("{mine}NEON_API_KEY=napi_0123456789\r\n"));

    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let output = Command::new("git").args(identity).args(args).current_dir(m.project()).output().expect("git");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let refused = |why: &str| {
        let before = std::fs::read(project.keys_env()).expect("a file");
        let answer = set("TRIGGER_ACCESS_TOKEN").exits(1);
        assert_eq!(answer.error()["code"], "config.git", "{why}");
        assert_eq!(std::fs::read(project.keys_env()).expect("a file"), before, "{why}");
        assert!(!answer.stdout.contains("napi_") && !answer.stderr.contains("napi_"));
    };
    git(&["init", "-q"]);
    set("NEON_API_KEY").exits(0);
    git(&["add", "-f", "config/keys.env"]);
    refused("tracked");
    git(&["commit", "-qm", "oops"]);
    git(&["rm", "-q", "--cached", "config/keys.env"]);
    git(&["commit", "-qm", "gone"]);
    refused("in the history");

    // A folder whose .gitignore lets the file through in the end.
    let other = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    self::project(&other);
    let run = Command::new("git").args(["init", "-q"]).current_dir(other.project()).status().expect("git");
    assert!(run.success());
    let ignore = other.project().join(".gitignore");
    let text = std::fs::read_to_string(&ignore).expect("a file");
    std::fs::write(&ignore, format!("{text}!config/keys.env\n")).expect("written");
    let answer = other.psn_with_input(&["keys", "set", "NEON_API_KEY", "--stdin"], "napi_0123456789\n").exits(1);
    assert_eq!(answer.error()["code"], "config.git");
    assert!(!other.project().join("config/keys.env").exists());
}

#[test]
fn a_key_that_was_brought_can_be_taken_away_and_what_psn_needs_cannot() {
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    let project = project(&m);
    let text = |file: std::path::PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    m.psn_with_input(&["keys", "set", "ACME_KEY", "--stdin"], "acme_0123456789\n").exits(0);
    assert!(text(project.keys_env()).contains("\nACME_KEY=acme_0123456789\n"));
    assert_eq!(text(project.hub_env()), "", "what a person brings is not what setup made");
    let answer = m.psn(&["keys", "unset", "ACME_KEY"]).exits(0);
    assert_eq!(answer.result()["name"], "ACME_KEY");
    assert!(!answer.stdout.contains("acme_0123456789"));
    assert!(!text(project.keys_env()).contains("ACME_KEY"));
    let answer = m.psn(&["keys", "unset", "ACME_KEY"]).exits(1);
    assert_eq!((&answer.error()["code"], &answer.error()["fix"][0]), (&"keys.not-set".into(), &"psn keys list".into()));
    assert_eq!(m.psn(&["keys", "unset", "acme"]).exits(1).error()["code"], "keys.bad-name");

    let key = "00".repeat(32);
    std::fs::write(project.hub_env(), format!("# mine\nHUB_ENCRYPTION_KEY={key}\nOTHER_KEY=other_0123456789\n"))
        .expect("written");
    let answer = m.psn(&["keys", "unset", "HUB_ENCRYPTION_KEY"]).exits(1);
    assert_eq!(answer.error()["code"], "keys.hubs-own");
    m.psn(&["keys", "unset", "OTHER_KEY"]).exits(0);
    assert_eq!(text(project.hub_env()), format!("# mine\nHUB_ENCRYPTION_KEY={key}\n"));
}

/// Processes, not threads: three psn write while another program reads the file again and again.
#[test]
fn another_process_never_reads_half_a_file() {
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    let project = project(&m);
    let long = "x".repeat(4000);
    m.psn_with_input(&["keys", "set", "LAST_LINE", "--stdin"], &long).exits(0);
    let file = project.keys_env();
    // Each look: the file is there, ends with a whole line, and has the line that was there from the start.
    let script = "n=0; while [ ! -e \"$2\" ]; do t=$(cat \"$1\" && printf end) || exit 9; case $t in *\"\nend\") ;; *) exit 8;; esac; \
                  case $t in *LAST_LINE=x*) ;; *) exit 7;; esac; n=$((n+1)); done; echo $n";
    let stop = m.root().join("stop");
    let reader = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&file)
        .arg(&stop)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (m, long) = (&m, &long);
            scope.spawn(move || {
                for i in 0..3 {
                    let name = format!("W{writer}_{i}");
                    m.psn_with_input(&["keys", "set", &name, "--stdin"], long).exits(0);
                }
            });
        }
    });
    std::fs::write(&stop, "").expect("written");
    let output = reader.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "a reader met half a file");
    let looks: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(looks > 3, "{looks} looks");
    let all = EnvFiles::new(&project).read_all().expect("a whole file");
    assert_eq!(all.len(), 10, "no writer lost another's line");
}
