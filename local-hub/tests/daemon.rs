//! up, attach, down, status, reset, logs, with a daemon in a process of its own.
mod common;

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use common::{TempHome, kill, lives, processes, until_dead};
use psn_local_hub::lifecycle::{
    DaemonCommand, Endpoints, Home, HubError, ServeOptions, State, UpOptions, attach, credentials, down, logs, reset,
    serve, status, up,
};
use psn_local_hub::pg::PgOptions;
use psn_local_hub::{RunOutcome, TaskRun, TaskRunner};
use rustix::process::Signal;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

const HOME: &str = "PSN_TEST_DAEMON_HOME";
const VERSION: &str = "PSN_TEST_DAEMON_VERSION";

struct NoRunner;

#[async_trait::async_trait]
impl TaskRunner for NoRunner {
    async fn run(&self, run: TaskRun, _: CancellationToken) -> RunOutcome {
        RunOutcome::Crashed { message: format!("nothing runs {} here", run.task) }
    }
}

/// What `psn local serve` is in the product: the other tests start this test binary with this test's name.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the daemon of the other tests, which start it with a Home in the environment"]
async fn the_daemon() {
    let home = std::env::var_os(HOME).expect("started by another test");
    let opts = ServeOptions {
        keep_postgres: false,
        version: std::env::var(VERSION).unwrap(),
        pg: PgOptions::default(),
        test_token: None,
        shutdown: CancellationToken::new(),
    };
    let served = serve(Home::new(home), Arc::new(NoRunner), opts).await;
    // Not a panic: its message would be noise in the log that one of the tests reads.
    std::process::exit(i32::from(served.is_err()));
}

struct Hub {
    temp: TempHome,
    home: Home,
    _turn: OwnedMutexGuard<()>,
}

/// One hub at a time: a port that one test sets free must not be chosen by the hub of another.
static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

impl Hub {
    fn new() -> Hub {
        let temp = TempHome::new();
        // Each test has a thread and a runtime of its own, so waiting here holds up nobody else.
        let turn = loop {
            match Arc::clone(&TURN).try_lock_owned() {
                Ok(turn) => break turn,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        Hub { home: Home::new(temp.path()), temp, _turn: turn }
    }

    fn command(&self, version: &str) -> DaemonCommand {
        let env = |name: &str, value: OsString| (OsString::from(name), value);
        DaemonCommand {
            program: std::env::current_exe().unwrap(),
            args: ["--exact", "the_daemon", "--ignored"].map(OsString::from).to_vec(),
            env: vec![env(HOME, self.home.path().into()), env(VERSION, version.into())],
        }
    }

    async fn up(&self) -> Endpoints {
        self.up_with("1", false).await.unwrap()
    }

    async fn up_with(&self, version: &str, new_ports: bool) -> Result<Endpoints, HubError> {
        let opts = UpOptions { new_ports, version: version.to_owned() };
        up(&self.home, &self.command(version), &opts).await
    }

    fn control_pid(&self) -> u32 {
        let file = self.temp.data("_control").join("postmaster.pid");
        fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let text = fs::read_to_string(self.home.path().join("daemon.lock")).unwrap_or_default();
        if let Ok(holder) = serde_json::from_str::<serde_json::Value>(&text)
            && let Some(pid) = holder["pid"].as_u64().and_then(|p| u32::try_from(p).ok())
            && pid != std::process::id()
            && fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("the_daemon"))
        {
            kill(pid, Signal::KILL);
        }
    }
}

/// A request as it is written, so that its Host and Origin can be anything.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(port: u16, path: &str, headers: &str) -> String {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}\r\n"))
}

