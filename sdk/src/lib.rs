//! What a psn plugin written in Rust depends on.
//!
//! A plugin is a setup [`Step`] or a scheduled [`Task`]. It names services and tables; psn holds the addresses, the credentials
//! and the rights, as `plugin.toml` beside the crate's `Cargo.toml` asks for them. A whole step:
//!
//! ```no_run
//! use psn_plugin::prelude::*;
//!
//! struct Greeting;
//!
//! impl Step for Greeting {
//!     fn inspect() -> Result<State, Failure> {
//!         if state::get::<String>("greeted")?.is_some() {
//!             return Ok(State::ready(Report::new("Greeted before")));
//!         }
//!         Ok(State::pending(["say hello to the service"]))
//!     }
//!
//!     fn apply() -> Result<Report, Failure> {
//!         http::service("example").post("/hello").json(&json!({ "hub": context::hub_id() })).send()?.success()?;
//!         state::put("greeted", "yes")?;
//!         Ok(Report::new("Said hello"))
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! and, in the plugin, `psn_plugin::export_step!(Greeting);`. Built for `wasm32-unknown-unknown` that is a component which
//! imports psn's contract and nothing else; built for the host it is a library whose logic runs in unit tests, against the
//! doubles in `testing`.

mod events;
mod export;
mod failure;
mod plugin;
mod time;
mod types;

pub mod context;
pub mod db;
pub mod http;
pub mod hub;
pub mod secrets;
pub mod state;
pub mod tool;
pub mod vault;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_family = "wasm")]
mod guest;
#[cfg(target_family = "wasm")]
use guest as sys;

#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(not(target_family = "wasm"))]
use testing::backend as sys;

pub use events::{Level, log, progress};
pub use failure::Failure;
pub use plugin::{Invocation, Step, Task};
pub use time::Timestamp;
pub use types::{Check, Need, Report, State, Status};

/// What nearly every plugin needs: `use psn_plugin::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Check, Failure, Invocation, Need, Report, State, Status, Step, Task, Timestamp, context, db, http, hub, log,
        params, progress, secrets, state, tool, vault,
    };
    pub use serde_json::json;
}

/// What the macros expand to; not for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::events::write;
    #[cfg(target_family = "wasm")]
    pub use crate::{bindings, sys::export};
}
