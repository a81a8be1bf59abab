//! Where events go. One writer for standard output, which every event of the process passes: redacted, one line each, never torn.
use std::io::Write;
use std::sync::{Arc, Mutex};

use super::types::{Event, Level};
use crate::boundary::{Kind, Phase, passed};
use crate::redact::Redactor;

/// Takes events in the order they happen.
pub trait Sink: Send + Sync {
    fn emit(&self, event: &Event);
}

/// A handle that is cheap to clone.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Sink>);

impl EventSink {
    pub fn new(sink: impl Sink + 'static) -> Self {
        Self(Arc::new(sink))
    }

    pub fn emit(&self, event: &Event) {
        self.0.emit(event);
    }

    /// A word of psn's own, or of the plugin `source`.
    pub fn log(&self, level: Level, source: &str, message: impl Into<String>) {
        self.emit(&Event::Log {
            level,
            source: source.to_owned(),
            message: message.into(),
            fields: serde_json::Map::new(),
        });
    }
}

/// Shows an event to people.
pub type View = Box<dyn Fn(&Event) + Send + Sync>;

/// Writes events as NDJSON, and hands each to a view for people.
pub struct Output {
    out: Mutex<Box<dyn Write + Send>>,
    view: Option<View>,
    redactor: Arc<Redactor>,
}

impl Output {
    pub fn new(out: Box<dyn Write + Send>, view: Option<View>, redactor: Arc<Redactor>) -> Self {
        Self { out: Mutex::new(out), view, redactor }
    }

    /// The event as one line, without a live secret in any form. The strings are filtered before they are encoded, so that what is
    /// left is valid JSON whatever a secret looks like.
    fn encode(&self, event: &Event) -> String {
        let mut value = serde_json::to_value(event).unwrap_or_else(
            |e| serde_json::json!({ "type": "log", "level": "error", "source": "psn", "message": e.to_string() }),
        );
        redact_value(&mut value, &self.redactor);
        let line = escaped(value.to_string());
        // What remains can only be a secret that is spread over keys, or hidden by an escape: then the whole line goes.
        if self.redactor.finds(line.as_bytes()) {
            return serde_json::json!({ "type": "log", "level": "error", "source": "psn", "message": "an event was withheld: it held a secret" }).to_string();
        }
        line
    }
}

/// Characters that steer terminals, end lines for some readers, or reorder what a person sees.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// JSON leaves some of them as they are. They can only stand in strings, where an escape means the same.
fn escaped(line: String) -> String {
    if !line.contains(steers) {
        return line;
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match c {
            c if steers(c) => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

impl Sink for Output {
    fn emit(&self, event: &Event) {
        let line = self.encode(event);
        passed(Kind::Event, Phase::Before, || line.clone());
        {
            let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // A reader that went away is no reason to stop in the middle of setup: what is done is recorded, and the next run tells.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
        passed(Kind::Event, Phase::After, || line.clone());
        if let Some(view) = &self.view {
            // People see what programs see: the line as it was written, not the event as it came in.
            if let Ok(event) = serde_json::from_str(&line) {
                view(&event);
            }
        }
    }
}

/// Replaces live secrets in every string of a JSON value, keys included.
pub fn redact_value(value: &mut serde_json::Value, redactor: &Redactor) {
    use serde_json::Value;
    match value {
        Value::String(s) => {
            if let std::borrow::Cow::Owned(clean) = redactor.redact(s) {
                *s = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| redact_value(v, redactor)),
        Value::Object(map) => {
            if map.keys().any(|k| redactor.finds(k.as_bytes())) {
                *map = std::mem::take(map).into_iter().map(|(k, v)| (redactor.redact(&k).into_owned(), v)).collect();
            }
            map.values_mut().for_each(|v| redact_value(v, redactor));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Keeps events, for tests and for commands that work on them.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Sink for Arc<Recorder> {
    fn emit(&self, event: &Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl Write for Buffer {
        fn write(&mut self, b: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(b);
            Ok(b.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_a_message_holds_stays_one_line_without_secrets() {
        let redactor = Arc::new(Redactor::new());
        redactor.register(&Secret::new("napi_canary\"with\\quotes"));
        let buffer = Buffer::default();
        let sink = EventSink::new(Output::new(Box::new(buffer.clone()), None, redactor));
        sink.log(
            Level::Info,
            "x",
            "one\n{\"type\":\"summary\"}\u{1b}[2J\u{0}\u{7f}\u{9b}2J\u{2028}\u{202e} napi_canary\"with\\quotes end",
        );
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains("canary"), "{text}");
        assert!(text.trim_end().chars().all(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}')), "{text}");
        let event: Event = serde_json::from_str(&text).unwrap();
        assert!(
            matches!(event, Event::Log { message, .. } if message.contains("\u{9b}2J\u{2028}\u{202e} [redacted] end"))
        );
    }
}
