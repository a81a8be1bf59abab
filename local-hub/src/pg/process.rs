//! Who runs: by command line and state, since a process id alone proves nothing (zombies, reuse).
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

struct Process {
    pid: u32,
    zombie: bool,
    command: String,
}

/// How a cluster's processes are told from all others: the postmaster by its last argument, the folder; its children by
/// the title they give themselves. Both can be read by every account, unlike /proc/PID/cwd (in a container without
/// CAP_SYS_PTRACE even root may not read that of another account).
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    postmaster: String,
    child: String,
}

impl Mark {
    pub(crate) fn new(config_dir: &str, cluster_name: &str) -> Mark {
        Mark { postmaster: format!(" -D {config_dir}"), child: format!("postgres: {cluster_name}: ") }
    }

    /// A program told by its last argument alone.
    pub(crate) fn of_last_argument(argument: &str) -> Mark {
        Mark { postmaster: format!(" {argument}"), child: String::new() }
    }

    fn fits(&self, process: &Process) -> bool {
        let is_child = !self.child.is_empty() && process.command.starts_with(&self.child);
        !process.zombie && (process.command.ends_with(&self.postmaster) || is_child)
    }

    /// Whether `pid` lives and is this cluster's. A zombie is dead: it still answers kill(pid, 0), and Postgres would
    /// refuse its own lock files because of it.
    pub(crate) fn is(&self, pid: u32) -> bool {
        look(pid).is_some_and(|p| self.fits(&p))
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        all().iter().filter(|p| self.fits(p)).map(|p| p.pid).collect()
    }
}

/// Has this number, be it as a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    look(pid).is_some()
}

/// Lives and is no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    look(pid).is_some_and(|p| !p.zombie)
}

/// On its way out: its memory, and with it its command line, is gone, while its files, ports and folder may not be yet.
/// For a number that was just seen to be a program's: threads of the kernel look the same.
pub(crate) fn exiting(pid: u32) -> bool {
    look(pid).is_some_and(|p| !p.zombie && p.command.is_empty())
}

/// Whether it was started as the program of this name.
pub(crate) fn is_program(pid: u32, name: &str) -> bool {
    look(pid).is_some_and(|p| {
        let program = p.command.split(' ').next().unwrap_or_default();
        Path::new(program).file_name().is_some_and(|file| file == name)
    })
}

/// When it began, as the system counts: with the number, this is one process and no other.
pub(crate) fn began(pid: u32) -> Option<String> {
    if has_proc() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The 22nd field; the state, which follows the name in parentheses, is the 3rd.
        return stat.rsplit(')').next()?.split_whitespace().nth(19).map(str::to_owned);
    }
    let out = Command::new("ps").args(["-p", &pid.to_string(), "-o", "lstart="]).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned()).filter(|text| !text.is_empty())
}

/// Gone already is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

fn look(pid: u32) -> Option<Process> {
    if has_proc() { from_proc(pid) } else { ps(&["-p", &pid.to_string()]).pop() }
}

fn all() -> Vec<Process> {
    if !has_proc() {
        return ps(&["-ax"]);
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| from_proc(e.file_name().to_str()?.parse().ok()?)).collect()
}

fn from_proc(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold parentheses and spaces; the state follows the last one.
    let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    Some(Process { pid, zombie: matches!(state, 'Z' | 'X'), command })
}

fn ps(which: &[&str]) -> Vec<Process> {
    let out = Command::new("ps")
        .args(which)
        .args(["-ww", "-o", "pid=,stat=,command="])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(out) = out else { return Vec::new() };
    String::from_utf8_lossy(&out.stdout).lines().filter_map(parse_ps).collect()
}

fn parse_ps(line: &str) -> Option<Process> {
    let (pid, rest) = line.trim_start().split_once(' ')?;
    let (stat, command) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
    Some(Process { pid: pid.parse().ok()?, zombie: stat.starts_with('Z'), command: command.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ps_is_read() {
        let p = parse_ps("  421 Ss   /opt/pg/bin/postgres -D /a b/c").unwrap();
        assert_eq!((p.pid, p.zombie), (421, false));
        assert!(Mark::new("/a b/c", "n").fits(&p));
        assert!(!Mark::new("/a b", "n").fits(&p));
        assert!(!Mark::new("/b/c", "n").fits(&p));
        assert!(parse_ps("7 Z+").unwrap().zombie);
    }

    #[test]
    fn this_process_lives_and_belongs_to_no_cluster() {
        let me = std::process::id();
        assert!(alive(me));
        assert!(!Mark::new("/nowhere", "psn-x").is(me));
        assert!(Mark::new("/nowhere", "psn-x").processes().is_empty());
    }

    #[test]
    fn a_child_that_was_not_waited_for_is_dead() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        // It stays a zombie until `wait` below, so this ends as soon as it has exited.
        while alive(pid) {
            std::thread::yield_now();
        }
        assert!(look(pid).is_some_and(|p| p.zombie));
        child.wait().unwrap();
        assert!(look(pid).is_none());
    }

    #[test]
    fn the_children_are_known_by_their_title() {
        let child = Process { pid: 9, zombie: false, command: "postgres: psn-1a: checkpointer".into() };
        assert!(Mark::new("/x", "psn-1a").fits(&child));
        assert!(!Mark::new("/x", "psn-1").fits(&child));
    }
}
