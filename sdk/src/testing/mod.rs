//! Doubles for the host, so that a plugin's decisions are tested in milliseconds: scripted replies, recorded events, and the
//! plugin's own manifest deciding what it may do. They exist only in builds for the host machine.
//!
//! ```
//! use psn_plugin::{prelude::*, testing::Hub};
//!
//! # const MANIFEST: &str = "[[http]]\nservice = \"example\"\nbase = \"https://example.org\"\nroutes = [\"GET /things/{thing}\"]";
//! fn colour(thing: &str) -> Result<String, Failure> {
//!     let reply = http::service("example").get(http::path!("/things/{}", thing)).send()?.success()?;
//!     Ok(reply.json::<serde_json::Value>()?["colour"].as_str().unwrap_or("none").to_owned())
//! }
//!
//! let hub = Hub::new(MANIFEST);
//! hub.expect("example", "GET /things/7").reply(200, json!({ "colour": "blue" }));
//! assert_eq!(colour("7").unwrap(), "blue");
//! ```
//!
//! Calls must come in the order in which they are expected. Dropping the [`Hub`] checks that every expected call was made.

pub(crate) mod backend;
mod manifest;
mod script;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::{Level, Timestamp};
use manifest::Manifest;
use script::Script;
pub use script::{HttpExpectation, SqlExpectation, ToolExpectation};

/// The moment at which each test begins.
const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// A log line as the host got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub level: Level,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

pub(crate) struct World {
    manifest: Manifest,
    run_id: String,
    hub_id: String,
    settings: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    notes: BTreeMap<String, String>,
    state_is_full: bool,
    facts: BTreeMap<String, Json>,
    script: Script,
    now: i64,
    slept_ms: u64,
    call_takes_ms: u32,
    open_transactions: u32,
    journal: Vec<String>,
    logs: Vec<Line>,
    progress: Vec<(u32, u32, String)>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<RefCell<World>>>> = const { RefCell::new(None) };
}

/// A hub of the test's own, in place on this thread until it is dropped.
pub struct Hub {
    world: Rc<RefCell<World>>,
}

impl Hub {
    /// `manifest` is the text of plugin.toml: the export macros leave it in the crate's `MANIFEST`.
    ///
    /// # Panics
    /// When the manifest is no TOML, or another `Hub` is alive on this thread.
    pub fn new(manifest: &str) -> Self {
        let world = World {
            manifest: Manifest::parse(manifest),
            run_id: "run-of-the-test".into(),
            hub_id: "7f3a0c1d".into(),
            settings: BTreeMap::from([("hub.kind".into(), "cloud".into()), ("hub.id".into(), "7f3a0c1d".into())]),
            secrets: BTreeMap::new(),
            notes: BTreeMap::new(),
            state_is_full: false,
            facts: BTreeMap::new(),
            script: Script::default(),
            now: START.as_micros(),
            slept_ms: 0,
            call_takes_ms: 0,
            open_transactions: 0,
            journal: Vec::new(),
            logs: Vec::new(),
            progress: Vec::new(),
        };
        let world = Rc::new(RefCell::new(world));
        WORLD.with_borrow_mut(|slot| {
            assert!(slot.is_none(), "only one testing::Hub can be alive on a thread: drop the first one");
            *slot = Some(world.clone());
        });
        Self { world }
    }

    fn change(self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.world.borrow_mut());
        self
    }

    /// The local hub; without this it is the cloud.
    pub fn local(self) -> Self {
        self.setting("hub.kind", "local")
    }

    pub fn setting(self, name: &str, value: &str) -> Self {
        self.change(|world| drop(world.settings.insert(name.into(), value.into())))
    }

    /// A secret that is there; its value is its name.
    pub fn secret(self, name: &str) -> Self {
        self.secret_value(name, name)
    }

    pub fn secret_value(self, name: &str, value: &str) -> Self {
        self.change(|world| drop(world.secrets.insert(name.into(), value.into())))
    }

    /// A note that an earlier run left.
    pub fn note(self, key: &str, value: Json) -> Self {
        self.change(|world| drop(world.notes.insert(key.into(), value.to_string())))
    }

    /// All notes of an earlier hub, as [`Hub::notes`] answered them.
    pub fn notes_of(self, notes: BTreeMap<String, String>) -> Self {
        self.change(|world| world.notes = notes)
    }

    /// No note can be saved any more.
    pub fn full_disk(self) -> Self {
        self.change(|world| world.state_is_full = true)
    }

    /// Each HTTP call takes so long by the hub's clock, for tests of time budgets. Without this it takes no time.
    pub fn calls_take_ms(self, ms: u32) -> Self {
        self.change(|world| world.call_takes_ms = ms)
    }

    pub fn facts(self, topic: &str, facts: Json) -> Self {
        self.change(|world| drop(world.facts.insert(topic.into(), facts)))
    }

    /// The next call: an HTTP request, for example `hub.expect("neon", "GET /projects")`.
    pub fn expect(&self, service: &str, request: &str) -> HttpExpectation {
        HttpExpectation::new(self.world.clone(), service, request)
    }

    /// The next call: SQL that contains each of `fragments`, whatever its white space.
    pub fn expect_sql(&self, fragments: &[&str]) -> SqlExpectation {
        SqlExpectation::new(self.world.clone(), fragments)
    }

    /// The next call: a program with exactly these arguments.
    pub fn expect_tool(&self, name: &str, args: &[&str]) -> ToolExpectation {
        ToolExpectation::new(self.world.clone(), name, args)
    }

    /// What happened, in order: `POST neon /projects`, `put intent`, `sql UPDATE posts …`, `tool trigger deploy`.
    pub fn journal(&self) -> Vec<String> {
        self.world.borrow().journal.clone()
    }

    pub fn logs(&self) -> Vec<Line> {
        self.world.borrow().logs.clone()
    }

    pub fn progress(&self) -> Vec<(u32, u32, String)> {
        self.world.borrow().progress.clone()
    }

    pub fn slept_ms(&self) -> u64 {
        self.world.borrow().slept_ms
    }

    /// # Panics
    /// When the note is there but of another shape.
    pub fn noted<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let world = self.world.borrow();
        world.notes.get(key).map(|text| serde_json::from_str(text).expect("the note has the shape the test asks for"))
    }

    pub fn notes(&self) -> BTreeMap<String, String> {
        self.world.borrow().notes.clone()
    }

    pub fn has_secret(&self, name: &str) -> bool {
        self.world.borrow().secrets.contains_key(name)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(|slot| *slot = None);
        let left = self.world.borrow().script.left();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "expected calls that were not made: {}", left.join("; "));
        }
    }
}

/// # Panics
/// When the test has no `Hub`.
pub(crate) fn world<T>(work: impl FnOnce(&mut World) -> T) -> T {
    let world = WORLD.with_borrow(Clone::clone).expect("a test of plugin code begins with testing::Hub::new(MANIFEST)");
    work(&mut world.borrow_mut())
}

#[cfg(test)]
mod tests;
