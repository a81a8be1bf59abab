//! The guest side of the contract in `wit/`, generated. The imports are generated once and shared by both worlds; what a
//! component exports, and which world it therefore is, comes from the export macro that the plugin uses.
#![allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated code")]

pub mod imports {
    wit_bindgen::generate!({ path: "../wit", world: "imports" });
}

pub mod step {
    wit_bindgen::generate!({
        path: "../wit",
        world: "step",
        with: {
            "psn:plugin/http@0.1.0": crate::bindings::imports::psn::plugin::http,
            "psn:plugin/db@0.1.0": crate::bindings::imports::psn::plugin::db,
            "psn:plugin/secrets@0.1.0": crate::bindings::imports::psn::plugin::secrets,
            "psn:plugin/state@0.1.0": crate::bindings::imports::psn::plugin::state,
            "psn:plugin/vault@0.1.0": crate::bindings::imports::psn::plugin::vault,
            "psn:plugin/tool@0.1.0": crate::bindings::imports::psn::plugin::tool,
            "psn:plugin/hub@0.1.0": crate::bindings::imports::psn::plugin::hub,
            "psn:plugin/context@0.1.0": crate::bindings::imports::psn::plugin::context,
            "psn:plugin/events@0.1.0": crate::bindings::imports::psn::plugin::events,
        },
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "psn_plugin::__private::bindings::step",
    });
}

pub mod task {
    wit_bindgen::generate!({
        path: "../wit",
        world: "task",
        with: {
            "psn:plugin/types@0.1.0": crate::bindings::step::psn::plugin::types,
            "psn:plugin/http@0.1.0": crate::bindings::imports::psn::plugin::http,
            "psn:plugin/db@0.1.0": crate::bindings::imports::psn::plugin::db,
            "psn:plugin/secrets@0.1.0": crate::bindings::imports::psn::plugin::secrets,
            "psn:plugin/state@0.1.0": crate::bindings::imports::psn::plugin::state,
            "psn:plugin/vault@0.1.0": crate::bindings::imports::psn::plugin::vault,
            "psn:plugin/tool@0.1.0": crate::bindings::imports::psn::plugin::tool,
            "psn:plugin/hub@0.1.0": crate::bindings::imports::psn::plugin::hub,
            "psn:plugin/context@0.1.0": crate::bindings::imports::psn::plugin::context,
            "psn:plugin/events@0.1.0": crate::bindings::imports::psn::plugin::events,
        },
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "psn_plugin::__private::bindings::task",
    });
}
