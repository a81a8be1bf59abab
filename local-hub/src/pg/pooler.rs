//! The pooled port of a cluster: a real pgbouncer in transaction mode, as on Neon, so that what does not survive a pooler (SET,
//! session locks, LISTEN) does not survive here either. Without pgbouncer the pooled address is the direct one
//! (`forward.rs`).
//!
//! It asks Postgres for the verifier of each role that logs in (`auth_query`), and so knows roles made with SQL too. pgbouncer
//! offers no channel binding: a pooled connection string cannot ask for it.
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::place::{Place, hand_over};
use super::process::Mark;
use super::tls::Tls;
use super::{LOCKS, PgError, SUPERUSER, port, process, server};
use crate::files;

/// A path, or `off`.
pub(crate) const ENV: &str = "PSN_PGBOUNCER";
const OFF: &str = "off";
/// Not on every account's PATH.
const FOLDERS: [&str; 5] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"];
/// Listening takes milliseconds.
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(4);
const LOG_MAX: u64 = 1 << 20;
const LOG_EXCERPT: u64 = 2_000;
/// Of the 50 connections that a cluster allows; the rest is for direct ones and for psn's own.
const SERVER_CONNECTIONS: u32 = 20;
/// Waiting costs a client nothing but memory.
const CLIENT_CONNECTIONS: u32 = 500;

/// Whether and which pgbouncer is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PoolerChoice {
    /// PSN_PGBOUNCER, then what the system has.
    #[default]
    Find,
    /// None, also where there is one.
    Off,
}

pub(crate) fn find(choice: &PoolerChoice) -> Option<PathBuf> {
    if *choice == PoolerChoice::Off {
        return None;
    }
    match std::env::var_os(ENV).filter(|value| !value.is_empty()) {
        Some(value) if value == OFF => None,
        Some(value) => Some(PathBuf::from(value)).filter(|file| file.is_file()),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .chain(FOLDERS.map(PathBuf::from))
                .filter(|dir| dir.is_absolute())
                .map(|dir| dir.join("pgbouncer"))
                .find(|file| file.is_file())
        }
    }
}

/// `PgBouncer 1.18.0`
pub(crate) fn version(program: &Path) -> Option<String> {
    let out = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&out.stdout);
    Some(said.lines().next()?.trim().to_owned()).filter(|line| line.starts_with("PgBouncer "))
}

/// What is pooled, and how.
pub(crate) struct Pooled<'a> {
    pub(crate) place: &'a Place,
    pub(crate) tls: &'a Tls,
    pub(crate) account: Option<Account>,
    /// Of the Postgres behind it; a part of the socket's name.
    pub(crate) server_port: u16,
    pub(crate) port: u16,
    pub(crate) password: &'a str,
}

fn config_file(place: &Place) -> PathBuf {
    place.dir.join("pgbouncer.ini")
}

pub(crate) fn log_file(place: &Place) -> PathBuf {
    place.dir.join("pgbouncer.log")
}

/// Which process is the pooler of a cluster. Beside the cluster's lock, so that it outlives the cluster's folder: a killed daemon's
/// pooler goes on whatever becomes of the rest, and a command line alone could be a stranger's who has the settings open.
#[derive(Serialize, Deserialize)]
struct Recorded {
    pid: u32,
    began: String,
}

const RECORD: &str = "pooler";

fn record_file(place: &Place) -> PathBuf {
    let pg_dir = place.dir.parent().unwrap_or(&place.dir);
    pg_dir.join(LOCKS).join(format!("{}.{RECORD}", place.id))
}

fn record(place: &Place, pid: u32) -> Result<(), PgError> {
    let file = record_file(place);
    let recorded = Recorded { pid, began: process::began(pid).unwrap_or_default() };
    let text = serde_json::to_vec(&recorded).expect("a number and a text are JSON");
    files::write_atomic(&file, &text, 0o600).map_err(PgError::io("could not write", &file))
}

/// What cannot be deleted is found stale later.
fn forget(place: &Place) {
    let _ = std::fs::remove_file(record_file(place));
}