#[tokio::test]
async fn up_starts_once_attaches_afterwards_and_down_ends_everything() {
    let hub = Hub::new();
    assert_eq!(status(&hub.home).await.state, State::Absent);
    assert_eq!(attach(&hub.home).await.unwrap(), None);
    assert!(matches!(credentials(&hub.home), Err(HubError::NotRunning)));

    let first = hub.up().await;
    assert_ne!(first.pid, std::process::id());
    assert_eq!(hub.up().await, first);
    assert_eq!(attach(&hub.home).await.unwrap(), Some(first.clone()));
    assert!(first.neon.as_str().ends_with("/api/v2"));
    assert!(first.ca_pem.is_file());

    // The keys work at the services, and are needed there.
    let keys = credentials(&hub.home).unwrap();
    let neon = first.neon.port().unwrap();
    let trigger = first.trigger.port().unwrap();
    let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");
    assert!(get(neon, "/api/v2/users/me", &bearer(&keys.neon_api_key)).starts_with("HTTP/1.1 200"));
    assert!(get(neon, "/api/v2/projects", "").starts_with("HTTP/1.1 401"));
    assert!(get(trigger, "/api/v2/whoami", &bearer(&keys.trigger_access_token)).starts_with("HTTP/1.1 200"));

    let said = status(&hub.home).await;
    assert_eq!(said.state, State::Running);
    assert_eq!(said.endpoints, Some(first.clone()));
    assert!(said.clusters.iter().any(|c| c.id == "_control" && c.running));

    let postgres = hub.control_pid();
    assert!(down(&hub.home).await.unwrap());
    assert!(!lives(first.pid) && !lives(postgres));
    assert!(!down(&hub.home).await.unwrap(), "nothing was left to stop");
    assert_eq!(status(&hub.home).await.state, State::Stopped);
    assert_eq!(attach(&hub.home).await.unwrap(), None);

    let second = hub.up().await;
    assert_eq!((&second.neon, &second.trigger), (&first.neon, &first.trigger), "the addresses stay");
    assert_eq!(credentials(&hub.home).unwrap().neon_api_key, keys.neon_api_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_at_once_start_one_daemon() {
    let hub = Arc::new(Hub::new());
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let hub = hub.clone();
            tokio::spawn(async move { hub.up().await })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_killed_daemon_is_replaced_and_its_postgres_attached_to() {
    let hub = Hub::new();
    let first = hub.up().await;
    let postgres = hub.control_pid();
    kill(first.pid, Signal::KILL);
    until_dead(first.pid).await;
    assert_eq!(attach(&hub.home).await.unwrap(), None);
    assert_eq!(status(&hub.home).await.state, State::Stopped);
    let second = hub.up().await;
    assert_ne!(second.pid, first.pid);
    assert_eq!(second.neon, first.neon);
    assert_eq!(hub.control_pid(), postgres);

    // Killed again, and Postgres with it; then `down` finds only leftovers, or nothing.
    kill(second.pid, Signal::KILL);
    until_dead(second.pid).await;
    assert!(down(&hub.home).await.unwrap(), "the servers of the killed daemon were still there");
    assert!(processes(&hub.temp.cluster_dir("_control")).is_empty());
}

#[tokio::test]
async fn a_daemon_of_another_version_is_restarted() {
    let hub = Hub::new();
    let old = hub.up().await;
    let new = hub.up_with("2", false).await.unwrap();
    assert_eq!(new.version, "2");
    assert_ne!(new.pid, old.pid);
    assert!(!lives(old.pid));
}

#[tokio::test]
async fn a_stranger_on_the_port_is_named_and_new_ports_go_around_it() {
    let hub = Hub::new();
    let first = hub.up().await;
    down(&hub.home).await.unwrap();
    let port = first.neon.port().unwrap();
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();

    let error = hub.up_with("1", false).await.unwrap_err();
    assert_eq!(error.code(), "local.port-taken");
    assert!(error.message().contains(&port.to_string()), "{error}");
    assert!(error.message().contains(&format!("(process {})", std::process::id())), "{error}");
    assert_eq!(error.fix(), ["psn local up --new-ports"]);

    let around = hub.up_with("1", true).await.unwrap();
    assert_ne!(around.neon.port(), Some(port));
    assert_eq!(around.trigger, first.trigger, "what is free keeps its number");
    drop(stranger);
    assert_eq!(hub.up().await, around);
}

#[tokio::test]
async fn something_else_that_answers_on_the_recorded_port_is_not_the_daemon() {
    let hub = Hub::new();
    let first = hub.up().await;
    kill(first.pid, Signal::KILL);
    until_dead(first.pid).await;
    let stranger = TcpListener::bind(("127.0.0.1", first.neon.port().unwrap())).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let body = r#"{"pid":1,"version":"1","instance":"guess"}"#;
        stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes()).unwrap();
    });
    assert_eq!(attach(&hub.home).await.unwrap(), None);
    answering.join().unwrap();
}

#[tokio::test]
async fn why_it_did_not_start_is_told_with_the_way_out() {
    let hub = Hub::new();
    let mut command = hub.command("1");
    command.env.push(("PSN_PG_BIN".into(), "/nowhere/bin".into()));
    let opts = UpOptions { new_ports: false, version: "1".into() };
    let error = up(&hub.home, &command, &opts).await.unwrap_err();
    assert_eq!(error.code(), "local.postgres-unusable");
    assert!(error.message().contains("/nowhere/bin"));
    assert!(error.fix().iter().any(|f| f.starts_with("PSN_PG_BIN=")));

    let gone = DaemonCommand { program: hub.temp.outside().join("no-psn"), ..hub.command("1") };
    assert_eq!(up(&hub.home, &gone, &opts).await.unwrap_err().code(), "local.daemon-spawn");
    let dies =
        DaemonCommand { program: "/bin/sh".into(), args: vec!["-c".into(), "echo oh no; exit 7".into()], env: vec![] };
    let error = up(&hub.home, &dies, &opts).await.unwrap_err();
    assert_eq!(error.code(), "local.daemon-died");
    assert!(error.message().contains("oh no") && error.message().contains('7'), "{error}");
    hub.up().await;
}

