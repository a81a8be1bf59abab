//! From outside of the daemon: up, attach, down, reset.
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use url::Url;

use super::http;
use super::records::{HubFile, Ports};
use super::{DaemonCommand, Endpoints, Home, HubError, UpOptions};
use crate::files::{self, FileLock};
use crate::pg;

/// Covers a first start by the holder: initdb and two clusters on a slow disk.
const LOCK_PATIENCE: Duration = Duration::from_secs(300);
const START_PATIENCE: Duration = Duration::from_secs(240);
/// The services drain for up to 35 s, then each Postgres has 40 s to stop; most take 0.1 s.
const STOP_PATIENCE: Duration = Duration::from_secs(180);
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Short beside a start of the daemon (200 ms and more).
const POLL: Duration = Duration::from_millis(20);
/// Bytes of the log that go into an error.
const LOG_EXCERPT: u64 = 2_000;
/// A reset that another psn did meanwhile takes the lock's folder away.
const LOCK_TRIES: usize = 3;

pub(super) async fn attach(home: &Home) -> Result<Option<Endpoints>, HubError> {
    Ok(healthy(home).await?.map(|hub| hub.endpoints))
}

/// What `hub.json` says, if that very daemon answers on both ports.
pub(super) async fn healthy(home: &Home) -> Result<Option<HubFile>, HubError> {
    let Some(hub) = home.hub_file()? else {
        return Ok(None);
    };
    let answers = async |url: &Url| match url.port() {
        Some(port) => http::ask(port).await.is_some_and(|h| h.instance == hub.instance && h.pid == hub.endpoints.pid),
        None => false,
    };
    let both = answers(&hub.endpoints.neon).await && answers(&hub.endpoints.trigger).await;
    Ok(both.then_some(hub))
}

pub(super) async fn up(home: &Home, daemon: &DaemonCommand, opts: &UpOptions) -> Result<Endpoints, HubError> {
    // Without the lock, since most calls find it running.
    let fits = |e: &Endpoints| e.version == opts.version && !opts.new_ports;
    if let Some(endpoints) = attach(home).await?.filter(fits) {
        return Ok(endpoints);
    }
    let _lock = lock(home).await?;
    if let Some(endpoints) = attach(home).await?.filter(fits) {
        return Ok(endpoints);
    }
    // Another version, one that does not answer, or one whose ports shall change.
    drop(stop_daemon(home).await?);
    if opts.new_ports {
        renew_taken_ports(home)?;
    }
    start(home, daemon).await
}

