//! The parent's side: starts the compiler process, feeds it, watches it, and ends it.
use std::borrow::Cow;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::child::{CODE, EXIT_PANIC, REFUSED, THREADS, cpu_seconds};
use super::{CompileError, CompilerProcess, Target};
use crate::runtime::engine::AddressSpace;

/// How often the process is looked after. Its deadline is kept to about this.
const POLL: Duration = Duration::from_millis(10);

/// The longest compiled code that is taken, in bytes. A component of 18 MiB compiles to about 100 MiB.
const MAX_CODE: u64 = 512 << 20;

/// The longest refusal that is read, in bytes.
const MAX_REFUSAL: u64 = 4 << 10;

/// How much of its memory limit a process that was aborted must have been seen to use for the limit to be the reason. An
/// allocation that fails is often the one that doubles what is there, so that a third is in use when it does.
const NEAR_THE_LIMIT: u64 = 4;

/// Compiled code from a compiler process of ours. Only [`run`] makes one.
pub(in crate::runtime) struct Compiled(Vec<u8>);

impl Compiled {
    pub(in crate::runtime) fn code(&self) -> &[u8] {
        &self.0
    }

    /// For another program: in this one it is bytes from then on.
    pub(in crate::runtime) fn into_code(self) -> Vec<u8> {
        self.0
    }
}

/// Compiles in a process of its own, and waits for it. The calling thread must live that long: the process dies with it.
pub(in crate::runtime) fn run(
    compiler: &CompilerProcess,
    target: Target,
    component: Cow<'static, [u8]>,
    cancelled: impl Fn() -> bool,
) -> Result<Compiled, CompileError> {
    let started = Instant::now();
    let mut child = start(compiler, target)?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        end(&mut child);
        return Err(CompileError::NotStarted("it has no pipes".into()));
    };
    let (told, answers) = mpsc::channel();
    // Not waited for: they end with the process, and with whatever else may hold the other ends of its pipes.
    let writer = spawn("psn-compile-in", move || {
        let _ = stdin.write_all(&component);
    });
    let reader = spawn("psn-compile-out", move || {
        let _ = told.send(answer(&mut stdout));
    });
    let outcome = writer.and(reader).and_then(|()| watch(&mut child, &answers, compiler, started, cancelled));
    end(&mut child);
    outcome
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), CompileError> {
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    started.map(drop).map_err(|e| CompileError::NotStarted(format!("no thread for it: {e}")))
}

fn start(compiler: &CompilerProcess, target: Target) -> Result<Child, CompileError> {
    let bounds = &compiler.bounds;
    Command::new(&compiler.program)
        .args(&compiler.args)
        .args(["--parent".into(), std::process::id().to_string()])
        .args(["--memory".into(), bounds.memory.to_string()])
        .args(["--cpu".into(), cpu_seconds(bounds.cpu).to_string()])
        .args(match target {
            Target::Here(AddressSpace::Plenty) => Some("--plenty"),
            Target::Here(AddressSpace::Small) => None,
            Target::Worker => Some("--worker"),
        })
        .env_clear()
        // Its one variable, and psn's own: how many threads compile.
        .env("RAYON_NUM_THREADS", threads().to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| CompileError::NotStarted(format!("{}: {e}", compiler.program.display())))
}

fn threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(THREADS)).min(THREADS)
}

enum Answer {
    Code(Vec<u8>),
    Refused(String),
}

/// One whole answer; none if the process ended before it, or says something else.
fn answer(from: &mut impl Read) -> Option<Answer> {
    let mut head = [0; 9];
    from.read_exact(&mut head).ok()?;
    let [kind, len @ ..] = head;
    let len = u64::from_le_bytes(len);
    let limit = if kind == CODE { MAX_CODE } else { MAX_REFUSAL };
    let mut body = Vec::new();
    from.take(len.min(limit)).read_to_end(&mut body).ok()?;
    match kind {
        CODE if body.len() as u64 == len => Some(Answer::Code(body)),
        REFUSED if body.len() as u64 == len.min(limit) => {
            Some(Answer::Refused(String::from_utf8_lossy(&body).into_owned()))
        }
        _ => None,
    }
}

