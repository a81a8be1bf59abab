//! The host side of the plugin contract in `wit/`, generated. A crate of its own and without logic, so that an edit of the
//! host does not regenerate it.
//!
//! The imports are generated once ([`imports`]) and shared by both worlds, so that one linker serves steps and tasks.
#![allow(unreachable_pub, reason = "generated code")]

pub mod imports {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "imports",
        imports: {
            "psn:plugin/context.run-id": trappable,
            "psn:plugin/context.hub-id": trappable,
            "psn:plugin/context.attempt": trappable,
            "psn:plugin/context.setting": trappable,
            "psn:plugin/context.now": trappable,
            "psn:plugin/context.random-bytes": trappable,
            "psn:plugin/events": trappable,
            "psn:plugin/secrets.exists": trappable,
            "psn:plugin/secrets.fingerprint": trappable,
            "psn:plugin/vault": trappable,
            default: async | trappable,
        },
        require_store_data_send: true,
    });
}

pub mod types {
    //! The records that guests export functions in terms of.
    pub use crate::step::psn::plugin::types::{Check, CheckStatus, Failure, Need, Report};
}

pub mod step {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "step",
        with: {
            "psn:plugin/http": crate::imports::psn::plugin::http,
            "psn:plugin/db": crate::imports::psn::plugin::db,
            "psn:plugin/secrets": crate::imports::psn::plugin::secrets,
            "psn:plugin/state": crate::imports::psn::plugin::state,
            "psn:plugin/vault": crate::imports::psn::plugin::vault,
            "psn:plugin/tool": crate::imports::psn::plugin::tool,
            "psn:plugin/hub": crate::imports::psn::plugin::hub,
            "psn:plugin/context": crate::imports::psn::plugin::context,
            "psn:plugin/events": crate::imports::psn::plugin::events,
        },
        exports: { default: async },
        require_store_data_send: true,
    });
}

pub mod task {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "task",
        with: {
            "psn:plugin/types": crate::step::psn::plugin::types,
            "psn:plugin/http": crate::imports::psn::plugin::http,
            "psn:plugin/db": crate::imports::psn::plugin::db,
            "psn:plugin/secrets": crate::imports::psn::plugin::secrets,
            "psn:plugin/state": crate::imports::psn::plugin::state,
            "psn:plugin/vault": crate::imports::psn::plugin::vault,
            "psn:plugin/tool": crate::imports::psn::plugin::tool,
            "psn:plugin/hub": crate::imports::psn::plugin::hub,
            "psn:plugin/context": crate::imports::psn::plugin::context,
            "psn:plugin/events": crate::imports::psn::plugin::events,
        },
        exports: { default: async },
        require_store_data_send: true,
    });
}
