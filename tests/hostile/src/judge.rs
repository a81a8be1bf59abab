//! From observations to effects. An attack that had none held, whatever its guest said; a control holds if exactly its own were seen.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::attack::{Attack, Expected};
use crate::canary::{Canary, contains};
use crate::listener::{Arrived, CAPTURED};
use crate::process::Ran;
use crate::stream;

/// The most memory of a psn process, in bytes: itself, with a component of the largest default, compiled.
const MAX_MEMORY: u64 = 420 << 20;

/// Headers that psn adds, or that guests of the suite may.
const HEADERS: [&str; 9] = [
    "host",
    "accept",
    "accept-encoding",
    "user-agent",
    "authorization",
    "content-length",
    "content-type",
    "x-plain",
    "x-key",
];

/// What was seen, by kind; the kinds are those of build/fixtures.rs.
pub(crate) type Effects = BTreeMap<&'static str, String>;

/// What a run did, in an attack that got as far as running.
pub(crate) struct Seen<'a> {
    pub(crate) ran: &'a Ran,
    pub(crate) web: Vec<Arrived>,
    pub(crate) inside: Vec<Arrived>,
    pub(crate) canaries: &'a [Canary],
    /// The secret that is added to requests of the service `web`, and stands nowhere else.
    pub(crate) credential: &'a Canary,
}

pub(crate) fn judge(attack: &Attack, plugin: &str, seen: &Seen<'_>, effects: &mut Effects) -> Vec<Value> {
    let expected = &attack.expected;
    let events = output(seen.ran, seen.canaries, effects);
    if !seen.ran.killed
        && !effects.contains_key("stream")
        && let Some(forged) = stream::forged(&events, plugin, seen.ran.code)
    {
        note(effects, "stream", forged.chars().take(300).collect());
    }
    outcome(expected, seen.ran, &events, effects);
    if seen.ran.killed || (expected.deadline && seen.ran.at_work.as_millis() > u128::from(expected.within_ms)) {
        note(effects, "time", format!("it went on for {:.1} s", seen.ran.at_work.as_secs_f32()));
    }
    if seen.ran.memory > MAX_MEMORY {
        note(effects, "memory", format!("psn took {} MiB", seen.ran.memory >> 20));
    }
    if let Some(connection) = seen.inside.first() {
        note(effects, "inside", format!("{} at an address that nobody may reach", connection.line));
    }
    service(expected, seen, effects);
    let output = [&seen.ran.stdout[..], &seen.ran.stderr[..]].concat();
    if let Some(text) = expected.unseen.iter().find(|t| contains(&output, t.as_bytes())) {
        note(effects, "seen", format!("`{text}` in psn's output"));
    }
    events
}

/// What holds for whatever psn writes, whichever command it was.
pub(crate) fn output(ran: &Ran, canaries: &[Canary], effects: &mut Effects) -> Vec<Value> {
    let events = match stream::events(&ran.stdout) {
        Ok(events) => events,
        Err(wrong) => {
            note(effects, "stream", wrong);
            return Vec::new();
        }
    };
    let stderr = String::from_utf8_lossy(&ran.stderr);
    if let Some(c) = stderr.chars().find(|c| *c != '\n' && stream::steers(*c)) {
        note(effects, "stream", format!("the character {} on standard error", c.escape_unicode()));
    }
    for (place, bytes) in [("standard output", &ran.stdout), ("standard error", &ran.stderr)] {
        if let Some(canary) = canaries.iter().find(|c| c.is_in(bytes)) {
            note(effects, "secret", format!("{} on {place}", canary.name));
        }
    }
    events
}

fn outcome(expected: &Expected, ran: &Ran, events: &[Value], effects: &mut Effects) {
    let code = code(events);
    if code != expected.code {
        let or = |code: &str| if code.is_empty() { "success".to_owned() } else { code.to_owned() };
        note(effects, "outcome", format!("{} instead of {}", or(&code), or(expected.code)));
    }
    let exit = if expected.code.is_empty() { 0 } else { 1 };
    if !ran.killed && ran.code.is_none_or(|c| c != exit && c != 4) {
        note(effects, "outcome", format!("it ended with {:?}", ran.code));
    }
    let told = told(events);
    if !expected.told.is_empty() && told != expected.told {
        note(effects, "outcome", format!("the guest was told {}", told.join(", ")));
    }
}

fn service(expected: &Expected, seen: &Seen<'_>, effects: &mut Effects) {
    for arrived in &seen.web {
        let line = arrived.line.replacen("/base", "", 1);
        if !expected.web.contains(&line.as_str()) || !arrived.line.contains(" /base") {
            note(effects, "web", format!("{} arrived", line.chars().take(100).collect::<String>()));
        }
        if arrived.more {
            note(effects, "web", "more arrived than one request".to_owned());
        }
        let mut names: Vec<&str> = arrived.headers.iter().map(|(n, _)| n.as_str()).collect();
        if let Some(unknown) = names.iter().find(|n| !HEADERS.contains(n)) {
            note(effects, "web", format!("the header {unknown} arrived"));
        }
        names.sort_unstable();
        if names.windows(2).any(|w| w[0] == w[1]) {
            note(effects, "web", "a header arrived twice".to_owned());
        }
        let text: Vec<u8> = arrived
            .headers
            .iter()
            .filter(|(n, _)| n != "authorization")
            .map(|(n, v)| format!("{n}: {v}\n"))
            .chain([arrived.line.clone()])
            .collect::<String>()
            .into_bytes();
        for canary in seen.canaries.iter().chain([seen.credential]) {
            if canary.is_in(&text) || canary.is_in(&arrived.body) {
                note(effects, "secret", format!("{} arrived at the service", canary.name));
            }
        }
        let credential = arrived.headers.iter().find(|(n, _)| n == "authorization").map_or("", |(_, v)| v);
        if seen.canaries.iter().any(|c| c.name != seen.credential.name && c.is_in(credential.as_bytes())) {
            note(effects, "secret", "another credential than the service's arrived".to_owned());
        }
    }
    // An attack that did not get where it was let shows nothing.
    for line in expected.web {
        if !seen.web.iter().any(|a| a.line.replacen("/base", "", 1) == *line) {
            note(effects, "outcome", format!("{line} did not arrive"));
        }
    }
    if contains(&seen.ran.stdout, CAPTURED.as_bytes()) {
        note(effects, "secret", "the captured value on standard output".to_owned());
    }
}

/// The first of each kind is kept.
pub(crate) fn note(effects: &mut Effects, kind: &'static str, what: String) {
    effects.entry(kind).or_insert(what);
}

/// The code of the error that a command ended with; empty where it ended with none.
pub(crate) fn code(events: &[Value]) -> String {
    let last = events.iter().rev().find_map(|e| e["error"]["code"].as_str());
    let status = events.iter().rev().find(|e| e["type"] == "step").and_then(|e| e["status"].as_str());
    match (last, status) {
        (Some(code), _) => code.to_owned(),
        (None, Some(status @ ("needs_input" | "needs_consent"))) => status.to_owned(),
        (None, _) => String::new(),
    }
}

/// What the guest was answered, by its own account: for the table, and to see that it tried.
pub(crate) fn told(events: &[Value]) -> Vec<&str> {
    let told = events.iter().rev().find_map(|e| e["data"]["told"].as_array());
    told.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether the effects are the expected ones.
pub(crate) fn held(expected: &Expected, effects: &Effects) -> bool {
    effects.keys().copied().eq(sorted(expected.effects))
}

fn sorted(kinds: &'static [&'static str]) -> Vec<&'static str> {
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds
}
