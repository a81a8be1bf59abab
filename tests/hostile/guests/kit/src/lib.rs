//! Attacks as scripts: each component of the suite is one of a few guests, with the script of its one attack written into its
//! data. What a guest says about its success counts for nothing; the suite looks for itself.
#![cfg(target_family = "wasm")]

pub mod data;
pub mod local;
pub mod net;

use std::cell::RefCell;
use std::hint::black_box;

use psn_plugin::bindings::imports::psn::plugin as host;

/// Where a component's script is written to: the magic, its length (little endian), the script.
const MAGIC: &[u8; 16] = b"hostile-script->";
const ROOM: usize = 16 << 10;

#[used]
static SCRIPT: [u8; ROOM] = {
    let mut room = [b'@'; ROOM];
    let mut i = 0;
    while i < MAGIC.len() {
        room[i] = MAGIC[i];
        i += 1;
    }
    room
};

/// One line of a script, its operation first.
pub type Line = Vec<String>;

/// What an operation answered: what the next one may use as `@last`, or the code of the refusal.
pub type Told = Result<String, String>;

/// A group of operations: none where it does not know the name.
pub type Operations = fn(&mut Machine, &[String]) -> Option<Told>;

pub struct Machine {
    operations: Operations,
    last: String,
    told: Vec<String>,
    /// What the guest ends with, where the script says so.
    pub end: Option<End>,
}

pub enum End {
    Answer(String),
    Failure { code: String, message: String, fix: Vec<String> },
}

/// The script that was written into this component.
pub fn script() -> Vec<Line> {
    let bytes = black_box(&SCRIPT);
    let mut at = MAGIC.len();
    let mut number = || {
        let n = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        at += 4;
        n
    };
    let mut lines = Vec::new();
    for _ in 0..number() {
        let mut lengths = Vec::new();
        for _ in 0..number() {
            lengths.push(number());
        }
        lines.push(lengths);
    }
    lines
        .into_iter()
        .map(|lengths| {
            lengths
                .into_iter()
                .map(|n| {
                    let word = String::from_utf8_lossy(&bytes[at..at + n]).into_owned();
                    at += n;
                    word
                })
                .collect()
        })
        .collect()
}

/// Runs a script to its end.
pub fn perform(operations: Operations) -> Machine {
    // As the SDK does: a panic's words would be lost with the component.
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        host::events::log(host::events::Level::Error, message, &[(message.to_owned(), message.to_owned())]);
    }));
    let mut machine = Machine { operations, last: String::new(), told: Vec::new(), end: None };
    for line in script() {
        let told = machine.one(&line);
        machine.note(told);
        if machine.end.is_some() {
            break;
        }
    }
    machine
}

impl Machine {
    /// How a task ends.
    pub fn answer(self) -> End {
        self.end.unwrap_or_else(|| {
            let told: Vec<String> = self.told.iter().take(50).map(|t| format!("\"{t}\"")).collect();
            End::Answer(format!("{{\"told\":[{}]}}", told.join(",")))
        })
    }

    fn note(&mut self, told: Told) {
        match told {
            Ok(last) => {
                self.told.push("ok".to_owned());
                self.last = last;
            }
            Err(code) => {
                let code: String = code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect();
                self.told.push(code);
            }
        }
    }

