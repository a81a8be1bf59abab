//! Components from elsewhere are compiled in a process that can do nothing else, and is ended when it takes too much.
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use psn::error::CodedError;
use psn::plugins::{Installed, LockEntry, OperatorPolicy, Origin, Source, describe};
use psn::runtime::{CompileBounds, CompileError, Compiler, CompilerProcess, Runtime, RuntimeError, RuntimeOptions};

const PSN: &str = env!("CARGO_BIN_EXE_psn-tested");
const PLUGIN: &str = env!("PSN_FIXTURE_UNGRANTED_ROUTE");

fn compiler(bounds: CompileBounds) -> Compiler {
    Compiler::Process(CompilerProcess { program: PSN.into(), args: vec!["compile-component".into()], bounds })
}

fn installed(bytes: Vec<u8>) -> Installed {
    let found = describe(&bytes).expect("a component of psn's contract");
    let lock = LockEntry {
        name: found.manifest.plugin.name.clone(),
        version: found.manifest.plugin.version.clone(),
        world: found.manifest.plugin.world.clone(),
        sha256: found.sha256.clone(),
        capabilities: found.manifest.capabilities_hash(),
        effective: None,
        grants: Vec::new(),
        granted_by: "a test".into(),
        granted_at: None,
        source: Source::Path("x.wasm".into()),
    };
    Installed::verified(bytes, lock, &OperatorPolicy::default(), &[]).expect("it is what it says")
}

/// A component that is dear to compile, for its size: so many functions of so many additions each.
fn dear(functions: usize, additions: usize) -> Vec<u8> {
    let manifest =
        "[plugin]\nname = \"dear\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n";
    let body = "(i32.add (local.get 0)) (i32.mul (local.get 1))".repeat(additions);
    let function = format!("(func (param i32 i32) (result i32) local.get 0 {body})");
    wat::parse_str(format!(
        "(component (@custom \"psn:manifest\" {manifest:?}) (core module {}) (instance $e) (export \"psn:plugin/lifecycle@0.1.0\" (instance $e)))",
        function.repeat(functions)
    ))
    .expect("a component")
}

async fn load(compiler: Compiler, cache: Option<&Path>, installed: &Installed) -> Result<(), RuntimeError> {
    let options = RuntimeOptions { compiler, cache_dir: cache.map(Path::to_owned), ..RuntimeOptions::default() };
    Runtime::new(options)?.load(installed).await.map(drop)
}

fn error(result: Result<(), RuntimeError>) -> CompileError {
    match result {
        Err(RuntimeError::Compile { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_process_compiled_runs_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("compiled");
    let plugin = installed(fs::read(PLUGIN).unwrap());
    load(compiler(CompileBounds::default()), Some(&cache), &plugin).await.unwrap();
    // From the cache: there is nobody who could compile it.
    load(Compiler::None, Some(&cache), &plugin).await.unwrap();
    // A cache that was tampered with is one that does not have it.
    for entry in fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()) {
        if entry.extension().is_some_and(|e| e == "cwasm") {
            let mut bytes = fs::read(&entry).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(&entry, bytes).unwrap();
        }
    }
    let refused = load(Compiler::None, Some(&cache), &plugin).await;
    assert_eq!(CodedError::from(refused.as_ref().unwrap_err()).code, "component.no-compiler");
    assert_eq!(error(refused), CompileError::NoCompiler);
    load(compiler(CompileBounds::default()), Some(&cache), &plugin).await.unwrap();
    load(Compiler::None, Some(&cache), &plugin).await.unwrap();
    // psn's own need no process.
    let own = Installed { origin: Origin::FirstParty, ..plugin };
    load(Compiler::None, None, &own).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_time_its_processor_time_and_its_memory_end() {
    let component = installed(dear(20_000, 60));
    let bounds = CompileBounds::default();
    let memory = CompileBounds { memory: 96 << 20, ..bounds };
    let too_large = load(compiler(memory), None, &component).await;
    assert_eq!(CodedError::from(too_large.as_ref().unwrap_err()).code, "component.compile-memory");
    assert_eq!(error(too_large), CompileError::Memory(96 << 20));
    let wall = CompileBounds { wall: Duration::from_millis(300), ..bounds };
    let too_late = load(compiler(wall), None, &component).await;
    assert_eq!(CodedError::from(too_late.as_ref().unwrap_err()).code, "component.compile-deadline");
    assert_eq!(error(too_late), CompileError::Deadline(wall.wall));
    let cpu = CompileBounds { cpu: Duration::from_secs(1), ..bounds };
    assert_eq!(error(load(compiler(cpu), None, &component).await), CompileError::Cpu(cpu.cpu));
}

fn children() -> Vec<u32> {
    let me = std::process::id();
    let is_mine = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state parent …`
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(me)
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(is_mine).collect()
}

fn limit(pid: u32, name: &str) -> Option<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|l| l.starts_with(name))?;
    line[name.len()..].split_whitespace().nth(1).map(str::to_owned)
}

/// Until it holds, or the test has failed.
#[track_caller]
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_has_no_environment_no_files_and_limits_and_ends_with_its_parent() {
    // A parent that leaves a descriptor open for all its children, and is then killed.
    let dir = tempfile::tempdir().unwrap();
    let leaked = dir.path().join("leaked");
    let script = format!(
        "exec 3<&0 9>{}; {PSN} compile-component --parent $$ --memory 1073741824 --cpu 77 <&3 >/dev/null & echo $!; exec sleep 600",
        leaked.display()
    );
    let mut parent = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid: u32 = line.trim().parse().expect("the process");
    // The last limit that it sets on itself.
    wait_for("it limits itself", || limit(pid, "Max open files").filter(|n| n == "16"));
    assert_eq!(limit(pid, "Max data size").as_deref(), Some("1073741824"));
    assert_eq!(limit(pid, "Max cpu time").as_deref(), Some("78"));
    assert_eq!(limit(pid, "Max file size").as_deref(), Some("0"));
    assert_eq!(limit(pid, "Max core file size").as_deref(), Some("0"));
    assert_ne!(limit(pid, "Max address space").as_deref(), Some("unlimited"));
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        // Descriptor 3 is its standard input a second time, and belongs to this test's shell as 9 does: neither may be left.
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    parent.kill().unwrap();
    parent.wait().unwrap();
    // Gone, or waiting for whoever collects the dead.
    wait_for("it ends with its parent", || match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => Some(()),
        Ok(stat) => stat.rsplit_once(") ").filter(|(_, rest)| rest.starts_with(['Z', 'X'])).map(drop),
    });
    // One whose parent is another process than it was told does nothing.
    let orphan = Command::new(PSN)
        .args(["compile-component", "--parent", "1", "--memory", "1073741824", "--cpu", "77"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!((orphan.status.code(), orphan.stdout.len()), (Some(72), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_it_any_more_and_it_is_gone() {
    let component = installed(dear(20_000, 60));
    let loading = tokio::spawn(async move { load(compiler(CompileBounds::default()), None, &component).await });
    let pid = tokio::task::block_in_place(|| {
        wait_for("a compiler process", || {
            children().into_iter().find(|pid| limit(*pid, "Max open files").is_some_and(|n| n == "16"))
        })
    });
    // What psn was started with is not its compiler's business.
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.starts_with(b"RAYON_NUM_THREADS=") && environment.iter().filter(|b| **b == 0).count() == 1);
    loading.abort();
    tokio::task::block_in_place(|| wait_for("it is gone", || (!children().contains(&pid)).then_some(())));
}
