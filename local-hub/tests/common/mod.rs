//! A Home in a temporary folder, whose servers end with the test.
#![allow(dead_code, reason = "each test file uses a part")]
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use psn_local_hub::pg::{ClusterInfo, Clusters, PgOptions};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection, Row as _};

pub struct TempHome {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl TempHome {
    pub fn new() -> TempHome {
        TempHome::named("hub")
    }

    pub fn named(name: &str) -> TempHome {
        let dir = tempfile::Builder::new().prefix("psn").tempdir().unwrap();
        // The account that runs Postgres when the tests run as root must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join(name);
        TempHome { dir, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    pub fn clusters(&self) -> Clusters {
        self.clusters_with(PgOptions::default())
    }

    pub fn clusters_with(&self, options: PgOptions) -> Clusters {
        fs::create_dir_all(&self.path).unwrap();
        Clusters::open(&self.path, options).unwrap()
    }

    pub fn cluster_dir(&self, id: &str) -> PathBuf {
        fs::canonicalize(self.path.join("pg").join(id)).unwrap()
    }

    pub fn data(&self, id: &str) -> PathBuf {
        self.cluster_dir(id).join("data")
    }
}

impl Drop for TempHome {
    fn drop(&mut self) {
        let clusters = fs::read_dir(self.path.join("pg")).into_iter().flatten().flatten();
        for entry in clusters {
            let Ok(dir) = fs::canonicalize(entry.path()) else {
                continue;
            };
            for pid in processes(&dir).into_iter().chain(poolers(&dir)) {
                kill(pid, Signal::KILL);
            }
        }
    }
}

pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// The processes of the cluster in `dir`: those whose working folder is its data.
pub fn processes(dir: &Path) -> Vec<u32> {
    let data = dir.join("data");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data))
        .collect()
}

/// The poolers of the cluster in `dir`: their last argument is its pooler's settings.
pub fn poolers(dir: &Path) -> Vec<u32> {
    let ini = dir.join("pgbouncer.ini");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let last = arguments.split(|b| *b == 0).rfind(|a| !a.is_empty());
            let is_pooler = arguments.split(|b| *b == 0).next().is_some_and(|a| a.ends_with(b"pgbouncer"));
            is_pooler && last.is_some_and(|a| a == ini.as_os_str().as_encoded_bytes())
        })
        .collect()
}

pub async fn until_gone(dir: &Path) {
    while !processes(dir).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub fn uid_of(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

pub async fn superuser(info: &ClusterInfo) -> PgConnection {
    info.superuser_options("postgres").disable_statement_logging().connect().await.unwrap()
}

pub async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

pub async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    let row = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap();
    row.get(0)
}

/// As a client of the vendor comes: over TCP with a verified certificate.
pub fn client(clusters: &Clusters, info: &ClusterInfo, role: &str, password: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(info.port)
        .username(role)
        .password(password)
        .database("postgres")
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(clusters.ca_pem())
}

pub fn lives(pid: u32) -> bool {
    // A zombie is dead: its state follows the name in parentheses. Unless other threads of it are still on their way out: until the
    // last one is gone, its files and sockets are open.
    let is_zombie = |stat: String| stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z');
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count());
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !is_zombie(stat) || threads() > 1)
}

/// A signal is delivered a moment after it is sent.
pub async fn until_dead(pid: u32) {
    while lives(pid) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