/// By what the kernel says is its command line.
fn mark(place: &Place) -> Mark {
    Mark::of_last_argument(&config_file(place).to_string_lossy())
}

/// The process that was recorded, if it is still that one.
fn recorded(place: &Place) -> Option<u32> {
    let text = files::read_optional(&record_file(place)).ok()??;
    let Recorded { pid, began } = serde_json::from_str(&text).ok()?;
    (process::began(pid).as_deref() == Some(began.as_str()) && mark(place).is(pid)).then_some(pid)
}

/// The recorded one; else one that a daemon was killed beside before it had recorded it, which is a pgbouncer by name.
fn running(place: &Place) -> Option<u32> {
    let by_name = || mark(place).processes().into_iter().find(|pid| process::is_program(*pid, "pgbouncer"));
    recorded(place).or_else(by_name)
}

/// Ends recorded poolers whose cluster has no folder any more, or does not run: nobody attaches to them. Answers how many.
pub(crate) async fn end_orphans(pg_dir: &Path) -> usize {
    let mut ended = 0;
    for entry in std::fs::read_dir(pg_dir.join(LOCKS)).into_iter().flatten().flatten() {
        let name = PathBuf::from(entry.file_name());
        let id =
            name.file_stem().and_then(|stem| stem.to_str()).filter(|_| name.extension().is_some_and(|e| e == RECORD));
        let Some(place) = id.and_then(|id| Place::new(pg_dir, id).ok()) else { continue };
        match recorded(&place) {
            Some(pid) if !server::runs(&place) => {
                tracing::warn!(cluster = %place.id, pid, "ending the pooler of a cluster that does not run");
                ended += usize::from(stop(&place).await);
            }
            Some(_) => {}
            None if place.dir.exists() => {}
            None => forget(&place),
        }
    }
    ended
}

pub(crate) fn runs(place: &Place) -> bool {
    running(place).is_some()
}

/// Attaches when it runs on this port, else starts it.
pub(crate) async fn ensure(program: &Path, pooled: &Pooled<'_>) -> Result<(), PgError> {
    let place = pooled.place;
    let text = settings(pooled);
    let file = config_file(place);
    let kept = files::read_optional(&file).map_err(PgError::io("could not read", &file))?;
    if let Some(pid) = running(place) {
        if kept.as_deref() == Some(&text) {
            // A renewed certificate is taken over with the rest of the configuration.
            process::signal(pid, Signal::HUP);
            return Ok(());
        }
        stop(place).await;
    }
    if !port::is_free(pooled.port) {
        return Err(port::taken(format!("the pooled port of {}", place.id), pooled.port));
    }
    write(pooled, &text)?;
    start(program, pooled).await
}

fn write(pooled: &Pooled<'_>, settings: &str) -> Result<(), PgError> {
    let place = pooled.place;
    let put = |file: &Path, text: &str, mode| {
        files::write_atomic(file, text.as_bytes(), mode).map_err(PgError::io("could not write", file))
    };
    put(&config_file(place), settings, 0o644)?;
    put(&hba_file(place), &hba(), 0o644)?;
    let users = users_file(place);
    // For the account that runs the servers, which owns the data anyway.
    put(&users, &format!("\"{SUPERUSER}\" \"{}\"\n", pooled.password), 0o600)?;
    hand_over(&users, pooled.account)
}

fn hba_file(place: &Place) -> PathBuf {
    place.dir.join("pgbouncer_hba.conf")
}

fn users_file(place: &Place) -> PathBuf {
    place.dir.join("pgbouncer_users.txt")
}