async fn start(home: &Home, daemon: &DaemonCommand) -> Result<Endpoints, HubError> {
    home.forget_startup_error()?;
    let log = home.hub_log();
    files::rotate(&log, http::LOG_MAX).map_err(HubError::io("could not rename", &log))?;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .map_err(HubError::io("could not open", &log))?;
    let from = file.metadata().map_or(0, |m| m.len());
    let again = file.try_clone().map_err(HubError::io("could not open", &log))?;

    let program = absolute_program(&daemon.program);
    let mut command = tokio::process::Command::new(&program);
    command
        .args(&daemon.args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        // Ctrl-C at the terminal is not meant for the daemon.
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        // libpq's variables, meant for a database of the person's, would reach the services' own connections.
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    if let Some(bin) = std::env::var_os("PSN_PG_BIN").filter(|b| !b.is_empty()) {
        // The daemon runs in `/`.
        command.env("PSN_PG_BIN", std::path::absolute(&bin).map_or(bin, OsString::from));
    }
    command.envs(daemon.env.iter().map(|(name, value)| (name, value)));
    let mut child = command.spawn().map_err(|source| HubError::Spawn { program, source })?;

    let begun = Instant::now();
    loop {
        if let Some(hub) = healthy(home).await? {
            return Ok(hub.endpoints);
        }
        let excerpt = || files::tail(&log, from, LOG_EXCERPT).unwrap_or_default();
        if let Some(status) = child.try_wait().map_err(HubError::io("could not wait for", &daemon.program))? {
            let said = home.startup_error();
            return Err(said.unwrap_or_else(|| HubError::DaemonDied { status: status.to_string(), log: excerpt() }));
        }
        if begun.elapsed() > START_PATIENCE {
            // It was asked to get ready and did not: what is left must not surprise the next start.
            if let Some(pid) = child.id() {
                pg::signal(pid, Signal::TERM);
            }
            return Err(HubError::DaemonTimeout { seconds: START_PATIENCE.as_secs(), log: excerpt() });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A name without a slash is looked up on the PATH; anything else must not depend on the working folder.
fn absolute_program(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        std::path::absolute(program).unwrap_or_else(|_| program.to_owned())
    } else {
        program.to_owned()
    }
}

fn renew_taken_ports(home: &Home) -> Result<(), HubError> {
    let mut ports = home.ports()?;
    let clusters = pg::recorded_ports(&home.path().join("pg"));
    for port in [&mut ports.neon, &mut ports.trigger] {
        if port.is_some_and(|p| !pg::port::is_free(p)) {
            *port = None;
        }
    }
    let Ports { neon, trigger } = &mut ports;
    let mut reserved = clusters;
    reserved.extend(neon.iter().chain(trigger.iter()));
    for port in [neon, trigger] {
        if port.is_none() {
            let fresh = pg::port::free(&reserved)?;
            reserved.insert(fresh);
            *port = Some(fresh);
        }
    }
    home.write_ports(&ports)?;
    pg::renew_taken_ports(home.path(), &reserved)?;
    Ok(())
}

pub(super) async fn down(home: &Home) -> Result<bool, HubError> {
    if !home.recognise()? {
        return Ok(false);
    }
    let _lock = lock(home).await?;
    let (_daemon, ran) = stop_all(home).await?;
    Ok(ran)
}

pub(super) async fn reset(home: &Home) -> Result<(), HubError> {
    if home.path().is_symlink() {
        let reason = "it is a symbolic link; delete what it points to yourself";
        return Err(HubError::NotAHome { path: home.path().to_owned(), reason });
    }
    if !home.recognise()? {
        return Ok(());
    }
    let _lock = lock(home).await?;
    let (_daemon, _) = stop_all(home).await?;
    pg::remove_outside(home.path())?;
    home.delete()
}

/// The daemon, then every Postgres, also those that a killed daemon left. The daemon's lock keeps a new one out.
async fn stop_all(home: &Home) -> Result<(FileLock, bool), HubError> {
    let (daemon, daemon_ran) = stop_daemon(home).await?;
    home.remove_hub_file()?;
    let postgres_ran = pg::stop_home(home.path()).await?;
    Ok((daemon, daemon_ran || postgres_ran))
}

/// The daemon's lock, taken over from the daemon if there was one.
async fn stop_daemon(home: &Home) -> Result<(FileLock, bool), HubError> {
    let file = home.daemon_lock();
    let acquire = |patience| {
        let file = file.clone();
        async move { FileLock::acquire(&file, patience).await.map_err(HubError::io("could not lock", &file)) }
    };
    if let Some(lock) = acquire(Duration::ZERO).await? {
        return Ok((lock, false));
    }
    // Only the holder of the lock writes its number there, and the kernel takes the lock from a process that is gone:
    // the number is that of a living daemon.
    for (signal, patience) in [(Signal::TERM, STOP_PATIENCE), (Signal::KILL, KILL_PATIENCE)] {
        if let Some(holder) = home.holder() {
            tracing::info!(pid = holder.pid, ?signal, "stopping the local hub");
            pg::signal(holder.pid, signal);
        }
        if let Some(lock) = acquire(patience).await? {
            return Ok((lock, true));
        }
    }
    Err(HubError::DaemonStuck { pid: home.holder().map_or(0, |h| h.pid) })
}

/// One psn at a time starts or stops the hub.
async fn lock(home: &Home) -> Result<FileLock, HubError> {
    let file = home.up_lock();
    let mut tries = 0;
    loop {
        home.prepare()?;
        match FileLock::acquire(&file, LOCK_PATIENCE).await {
            Ok(Some(lock)) => {
                // A reset may have emptied the folder before this lock was had.
                home.prepare()?;
                return Ok(lock);
            }
            Ok(None) => {
                return Err(HubError::Busy { seconds: LOCK_PATIENCE.as_secs() });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && tries < LOCK_TRIES => tries += 1,
            Err(e) => return Err(HubError::io("could not lock", &file)(e)),
        }
    }
}
