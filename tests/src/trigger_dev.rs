//! The vendor's own `trigger dev`, from the pinned clients in tests/clients, as worker of a hub. The tests of psn-local-hub include
//! this file too.
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the program gets to stop its tasks after SIGTERM; then it is killed.
const STOP: Duration = Duration::from_secs(15);
/// Characters of what it said that a failed test shows.
const LAST_WORDS: usize = 6_000;

/// Which environment it serves, and with what.
pub struct Worker<'a> {
    /// tests/clients, installed.
    pub clients: &'a Path,
    /// Copied: the program writes into its project.
    pub project: &'a Path,
    pub origin: &'a str,
    pub token: &'a str,
    pub reference: &'a str,
    /// `node` or `bun-1.4`.
    pub runtime: &'a str,
}

/// A running `trigger dev`, and the copy of the project that it serves.
pub struct TriggerDev {
    child: Option<Child>,
    dir: tempfile::TempDir,
}

impl TriggerDev {
    /// The copy, with the clients' packages; not yet started, so that a test can add to it.
    pub fn prepare(worker: &Worker<'_>) -> Self {
        let dir = tempfile::Builder::new().prefix("psn-dev-").tempdir().expect("a temporary folder");
        copy(worker.project, dir.path());
        for shared in ["node_modules", "package-lock.json"] {
            let link = dir.path().join(shared);
            let _ = fs::remove_file(&link);
            symlink(worker.clients.join(shared), link).expect("a link");
        }
        fs::create_dir_all(dir.path().join("home/bin")).expect("a folder");
        if let Some(bun) = bun(worker.clients) {
            // Where the vendor's program looks for it.
            symlink(bun, dir.path().join("home/bin/bun")).expect("a link");
        }
        Self { child: None, dir }
    }

    /// The copy. Only one of the two crates that use this file asks.
    #[allow(dead_code)]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// `record` is for tests/clients/wire.mjs.
    pub fn start<V: AsRef<OsStr>>(&mut self, worker: &Worker<'_>, record: Option<&Path>, env: &[(&str, V)]) {
        let home = self.dir.path().join("home");
        let log = fs::File::create(self.dir.path().join("log")).expect("a file");
        let mut command = Command::new("node");
        command
            .arg(worker.clients.join("node_modules/trigger.dev/dist/esm/index.js"))
            .args(["dev", "--skip-update-check", "--skip-mcp-install", "--skip-rules-install"])
            .args(["--skip-platform-notifications", "--log-level", "debug"])
            .current_dir(self.dir.path())
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", &home)
            .env("BUN_INSTALL", &home)
            .env("CI", "1")
            .env("TRIGGER_TELEMETRY_DISABLED", "1")
            .env("TRIGGER_API_URL", worker.origin)
            .env("TRIGGER_ACCESS_TOKEN", worker.token)
            .env("TRIGGER_PROJECT_REF", worker.reference)
            .env("PSN_TRIGGER_RUNTIME", worker.runtime)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        if let Some(record) = record {
            command
                .env("NODE_OPTIONS", format!("--import {}", worker.clients.join("wire.mjs").display()))
                .env("PSN_WIRE_RECORD", record)
                .env("PSN_WIRE_ORIGIN", worker.origin);
        }
        for (name, value) in env {
            command.env(name, value.as_ref());
        }
        self.child = Some(command.spawn().expect("node starts"));
    }

    /// As Ctrl-C does: the program stops its tasks first.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
        let patience = Instant::now() + STOP;
        while Instant::now() < patience {
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for TriggerDev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let from = log.chars().count().saturating_sub(LAST_WORDS);
            eprintln!("the end of what trigger dev said:\n{}", log.chars().skip(from).collect::<String>());
        }
        self.stop();
    }
}

/// The package's own program is put in place by a script at install time, and none runs here; this is what it would put there.
pub fn bun(clients: &Path) -> Option<PathBuf> {
    let packages = fs::read_dir(clients.join("node_modules/@oven")).into_iter().flatten().flatten();
    let mut programs = packages.map(|entry| entry.path().join("bin/bun"));
    programs.find(|file| Command::new(file).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// Without what was installed into it or made in it.
fn copy(from: &Path, to: &Path) {
    const NOT_OURS: [&str; 2] = ["node_modules", ".trigger"];
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type().expect("its kind").is_dir() {
            fs::create_dir_all(&target).expect("a folder");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
