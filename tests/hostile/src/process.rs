//! One run of psn, as the operating system sees it.
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use crate::SuiteError;

/// How often the memory of a process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The most of its output that is kept, in bytes. Reading goes on, so that psn is not held up.
const MAX_OUTPUT: usize = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// From the first `running` event to the last event; from start to end where there is none.
    pub(crate) at_work: Duration,
    /// It had to be killed.
    pub(crate) killed: bool,
    /// Bytes of memory at the highest point, where the system tells.
    pub(crate) memory: u64,
}

/// Runs it to its end, or kills it after `limit`.
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<Ran, SuiteError> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(SuiteError::io("psn does not start"))?;
    let pid = child.id();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut stderr = child.stderr.take().expect("piped");
    let reading = async move {
        let (mut bytes, mut line) = (Vec::new(), Vec::new());
        let (mut running, mut last) = (None, started);
        while stdout.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
            last = Instant::now();
            if running.is_none() && crate::canary::contains(&line, br#""status":"running""#) {
                running = Some(last);
            }
            if bytes.len() < MAX_OUTPUT {
                bytes.append(&mut line);
            }
            line.clear();
        }
        (bytes, last - running.unwrap_or(started))
    };
    let complaining = async move {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes).await;
        bytes
    };
    let output = tokio::spawn(async move { tokio::join!(reading, complaining) });
    let mut memory = 0;
    let (mut killed, mut code) = (false, None);
    loop {
        tokio::select! {
            status = child.wait() => {
                code = status.map_err(SuiteError::io("waiting for psn"))?.code();
                break;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        memory = memory.max(pid.map_or(0, high_water_mark));
        if started.elapsed() > limit {
            killed = true;
            child.kill().await.map_err(SuiteError::io("psn cannot be killed"))?;
            break;
        }
    }
    let ((stdout, at_work), stderr) =
        output.await.map_err(|e| SuiteError::io("reading psn's output")(std::io::Error::other(e)))?;
    Ok(Ran { code, stdout, stderr, at_work, killed, memory })
}

/// Linux tells the most that a process ever had in memory.
fn high_water_mark(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}
