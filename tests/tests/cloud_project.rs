//! The Trigger.dev project that psn writes from the plugins' manifests, and its deployment by the vendor's own CLI.
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use psn_tests::{Answer, Machine};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Names a release for the cloud's machines in the settings: the header of a program, which nobody runs here.
fn with_release(m: &Machine, name: &str, machine: u8) -> String {
    with_program(m, name, machine, b"")
}

/// The same, with this among its bytes.
fn with_program(m: &Machine, name: &str, machine: u8, content: &[u8]) -> String {
    std::fs::create_dir_all(m.project().join("config")).unwrap();
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[18] = machine;
    bytes.extend_from_slice(content);
    std::fs::write(m.project().join(name), &bytes).unwrap();
    m.psn(&["config", "set", "trigger.psn_file", name]).exits(0);
    digest(&bytes)
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    drop(files.insert(path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap()))
                }
            }
        }
    }
    files
}

#[track_caller]
fn refused(answer: Answer, code: &str) -> Answer {
    let answer = answer.exits(1);
    assert_eq!(answer.error()["code"], code, "{}", answer.stdout);
    assert!(answer.error()["fix"].as_array().is_some_and(|fix| !fix.is_empty()));
    answer
}

#[test]
fn the_project_is_written_from_the_manifests_the_same_each_time() {
    let m = machine();
    let sha256 = with_release(&m, "psn-linux-x64", 62);
    // A file alone may be any file.
    let unpinned = refused(m.psn(&["task", "export", "out"]), "task.program-digest");
    assert!(unpinned.error()["message"].as_str().unwrap().contains(&sha256), "{}", unpinned.stdout);
    m.psn(&["config", "set", "trigger.psn_sha256", &"0".repeat(64)]).exits(0);
    refused(m.psn(&["task", "export", "out"]), "task.program-digest");
    assert!(!m.project().join("out").exists());

    m.psn(&["config", "set", "trigger.psn_sha256", &sha256]).exits(0);
    let first = m.psn(&["task", "export", "out"]).exits(0).result().clone();
    let again = m.psn(&["task", "export", "out"]).exits(0).result().clone();
    let elsewhere = m.psn(&["task", "export", "a/b"]).exits(0).result().clone();
    assert_eq!((&first["content_hash"], &first["content_hash"]), (&again["content_hash"], &elsewhere["content_hash"]));
    let out = files(&m.project().join("out"));
    assert_eq!(out, files(&m.project().join("a/b")));
    let listed: Vec<&str> = first["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert_eq!(listed, out.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>());

    // A file for each task, with what its manifest says.
    let text = |path: &str| String::from_utf8(out[Path::new(path)].clone()).unwrap();
    for task in first["tasks"].as_array().unwrap() {
        let task = text(&format!("src/trigger/{}.ts", task.as_str().unwrap()));
        let component = task.split("component: '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        let named = component.split("@sha256-").nth(1).unwrap().trim_end_matches(".wasm");
        assert_eq!(digest(&out[Path::new(&format!("components/{named}.wasm"))]), named);
        assert!(out.contains_key(Path::new(&format!("components/{named}.json"))), "what it was granted");
    }
    let watchdog = text("src/trigger/watchdog.ts");
    assert!(watchdog.contains("cron: '*/15 * * * *',\n  hourly: '0 * * * *',"), "{watchdog}");
    assert!(text("src/settings.ts").contains("= 'bun-1.4';"));
    assert_eq!(digest(&out[Path::new("bin/psn")]), sha256);

    // Another input is another deployment.
    m.psn(&["config", "set", "trigger.runtime", "node-24"]).exits(0);
    let node = m.psn(&["task", "export", "out"]).exits(0).result().clone();
    assert_ne!(node["content_hash"], first["content_hash"]);
    assert!(
        String::from_utf8_lossy(&files(&m.project().join("out"))[Path::new("src/settings.ts")]).contains("'node-24';")
    );
}

#[test]
fn what_cannot_be_exported_says_why() {
    let m = machine();
    let sha256 = with_release(&m, "psn-linux-arm64", 183);
    m.psn(&["config", "set", "trigger.psn_sha256", &sha256]).exits(0);
    refused(m.psn(&["task", "export", "out"]), "task.program-platform");
    m.psn(&["config", "set", "trigger.psn_file", "no-such-file"]).exits(0);
    refused(m.psn(&["task", "export", "out"]), "task.program-missing");

    let sha256 = with_release(&m, "psn-linux-x64", 62);
    m.psn(&["config", "set", "trigger.psn_sha256", &sha256]).exits(0);
    std::fs::create_dir(m.project().join("mine")).unwrap();
    std::fs::write(m.project().join("mine/thesis.txt"), "years of work").unwrap();
    let full = refused(m.psn(&["task", "export", "mine"]), "task.export-folder");
    assert_eq!(files(&m.project().join("mine")).len(), 1);
    let fix = full.error()["fix"][0].as_str().unwrap().to_owned();
    m.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);

    m.psn(&["config", "set", "trigger.runtime", "bun"]).exits(0);
    let runtime = refused(m.psn(&["task", "export", "out"]), "config.settings");
    let fix = runtime.error()["fix"][0].as_str().unwrap().to_owned();
    m.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    m.psn(&["task", "export", "out"]).exits(0);
}

/// The worker itself is run by scripts/worker.sh.
#[test]
fn a_worker_is_bundled_with_what_psn_compiles_for_it() {
    let m = machine();
    let marker = psn::worker::marker();
    let sha256 = with_program(&m, "psn-worker", 62, &marker);
    m.psn(&["config", "set", "trigger.psn_sha256", &sha256]).exits(0);
    let exported = m.psn(&["task", "export", "out"]).exits(0).result().clone();
    let size = 64 + marker.len();
    assert_eq!(exported["program"], serde_json::json!({ "kind": "psn-worker", "sha256": sha256, "bytes": size }));
    let out = files(&m.project().join("out"));
    for task in exported["tasks"].as_array().unwrap() {
        let path = format!("src/trigger/{}.ts", task.as_str().unwrap());
        let text = String::from_utf8(out[Path::new(&path)].clone()).unwrap();
        let field = |name: &str| text.split(&format!("{name}: '")).nth(1).and_then(|rest| rest.split('\'').next());
        let named = field("component").unwrap().split("@sha256-").nth(1).unwrap().trim_end_matches(".wasm");
        let code = &out[Path::new(&format!("components/{named}.cwasm"))];
        assert_eq!(field("compiled"), Some(format!("sha256-{}", digest(code)).as_str()), "{text}");
    }
    // Compiled anew, it is the same deployment; the folder of another program has no compiled code left.
    assert_eq!(m.psn(&["task", "export", "out"]).exits(0).result()["content_hash"], exported["content_hash"]);
    m.psn(&["config", "set", "trigger.deploy", "cli"]).exits(0);
    assert_eq!(m.psn(&["status"]).exits(0).result()["task_program"], exported["program"]);
    let whole = with_release(&m, "psn-linux-x64", 62);
    m.psn(&["config", "set", "trigger.psn_sha256", &whole]).exits(0);
    assert_eq!(m.psn(&["task", "export", "out"]).exits(0).result()["program"]["kind"], "psn");
    assert!(!files(&m.project().join("out")).keys().any(|path| path.extension().is_some_and(|e| e == "cwasm")));

    // One of another version is not for what this psn compiles.
    let other = String::from_utf8_lossy(&marker).replace(env!("CARGO_PKG_VERSION"), "0.0.99");
    let sha256 = with_program(&m, "psn-worker", 62, other.as_bytes());
    m.psn(&["config", "set", "trigger.psn_sha256", &sha256]).exits(0);
    let said = m.psn(&["status"]).exits(0).result()["task_program"]["error"]["code"].clone();
    assert_eq!(said, "task.program-version");
    let refused = refused(m.psn(&["task", "export", "out"]), "task.program-version");
    let fix = refused.error()["fix"][0].as_str().unwrap().to_owned();
    m.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        m.psn(&["task", "export", "out"]).exits(0);
    }
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn without_settings_the_running_program_is_the_one_that_is_bundled() {
    let m = machine();
    std::fs::create_dir_all(m.project().join("config")).unwrap();
    let exported = m.psn(&["task", "export", "out"]).exits(0).result().clone();
    let bundled = m.project().join("out/bin/psn");
    assert_eq!(digest(&std::fs::read(&bundled).unwrap()), exported["program_sha256"].as_str().unwrap());
    assert_ne!(std::fs::metadata(&bundled).unwrap().permissions().mode() & 0o100, 0);
    // It is a psn, and what a task says is there: a run without a payload is refused in psn's own words.
    let listed = files(&m.project().join("out/components"));
    let text = std::fs::read_to_string(m.project().join("out/src/trigger/watchdog.ts")).unwrap();
    let component = text.split("component: '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    assert!(listed.keys().any(|path| component.contains(path.file_stem().unwrap().to_str().unwrap())));
    let run = std::process::Command::new(&bundled)
        .args(["cloud-run", component, "--store"])
        .arg(m.project().join("out"))
        .args(["--run-id", "run_1"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stdout).contains("usage.payload"), "{}", String::from_utf8_lossy(&run.stdout));
}

/// A program that is small enough to be uploaded again and again: `PSN_WORKER`, else the tested one without what only a debugger reads.
fn stripped(m: &Machine) -> String {
    let named = std::env::var_os("PSN_WORKER").or_else(|| std::env::var_os("PSN_TESTED"));
    let program = named.map_or_else(|| env!("CARGO_BIN_EXE_psn-tested").into(), PathBuf::from);
    let small = m.project().join("psn-linux-x64");
    let strip = std::process::Command::new("strip").arg("-o").arg(&small).arg(&program).status();
    if !strip.is_ok_and(|status| status.success()) {
        std::fs::copy(&program, &small).unwrap();
    }
    digest(&std::fs::read(small).unwrap())
}

async fn ask(m: &Machine, api: &str, path: &str) -> Value {
    let key = m.secret("TRIGGER_SECRET_KEY").expect("a key");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let reply = client.get(format!("{api}{path}")).bearer_auth(key).send().await.expect("an answer");
    assert!(reply.status().is_success(), "{path}: {}", reply.status());
    reply.json().await.expect("JSON")
}

/// The real `trigger.dev` CLI, installed by npm from the project's own lock file, against the local hub. `PSN_DEPLOY_RUNTIMES` names
/// the runtimes, one after the other in one hub. bun has to be on PATH for the hub, which lists a bundle's tasks with it.
#[test]
#[ignore = "npm installs the vendor's CLI from its registry, and a deployment takes a minute for each runtime: run by scripts/deploy.sh"]
fn the_vendors_cli_deploys_it_and_a_second_run_deploys_nothing() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let m = machine();
    std::fs::create_dir_all(m.project().join("config")).unwrap();
    for (name, value) in [("deploy", "cli"), ("psn_file", "psn-linux-x64"), ("psn_sha256", stripped(&m).as_str())] {
        m.psn(&["config", "set", &format!("trigger.{name}"), value]).exits(0);
    }
    let io = tokio::runtime::Runtime::new().expect("threads");
    let runtimes = std::env::var("PSN_DEPLOY_RUNTIMES").unwrap_or_else(|_| "bun-1.4".into());
    for (at, runtime) in runtimes.split_whitespace().enumerate() {
        m.psn(&["config", "set", "trigger.runtime", runtime]).exits(0);
        m.psn(&["run", "setup"]).exits(0);
        let exported = m.psn(&["task", "export", "exported"]).exits(0).result().clone();
        let api = m.psn(&["local", "up"]).exits(0).result()["endpoints"]["trigger"].as_str().unwrap().to_owned();
        let api = api.trim_end_matches('/');
        let look = |path: &str| io.block_on(ask(&m, api, path));

        let current = look("/api/v1/deployments/current");
        assert_eq!((&current["status"], &current["externalId"]), (&"DEPLOYED".into(), &exported["content_hash"]));
        assert_eq!(current["runtime"], runtime);
        let project = m.secret("TRIGGER_PROJECT_REF").expect("a reference");
        let worker = look(&format!("/api/v1/projects/{project}/prod/workers/current"))["worker"].clone();
        assert_eq!(worker["cliVersion"], "4.8.3", "the vendor's own indexer said what is in it: {worker}");
        let slugs: Vec<&Value> = worker["tasks"].as_array().unwrap().iter().map(|task| &task["slug"]).collect();
        assert_eq!(slugs.len(), exported["tasks"].as_array().unwrap().len());
        assert!(exported["tasks"].as_array().unwrap().iter().all(|task| slugs.contains(&task)), "{slugs:?}");
        let schedules = look("/api/v1/schedules");
        let watchdog = schedules["data"].as_array().unwrap().iter().find(|s| s["task"] == "watchdog").unwrap();
        assert_eq!((&watchdog["active"], &watchdog["generator"]["expression"]), (&true.into(), &"*/15 * * * *".into()));

        let count = || look("/api/v1/deployments")["data"].as_array().unwrap().len();
        assert_eq!(count(), at + 1);
        let again = m.psn(&["run", "setup"]).exits(0);
        assert!(again.steps().iter().all(|(_, status)| status == "skipped"), "{}", again.stdout);
        assert_eq!(count(), at + 1, "the same tasks are deployed once");
        // What was deployed is run.
        m.psn(&["task", "trigger", "watchdog", "--wait", "120"]).exits(0);
    }
}
