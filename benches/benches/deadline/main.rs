//! How much later than its deadline a component is stopped, on a machine that has other things to do: `cargo bench --package
//! psn-benches --bench deadline`. For each way of not ending: the time that a call with a deadline of 200 ms took, as a ratio.
//! `PSN_BENCH_BUSY` threads spin beside it (default: two for each core), and each way is tried `PSN_BENCH_CALLS` times (default 40).
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use psn::capabilities::context::Context;
use psn::capabilities::db::{Db, DbAccess};
use psn::capabilities::events::Events;
use psn::capabilities::http::{Http, ServiceMap};
use psn::capabilities::hub_facts::{FactError, FactSource, HubFacts};
use psn::capabilities::secrets::SecretsCap;
use psn::capabilities::state::StateNotes;
use psn::capabilities::tool::Tools;
use psn::capabilities::vault::Vault;
use psn::capabilities::{Call, Deadline, Meter};
use psn::events::{EventSink, Recorder};
use psn::hub::TlsRoots;
use psn::plugins::{Installed, LockEntry, OperatorPolicy, Source, describe};
use psn::redact::Redactor;
use psn::runtime::{CallError, Capabilities, Compiler, Loaded, Runtime, RuntimeOptions};
use psn::secret::{MemoryBackend, Secrets};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const DEADLINE: Duration = Duration::from_millis(200);

/// A way of not ending: its name, imports and globals of the module, and the body of `apply`.
struct Way {
    name: &'static str,
    imports: &'static str,
    module: &'static str,
    body: &'static str,
}

const WAYS: [Way; 6] = [
    Way { name: "a loop", imports: "", module: "", body: "(loop br 0) unreachable" },
    Way {
        name: "a loop in the start function",
        imports: "",
        module: "(func $start (loop br 0)) (start $start)",
        body: "unreachable",
    },
    Way {
        name: "memory.fill of 64 MiB, again and again",
        imports: "",
        module: "",
        body: "(loop (memory.fill (i32.const 65536) (i32.const 1) (i32.const 67043328)) br 0) unreachable",
    },
    Way {
        name: "a host call with 64 MiB of arguments, again and again",
        imports: r#"(import "psn:plugin/events@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
        module: "",
        // Refused at the border, which ends the call: what counts is that this is no later than the deadline.
        body: "(loop (call $log (i32.const 1) (i32.const 65536) (i32.const 67043328) (i32.const 0) (i32.const 0)) br 0) unreachable",
    },
    Way {
        name: "a host call with 3 MiB of arguments, again and again",
        imports: r#"(import "psn:plugin/state@0.1.0" "put" (func $put (param i32 i32 i32 i32 i32)))"#,
        module: "",
        body: "(loop (call $put (i32.const 65536) (i32.const 1) (i32.const 65536) (i32.const 3145728) (i32.const 2048)) br 0) unreachable",
    },
    Way {
        name: "a host call that never answers",
        imports: r#"(import "psn:plugin/context@0.1.0" "sleep-ms" (func $sleep (param i32)))"#,
        module: "",
        body: "(call $sleep (i32.const -1)) unreachable",
    },
];

