//! One server: attach to it, start it, repair what a kill -9 left, stop it. The caller holds the cluster's lock.
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::account::Account;
use super::binaries::Binaries;
use super::config::{self, Network};
use super::place::Place;
use super::{PgError, port, process};
use crate::files;

/// Replaying the log of a long busy time can take a while.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// A fast shutdown writes a checkpoint.
const FAST_STOP: Duration = Duration::from_secs(30);
/// An immediate one writes nothing.
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);
/// Backends whose postmaster was killed notice it within a moment.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(2);
/// Short beside a start (45 ms and more).
const POLL: Duration = Duration::from_millis(4);
/// Bytes; one older generation is kept.
const LOG_MAX: u64 = 4 << 20;
/// Bytes of the log that go into an error.
const LOG_EXCERPT: u64 = 2_000;

/// `data/postmaster.pid`: process, data folder, start, port, socket folder, address, shared memory, status.
struct PidFile {
    pid: u32,
    started_at: u64,
    port: Option<u16>,
    ready: bool,
}

impl PidFile {
    fn read(place: &Place) -> Result<Option<PidFile>, PgError> {
        let file = place.data().join("postmaster.pid");
        let text = files::read_optional(&file).map_err(PgError::io("could not read", &file))?;
        Ok(text.and_then(|t| PidFile::parse(&t)))
    }

    /// `None` while the server is still writing it.
    fn parse(text: &str) -> Option<PidFile> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(PidFile {
            pid: lines.first()?.parse().ok()?,
            started_at: lines.get(2).and_then(|l| l.parse().ok()).unwrap_or(0),
            port: lines.get(3).and_then(|l| l.parse().ok()),
            ready: lines.get(7) == Some(&"ready"),
        })
    }
}

pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) port: u16,
}

