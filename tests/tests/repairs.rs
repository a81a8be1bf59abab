//! What was damaged behind psn's back: psn says so, with a fix that helps, or mends it by itself. And what a plan, a flag or a setting of
//! one folder must not do to another.
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use psn_tests::{Answer, Machine, secret_in};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

const EXAMPLE: &str = env!("PSN_EXAMPLE_PUBLISH_POST");
/// An account that owns nothing here, for what root may always do.
const NOBODY: u32 = 65534;

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

#[track_caller]
fn fixes(answer: &Answer, code: &str) -> Vec<String> {
    let error = answer.error();
    assert_eq!(error["code"], code, "{}", answer.stdout);
    error["fix"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_owned()).collect()
}

/// A fix, as a person types it.
fn shell(m: &Machine, line: &str) {
    let status = Command::new("sh").args(["-c", line]).current_dir(m.project()).status().unwrap();
    assert!(status.success(), "{line}");
}

async fn open(m: &Machine, name: &str) -> PgConnection {
    let url = m.secret(name).unwrap_or_else(|| panic!("no {name}"));
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let ca = m.home().join("local-hub/tls/ca.pem");
    let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca).extra_float_digits(None);
    PgConnection::connect_with(&options).await.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// As the owner; answers the first value.
fn sql(m: &Machine, statement: &str) -> Option<String> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut owner = open(m, "DATABASE_URL_DIRECT").await;
        let row = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).fetch_optional(&mut owner).await.unwrap();
        row.map(|row| sqlx::Row::get::<String, _>(&row, 0))
    })
}

fn state(m: &Machine, file: &str) -> PathBuf {
    m.project().join(".psn/state").join(m.secret("PSN_HUB_ID").unwrap()).join(file)
}

#[test]
fn a_hub_that_was_damaged_is_mended_by_what_psn_says() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let planned = m.psn(&["plan", "setup"]).exits(0);
    assert!(planned.event(|e| e["type"] == "summary")["elapsed_ms"].as_u64().unwrap() > 0, "{}", planned.stdout);

    a_role_s_password(&m);
    notes(&m);
    the_ledger(&m);
    a_removed_plugin(&m);
    no_pooler(&m);
}

/// Behind a pooler, where this machine has one.
fn a_role_s_password(m: &Machine) {
    sql(m, "ALTER ROLE psn_app PASSWORD 'wrongwrongwrong'");
    let started = Instant::now();
    let healed = m.psn(&["run", "setup"]).exits(0);
    assert!(healed.steps().contains(&("migrate".to_owned(), "success".to_owned())), "{}", healed.stdout);
    // Half a minute is what psn waits for a database that may come back.
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    tokio::runtime::Runtime::new().unwrap().block_on(async { open(m, "DATABASE_URL_APP").await });
}

fn notes(m: &Machine) {
    let file = state(m, "neon-provision.json");
    std::fs::write(&file, [0xff, b'{', 0]).unwrap();
    let stopped = m.psn(&["run", "setup"]).exits(1);
    let fix = fixes(&stopped, "neon-provision.state-not-understood");
    assert_eq!(fix[0], format!("mv {0} {0}.old", file.display()));
    shell(m, &fix[0]);
    assert_eq!(fix[1], "psn run setup");
    let project = m.secret("DATABASE_URL");
    m.psn(&["run", "setup"]).exits(0);
    assert_eq!(m.secret("DATABASE_URL"), project, "the project was found again");
}

fn the_ledger(m: &Machine) {
    let file = state(m, "psn.ledger");
    std::fs::write(&file, [0x9d; 100]).unwrap();
    for look in [&["status"][..], &["status", "--drift"], &["teardown"]] {
        let looked = m.psn(look).exits(1);
        assert_eq!(
            fixes(&looked, "config.ledger"),
            ["psn run setup".to_owned(), format!("mv {0} {0}.old", file.display())]
        );
    }
    let mended = m.psn(&["run", "setup"]).exits(0);
    let told = mended.event(|e| e["type"] == "log" && e["level"] == "warn");
    assert!(told["message"].as_str().unwrap().contains("psn.ledger.old"), "{told}");
    assert_eq!(m.psn(&["status"]).exits(0).result()["set_up"], true);
    assert!(m.psn(&["status", "--drift"]).exits(0).stdout.contains("skipped"));
    // Something else in its place.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let looked = m.psn(&["status"]).exits(1);
    shell(m, &fixes(&looked, "config.not-a-file")[0]);
    m.psn(&["run", "setup"]).exits(0);
}

