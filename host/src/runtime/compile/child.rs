//! The compiler process: takes a component on standard input, hands compiled code back on standard output, and can do nothing else.
use std::io::{self, Read, Write};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::plugins::component::MAX_COMPONENT_BYTES;
use crate::runtime::engine::{self, AddressSpace, Target};

/// What kind of answer follows: one byte, then its length as 8 bytes, little-endian, then the answer itself.
pub(super) const CODE: u8 = b'C';
pub(super) const REFUSED: u8 = b'E';

/// The stack of the thread that compiles, in bytes: what a process's first thread has. The compiler recurses.
pub(in crate::runtime) const COMPILE_STACK: usize = 8 << 20;

/// Threads that compile. More would only compete with the rest of the machine, and each takes address space.
pub(super) const THREADS: u32 = 4;

/// Address space beside the memory that is written to: psn's own program and libraries, and what malloc reserves for each thread.
const ADDRESS_SPACE_SLACK: u64 = 1 << 30;

/// Descriptors that the process may have at once: the two it has, and what its own start needs.
const DESCRIPTORS: u64 = 16;

/// Ends of the process that the parent knows, besides signals.
pub(super) const EXIT_PANIC: u8 = 70;
const EXIT_NOT_CONFINED: u8 = 71;
const EXIT_NO_PARENT: u8 = 72;
const EXIT_INPUT: u8 = 74;

/// What the parent says on the command line.
#[derive(Clone, Copy, Debug)]
pub struct ChildOptions {
    /// The process that waits for the answer.
    pub parent: u32,
    /// Whether the engine reserves all of a memory's address space: must be what the parent's engine does.
    pub plenty: bool,
    /// Whether it is for psn's worker and not for this machine.
    pub worker: bool,
    /// Bytes.
    pub memory: u64,
    /// Seconds.
    pub cpu: u64,
}

/// The whole process.
pub fn compile_child(options: ChildOptions) -> ExitCode {
    // Whatever the compiler has to say about its own failure, nobody reads it here.
    std::panic::set_hook(Box::new(|_| {}));
    if let Err(code) = confine(&options) {
        return code.into();
    }
    let mut component = Vec::new();
    let read = io::stdin().lock().take(MAX_COMPONENT_BYTES as u64 + 1).read_to_end(&mut component);
    if read.is_err() || component.len() > MAX_COMPONENT_BYTES {
        return EXIT_INPUT.into();
    }
    let target = match (options.worker, options.plenty) {
        (true, _) => Target::Worker,
        (false, true) => Target::Here(AddressSpace::Plenty),
        (false, false) => Target::Here(AddressSpace::Small),
    };
    let compile = move || std::panic::catch_unwind(AssertUnwindSafe(|| engine::precompile(target, &component)));
    let compiled = std::thread::Builder::new().name("psn-compile".into()).stack_size(COMPILE_STACK).spawn(compile);
    let (kind, answer) = match compiled.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(Ok(code)))) => (CODE, code),
        Ok(Ok(Ok(Err(e)))) => (REFUSED, format!("{e:#}").into_bytes()),
        _ => return EXIT_PANIC.into(),
    };
    let mut out = io::stdout().lock();
    let told = out
        .write_all(&[kind])
        .and_then(|()| out.write_all(&(answer.len() as u64).to_le_bytes()))
        .and_then(|()| out.write_all(&answer))
        .and_then(|()| out.flush());
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Gives up what a compiler does not need, before the first byte of a stranger is read.
fn confine(options: &ChildOptions) -> Result<(), u8> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|_| EXIT_NOT_CONFINED)?;
        // It may have died before the line above.
        let parent = rustix::process::getppid().map(|p| p.as_raw_nonzero().get().unsigned_abs());
        if parent != Some(options.parent) {
            return Err(EXIT_NO_PARENT);
        }
    }
    close_inherited();
    let exactly = |n: u64| Rlimit { current: Some(n), maximum: Some(n) };
    for (resource, limit) in [
        (Resource::Data, exactly(options.memory)),
        (Resource::As, exactly(options.memory.saturating_add(ADDRESS_SPACE_SLACK))),
        (Resource::Cpu, Rlimit { current: Some(options.cpu), maximum: Some(options.cpu.saturating_add(1)) }),
        // It writes to no file, and leaves no image of its memory behind.
        (Resource::Fsize, exactly(0)),
        (Resource::Core, exactly(0)),
        (Resource::Nofile, exactly(DESCRIPTORS)),
    ] {
        lower(resource, limit).map_err(|_| EXIT_NOT_CONFINED)?;
    }
    Ok(())
}

/// What is limited further already stays so.
fn lower(resource: Resource, to: Rlimit) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let maximum = least(now.maximum, to.maximum);
    setrlimit(resource, Rlimit { current: least(least(now.current, to.current), maximum), maximum })?;
    Ok(())
}

/// Whoever started psn may have left descriptors open for it. psn opens its own so that no child gets them.
fn close_inherited() {
    // Collected first: the listing itself is one of them.
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The listing's own is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// The seconds of a processor-time limit: at least one, since the kernel counts whole ones.
pub(super) fn cpu_seconds(limit: Duration) -> u64 {
    limit.as_secs().max(1)
}
