use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::events::{Event, EventSink, Level, Output};
use crate::redact::{MIN_REDACTED_LEN, REDACTED, Redactor};
use crate::secret::Secret;

/// A secret and a text: the first byte says how long the secret is.
fn split(data: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = data.split_first()?;
    let (secret, text) = rest.split_at_checked(usize::from(*length))?;
    let secret = String::from_utf8(secret.to_vec()).ok()?;
    // One that the mark has in it cannot be told from the mark.
    (secret.len() >= MIN_REDACTED_LEN && !REDACTED.contains(secret.as_str()) && !secret.contains(REDACTED))
        .then_some((secret, text))
}

/// No text leaves with a secret in it, and one without any leaves as it is.
pub(super) fn redact(data: &[u8]) {
    let Some((secret, text)) = split(data) else { return };
    let redactor = Redactor::new();
    redactor.register(&Secret::new(secret.clone()));
    let clean = redactor.redact_bytes(text);
    assert!(!redactor.finds(&clean) || clean.as_ref() == REDACTED.as_bytes());
    assert_eq!(redactor.finds(text), clean.as_ref() != text || text == REDACTED.as_bytes() && redactor.finds(text));
    assert!(!contains(&clean, secret.as_bytes()));
    if let Ok(text) = std::str::from_utf8(text) {
        assert_eq!(redactor.redact(text).as_bytes(), clean.as_ref());
    }
    // Wherever the text is cut in two, the secret between the halves is found.
    let cut = text.len() / 2;
    let around = [&text[..cut], b" ", secret.as_bytes(), b" ", &text[cut..]].concat();
    assert!(redactor.finds(&around) && !contains(&redactor.redact_bytes(&around), secret.as_bytes()));
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whatever a guest says, in whatever place: each event is one line, and each line one event.
pub(super) fn events(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let redactor = Arc::new(Redactor::new());
    if let Some((secret, _)) = split(data) {
        redactor.register(&Secret::new(secret));
    }
    let buffer = Buffer::default();
    let sink = EventSink::new(Output::new(Box::new(buffer.clone()), None, Arc::clone(&redactor)));
    let nested = serde_json::json!([{ text.as_str(): [text.as_str()] }]);
    let fields = Map::from_iter([(text.clone(), Value::from(text.clone())), ("nested".to_owned(), nested)]);
    let said = [
        Event::Log { level: Level::Warn, source: text.clone(), message: text.clone(), fields: fields.clone() },
        Event::Progress { source: "x".to_owned(), done: 1, total: 0, message: text.clone() },
        Event::Result { command: text, data: Value::Object(fields) },
    ];
    for event in &said {
        sink.emit(event);
    }
    let written = buffer.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let written = String::from_utf8(written).expect("output is UTF-8");
    assert!(written.ends_with('\n') && !redactor.finds(written.as_bytes()));
    assert_eq!(written.matches('\n').count(), said.len());
    for line in written.lines() {
        assert!(!line.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}')), "{line:?}");
        let event: Event = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(matches!(event, Event::Log { .. } | Event::Progress { .. } | Event::Result { .. }));
    }
}
