//! psn's worker, as it is deployed: what it runs, what it leaves, and what it refuses, beside a whole psn. `PSN_WORKER` names it.
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use psn_tests::ticks::{POSTS, STATE, same_everywhere};
use psn_tests::{Answer, Machine};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection};

const WATCHDOG: &str = "watchdog";
/// Nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn worker() -> PathBuf {
    std::env::var_os("PSN_WORKER").expect("PSN_WORKER names psn's worker: scripts/worker.sh builds it").into()
}

fn tested() -> PathBuf {
    std::env::var_os("PSN_TESTED").map_or_else(|| env!("CARGO_BIN_EXE_psn-tested").into(), PathBuf::from)
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A hub, and the bundles of its tasks: with psn's worker, and with a whole psn.
struct Stage {
    machine: Machine,
    threads: tokio::runtime::Runtime,
    db: PgConnection,
    origin: String,
}

/// What a task's file in a bundle says.
struct Task {
    bundle: PathBuf,
    component: String,
    compiled: Option<String>,
}

impl Task {
    fn of(bundle: &Path, id: &str) -> Self {
        let text = std::fs::read_to_string(bundle.join(format!("src/trigger/{id}.ts"))).expect("a task");
        let field = |name: &str| Some(text.split(&format!("  {name}: '")).nth(1)?.split('\'').next()?.to_owned());
        Self {
            bundle: bundle.to_owned(),
            component: field("component").expect("each has one"),
            compiled: field("compiled"),
        }
    }

    fn code(&self) -> PathBuf {
        let hashes = self.component.split("@sha256-").nth(1).expect("a digest").trim_end_matches(".wasm");
        self.bundle.join(format!("components/{}.cwasm", hashes.split('-').next().expect("a digest")))
    }

    fn args(&self) -> Vec<String> {
        let store = self.bundle.to_str().expect("UTF-8");
        let mut args: Vec<String> =
            ["cloud-run", &self.component, "--store", store, "--run-id", "run_1", "--attempt", "1"]
                .map(str::to_owned)
                .into();
        args.extend(self.compiled.iter().flat_map(|digest| ["--compiled".to_owned(), digest.clone()]));
        args
    }
}

impl Stage {
    fn set() -> Self {
        let machine = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        machine.psn(&["run", "setup"]).exits(0);
        let ca = machine.home().join("local-hub/tls/ca.pem");
        let url = machine.secret("DATABASE_URL_DIRECT").expect("setup kept it");
        let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
        let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca);
        let threads = tokio::runtime::Runtime::new().expect("threads");
        let db = threads.block_on(PgConnection::connect_with(&options)).expect("the database");
        let up = machine.psn(&["local", "up"]).exits(0);
        let origin = up.result()["endpoints"]["trigger"].as_str().expect("an address").trim_end_matches('/').to_owned();
        // Only what the test starts runs.
        machine.psn(&["task", "schedules", "deactivate", WATCHDOG]).exits(0);
        Self { machine, threads, db, origin }
    }

    fn export(&self, program: &Path, to: &str) -> (PathBuf, Value) {
        self.machine.psn(&["config", "set", "trigger.psn_file", program.to_str().expect("UTF-8")]).exits(0);
        let sha256 = digest(&std::fs::read(program).expect("the program"));
        self.machine.psn(&["config", "set", "trigger.psn_sha256", &sha256]).exits(0);
        let exported = self.machine.psn(&["task", "export", to]).exits(0).result().clone();
        assert_eq!(exported["program"]["sha256"], sha256);
        (self.machine.project().join(to), exported)
    }

    /// The bundled program, started as a task's file says, with what Trigger.dev would have in its environment.
    fn command(&self, task: &Task) -> Command {
        let secret = |name: &str| self.machine.secret(name).unwrap_or_else(|| panic!("setup kept no {name}"));
        let scratch = self.machine.root().join("scratch");
        std::fs::create_dir_all(&scratch).expect("a folder");
        let mut command = Command::new(task.bundle.join("bin/psn"));
        command
            .args(task.args())
            .env_clear()
            .envs(["TRIGGER_SECRET_KEY", "DATABASE_URL_PLUGIN_WATCHDOG", "PSN_HUB_ID"].map(|name| (name, secret(name))))
            .env("TRIGGER_API_URL", &self.origin)
            .env("PSN_DATABASE_CA_FILE", self.machine.home().join("local-hub/tls/ca.pem"))
            .env("TMPDIR", scratch)
            .current_dir(&task.bundle)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, task: &Task) -> Answer {
        given(self.command(task), "{}")
    }

    fn reset(&mut self) {
        self.threads.block_on(sqlx::raw_sql(POSTS).execute(&mut self.db)).expect("the posts");
    }

    /// The same posts, one tick of the watchdog, and what is left.
    fn tick(&mut self, task: &Task) -> (Answer, Value) {
        self.reset();
        let answer = self.run(task);
        let state = sqlx::query_scalar::<_, String>(STATE).fetch_one(&mut self.db);
        let state = self.threads.block_on(state).expect("the state");
        (answer, serde_json::from_str(&state).expect("JSON"))
    }

    fn refused(&self, task: &Task, code: &str) {
        let answer = self.run(task).exits(1);
        assert_eq!(answer.error()["code"], code, "{}", answer.stdout);
        assert!(answer.events.iter().all(|e| e["status"] != "success"), "{}", answer.stdout);
    }
}

