//! A hub of its own for each test: a folder for the project, a PSN_HOME, and the psn binary between them.
#![forbid(unsafe_code)]

pub mod admin;
pub mod clients;
pub mod cloud;
pub mod edge;
pub mod fix;
pub mod found;
pub mod points;
pub mod rig;
pub mod sample;
pub mod ticks;
pub mod trigger_dev;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// One machine, as psn sees it: nothing was installed or set up before.
pub struct Machine {
    root: TempDir,
    program: PathBuf,
    /// Added to the environment of each psn.
    pub env: Vec<(String, String)>,
}

/// What one psn said.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub events: Vec<Value>,
}

impl Machine {
    /// `program` is `env!("CARGO_BIN_EXE_psn-tested")`.
    pub fn new(program: &str) -> Self {
        let root = tempfile::Builder::new().prefix("psn-test-").tempdir().expect("a temporary folder");
        // As root, psn runs Postgres under another account, which must be able to pass through.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).expect("its own folder");
        for dir in ["home", "project"] {
            std::fs::create_dir(root.path().join(dir)).expect("an empty folder");
        }
        // Another build of the same, for example one that a long run must keep while this one is built anew.
        let program = std::env::var_os("PSN_TESTED").map_or_else(|| program.into(), PathBuf::from);
        Self { root, program, env: Vec::new() }
    }

    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    pub fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// psn with these arguments, in the project's folder, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.project())
            .env("PSN_HOME", self.home())
            .env_remove("PSN_PG_BIN")
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
        command
    }

    pub fn psn<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        Answer::of(self.command(args).output().expect("psn starts"))
    }

    /// With something on standard input.
    pub fn psn_with_input(&self, args: &[&str], input: &str) -> Answer {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psn starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("psn reads");
        Answer::of(child.wait_with_output().expect("psn ends"))
    }

    /// Runs until an event satisfies `stop`, and kills it there, without a chance to clean up.
    pub fn kill_at(&self, args: &[&str], stop: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("psn starts");
        let mut seen = Vec::new();
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let event: Value = serde_json::from_str(&line.expect("UTF-8")).expect("each line is JSON");
            let last = stop(&event);
            seen.push(event);
            if last {
                kill(&mut child);
                return seen;
            }
        }
        kill(&mut child);
        seen
    }

    /// The files under the project and PSN_HOME, without Postgres' own data.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(t) if t.is_dir() && !path.join("PG_VERSION").exists() => folders.push(path),
                    Ok(t) if t.is_file() => files.push(path),
                    _ => {}
                }
            }
        }
        files
    }

    /// The value of a name in one of the env files.
    pub fn secret(&self, name: &str) -> Option<String> {
        secret_in(&self.project(), name)
    }

    pub fn read(&self, path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = std::fs::File::open(path).and_then(|mut f| f.read_to_end(&mut bytes));
        bytes
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whatever the test started goes with it; a hub that never ran says so and that is fine.
        let _ = self.command(&["local", "down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The value of a name in one of the env files of a project.
pub fn secret_in(project: &Path, name: &str) -> Option<String> {
    ["hub.env", "keys.env"].iter().find_map(|file| {
        let text = std::fs::read_to_string(project.join("config").join(file)).ok()?;
        let prefix = format!("{name}=");
        let line = text.lines().find(|l| l.starts_with(&prefix))?;
        Some(line[prefix.len()..].trim_matches('\'').trim_matches('"').to_owned())
    })
}

fn kill(child: &mut Child) {
    // SIGKILL, to this very process.
    let _ = child.kill();
    let _ = child.wait();
}

impl Answer {
    pub fn of(output: std::process::Output) -> Self {
        let stdout = String::from_utf8(output.stdout).expect("standard output is UTF-8");
        let events = stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|e| panic!("standard output has a line that is no JSON: {line}: {e}"))
            })
            .collect();
        Self {
            code: output.status.code(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            events,
        }
    }

    /// Fails with everything that was said unless the exit code is this.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The last event of each step: (step, status).
    pub fn steps(&self) -> Vec<(String, String)> {
        let mut steps: Vec<(String, String)> = Vec::new();
        for event in self.events.iter().filter(|e| e["type"] == "step") {
            let (step, status) = (text(&event["step"]), text(&event["status"]));
            match steps.iter_mut().find(|(s, _)| *s == step) {
                Some(known) => known.1 = status,
                None => steps.push((step, status)),
            }
        }
        steps
    }

    /// The first event that satisfies `which`.
    #[track_caller]
    pub fn event(&self, which: impl Fn(&Value) -> bool) -> &Value {
        self.events
            .iter()
            .find(|e| which(e))
            .unwrap_or_else(|| panic!("no such event:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }

    /// The error, of a step or of the command.
    #[track_caller]
    pub fn error(&self) -> &Value {
        &self.event(|e| e["error"].is_object())["error"]
    }

    /// The data of a command that answers with a result.
    #[track_caller]
    pub fn result(&self) -> &Value {
        &self.event(|e| e["type"] == "result")["data"]
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