fn a_removed_plugin(m: &Machine) {
    let roles =
        "SELECT coalesce(string_agg(rolname, ' ' ORDER BY rolname), '') FROM pg_roles WHERE rolname LIKE 'psn\\_%'";
    let before = sql(m, roles).unwrap();
    let asked = m.psn(&["plugin", "add", EXAMPLE]).exits(4);
    let consent = asked.event(|e| e["status"] == "needs_consent");
    let command = consent["needs"][0]["next"][0]["command"].as_str().expect("a command").to_owned();
    m.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    m.psn(&["run", "migrate"]).exits(0);
    assert!(sql(m, roles).unwrap().contains("psn_plugin_publish_post"));
    let secret = "DATABASE_URL_PLUGIN_PUBLISH_POST";
    assert!(m.secret(secret).is_some());

    m.psn(&["plugin", "remove", "publish-post"]).exits(0);
    let planned = m.psn(&["plan", "setup"]).exits(3);
    let changes = planned.event(|e| e["step"] == "migrate")["changes"].to_string();
    assert!(changes.contains("drop the role psn_plugin_publish_post") && changes.contains(secret), "{changes}");
    assert!(m.secret(secret).is_some(), "a plan changes nothing");
    m.psn(&["run", "migrate"]).exits(0);
    assert_eq!((sql(m, roles).unwrap(), m.secret(secret)), (before, None));
    let again = m.psn(&["run", "migrate"]).exits(0);
    assert_eq!(again.steps(), [("migrate".to_owned(), "skipped".to_owned())]);
}

/// The pooled port that was given out leads to the database when there is no pooler any more, and back.
fn no_pooler(m: &Machine) {
    let url: url::Url = m.secret("DATABASE_URL").unwrap().parse().unwrap();
    let direct: url::Url = m.secret("DATABASE_URL_DIRECT").unwrap().parse().unwrap();
    if url.port() == direct.port() {
        assert!(std::env::var_os("CI").is_none(), "CI needs pgbouncer: apt-get install pgbouncer");
        return;
    }
    m.psn(&["local", "down"]).exits(0);
    let up = m.command(&["local", "up"]).env("PSN_PGBOUNCER", "off").output().unwrap();
    Answer::of(up).exits(0);
    m.psn(&["run", "setup"]).exits(0);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut app = open(m, "DATABASE_URL_APP").await;
        assert!(sqlx::raw_sql("SHOW server_version").fetch_one(&mut app).await.is_ok());
    });
    m.psn(&["local", "down"]).exits(0);
    m.psn(&["local", "up"]).exits(0);
    m.psn(&["run", "setup"]).exits(0);
}

#[test]
fn a_plan_of_another_folder_is_refused_and_writes_nothing() {
    let m = machine();
    let (a, b) = (m.root().join("pa"), m.root().join("pb"));
    for folder in [&a, &b] {
        std::fs::create_dir(folder).unwrap();
    }
    let psn = |folder: &Path, args: &[&str]| Answer::of(m.command(args).current_dir(folder).output().unwrap());
    psn(&a, &["plan", "setup", "--out", "p.json"]).exits(3);
    std::fs::copy(a.join("p.json"), b.join("p.json")).unwrap();
    let nothing = |folder: &Path| {
        let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["p.json"]);
    };
    // Neither before the first folder has its hub, nor after.
    let refused = psn(&b, &["apply", "p.json"]).exits(1);
    let fix = fixes(&refused, "plan.other-folder");
    nothing(&b);
    psn(&a, &["apply", "p.json"]).exits(0);
    fixes(&psn(&b, &["apply", "p.json"]).exits(1), "plan.other-folder");
    nothing(&b);
    assert!(refused.error()["message"].as_str().unwrap().contains(a.to_str().unwrap()), "{}", refused.stdout);

    // What no longer holds writes nothing either: here the id is set up, and its folder knows nothing of it.
    std::fs::remove_dir_all(a.join("config")).unwrap();
    std::fs::remove_dir_all(a.join(".psn")).unwrap();
    std::fs::remove_file(a.join(".gitignore")).unwrap();
    fixes(&psn(&a, &["apply", "p.json"]).exits(1), "plan.stale");
    nothing(&a);

    // The fix, in the second folder.
    for line in fix {
        let words: Vec<&str> = line.strip_prefix("psn ").unwrap().split(' ').collect();
        let code = if words[0] == "plan" { 3 } else { 0 };
        psn(&b, &words).exits(code);
    }
    assert!(secret_in(&b, "PSN_HUB_ID").is_some());
    // And in a folder with a hub of its own.
    std::fs::copy(a.join("p.json"), b.join("p.json")).unwrap();
    fixes(&psn(&b, &["apply", "p.json"]).exits(1), "plan.other-folder");
}

