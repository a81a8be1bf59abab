//! The pooled port of a cluster: a real pgbouncer in transaction mode, as on Neon, so that what does not survive a pooler (SET,
//! session locks, LISTEN) does not survive here either. Without pgbouncer the pooled address is the direct one.
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

use super::account::Account;
use super::place::{Place, hand_over};
use super::process::Mark;
use super::tls::Tls;
use super::{PgError, SUPERUSER, port, process};
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

fn mark(place: &Place) -> Mark {
    Mark::of_last_argument(&config_file(place).to_string_lossy())
}

/// The running one, if it was told of this port and certificate.
fn running(place: &Place) -> Option<u32> {
    mark(place).processes().first().copied()
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
    let begun = Instant::now();
    loop {
        let ended = exit.is_finished();
        if !ended && tokio::net::TcpStream::connect(("127.0.0.1", pooled.port)).await.is_ok() {
            tracing::info!(cluster = %place.id, pid, port = pooled.port, "started pgbouncer");
            return Ok(());
        }
        if ended || begun.elapsed() > START_PATIENCE {
            process::signal(pid, Signal::KILL);
            let log = files::tail(&log, from, LOG_EXCERPT).unwrap_or_default();
            return Err(PgError::PoolerFailed { id: place.id.clone(), log });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Says whether one ran. There is nothing in it that could be lost.
pub(crate) async fn stop(place: &Place) -> bool {
    let mark = mark(place);
    let mut ran = false;
    for signal in [Signal::TERM, Signal::KILL] {
        let pids = mark.processes();
        if pids.is_empty() {
            return ran;
        }
        ran = true;
        pids.iter().for_each(|pid| process::signal(*pid, signal));
        let begun = Instant::now();
        while !mark.processes().is_empty() && begun.elapsed() < STOP_PATIENCE {
            tokio::time::sleep(POLL).await;
        }
    }
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