#[tokio::test]
async fn signals_end_it_and_a_hangup_does_not() {
    let hub = Hub::new();
    for signal in [Signal::TERM, Signal::INT] {
        let endpoints = hub.up().await;
        let postgres = hub.control_pid();
        kill(endpoints.pid, Signal::HUP);
        assert_eq!(hub.up().await, endpoints);
        kill(endpoints.pid, signal);
        until_dead(endpoints.pid).await;
        assert!(!lives(postgres));
        assert!(!hub.home.path().join("hub.json").exists());
    }
}

#[tokio::test]
async fn two_daemons_of_one_home_cannot_be() {
    let hub = Hub::new();
    let running = hub.up().await;
    let opts = ServeOptions {
        keep_postgres: false,
        version: "1".into(),
        pg: PgOptions::default(),
        test_token: None,
        shutdown: CancellationToken::new(),
    };
    let error = serve(hub.home.clone(), Arc::new(NoRunner), opts).await.unwrap_err();
    assert_eq!(error.code(), "local.already-running");
    assert!(error.message().contains(&running.pid.to_string()));
    assert_eq!(attach(&hub.home).await.unwrap(), Some(running));
}

#[tokio::test]
async fn pages_of_a_browser_are_refused_and_no_secret_is_logged() {
    let hub = Hub::new();
    let endpoints = hub.up().await;
    let keys = credentials(&hub.home).unwrap();
    for url in [&endpoints.neon, &endpoints.trigger] {
        let port = url.port().unwrap();
        let rebound = ask(port, &format!("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\nConnection: close\r\n\r\n"));
        assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
        let health = ask(port, "GET /__psn/health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        assert!(health.starts_with("HTTP/1.1 421"), "{health}");
        let page = get(port, "/api/v2/whoami", "Origin: http://localhost:3000\r\n");
        assert!(page.starts_with("HTTP/1.1 403"), "{page}");
    }
    let key = &keys.neon_api_key;
    let port = endpoints.neon.port().unwrap();
    get(port, &format!("/api/v2/projects?search={key}&limit=1"), &format!("Authorization: Bearer {key}\r\n"));
    let requests = fs::read_to_string(hub.home.path().join("logs/requests.log")).unwrap();
    let last: serde_json::Value = serde_json::from_str(requests.lines().last().unwrap()).unwrap();
    assert_eq!(last["path"], "/api/v2/projects");
    assert_eq!(last["query"], serde_json::json!(["search", "limit"]));
    // A personal key has to name the organisation.
    assert_eq!(last["status"], 400);

    let superuser = fs::read_to_string(hub.home.path().join("superuser.secret")).unwrap();
    for line in logs(&hub.home, 10_000).unwrap() {
        for secret in [key, &keys.trigger_access_token, &superuser] {
            assert!(!line.text.contains(secret.trim()), "{} holds a secret", line.source);
        }
    }
    assert!(logs(&hub.home, 10_000).unwrap().iter().any(|l| l.source == "requests"));
    readable_by_its_owner_only(hub.home.path());
}

/// Every file that holds a secret, and whatever else is not meant for the servers' account or for clients.
fn readable_by_its_owner_only(home: &Path) {
    for name in ["credentials.json", "superuser.secret", "hub.json", "ports.json", "logs/hub.log", "logs/requests.log"]
    {
        let mode = fs::metadata(home.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn reset_deletes_a_home_and_nothing_else() {
    let hub = Hub::new();
    let endpoints = hub.up().await;
    let postgres = hub.control_pid();
    let outside = hub.temp.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), "x").unwrap();
    std::os::unix::fs::symlink(&outside, hub.home.path().join("pg/link")).unwrap();

    let link = hub.temp.outside().join("link");
    std::os::unix::fs::symlink(hub.home.path(), &link).unwrap();
    assert_eq!(reset(&Home::new(&link)).await.unwrap_err().code(), "local.not-a-home");
    assert_eq!(reset(&Home::new(&outside)).await.unwrap_err().code(), "local.not-a-home");
    assert_eq!(down(&Home::new(&outside)).await.unwrap_err().code(), "local.not-a-home");
    assert!(lives(endpoints.pid));

    reset(&hub.home).await.unwrap();
    assert!(!lives(endpoints.pid) && !lives(postgres));
    assert!(!hub.home.path().exists());
    assert_eq!(fs::read_to_string(outside.join("keep")).unwrap(), "x");
    reset(&hub.home).await.unwrap();

    let again = hub.up().await;
    assert_ne!(again.pid, endpoints.pid);
}
