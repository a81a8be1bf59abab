//! A host call of a component with psn's meter, limits and deadline, against the same component and call without: once through the
//! same generated bindings, which is what the checks cost, and once through a closure of its own, which is what else there is.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
use psn::runtime::{Capabilities, Compiler, Loaded, Runtime, RuntimeOptions};
use psn::secret::Secret;
use psn_bindings::imports::psn::plugin::context;
use wasmtime::component::{Component, HasSelf, Linker, Val};
use wasmtime::{Config, Engine, Store};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Calls in one call of the component: so many that beginning and end do not count, and fewer than its limit.
const CALLS: u32 = 400_000;

/// A step whose `apply` calls `context.attempt` again and again: the host call that does the least.
fn component() -> Vec<u8> {
    let manifest =
        "[plugin]\nname = \"bench\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n";
    let text = format!(
        "(module
           (@custom \"psn:manifest\" {manifest:?})
           (import \"psn:plugin/context@0.1.0\" \"attempt\" (func $attempt (result i32)))
           (memory (export \"memory\") 1)
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 1024)
           (func (export \"psn:plugin/lifecycle@0.1.0#apply\") (result i32) (local $n i32)
             (local.set $n (i32.const {CALLS}))
             (loop $again
               (drop (call $attempt))
               (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             i32.const 2048)
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

struct NoFacts;

#[async_trait::async_trait]
impl FactSource for NoFacts {
    async fn facts(&self, _: &str) -> Result<serde_json::Value, FactError> {
        Ok(serde_json::Value::Null)
    }
}

/// As many secrets as a hub with three plugins has.
fn redactor() -> Redactor {
    let redactor = Redactor::new();
    for n in 0..5 {
        redactor.register(&Secret::new(format!("napi_{n}{}", "k3yv4lue".repeat(7))));
        redactor.register(&Secret::new(format!(
            "postgresql://psn_plugin_{n}:{}@ep-cool-{n}.example.test/hub",
            "pa55wo4d".repeat(4)
        )));
    }
    redactor
}

pub(crate) fn call(meter: Meter) -> Call {
    Call {
        plugin: "bench".into(),
        run_id: "bench".into(),
        attempt: 1,
        deadline: Deadline::after(Duration::from_secs(60)),
        meter,
        redactor: Arc::new(redactor()),
        events: EventSink::new(Arc::new(Recorder::default())),
        leaks: Vec::new(),
        transaction_open: false,
    }
}

async fn with_psn(runtime: &Runtime, loaded: &Loaded) -> Duration {
    let manifest = loaded.manifest();
    let secrets = crate::policy::secrets();
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
    let call = call(Meter::new(loaded.limits().meter.clone()));
    crate::timed(async {
        let outcome = runtime.apply(loaded, caps, call).await;
        assert_eq!(outcome.usage.host_calls, u64::from(CALLS));
    })
    .await
}

/// The contract's interface as a program implements it that checks nothing.
struct Plain {
    attempt: u32,
}

impl context::Host for Plain {
    fn run_id(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }
    fn hub_id(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }
    fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.attempt)
    }
    fn setting(&mut self, _: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
    fn now(&mut self) -> wasmtime::Result<i64> {
        Ok(0)
    }
    async fn sleep_ms(&mut self, _: u32) -> wasmtime::Result<()> {
        Ok(())
    }
    fn random_bytes(&mut self, _: u32) -> wasmtime::Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// The component in an engine as wasmtime makes it: no deadline, no limits, no meter.
struct Bare {
    engine: Engine,
    component: Component,
    linker: Linker<Plain>,
}

impl Bare {
    fn new(bytes: &[u8], add: impl FnOnce(&mut Linker<Plain>)) -> Self {
        let engine = Engine::new(&Config::new()).expect("an engine");
        let component = Component::new(&engine, bytes).expect("the component");
        let mut linker = Linker::new(&engine);
        add(&mut linker);
        linker.define_unknown_imports_as_traps(&component).expect("the rest");
        Self { engine, component, linker }
    }

    fn with_bindings(bytes: &[u8]) -> Self {
        Self::new(bytes, |linker| {
            context::add_to_linker::<Plain, HasSelf<Plain>>(linker, |plain| plain).expect("an interface");
        })
    }

    fn with_a_closure(bytes: &[u8]) -> Self {
        Self::new(bytes, |linker| {
            let mut context = linker.instance("psn:plugin/context@0.1.0").expect("an interface");
            context.func_wrap("attempt", |store, ()| Ok((store.data().attempt,))).expect("a function");
        })
    }

    async fn run(&self) -> Duration {
        crate::timed(async {
            let mut store = Store::new(&self.engine, Plain { attempt: 1 });
            let instance = self.linker.instantiate_async(&mut store, &self.component).await.expect("an instance");
            let lifecycle =
                instance.get_export_index(&mut store, None, "psn:plugin/lifecycle@0.1.0").expect("the lifecycle");
            let apply = instance.get_export_index(&mut store, Some(&lifecycle), "apply").expect("apply");
            let apply = instance.get_func(&mut store, apply).expect("a function");
            let mut results = [Val::Bool(false)];
            apply.call_async(&mut store, &[], &mut results).await.expect("an answer");
        })
        .await
    }
}

pub(crate) async fn bench() {
    let bytes = component();
    let found = describe(&bytes).expect("a component of psn's");
    let lock = LockEntry {
        name: found.manifest.plugin.name.clone(),
        version: found.manifest.plugin.version.clone(),
        world: found.manifest.plugin.world.clone(),
        sha256: found.sha256.clone(),
        capabilities: found.manifest.capabilities_hash(),
        effective: None,
        grants: vec![],
        granted_by: "a benchmark".into(),
        granted_at: None,
        source: Source::Path("bench.wasm".into()),
    };
    let (bindings, closure) = (Bare::with_bindings(&bytes), Bare::with_a_closure(&bytes));
    let runtime =
        Runtime::new(RuntimeOptions { compiler: Compiler::InProcess, ..RuntimeOptions::default() }).expect("a runtime");
    let loaded = runtime
        .load(&Installed::verified(bytes, lock, &OperatorPolicy::default(), &[]).expect("it is what it says"))
        .await
        .expect("it compiles");
    let (mut ours, mut bound, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..21 {
        bound.push(bindings.run().await);
        ours.push(with_psn(&runtime, &loaded).await);
        closed.push(closure.run().await);
    }
    let nanoseconds = |times| crate::median(times).as_secs_f64() * 1e9 / f64::from(CALLS);
    let (ours, bound, closed) = (nanoseconds(ours), nanoseconds(bound), nanoseconds(closed));
    crate::show_ratio(
        &format!("host call with meter, limits and deadline ({ours:.0} ns) / without ({bound:.0} ns)"),
        ours / bound,
        "< 1.3x",
    );
    crate::show_ratio(&format!("host call / a closure in a bare wasmtime ({closed:.0} ns)"), ours / closed, "-");
}