    fn one(&mut self, line: &[String]) -> Told {
        let line: Vec<String> = line.iter().map(|word| self.expand(word)).collect();
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["repeat", times, ..] => {
                let mut told = Ok(String::new());
                for _ in 0..times.parse::<u64>().unwrap_or(u64::MAX) {
                    told = self.one(&line[2..]);
                }
                told
            }
            ["log", message, fields @ ..] => {
                let fields: Vec<(String, String)> =
                    fields.chunks_exact(2).map(|f| (f[0].to_owned(), f[1].to_owned())).collect();
                host::events::log(host::events::Level::Info, message, &fields);
                Ok(self.last.clone())
            }
            ["progress", message] => {
                host::events::progress(u32::MAX, 1, message);
                Ok(self.last.clone())
            }
            ["setting", name] => host::context::setting(name).ok_or_else(|| "none".to_owned()),
            ["sleep", ms] => {
                host::context::sleep_ms(ms.parse().unwrap_or(u32::MAX));
                Ok(String::new())
            }
            ["random", bytes] => Ok(host::context::random_bytes(bytes.parse().unwrap_or(u32::MAX)).len().to_string()),
            ["put", key, value] => host::state::put(key, value).map(|()| String::new()).map_err(|_| "refused".into()),
            ["get", key] => host::state::get(key).ok_or_else(|| "none".to_owned()),
            ["panic", message] => panic!("{message}"),
            ["spin"] => loop {
                black_box(());
            },
            ["recurse"] => Ok(recurse(1).to_string()),
            ["eat", mib] => {
                let mut eaten = Vec::new();
                for _ in 0..mib.parse::<usize>().unwrap_or(usize::MAX) {
                    let mut piece = Vec::new();
                    if piece.try_reserve_exact(1 << 20).is_err() {
                        return Err("no-memory".to_owned());
                    }
                    piece.resize(1 << 20, 1u8);
                    eaten.push(black_box(piece));
                }
                Ok(eaten.len().to_string())
            }
            ["answer", json] => {
                self.end = Some(End::Answer((*json).to_owned()));
                Ok(String::new())
            }
            ["fail", code, message, fix @ ..] => {
                self.end = Some(End::Failure {
                    code: (*code).to_owned(),
                    message: (*message).to_owned(),
                    fix: fix.iter().map(|f| (*f).to_owned()).collect(),
                });
                Ok(String::new())
            }
            _ => (self.operations)(self, &line).unwrap_or_else(|| panic!("no operation {:?}", words.first())),
        }
    }

    /// `@last` stands for what was answered last, `@nest` for 10,000 lists in each other, `@fill:x:1000` for a thousand x.
    fn expand(&self, word: &str) -> String {
        if let Some((unit, times)) = word.strip_prefix("@fill:").and_then(|w| w.rsplit_once(':')) {
            return unit.repeat(times.parse().unwrap_or(0));
        }
        if word.contains("@nest") {
            return word.replace("@nest", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)));
        }
        word.replace("@last", &self.last)
    }
}

#[inline(never)]
fn recurse(n: u64) -> u64 {
    let deeper = black_box([n; 16]);
    if n == 0 { deeper[0] } else { recurse(n + 1) + deeper[1] }
}

/// Secrets by name; for guests that import them.
pub fn secrets(words: &[&str]) -> Option<Told> {
    Some(match words {
        ["exists", name] => {
            if host::secrets::exists(name) {
                Ok((*name).to_owned())
            } else {
                Err("none".to_owned())
            }
        }
        ["fingerprint", name] => host::secrets::fingerprint(name).ok_or_else(|| "none".to_owned()),
        ["generate", name, bytes] => host::secrets::generate(name, bytes.parse().unwrap_or(u32::MAX))
            .map(|()| String::new())
            .map_err(|_| "refused".to_owned()),
        _ => return None,
    })
}

thread_local! {
    static HELD: RefCell<Vec<Box<dyn std::any::Any>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps something until the guest ends.
pub fn hold(thing: impl std::any::Any) {
    HELD.with_borrow_mut(|held| held.push(Box::new(thing)));
}

/// Exports a task that performs its script.
#[macro_export]
macro_rules! export_task {
    ($operations:expr) => {
        struct Component;

        use psn_plugin::__private::bindings::task as world;

        impl world::exports::psn::plugin::runner::Guest for Component {
            fn run(
                _: world::exports::psn::plugin::runner::Invocation,
            ) -> Result<String, world::exports::psn::plugin::runner::Failure> {
                match $crate::perform($operations).answer() {
                    $crate::End::Answer(json) => Ok(json),
                    $crate::End::Failure { code, message, fix } => {
                        Err(world::exports::psn::plugin::runner::Failure { code, message, fix, retry_after_ms: None })
                    }
                }
            }
        }

        world::export_world!(Component with_types_in psn_plugin::__private::bindings::task);
    };
}
