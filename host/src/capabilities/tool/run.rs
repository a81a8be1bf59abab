//! Runs one program: without a shell, with a clean environment, in a process group of its own that ends with the run.
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::Instant;

use crate::boundary::{self, Kind, Phase};

/// Bytes of one stream that are read; what follows is thrown away as it comes, so that the program is not held up.
const MAX_READ: usize = 4 << 20;

/// At the end of a stream that was cut, this much may be the beginning of a secret. Bytes.
const CUT_MARGIN: usize = 4 * 1024;

/// How long the streams may stay open after the program ended and its group was killed. Only what left the group can hold them.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Programs by name, found once.
pub(super) struct Programs {
    path: OsString,
    found: BTreeMap<String, PathBuf>,
}

impl Programs {
    pub(super) fn on_path(path: Option<OsString>) -> Self {
        Self { path: path.unwrap_or_default(), found: BTreeMap::new() }
    }

    pub(super) fn path(&self) -> &OsStr {
        &self.path
    }

    /// The first program of that name in the absolute folders of PATH: what lies in the current folder is nobody's choice.
    pub(super) fn find(&mut self, name: &str) -> Option<PathBuf> {
        if let Some(found) = self.found.get(name) {
            return Some(found.clone());
        }
        let found = std::env::split_paths(&self.path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(name))
            .find(|file| is_program(file))?;
        self.found.insert(name.to_owned(), found.clone());
        Some(found)
    }
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What a program did.
pub(super) struct Ran {
    pub(super) exit_code: i32,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// What was read of a stream.
#[derive(Default)]
pub(super) struct Captured {
    pub(super) bytes: Vec<u8>,
    /// Bytes that were thrown away.
    pub(super) lost: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("it could not be started: {0}")]
    NotStarted(#[source] std::io::Error),
    #[error("the call's deadline passed before it ended; it was killed")]
    Deadline,
    #[error("its end could not be awaited: {0}")]
    Lost(#[source] std::io::Error),
}

/// Kills the process group when dropped: also when the call is given up in the middle.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

pub(super) async fn run(
    program: &Path,
    args: &[String],
    env: BTreeMap<String, OsString>,
    cwd: &Path,
    until: Instant,
) -> Result<Ran, RunError> {
    boundary::passed(Kind::Tool, Phase::Before, || program.display().to_string());
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(env)
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(RunError::NotStarted)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // Read beside waiting, or a program with much to say would never end.
    let (mut out, mut err) = (Captured::default(), Captured::default());
    let status = {
        let reading = async { tokio::join!(read(stdout, &mut out), read(stderr, &mut err)) };
        let mut reading = std::pin::pin!(reading);
        let mut drained = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.map_err(RunError::Lost)?,
                _ = &mut reading, if !drained => drained = true,
                () = tokio::time::sleep_until(until) => return Err(RunError::Deadline),
            }
        };
        // What it left running in the background ends with it.
        drop(group);
        if !drained {
            let _ = tokio::time::timeout(DRAIN_LIMIT, &mut reading).await;
        }
        status
    };
    boundary::passed(Kind::Tool, Phase::After, || program.display().to_string());
    Ok(Ran { exit_code: exit_code(status), stdout: out, stderr: err })
}

async fn read(stream: Option<impl AsyncRead + Unpin>, into: &mut Captured) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 * 1024];
    // An error ends a stream like its end does.
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = (MAX_READ - into.bytes.len()).min(n);
        into.bytes.extend_from_slice(&buffer[..room]);
        into.lost += (n - room) as u64;
    }
}

/// As a shell says it: 128 and the signal's number for a program that was killed.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

impl Captured {
    /// As text, passed through `redact`, at most `max` bytes of the beginning and the end.
    pub(super) fn shown(mut self, max: usize, redact: impl FnOnce(&str) -> String) -> String {
        if self.lost > 0 {
            let keep = self.bytes.len().saturating_sub(CUT_MARGIN);
            self.lost += (self.bytes.len() - keep) as u64;
            self.bytes.truncate(keep);
        }
        let text = redact(&String::from_utf8_lossy(&self.bytes));
        if text.len() <= max && self.lost == 0 {
            return text;
        }
        // The beginning says what was run, the end how it went.
        let head = text.floor_char_boundary((max / 4).min(text.len()));
        let tail = text.ceil_char_boundary(text.len().saturating_sub(max - max / 4)).max(head);
        let left_out = (tail - head) as u64 + self.lost;
        let end = if self.lost > 0 { "\n[the end was not kept]" } else { "" };
        format!("{}\n[{left_out} bytes left out]\n{}{end}", &text[..head], &text[tail..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_absolute_folders_only() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for (folder, name, mode) in
            [(&first, "plain", 0o644), (&second, "plain", 0o755), (&first, "both", 0o755), (&second, "both", 0o755)]
        {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(first.join("folder")).unwrap();
        let path = std::env::join_paths([Path::new("."), Path::new(""), &first, &second]).unwrap();
        let mut programs = Programs::on_path(Some(path));
        assert_eq!(programs.find("plain"), Some(second.join("plain")), "not the one that cannot be executed");
        assert_eq!(programs.find("both"), Some(first.join("both")));
        assert_eq!(programs.find("folder"), None);
        assert_eq!(programs.find("src"), None, "the current folder is not searched");
        std::fs::remove_file(first.join("both")).unwrap();
        assert_eq!(programs.find("both"), Some(first.join("both")), "found once");
        assert_eq!(Programs::on_path(None).find("sh"), None);
    }

    #[test]
    fn long_output_keeps_its_beginning_and_its_end() {
        let captured = |text: &str, lost| Captured { bytes: text.as_bytes().to_vec(), lost };
        assert_eq!(captured("short", 0).shown(100, str::to_owned), "short");
        let text = format!("begin{}end", "ä".repeat(1_000));
        let shown = captured(&text, 0).shown(100, str::to_owned);
        assert!(shown.starts_with("begin") && shown.ends_with("end") && shown.contains("bytes left out"), "{shown}");
        assert!(shown.len() < 150);
        let shown = captured(&format!("{}secr", "x".repeat(CUT_MARGIN)), 10).shown(100, str::to_owned);
        assert!(!shown.contains("secr"), "what may be the beginning of a secret is not shown: {shown}");
        assert!(
            Captured { bytes: vec![b'a', 0xff, b'b'], lost: 0 }.shown(100, str::to_owned).starts_with("a\u{fffd}b")
        );
    }
}
