//! Connects the contract's interfaces with the capabilities that implement them.
use psn_bindings::imports::psn::plugin as imports;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::guest::Guest;
use crate::capabilities::context::Context;
use crate::capabilities::db::Db;
use crate::capabilities::events::Events;
use crate::capabilities::http::Http;
use crate::capabilities::hub_facts::HubFacts;
use crate::capabilities::secrets::SecretsCap;
use crate::capabilities::state::StateNotes;
use crate::capabilities::tool::Tools;
use crate::capabilities::vault::Vault;
use crate::capabilities::{Has, View};

/// One linker for the components that import nothing but the contract, one for those that import WASI as well.
pub(super) struct Linkers {
    plain: Linker<Guest>,
    wasi: Linker<Guest>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let plain = contract(engine)?;
        let mut wasi = plain.clone();
        wasmtime_wasi::p2::add_to_linker_async(&mut wasi)?;
        Ok(Self { plain, wasi })
    }

    pub(super) fn get(&self, wasi: bool) -> &Linker<Guest> {
        if wasi { &self.wasi } else { &self.plain }
    }
}

macro_rules! interfaces {
    ($linker:ident: $($interface:ident => $capability:ty, $field:ident;)*) => {$(
        imports::$interface::add_to_linker::<Guest, Has<$capability>>(&mut $linker, |g: &mut Guest| View {
            cap: &mut g.caps.$field,
            call: &mut g.call,
            table: &mut g.table,
        })?;
    )*};
}

fn contract(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    interfaces! { linker:
        http => Http, http;
        db => Db, db;
        secrets => SecretsCap, secrets;
        state => StateNotes, state;
        vault => Vault, vault;
        tool => Tools, tool;
        hub => HubFacts, hub;
        context => Context, context;
        events => Events, events;
    }
    // Types only, which guests import by name.
    linker.instance("psn:plugin/types@0.1.0")?;
    Ok(linker)
}