/// As the cluster's own pg_hba.conf: the superuser does not come from the network, nobody comes without TLS.
fn hba() -> String {
    format!("hostssl all {SUPERUSER} all reject\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
}

fn settings(pooled: &Pooled<'_>) -> String {
    let Pooled { place, tls, server_port, port, .. } = pooled;
    let socket = place.socket_dir().to_string_lossy().replace('\'', "''");
    let path = |file: &Path| file.to_string_lossy().into_owned();
    format!(
        "; Written by psn at each start: changes are lost.\n\
         [databases]\n* = host='{socket}' port={server_port}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         pool_mode = transaction\nserver_reset_query =\n\
         default_pool_size = {SERVER_CONNECTIONS}\nmax_db_connections = {SERVER_CONNECTIONS}\nmax_client_conn = {CLIENT_CONNECTIONS}\n\
         auth_type = hba\nauth_hba_file = {hba}\nauth_file = {users}\nauth_user = {SUPERUSER}\n\
         auth_query = SELECT rolname, CASE WHEN rolvaliduntil <= now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin\n\
         client_tls_sslmode = require\nclient_tls_key_file = {key}\nclient_tls_cert_file = {cert}\n\
         server_tls_sslmode = disable\nserver_login_retry = 1\n\
         ignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
        hba = path(&hba_file(place)),
        users = path(&users_file(place)),
        key = path(&tls.key),
        cert = path(&tls.cert),
    )
}

async fn start(program: &Path, pooled: &Pooled<'_>) -> Result<(), PgError> {
    let place = pooled.place;
    let log = log_file(place);
    files::rotate(&log, LOG_MAX).map_err(PgError::io("could not rename", &log))?;
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let file = open.map_err(PgError::io("could not open", &log))?;
    let from = file.metadata().map_or(0, |m| m.len());
    let again = file.try_clone().map_err(PgError::io("could not open", &log))?;
    let mut command = Command::new(program);
    command
        .arg(config_file(place))
        .env_clear()
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        .process_group(0);
    if let Some(account) = pooled.account {
        command.uid(account.uid).gid(account.gid);
    }
    let mut child = tokio::process::Command::from(command).spawn().map_err(PgError::io("could not run", program))?;
    let pid = child.id().unwrap_or_default();
    let exit = tokio::spawn(async move { child.wait().await });
    if let Err(error) = record(place, pid) {
        process::signal(pid, Signal::KILL);
        return Err(error);
    }
    let begun = Instant::now();
    loop {
        let ended = exit.is_finished();
        if !ended && tokio::net::TcpStream::connect(("127.0.0.1", pooled.port)).await.is_ok() {
            tracing::info!(cluster = %place.id, pid, port = pooled.port, "started pgbouncer");
            return Ok(());
        }
        if ended || begun.elapsed() > START_PATIENCE {
            process::signal(pid, Signal::KILL);
            forget(place);
            let log = files::tail(&log, from, LOG_EXCERPT).unwrap_or_default();
            return Err(PgError::PoolerFailed { id: place.id.clone(), log });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Says whether one ran. There is nothing in it that could be lost.
pub(crate) async fn stop(place: &Place) -> bool {
    let mut ran = false;
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(pid) = running(place) else { break };
        ran = true;
        process::signal(pid, signal);
        let begun = Instant::now();
        while (running(place) == Some(pid) || process::exiting(pid)) && begun.elapsed() < STOP_PATIENCE {
            tokio::time::sleep(POLL).await;
        }
    }
    forget(place);
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_pool_by_transaction_over_tls_and_keep_the_superuser_out() {
        let place = Place::new(Path::new("/x"), "y").unwrap();
        let file = |name: &str| PathBuf::from(format!("/t/{name}"));
        let tls = Tls { cert: file("crt"), key: file("key"), ca: file("ca"), made_at: 0 };
        let text = settings(&Pooled {
            place: &place,
            tls: &tls,
            account: None,
            server_port: 20_001,
            port: 20_002,
            password: "npg_canary",
        });
        for line in [
            "* = host='/x/y/s' port=20001\n",
            "listen_addr = 127.0.0.1\nlisten_port = 20002\n",
            "pool_mode = transaction\n",
            "client_tls_sslmode = require\n",
            "auth_type = hba\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("npg_canary"));
        assert!(hba().starts_with("hostssl all cloud_admin all reject\n"));
        assert!(!hba().contains("hostnossl") && !hba().contains("trust"));
    }

    #[test]
    fn it_can_be_turned_off() {
        assert_eq!(find(&PoolerChoice::Off), None);
    }
}