/// The server if it runs, waiting for one that is on its way up or down.
pub(crate) async fn attach(place: &Place, network: Network<'_>) -> Result<Option<Running>, PgError> {
    let start = Instant::now();
    loop {
        let Some(found) = PidFile::read(place)? else {
            return Ok(None);
        };
        if !place.mark.is(found.pid) {
            return Ok(None);
        }
        if found.ready {
            if let Network::Loopback { tls, .. } = network
                && found.started_at <= tls.made_at
            {
                // It may have loaded the certificate before this one.
                process::signal(found.pid, Signal::HUP);
            }
            return Ok(Some(Running { pid: found.pid, port: found.port.unwrap_or(network.port()) }));
        }
        if start.elapsed() > START_TIMEOUT {
            return Err(timeout(place, 0));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(crate) async fn start(
    place: &Place,
    network: Network<'_>,
    binaries: &Binaries,
    account: Option<Account>,
) -> Result<Running, PgError> {
    end_leftovers(place).await?;
    let socket_dir = place.make_socket_dir(account)?;
    remove_stale_locks(place, &socket_dir, network.port())?;
    let taken = || port::taken(format!("the database server of {}", place.id), network.port());
    let listens = matches!(network, Network::Loopback { .. });
    if listens && !port::is_free(network.port()) {
        return Err(taken());
    }
    config::write(place, network, &socket_dir, binaries.major)?;

    let log = place.log();
    files::rotate(&log, LOG_MAX).map_err(PgError::io("could not rename", &log))?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .map_err(PgError::io("could not open", &log))?;
    let from = file.metadata().map_or(0, |m| m.len());
    let again = file.try_clone().map_err(PgError::io("could not open", &log))?;
    let mut command = binaries.command("postgres");
    command
        .arg("-D")
        .arg(&place.dir)
        .stdout(file)
        .stderr(again)
        // Ctrl-C in the terminal would be a fast shutdown of the database.
        .process_group(0);
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .map_err(PgError::io("could not run", &binaries.dir.join("postgres")))?;
    let pid = child.id().unwrap_or_default();
    // Waited for whenever it ends: a zombie would keep its own lock files in force.
    let exit = tokio::spawn(async move { child.wait().await });

    let begun = Instant::now();
    loop {
        if exit.is_finished() {
            let status = match exit.await {
                Ok(Ok(status)) => status.to_string(),
                _ => "unknown status".to_owned(),
            };
            if listens && !port::is_free(network.port()) {
                return Err(taken());
            }
            let log = files::tail(&log, from, LOG_EXCERPT).unwrap_or_default();
            return Err(PgError::StartFailed { id: place.id.clone(), status, log });
        }
        if PidFile::read(place)?.is_some_and(|f| f.pid == pid && f.ready) {
            tracing::info!(cluster = %place.id, pid, port = network.port(), version = %binaries.version,
                bin = %binaries.dir.display(), layer = ?binaries.layer, "started Postgres");
            return Ok(Running { pid, port: network.port() });
        }
        if begun.elapsed() > START_TIMEOUT {
            return Err(timeout(place, from));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn timeout(place: &Place, from: u64) -> PgError {
    PgError::StartTimeout {
        id: place.id.clone(),
        seconds: START_TIMEOUT.as_secs(),
        log: files::tail(&place.log(), from, LOG_EXCERPT).unwrap_or_default(),
    }
}

/// Backends of a postmaster that was killed still use the data: no new one may start beside them.
async fn end_leftovers(place: &Place) -> Result<(), PgError> {
    for signal in [None, Some(Signal::QUIT), Some(Signal::KILL)] {
        let left = place.mark.processes();
        if left.is_empty() {
            return Ok(());
        }
        if let Some(signal) = signal {
            left.iter().for_each(|pid| process::signal(*pid, signal));
        }
        let start = Instant::now();
        let there = |pid: &u32| place.mark.is(*pid) || process::exiting(*pid);
        while left.iter().any(there) && start.elapsed() < LEFTOVER_PATIENCE {
            tokio::time::sleep(POLL).await;
        }
    }
    match place.mark.processes().first() {
        None => Ok(()),
        Some(pid) => Err(PgError::StopTimeout { id: place.id.clone(), pid: *pid }),
    }
}

/// Two lock files name a process. Postgres refuses both while that process exists, even as a zombie or as a stranger that
/// got the number later. This cluster has no processes here, so a number that is in use is not the server's. A number
/// that is not in use is left to Postgres, which then also checks the shared memory that the file names.
fn remove_stale_locks(place: &Place, socket_dir: &Path, port: u16) -> Result<(), PgError> {
    let locks = [place.data().join("postmaster.pid"), socket_dir.join(format!(".s.PGSQL.{port}.lock"))];
    for file in locks {
        let text = files::read_optional(&file).map_err(PgError::io("could not read", &file))?;
        let Some(pid) = text.as_deref().and_then(|t| t.lines().next()?.trim().parse::<u32>().ok()) else {
            continue;
        };
        if process::exists(pid) && !place.mark.is(pid) {
            tracing::warn!(cluster = %place.id, pid, file = %file.display(), "removed a lock file of a server that is gone");
            files::remove_file(&file).map_err(PgError::io("could not delete", &file))?;
        }
    }
    Ok(())
}

/// Fast, then immediate. Says whether anything ran.
pub(crate) async fn stop(place: &Place) -> Result<bool, PgError> {
    let Some(pid) = PidFile::read(place)?.map(|f| f.pid).filter(|pid| place.mark.is(*pid)) else {
        let leftovers = !place.mark.processes().is_empty();
        end_leftovers(place).await?;
        return Ok(leftovers);
    };
    for (signal, patience) in [(Signal::INT, FAST_STOP), (Signal::QUIT, IMMEDIATE_STOP)] {
        process::signal(pid, signal);
        let start = Instant::now();
        // Until its ports are free as well.
        while place.mark.is(pid) || process::exiting(pid) {
            if start.elapsed() > patience {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        if !place.mark.is(pid) {
            end_leftovers(place).await?;
            tracing::info!(cluster = %place.id, pid, "stopped Postgres");
            return Ok(true);
        }
    }
    Err(PgError::StopTimeout { id: place.id.clone(), pid })
}

/// Whether the postmaster is there.
pub(crate) fn runs(place: &Place) -> bool {
    matches!(PidFile::read(place), Ok(Some(found)) if place.mark.is(found.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_is_read_whole_and_half_written() {
        let whole = "4711\n/d\n1700000000\n23456\n/s\n127.0.0.1\n  123 456\nready   \n";
        let found = PidFile::parse(whole).unwrap();
        assert_eq!((found.pid, found.port, found.started_at), (4711, Some(23456), 1_700_000_000));
        assert!(found.ready);
        assert!(!PidFile::parse(&whole.replace("ready", "starting")).unwrap().ready);
        assert!(!PidFile::parse("4711\n").unwrap().ready);
        assert!(PidFile::parse("").is_none());
    }
}
