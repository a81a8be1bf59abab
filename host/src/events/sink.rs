//! Where events go. One writer for standard output, which every event of the process passes: redacted, one line each, never torn.
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex, OnceLock};

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

/// Why events did not reach their reader: the first reason, if there is one. A reader that went away is none.
#[derive(Clone, Default)]
pub struct Unwritten(Arc<OnceLock<std::io::Error>>);

impl Unwritten {
    pub fn reason(&self) -> Option<&std::io::Error> {
        self.0.get()
    }

    fn note(&self, written: std::io::Result<()>) {
        match written {
            // What is done is recorded, and the next run tells: no reason to stop in the middle of setup.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            Err(e) => drop(self.0.set(e)),
            Ok(()) => {}
        }
    }
}

/// Fields of every event whose values are psn's own words, whatever a secret looks like: without them no reader knows what it reads.
const OWN_WORDS: [&str; 3] = ["type", "status", "level"];

/// Writes events as NDJSON, and hands each to a view for people.
pub struct Output {
    out: Mutex<Box<dyn Write + Send>>,
    view: Option<View>,
    redactor: Arc<Redactor>,
    unwritten: Unwritten,
}

impl Output {
    pub fn new(out: Box<dyn Write + Send>, view: Option<View>, redactor: Arc<Redactor>) -> Self {
        Self { out: Mutex::new(out), view, redactor, unwritten: Unwritten::default() }
    }

    pub fn unwritten(&self) -> Unwritten {
        self.unwritten.clone()
    }

    fn encode(&self, event: &Event) -> String {
        line_of(event, &self.redactor)
    }
}

/// The event as one line, without a live secret in any form. The strings are filtered before they are encoded, so that what is left is
/// valid JSON whatever a secret looks like.
pub(crate) fn line_of(event: &Event, redactor: &Redactor) -> String {
    let mut value = serde_json::to_value(event).unwrap_or_else(
        |e| serde_json::json!({ "type": "log", "level": "error", "source": "psn", "message": e.to_string() }),
    );
    if let Some(fields) = value.as_object_mut() {
        // The fields' names and psn's own words stay: a value that is captured from a service, and is `"type":"` or `summary`, must
        // not take the whole stream away.
        for (_, value) in fields.iter_mut().filter(|(name, _)| !OWN_WORDS.contains(&name.as_str())) {
            redact_value(value, redactor);
            // What remains can only be a secret that is spread over keys, or hidden by an escape: then the whole event goes.
            if redactor.finds(escaped(value.to_string()).as_bytes()) {
                return serde_json::json!({ "type": "log", "level": "error", "source": "psn", "message": "an event was withheld: it held a secret" }).to_string();
            }
        }
    }
    escaped(value.to_string())
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
            self.unwritten.note(writeln!(out, "{line}").and_then(|()| out.flush()));
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
    fn a_secret_that_looks_like_the_stream_takes_nothing_of_it_away() {
        let redactor = Arc::new(Redactor::new());
        for secret in ["\"type\":\"", "elapsed_ms", "needs_consent", "\",\"source\":\"", "\"level\":\"info\""] {
            redactor.register(&Secret::new(secret));
        }
        let buffer = Buffer::default();
        let sink = EventSink::new(Output::new(Box::new(buffer.clone()), None, redactor));
        sink.log(Level::Info, "x", "needs_consent, says x");
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let event: Event = serde_json::from_str(&text).unwrap();
        assert!(
            matches!(event, Event::Log { source, message, .. } if source == "x" && message == "[redacted], says x")
        );
    }

    #[test]
    fn a_secret_that_is_spread_over_a_guests_keys_takes_the_event_away() {
        let redactor = Arc::new(Redactor::new());
        redactor.register(&Secret::new("half-of-it\":\"other-half"));
        let buffer = Buffer::default();
        let sink = EventSink::new(Output::new(Box::new(buffer.clone()), None, redactor));
        let fields = serde_json::json!({ "half-of-it": "other-half" }).as_object().unwrap().clone();
        sink.emit(&Event::Log { level: Level::Info, source: "x".to_owned(), message: String::new(), fields });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("withheld") && !text.contains("other-half"), "{text}");
    }

    #[test]
    fn a_full_disk_is_noted_and_a_reader_that_left_is_not() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for (kind, is_noted) in [(ErrorKind::BrokenPipe, false), (ErrorKind::StorageFull, true)] {
            let output = Output::new(Box::new(Broken(kind)), None, Arc::new(Redactor::new()));
            let unwritten = output.unwritten();
            EventSink::new(output).log(Level::Info, "x", "x");
            assert_eq!(unwritten.reason().map(std::io::Error::kind), is_noted.then_some(kind));
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
