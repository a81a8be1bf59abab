//! Guests as text: core modules that are turned into real components of the contract's worlds, and what it takes to call them.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::capabilities::context::Context;
use crate::capabilities::db::{Db, DbAccess};
use crate::capabilities::events::Events;
use crate::capabilities::http::{Http, ServiceMap};
use crate::capabilities::hub_facts::{FactError, FactSource, HubFacts};
use crate::capabilities::secrets::SecretsCap;
use crate::capabilities::state::StateNotes;
use crate::capabilities::testing::Rig;
use crate::capabilities::tool::Tools;
use crate::capabilities::vault::Vault;
use crate::capabilities::{Call, Deadline, Meter};
use crate::events::Recorder;
use crate::hub::TlsRoots;
use crate::plugins::{Installed, LockEntry, OperatorPolicy, Source, describe};
use crate::runtime::{Allocator, Capabilities, Compiler, Loaded, Runtime, RuntimeOptions};

/// A deadline that is reached only by what hangs.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// A deadline for what hangs.
pub(super) const SHORT: Duration = Duration::from_millis(100);

/// Where the answers of a guest lie unless it says otherwise: zeroes, which are a success with nothing in it.
pub(super) const ZEROES: u32 = 2048;

/// A guest under construction. The defaults make a step that succeeds at everything.
pub(super) struct Guest {
    pub(super) world: &'static str,
    /// Of the manifest, after [plugin].
    pub(super) asks: &'static str,
    /// Imports of the core module, then its functions, tables and globals.
    pub(super) imports: String,
    pub(super) module: String,
    /// 64 KiB each.
    pub(super) pages: u32,
    /// The body of `apply`, or of a task's `run`.
    pub(super) body: String,
    /// Further packages, and further lines of the world.
    pub(super) wit: &'static [(&'static str, &'static str)],
    pub(super) world_imports: &'static str,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            world: "step",
            asks: "",
            imports: String::new(),
            module: String::new(),
            pages: 1,
            body: format!("i32.const {ZEROES}"),
            wit: &[],
            world_imports: "",
        }
    }
}

