//! What belongs to one call of one component, and to nothing else: it is made for the call and dropped with it.
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::limiter::Limiter;
use super::stdio::Wasi;
use crate::capabilities::Call;
use crate::capabilities::context::Context;
use crate::capabilities::db::Db;
use crate::capabilities::events::Events;
use crate::capabilities::http::Http;
use crate::capabilities::hub_facts::HubFacts;
use crate::capabilities::secrets::SecretsCap;
use crate::capabilities::state::StateNotes;
use crate::capabilities::tool::Tools;
use crate::capabilities::vault::Vault;

/// The most resources (cursors, transactions) that a guest holds at once. wasmtime's own limit is a million.
const MAX_RESOURCES: usize = 1024;

/// All that a component may do, as its manifest was granted. One set for each call.
pub struct Capabilities {
    pub http: Http,
    pub db: Db,
    pub secrets: SecretsCap,
    pub state: StateNotes,
    pub vault: Vault,
    pub tool: Tools,
    pub hub: HubFacts,
    pub context: Context,
    pub events: Events,
}

/// The data of a store.
pub(super) struct Guest {
    pub(super) caps: Capabilities,
    pub(super) call: Call,
    pub(super) table: ResourceTable,
    pub(super) limiter: Limiter,
    /// Made when it is first used: first-party plugins import no WASI.
    pub(super) wasi: Option<Wasi>,
}

impl Guest {
    pub(super) fn new(caps: Capabilities, call: Call, max_memory: u64) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self { caps, call, table, limiter: Limiter::new(max_memory), wasi: None }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(Wasi::empty);
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut self.table }
    }
}