fn component(way: &Way) -> Vec<u8> {
    let manifest = "[plugin]\nname = \"bench\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n[limits]\nmemory = \"128MiB\"\n";
    let Way { imports, module, body, .. } = way;
    let text = format!(
        "(module
           (@custom \"psn:manifest\" {manifest:?})
           {imports}
           (memory (export \"memory\") 1025)
           {module}
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 1024)
           (func (export \"psn:plugin/lifecycle@0.1.0#apply\") (result i32) {body})
           (func (export \"psn:plugin/lifecycle@0.1.0#inspect\") (result i32) i32.const 2048)
           (func (export \"psn:plugin/lifecycle@0.1.0#verify\") (result i32) i32.const 2048)
           (func (export \"psn:plugin/lifecycle@0.1.0#destroy\") (result i32) i32.const 2048))"
    );
    let mut module = wat::parse_str(text).expect("a module");
    let mut resolve = Resolve::default();
    resolve.push_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wit")).expect("the contract");
    let package = resolve.push_str("bench.wit", "package psn:bench; world guest { include psn:plugin/step@0.1.0; }");
    let world = resolve.select_world(&[package.expect("a package")], Some("guest")).expect("a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    ComponentEncoder::default().validate(true).module(&module).expect("a module").encode().expect("a component")
}

async fn load(runtime: &Runtime, bytes: Vec<u8>) -> Loaded {
    let found = describe(&bytes).expect("a component of psn's");
    let about = &found.manifest.plugin;
    let lock = LockEntry {
        name: about.name.clone(),
        version: about.version.clone(),
        world: about.world.clone(),
        sha256: found.sha256.clone(),
        capabilities: found.manifest.capabilities_hash(),
        effective: None,
        grants: Vec::new(),
        granted_by: "a benchmark".into(),
        granted_at: None,
        source: Source::Path("bench.wasm".into()),
    };
    let installed = Installed::verified(bytes, lock, &OperatorPolicy::default(), &[]).expect("it is what it says");
    runtime.load(&installed).await.expect("it compiles")
}

struct NoFacts;

#[async_trait::async_trait]
impl FactSource for NoFacts {
    async fn facts(&self, _: &str) -> Result<serde_json::Value, FactError> {
        Ok(serde_json::Value::Null)
    }
}

/// How long one call took, and whether the deadline ended it.
async fn call(runtime: &Runtime, loaded: &Loaded) -> (Duration, bool) {
    let manifest = loaded.manifest();
    let redactor = Arc::new(Redactor::new());
    let secrets = Secrets::open(Box::new(MemoryBackend(Default::default())), Arc::clone(&redactor));
    let secrets = Arc::new(secrets.expect("no secrets"));
    let caps = Capabilities {
        http: Http::new(manifest, &ServiceMap::vendors(), secrets.clone()).expect("no services"),
        db: Db::new(manifest, DbAccess::new(None, TlsRoots::WebPki)),
        secrets: SecretsCap::new(manifest, secrets.clone()),
        state: StateNotes::memory(),
        vault: Vault::new(manifest, secrets.clone()),
        tool: Tools::new(manifest, secrets, std::env::temp_dir()),
        hub: HubFacts::new(manifest, Arc::new(NoFacts)),
        context: Context::new(manifest, "bench".into(), Default::default()),
        events: Events::new(),
    };
    let started = Instant::now();
    let call = Call {
        plugin: "bench".into(),
        run_id: "bench".into(),
        attempt: 1,
        deadline: Deadline::after(DEADLINE),
        meter: Meter::new(loaded.limits().meter.clone()),
        redactor,
        events: EventSink::new(Arc::new(Recorder::default())),
        leaks: Vec::new(),
        transaction_open: false,
    };
    let outcome = runtime.apply(loaded, caps, call).await;
    (started.elapsed(), matches!(outcome.result, Err(CallError::Deadline { .. })))
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stdout, reason = "a benchmark's table")]
fn main() {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (busy, calls) = (setting("PSN_BENCH_BUSY", 2 * cores), setting("PSN_BENCH_CALLS", 40));
    let done = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..busy)
        .map(|_| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    println!(
        "{calls} calls each with a deadline of {DEADLINE:?}, {cores} cores, {busy} busy threads beside; time taken / deadline"
    );
    println!("{:<55} {:>8} {:>8} {:>8}   ended by", "", "median", "p99", "most");
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let runtime = Runtime::new(RuntimeOptions { compiler: Compiler::InProcess, ..RuntimeOptions::default() });
    let runtime = runtime.expect("a runtime");
    tokio.block_on(async {
        for way in &WAYS {
            let loaded = load(&runtime, component(way)).await;
            let mut ratios = Vec::with_capacity(calls);
            let mut deadlines = 0;
            for _ in 0..calls {
                let (took, by_deadline) = call(&runtime, &loaded).await;
                ratios.push(took.as_secs_f64() / DEADLINE.as_secs_f64());
                deadlines += usize::from(by_deadline);
            }
            ratios.sort_by(f64::total_cmp);
            let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
            let by = if deadlines == calls {
                "the deadline".to_owned()
            } else {
                format!("the deadline in {deadlines}, a limit in the others")
            };
            println!("{:<55} {:>8.3} {:>8.3} {:>8.3}   {by}", way.name, at(0.5), at(0.99), at(1.0));
        }
    });
    done.store(true, Ordering::Relaxed);
    for spinner in spinners {
        let _ = spinner.join();
    }
}