impl Guest {
    pub(super) fn apply(body: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    pub(super) fn component(&self) -> Vec<u8> {
        let Self { world, asks, imports, module, pages, body, .. } = self;
        let manifest = format!(
            "[plugin]\nname = \"tester\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/{world}@0.1.0\"\nsummary = \"s\"\n{asks}"
        );
        let exports = match *world {
            "task" => format!(
                "(func $run (export \"psn:plugin/runner@0.1.0#run\") (param i32 i32 i32 i64) (result i32) {body})
                 (func (export \"cabi_post_psn:plugin/runner@0.1.0#run\") (param i32))"
            ),
            _ => format!(
                "(func $apply (export \"psn:plugin/lifecycle@0.1.0#apply\") (result i32) {body})
                 (func (export \"psn:plugin/lifecycle@0.1.0#inspect\") (result i32) i32.const {ZEROES})
                 (func (export \"psn:plugin/lifecycle@0.1.0#verify\") (result i32) i32.const {ZEROES})
                 (func (export \"psn:plugin/lifecycle@0.1.0#destroy\") (result i32) i32.const {ZEROES})"
            ),
        };
        let text = format!(
            "(module
               (@custom \"psn:manifest\" {manifest:?})
               {imports}
               (memory (export \"memory\") {pages})
               (global $next (mut i32) (i32.const 32768))
               (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
                 global.get $next
                 (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8))))
               {module}
               {exports})"
        );
        let mut module = wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut resolve = Resolve::default();
        resolve.push_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
        for (name, package) in self.wit {
            resolve.push_str(name, package).unwrap();
        }
        let package = resolve
            .push_str(
                "test.wit",
                &format!(
                    "package psn:test; world guest {{ include psn:plugin/{world}@0.1.0; {} }}",
                    self.world_imports
                ),
            )
            .unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    pub(super) fn installed(&self) -> Installed {
        installed(self.component())
    }
}

/// As if someone had granted what the component asks for.
pub(super) fn installed(bytes: Vec<u8>) -> Installed {
    let found = describe(&bytes).unwrap();
    let lock = LockEntry {
        name: found.manifest.plugin.name.clone(),
        version: found.manifest.plugin.version.clone(),
        world: found.manifest.plugin.world.clone(),
        sha256: found.sha256.clone(),
        capabilities: found.manifest.capabilities_hash(),
        effective: None,
        grants: vec![],
        granted_by: "a test".into(),
        granted_at: None,
        source: Source::Path("tester.wasm".into()),
    };
    Installed::verified(bytes, lock, &OperatorPolicy::default(), &[]).unwrap()
}

/// The component with further core modules, each instantiated once: what one module cannot have, several can.
pub(super) fn with_modules(mut component: Vec<u8>, module: &str, times: u32) -> Vec<u8> {
    let module = wat::parse_str(module).unwrap();
    let mut depth = 0;
    let mut modules = 0;
    for payload in wasmparser::Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            wasmparser::Payload::ModuleSection { .. } => {
                modules += u32::from(depth == 0);
                depth += 1;
            }
            wasmparser::Payload::ComponentSection { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    section(&mut component, 1, &module);
    for _ in 0..times {
        let mut instance = vec![1, 0];
        leb(&mut instance, modules);
        instance.push(0);
        section(&mut component, 2, &instance);
    }
    component
}

fn section(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    leb(out, u32::try_from(body.len()).unwrap());
    out.extend_from_slice(body);
}

fn leb(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Facts that are there, take forever, or take psn down with them.
pub(super) struct Facts;

#[async_trait::async_trait]
impl FactSource for Facts {
    async fn facts(&self, topic: &str) -> Result<serde_json::Value, FactError> {
        match topic {
            "git" => panic!("a defect of psn"),
            "tasks" => std::future::pending().await,
            _ => Ok(serde_json::json!({})),
        }
    }
}

/// A runtime, and what calls with it need.
pub(super) struct Bench {
    pub(super) runtime: Runtime,
    pub(super) recorder: Arc<Recorder>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(RuntimeOptions::default())
    }

    pub(super) fn pooled(instances: u32) -> Self {
        Self::with(RuntimeOptions { allocator: Allocator::Pooling { instances }, ..RuntimeOptions::default() })
    }

    pub(super) fn with(options: RuntimeOptions) -> Self {
        let options = RuntimeOptions { compiler: Compiler::InProcess, ..options };
        Self { runtime: Runtime::new(options).unwrap(), recorder: Arc::default() }
    }

    pub(super) async fn load(&self, guest: &Guest) -> Loaded {
        self.runtime.load(&guest.installed()).await.unwrap()
    }

    /// What one call of it is given.
    pub(super) fn call(&self, loaded: &Loaded, deadline: Duration) -> (Capabilities, Call) {
        let rig = Rig::new(());
        let manifest = loaded.manifest();
        let caps = Capabilities {
            http: Http::new(manifest, &ServiceMap::vendors(), rig.secrets.clone()).unwrap(),
            db: Db::new(manifest, DbAccess::new(None, TlsRoots::WebPki)),
            secrets: SecretsCap::new(manifest, rig.secrets.clone()),
            state: StateNotes::memory(),
            vault: Vault::new(manifest, rig.secrets.clone()),
            tool: Tools::new(manifest, rig.secrets.clone(), std::env::temp_dir()),
            hub: HubFacts::new(manifest, Arc::new(Facts)),
            context: Context::new(manifest, "abcd1234".into(), Default::default()),
            events: Events::new(),
        };
        let call = Call {
            deadline: Deadline::after(deadline),
            meter: Meter::new(loaded.limits().meter.clone()),
            events: crate::events::EventSink::new(self.recorder.clone()),
            ..rig.call
        };
        (caps, call)
    }
}