fn watch(
    child: &mut Child,
    answers: &mpsc::Receiver<Option<Answer>>,
    compiler: &CompilerProcess,
    started: Instant,
    cancelled: impl Fn() -> bool,
) -> Result<Compiled, CompileError> {
    let bounds = &compiler.bounds;
    let mut most = 0;
    loop {
        match answers.recv_timeout(POLL) {
            Ok(Some(Answer::Code(code))) => return Ok(Compiled(code)),
            Ok(Some(Answer::Refused(reason))) => return Err(CompileError::Refused(reason)),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                // Where it closed its output and goes on, there is nothing to wait for either.
                let left = bounds.wall.saturating_sub(started.elapsed());
                let status = wait(child, left.min(Duration::from_secs(1)));
                return Err(died(status, most, compiler));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if started.elapsed() >= bounds.wall {
            return Err(CompileError::Deadline(bounds.wall));
        }
        if cancelled() {
            return Err(CompileError::Cancelled);
        }
        most = most.max(data_bytes(child.id()));
        // Where the kernel does not keep the limit, this does.
        if most > bounds.memory {
            return Err(CompileError::Memory(bounds.memory));
        }
    }
}

/// Why a process that gave no answer is gone.
fn died(status: Option<ExitStatus>, most: u64, compiler: &CompilerProcess) -> CompileError {
    let bounds = &compiler.bounds;
    let Some(status) = status else { return CompileError::Crashed("it gave no answer".into()) };
    let signal = status.signal();
    let is = |s: Signal| signal == Some(s.as_raw());
    if is(Signal::XCPU) {
        return CompileError::Cpu(bounds.cpu);
    }
    // Rust aborts where an allocation fails; the kernel kills where memory is short for all.
    if (is(Signal::ABORT) || is(Signal::KILL)) && most > bounds.memory / NEAR_THE_LIMIT {
        return CompileError::Memory(bounds.memory);
    }
    CompileError::Crashed(match (signal, status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) if code == i32::from(EXIT_PANIC) => "it panicked".to_owned(),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "for no known reason".to_owned(),
    })
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Err(_) => return None,
            Ok(None) if Instant::now() >= until => return None,
            Ok(None) => std::thread::sleep(POLL),
        }
    }
}

/// Nothing of it is left afterwards, whatever it was doing.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Memory that the process has for itself, as the kernel counts it against `RLIMIT_DATA`; 0 where that is not to be known.
fn data_bytes(pid: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    // `VmData:	    1234 kB`
    let kib = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(0, |kib: u64| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::super::CompileBounds;
    use super::*;

    /// A stand-in for the compiler: what a shell does.
    fn shell(script: &str, wall: Duration) -> CompilerProcess {
        let bounds = CompileBounds { wall, ..CompileBounds::default() };
        CompilerProcess { program: "/bin/sh".into(), args: ["-c", script, "sh"].map(Into::into).into(), bounds }
    }

    fn run_shell(script: &str, wall: Duration) -> Result<Vec<u8>, CompileError> {
        // More than a pipe holds: a process that does not read must not block its parent.
        run(&shell(script, wall), Target::Here(AddressSpace::Plenty), vec![7; 1 << 20].into(), || false)
            .map(|c| c.code().to_vec())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_that_does_not_end_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", file.display());
        assert_eq!(run_shell(&script, Duration::from_secs(1)), Err(CompileError::Deadline(Duration::from_secs(1))));
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap());
        assert_eq!(gone, Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn one_that_nobody_waits_for_is_killed() {
        let cancelled =
            run(&shell("exec sleep 600", LONG), Target::Here(AddressSpace::Plenty), Cow::Borrowed(b""), || true)
                .map(|_| ());
        assert_eq!(cancelled, Err(CompileError::Cancelled));
    }

    #[test]
    fn ends_are_told_apart() {
        for (script, expected) in [
            ("kill -s SEGV $$", CompileError::Crashed("signal 11".into())),
            ("kill -s ABRT $$", CompileError::Crashed("signal 6".into())),
            ("kill -s XCPU $$", CompileError::Cpu(CompileBounds::default().cpu)),
            ("exit 70", CompileError::Crashed("it panicked".into())),
            ("exit 3", CompileError::Crashed("exit code 3".into())),
            ("printf 'C\\001\\000\\000\\000\\000\\000\\000\\000'", CompileError::Crashed("exit code 0".into())),
            ("printf 'X\\001\\000\\000\\000\\000\\000\\000\\000a'", CompileError::Crashed("exit code 0".into())),
            ("printf 'E\\002\\000\\000\\000\\000\\000\\000\\000no'", CompileError::Refused("no".into())),
        ] {
            assert_eq!(run_shell(script, LONG), Err(expected), "{script}");
        }
        assert_eq!(run_shell("printf 'C\\002\\000\\000\\000\\000\\000\\000\\000ok'", LONG), Ok(b"ok".to_vec()));
        let missing = CompilerProcess { program: "/no/such/compiler".into(), ..shell("", LONG) };
        let refused = run(&missing, Target::Here(AddressSpace::Plenty), Cow::Borrowed(b""), || false).map(|_| ());
        assert!(matches!(refused, Err(CompileError::NotStarted(_))), "{refused:?}");
    }

    #[test]
    fn it_gets_no_environment_and_no_folder() {
        let answer = run_shell(
            "x=$(env | sort | tr '\\n' ';'; pwd); printf 'E'; printf \"\\\\$(printf %03o ${#x})\\000\\000\\000\\000\\000\\000\\000%s\" \"$x\"",
            LONG,
        );
        let Err(CompileError::Refused(said)) = answer else { panic!("{answer:?}") };
        let variables: Vec<&str> = said
            .split(';')
            .filter_map(|v| v.split_once('='))
            .map(|(name, _)| name)
            .filter(|n| *n != "PWD" && *n != "_" && *n != "SHLVL" && *n != "OLDPWD")
            .collect();
        assert_eq!(variables, ["RAYON_NUM_THREADS"], "{said}");
        assert!(said.ends_with("/"), "{said}");
    }
}
