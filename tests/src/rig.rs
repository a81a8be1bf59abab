//! One local hub and what stands in front of it, for many cases: each case has a project folder, and so a hub id, of its own.
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::edge::{HttpEdge, Reply, SqlEdge, Victim, request};
use crate::points::{DIE, Moment, Point, Seam, TRACE};
use crate::{Answer, Machine};

/// The longest that one psn of a case may take. Its own patience with a service that does not say what it did is half a minute.
pub const LONGEST_RUN: Duration = Duration::from_secs(180);

pub struct Rig {
    pub machine: Machine,
    pub http: HttpEdge,
    pub sql: Arc<SqlEdge>,
    victim: Arc<Victim>,
    neon: u16,
    trigger: u16,
    cases: AtomicUsize,
}

/// How a psn ended.
#[derive(Debug)]
pub struct Ended {
    pub answer: Answer,
    /// By SIGKILL.
    pub killed: bool,
    pub elapsed: Duration,
}

impl Rig {
    /// `program` is `env!("CARGO_BIN_EXE_psn-tested")`. Starts a local hub.
    pub fn new(program: &str) -> Self {
        let machine = Machine::new(program);
        let up = machine.psn(&["local", "up"]).exits(0);
        let port = |service: &str| {
            let url = up.result()["endpoints"][service].as_str().expect("an endpoint").to_owned();
            let port = url.trim_end_matches("/api/v2").trim_end_matches('/').rsplit(':').next().map(str::to_owned);
            port.and_then(|p| p.parse::<u16>().ok()).unwrap_or_else(|| panic!("no port in {url}"))
        };
        let (neon, trigger) = (port("neon"), port("trigger"));
        let victim = Arc::new(Victim::default());
        let sql = Arc::new(SqlEdge::new(&victim));
        let http = HttpEdge::new(&[("neon", neon), ("trigger", trigger), ("trigger-env", trigger)], &victim, &sql);
        Self { machine, http, sql, victim, neon, trigger, cases: AtomicUsize::new(0) }
    }

    /// A new folder, whose psn calls its services through the edge.
    pub fn case(&self) -> Case<'_> {
        let number = self.cases.fetch_add(1, Ordering::Relaxed);
        let folder = self.machine.root().join(format!("case-{number}"));
        std::fs::create_dir_all(folder.join("config")).expect("a folder");
        let base =
            |service: &str, path: &str| format!("{service} = \"http://127.0.0.1:{}{path}\"\n", self.http.port(service));
        let services = base("neon", "/api/v2") + &base("trigger", "") + &base("trigger-env", "");
        std::fs::write(folder.join("config/services.toml"), services).expect("a file");
        Case { rig: self, folder }
    }

    /// Neon's API, past the edge.
    pub fn neon(&self, method: &str, path: &str, key: &str) -> Reply {
        call(self.neon, method, &format!("/api/v2{path}"), key, b"")
    }

    /// Trigger.dev's API, past the edge.
    pub fn trigger(&self, method: &str, path: &str, key: &str) -> Reply {
        call(self.trigger, method, path, key, b"")
    }

    /// The same, with something to say.
    pub fn trigger_json(&self, method: &str, path: &str, key: &str, body: &Value) -> Reply {
        call(self.trigger, method, path, key, body.to_string().as_bytes())
    }
}

fn call(port: u16, method: &str, target: &str, key: &str, body: &[u8]) -> Reply {
    let headers = [
        ("content-type".to_owned(), "application/json".to_owned()),
        ("authorization".to_owned(), format!("Bearer {key}")),
        ("x-trigger-api-version".to_owned(), "2025-07-16".to_owned()),
    ];
    request(port, method, target, &headers, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
}

pub struct Case<'a> {
    pub rig: &'a Rig,
    pub folder: PathBuf,
}