#[test]
fn the_kind_of_a_hub_is_remembered_from_its_first_setup() {
    let m = machine();
    std::fs::create_dir(m.project().join("config")).unwrap();
    // Nobody answers there; psn asks nobody else.
    let nowhere = "neon = \"http://127.0.0.1:9/api/v2\"\ntrigger = \"http://127.0.0.1:9\"\ntrigger-env = \"http://127.0.0.1:9\"\n";
    std::fs::write(m.project().join("config/services.toml"), nowhere).unwrap();
    let asked = m.psn(&["run", "setup", "--hub", "cloud"]).exits(4);
    let needs = asked.event(|e| e["status"] == "needs_input")["needs"].as_array().unwrap().clone();
    assert_eq!(needs.len(), 2, "{}", asked.stdout);
    for need in needs {
        let next = need["next"][0]["command"].as_str().unwrap().to_owned();
        let words: Vec<&str> = next.strip_prefix("psn ").unwrap().split(' ').collect();
        let set = m.psn_with_input(&words, "a-key-of-the-cloud\n").exits(0);
        assert_eq!(set.result()["next"], "psn run setup");
    }
    for command in [&["run", "keys"][..], &["run", "validate"]] {
        let answer = m.psn(command).exits(1);
        assert_eq!(answer.event(|e| e["type"] == "version")["hub"], "cloud");
        assert_ne!(answer.error()["code"], "hub.other-kind", "{}", answer.stdout);
    }
    let status = m.psn(&["status"]).exits(0);
    assert_eq!((&status.result()["hub"], &status.result()["local"]), (&"cloud".into(), &serde_json::Value::Null));
    // Who asks for the other one is told.
    fixes(&m.psn(&["run", "keys", "--hub", "local"]).exits(1), "hub.other-kind");
}

#[test]
fn a_setting_nobody_reads_is_told_with_those_near_it() {
    let m = machine();
    let set = |name: &str| m.psn(&["config", "set", name, "aws-eu-central-1"]).exits(0);
    let warned = set("neon.regoin");
    let warning = warned.event(|e| e["level"] == "warn")["message"].as_str().unwrap().to_owned();
    assert!(warning.contains("neon.regoin") && warning.contains("near it are neon.region"), "{warning}");
    for name in ["neon.region", "steps.neon-provision", "hub.kind"] {
        let value = if name == "hub.kind" { "local" } else { "x" };
        let fine = m.psn(&["config", "set", name, value]).exits(0);
        assert!(!fine.stdout.contains("\"warn\""), "{}", fine.stdout);
    }
    // Set and taken away again leaves no trace.
    let file = m.project().join("config/psn.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    set("a.b.c.d");
    m.psn(&["config", "unset", "a.b.c.d"]).exits(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    m.psn(&["hub", "use", "cloud"]).exits(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("# kind = \"local\"\nkind = \"cloud\"\n"), "{text}");
}

#[test]
fn what_may_not_be_read_or_written_is_named_with_a_fix_that_gives_the_right() {
    let m = machine();
    m.psn_with_input(&["keys", "set", "NEON_API_KEY", "--stdin"], "napi_0123456789\n").exits(0);
    let project = m.project();
    let id = "PSN_HUB=local\nPSN_HUB_ID=0123abcd\n";
    std::fs::write(project.join("config/hub.env"), id).unwrap();
    std::fs::create_dir_all(project.join(".psn/state/0123abcd")).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        let all = Command::new("chown").args(["-R", &NOBODY.to_string()]).arg(&project).status().unwrap();
        assert!(all.success());
    }
    let own = |command: &mut Command| {
        if root {
            command.uid(NOBODY);
        }
        command.output().unwrap()
    };
    let psn = |args: &[&str]| Answer::of(own(&mut m.command(args)));
    psn(&["status"]).exits(0);
    let mode = |path: &str, mode| {
        std::fs::set_permissions(project.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let unset = ["config", "unset", "neon.region"];
    for (path, closed, args, code, fix) in [
        ("config/hub.env", 0o000, &["status"][..], "config.not-readable", "chmod u+rw"),
        ("config/psn.toml", 0o200, &["status"], "config.not-readable", "chmod u+rw"),
        (".psn/state", 0o000, &["status"], "config.not-readable", "chmod u+rwx"),
        ("config", 0o500, &unset, "config.not-writable", "chmod u+rwx"),
        (".psn/env.lock", 0o400, &unset, "config.not-writable", "chmod u+rw"),
    ] {
        let before = std::fs::metadata(project.join(path)).unwrap().permissions().mode();
        mode(path, closed);
        let refused = psn(args).exits(1);
        let fixes = fixes(&refused, code);
        assert_eq!(fixes[0], format!("{fix} {}", project.join(path).display()), "{}", refused.stdout);
        let verb = if code == "config.not-readable" { "cannot be read" } else { "cannot be written" };
        assert!(refused.error()["message"].as_str().unwrap().contains(verb), "{}", refused.stdout);
        assert!(own(Command::new("sh").args(["-c", &fixes[0]])).status.success());
        psn(args).exits(0);
        mode(path, before);
    }
    std::fs::write(project.join("psn.lock"), [0xff, 0xfe]).unwrap();
    fixes(&psn(&["plugin", "remove", "x"]).exits(1), "plugin.lock-invalid");
}