fn given(mut command: Command, payload: &str) -> Answer {
    let mut child = command.spawn().expect("the program starts");
    // Where it does not read, its answer says why.
    let _ = child.stdin.take().expect("piped").write_all(payload.as_bytes());
    Answer::of(child.wait_with_output().expect("it ends"))
}

fn output(answer: &Answer) -> Value {
    same_everywhere(answer.event(|e| e["status"] == "success")["data"].clone())
}

/// Types and steps of the events: what a reader of the stream goes by.
fn shape(answer: &Answer) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = answer.events.iter();
    events.map(|e| (text(&e["type"]), text(&e["step"]), text(&e["status"]))).collect()
}

#[test]
#[ignore = "needs psn's worker, which is built apart from the workspace: run by scripts/worker.sh"]
fn the_worker_runs_what_was_compiled_for_it_and_nothing_else() {
    let mut stage = Stage::set();
    let (bundle, exported) = stage.export(&worker(), "with-worker");
    assert_eq!(exported["program"]["kind"], "psn-worker", "{exported}");
    let psn = tested();
    let (whole_bundle, whole_exported) = stage.export(&psn, "with-psn");
    assert_eq!(whole_exported["program"]["kind"], "psn", "{whole_exported}");
    let (task, whole) = (Task::of(&bundle, WATCHDOG), Task::of(&whole_bundle, WATCHDOG));
    assert_eq!(task.compiled, Some(format!("sha256-{}", digest(&std::fs::read(task.code()).expect("its code")))));
    assert!(whole.compiled.is_none() && !whole.code().exists());

    // The same component over the same database: the same answer, the same state, the same stream.
    let (by_worker, left_by_worker) = stage.tick(&task);
    let by_worker = by_worker.exits(0);
    let (by_psn, left_by_psn) = stage.tick(&whole);
    let by_psn = by_psn.exits(0);
    assert_eq!(output(&by_worker), output(&by_psn));
    assert!(output(&by_worker)["claimed"].as_u64().is_some_and(|n| n > 0), "{}", by_worker.stdout);
    assert_eq!(left_by_worker, left_by_psn);
    assert_eq!(shape(&by_worker), shape(&by_psn));
    // psn takes a bundle with compiled code too, and does not look at it.
    let code = task.code();
    let sound = std::fs::read(&code).unwrap();
    std::fs::write(&code, "no code").unwrap();
    std::fs::rename(bundle.join("bin/psn"), bundle.join("bin/worker")).unwrap();
    std::fs::copy(&psn, bundle.join("bin/psn")).unwrap();
    stage.run(&task).exits(0);
    std::fs::rename(bundle.join("bin/worker"), bundle.join("bin/psn")).unwrap();

    // Code that is not what the task names: damaged, another component's, gone, not named.
    stage.refused(&task, "task.code-damaged");
    for at in [0, sound.len() / 2, sound.len() - 1] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        std::fs::write(&code, damaged).unwrap();
        stage.refused(&task, "task.code-damaged");
    }
    let other = wat::parse_str("(component (core module (func (export \"f\"))))").unwrap();
    let other = compiled(&psn, &other, true);
    std::fs::write(&code, &other).unwrap();
    stage.refused(&task, "task.code-damaged");
    std::fs::remove_file(&code).unwrap();
    stage.refused(&task, "task.code-missing");
    std::fs::write(&code, &sound).unwrap();
    stage.refused(&Task { compiled: None, ..Task::of(&bundle, WATCHDOG) }, "task.code-missing");

    // Code that is what the task names, and not for this engine: of another configuration, and no code at all.
    let component = std::fs::read(code.with_extension("wasm")).unwrap();
    for foreign in [compiled(&psn, &component, false), b"\x7fELF no code".to_vec()] {
        std::fs::write(&code, &foreign).unwrap();
        let named = Task { compiled: Some(format!("sha256-{}", digest(&foreign))), ..Task::of(&bundle, WATCHDOG) };
        stage.refused(&named, "task.code-mismatch");
    }
    std::fs::write(&code, &sound).unwrap();

    // A task that names another component's code runs nothing of it either.
    std::fs::write(&code, &other).unwrap();
    let misnamed = Task { compiled: Some(format!("sha256-{}", digest(&other))), ..Task::of(&bundle, WATCHDOG) };
    stage.refused(&misnamed, "component.contract-mismatch");
    std::fs::write(&code, &sound).unwrap();

    // Where address space is short, it says so and runs nothing.
    let plain = stage.command(&task);
    let mut short = Command::new("/bin/sh");
    short.args(["-c", "ulimit -v 16777216; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    short.env_clear().envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(&bundle);
    short.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    assert_eq!(given(short, "{}").exits(1).error()["code"], "runtime.address-space");

    stage.run(&task).exits(0);
    usage_and_signals(&mut stage, &task, &whole);
    another_build(&stage);
}

/// The commands, as psn has them.
fn usage_and_signals(stage: &mut Stage, task: &Task, whole: &Task) {
    let said = |args: &[&str]| Command::new(task.bundle.join("bin/psn")).args(args).output().expect("it starts");
    assert!(String::from_utf8_lossy(&said(&["--version"]).stdout).starts_with("psn-worker "));
    assert!(String::from_utf8_lossy(&said(&["--help"]).stdout).contains("cloud-run"));
    for wrong in [&["run", "setup"][..], &["compile-component"], &[], &["cloud-run"]] {
        assert_eq!(said(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let compiled = Task { compiled: Some("sha256-x".into()), ..Task::of(&task.bundle, WATCHDOG) };
    assert_eq!(stage.command(&compiled).output().expect("it starts").status.code(), Some(2));
    // A service that never answers holds both up, until SIGTERM.
    for task in [task, whole] {
        assert_eq!(given(stage.command(task), "not JSON").exits(2).error()["code"], "usage.payload");
        stage.reset();
        // The one before was stopped in the middle of its tick.
        let free = sqlx::query("UPDATE psn.watchdog SET tick = NULL, tick_until = DEFAULT");
        stage.threads.block_on(free.execute(&mut stage.db)).expect("no tick");
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut command = stage.command(task);
        command.env("TRIGGER_API_URL", format!("http://{}", silent.local_addr().expect("an address")));
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(b"{}").expect("it reads");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.next().is_some_and(|line| line.expect("a line").contains("\"version\"")));
        let held = called(&silent).unwrap_or_else(|| {
            let _ = child.kill();
            panic!("it calls nobody: {:?}", lines.by_ref().collect::<Vec<_>>())
        });
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        assert_eq!(ended(&mut child), Some(130));
        drop(held);
        let last = lines.last().expect("events").expect("a line");
        assert!(last.contains("run.interrupted"), "{last}");
    }
}

/// A connection that is accepted, and never answered.
fn called(silent: &TcpListener) -> Option<TcpStream> {
    silent.set_nonblocking(true).expect("a socket");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok((stream, _)) = silent.accept() {
            return Some(stream);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

fn ended(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it is there");
    panic!("it does not end");
}

/// A worker of another build is not deployed.
fn another_build(stage: &Stage) {
    let marker = psn::worker::marker();
    let mut bytes = std::fs::read(worker()).unwrap();
    let at = bytes.windows(marker.len()).position(|window| window == marker).expect("its marker");
    let last = at + marker.len() - 2;
    bytes[last] = if bytes[last] == b'0' { b'1' } else { b'0' };
    let other = stage.machine.project().join("other-worker");
    std::fs::write(&other, &bytes).unwrap();
    stage.machine.psn(&["config", "set", "trigger.psn_file", "other-worker"]).exits(0);
    stage.machine.psn(&["config", "set", "trigger.psn_sha256", &digest(&bytes)]).exits(0);
    let refused = stage.machine.psn(&["task", "export", "other"]).exits(1);
    assert_eq!(refused.error()["code"], "task.program-version", "{}", refused.stdout);
    let fix = refused.error()["fix"][0].as_str().unwrap().to_owned();
    stage.machine.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    stage.machine.psn(&["task", "export", "other"]).exits(0);
}

/// As psn's compiler process hands it back, for this machine: `plenty` of address space or not.
fn compiled(psn: &Path, component: &[u8], plenty: bool) -> Vec<u8> {
    let mut child = Command::new(psn)
        .args(["compile-component", "--memory", "2147483648", "--cpu", "240", "--parent"])
        .arg(std::process::id().to_string())
        .args(plenty.then_some("--plenty"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psn starts");
    child.stdin.take().expect("piped").write_all(component).expect("it reads");
    let answer = child.wait_with_output().expect("it ends").stdout;
    assert_eq!(answer[0], b'C', "code, not a refusal");
    answer[9..].to_vec()
}

/// How long one tick over no posts takes from start to end, of the worker and of `PSN_WHOLE`: `scripts/worker.sh measure`.
#[test]
#[ignore = "a measurement, which wants an idle machine: scripts/worker.sh measure"]
fn how_long_a_run_takes() {
    const ROUNDS: usize = 15;
    let stage = Stage::set();
    let psn = std::env::var_os("PSN_WHOLE").map_or_else(tested, PathBuf::from);
    let (with_worker, with_psn) = (stage.export(&worker(), "with-worker").0, stage.export(&psn, "with-psn").0);
    let (task, whole) = (Task::of(&with_worker, WATCHDOG), Task::of(&with_psn, WATCHDOG));
    let cache = stage.machine.root().join("scratch/psn-cache");
    let time = |task: &Task| {
        let started = Instant::now();
        stage.run(task).exits(0);
        started.elapsed().as_secs_f64() * 1000.0
    };
    let (mut worker_ms, mut cold_ms, mut warm_ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        worker_ms.push(time(&task));
        let _ = std::fs::remove_dir_all(&cache);
        cold_ms.push(time(&whole));
        warm_ms.push(time(&whole));
    }
    let median = |of: &mut Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let (worker_ms, cold_ms, warm_ms) = (median(&mut worker_ms), median(&mut cold_ms), median(&mut warm_ms));
    let bytes = |bundle: &Path| std::fs::metadata(bundle.join("bin/psn")).expect("a program").len() as f64;
    let (small, large) = (bytes(&with_worker), bytes(&with_psn));
    print(&[
        format!(
            "one watchdog run, start to end, medians of {ROUNDS}: worker {worker_ms:.0} ms, psn {cold_ms:.0} ms cold, {warm_ms:.0} ms warm"
        ),
        format!(
            "psn takes {:.2} times the worker's time cold, {:.2} times warm",
            cold_ms / worker_ms,
            warm_ms / worker_ms
        ),
        format!("the worker has {:.1} MB, psn {:.1} MB: {:.2} of it", small / 1e6, large / 1e6, small / large),
    ]);
}

#[allow(clippy::print_stdout, reason = "it is what a measurement is for")]
fn print(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}