impl Case<'_> {
    /// `psn config set`, as a line in the file.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.join("config/psn.toml"), text).expect("a file");
    }

    /// Runs psn to its end, in this case's folder, with nothing spoilt.
    pub fn psn(&self, args: &[&str]) -> Ended {
        self.rig.http.begin();
        self.rig.sql.begin();
        self.spawn(args, &[])
    }

    /// The same, with a line on standard input, as a person types or pipes a secret.
    pub fn psn_typed(&self, args: &[&str], line: &str) -> Answer {
        self.rig.http.begin();
        self.rig.sql.begin();
        let folder = self.folder.to_str().expect("a path of ours");
        self.rig.machine.psn_with_input(&[&["--project", folder], args].concat(), line)
    }

    /// Dies at the point, unless it never comes there.
    pub fn psn_dies(&self, args: &[&str], point: Point) -> Ended {
        self.rig.http.begin();
        self.rig.sql.begin();
        match point {
            Point { seam: Seam::Sql, number, moment } => self.rig.sql.die_at(number, moment),
            Point { seam: Seam::Http, number, moment: Moment::Sent } => self.rig.http.die_at(number),
            inside => return self.spawn(args, &[(DIE, &inside.to_string())]),
        }
        self.spawn(args, &[])
    }

    /// Every point of a run that ends well, in the order of the seams.
    pub fn points(&self, args: &[&str]) -> (Ended, Vec<Point>) {
        self.rig.http.begin();
        self.rig.sql.begin();
        let trace = self.folder.with_extension("trace");
        let ended = self.spawn(args, &[(TRACE, &trace.display().to_string())]);
        let text = std::fs::read_to_string(&trace).expect("a trace");
        let mut points: Vec<Point> = text
            .lines()
            .map(|line| line.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" ").parse().expect("a point"))
            .collect();
        let calls = self.rig.http.calls().len();
        points.extend((1..=calls).map(|number| Point { seam: Seam::Http, number, moment: Moment::Sent }));
        for number in 1..=self.rig.sql.calls() {
            let of = |moment| Point { seam: Seam::Sql, number, moment };
            points.extend([Moment::Before, Moment::Sent, Moment::After].map(of));
        }
        points.sort();
        points.dedup();
        (ended, points)
    }

    /// What is armed stays armed.
    pub fn spawn(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let (out, err) = (self.folder.with_extension("out"), self.folder.with_extension("err"));
        let started = Instant::now();
        let mut child = self
            .rig
            .machine
            .command(args)
            .current_dir(&self.folder)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&err).expect("a file"))
            .spawn()
            .expect("psn starts");
        self.rig.victim.is(&child);
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if started.elapsed() > LONGEST_RUN {
                let _ = child.kill();
                let _ = child.wait();
                panic!("psn {args:?} did not end within {LONGEST_RUN:?}:\n{}", read(&out));
            }
            std::thread::sleep(Duration::from_millis(4));
        };
        let elapsed = started.elapsed();
        let killed = status.signal() == Some(rustix::process::Signal::KILL.as_raw());
        let mut stdout = read(&out);
        if killed {
            // Its last line may be half of one.
            stdout.truncate(stdout.rfind('\n').map_or(0, |at| at + 1));
        }
        let output = std::process::Output { status, stdout: stdout.into_bytes(), stderr: read(&err).into_bytes() };
        Ended { answer: Answer::of(output), killed, elapsed }
    }

    pub fn secret(&self, name: &str) -> Option<String> {
        crate::secret_in(&self.folder, name)
    }

    /// Live Neon projects with this hub's exact name.
    pub fn neon_projects(&self) -> Vec<Value> {
        let (Some(id), Some(key)) = (self.secret("PSN_HUB_ID"), self.secret("NEON_API_KEY")) else { return Vec::new() };
        let name = format!("psn-hub-{id}");
        let organisations = self.rig.neon("GET", "/users/me/organizations", &key).json();
        let organisation = organisations["organizations"][0]["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/projects?limit=100&search={name}&org_id={organisation}");
        let reply = self.rig.neon("GET", &path, &key).json();
        let all = reply["projects"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|p| p["name"] == name.as_str()).collect()
    }

    /// Trigger.dev projects with this hub's exact name.
    pub fn trigger_projects(&self) -> Vec<Value> {
        let (Some(id), Some(token)) = (self.secret("PSN_HUB_ID"), self.secret("TRIGGER_ACCESS_TOKEN")) else {
            return Vec::new();
        };
        let name = format!("psn-hub-{id}");
        let all = self.rig.trigger("GET", "/api/v1/projects", &token).json();
        all.as_array().cloned().unwrap_or_default().into_iter().filter(|p| p["name"] == name.as_str()).collect()
    }
}

impl Drop for Case<'_> {
    /// Its database server would go on running.
    fn drop(&mut self) {
        let key = self.secret("NEON_API_KEY").unwrap_or_default();
        for project in self.neon_projects() {
            self.rig.neon("DELETE", &format!("/projects/{}", project["id"].as_str().unwrap_or_default()), &key);
        }
        let token = self.secret("TRIGGER_ACCESS_TOKEN").unwrap_or_default();
        for project in self.trigger_projects() {
            let path = format!("/api/v1/projects/{}", project["externalRef"].as_str().unwrap_or_default());
            self.rig.trigger("DELETE", &path, &token);
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
