//! Values that a service or a program answers and a guest must not see: which they are, that they are kept, and what stands in their
//! place.
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::events::vocabulary;
use crate::plugins::manifest::WITHHELD;
use crate::redact::{MIN_REDACTED_LEN, REDACTED, Redactor};
use crate::secret::{Keeper, MAX_SECRET_BYTES, Secret, SecretError, Secrets, is_public};

/// JSON values of one text. Each takes 50 to 100 bytes of memory once it is read, whatever it takes as text; the largest answer of
/// the vendors' APIs, a page of 100 runs, has about 10,000.
pub(in crate::capabilities) const MAX_JSON_VALUES: usize = 200_000;

/// Why an answer is not handed on. What was asked for was done.
#[derive(Debug, thiserror::Error)]
pub(in crate::capabilities) enum NotReceived {
    #[error("the secret {name} was answered, and could not be kept: {source}")]
    NotKept { name: String, source: SecretError },
    #[error("{place} was withheld: what stands there for {name} can be no credential: {why}")]
    Unfit { place: String, name: String, why: &'static str },
    #[error("{place} has more than {MAX_JSON_VALUES} JSON values")]
    TooLarge { place: String },
}

impl NotReceived {
    /// As a guest is told.
    pub(in crate::capabilities) fn code(&self) -> &'static str {
        match self {
            NotReceived::NotKept { .. } => "secret-not-kept",
            NotReceived::Unfit { .. } => "secret-unfit",
            NotReceived::TooLarge { .. } => "too-large",
        }
    }
}

#[derive(Debug)]
pub(in crate::capabilities) struct TooMany;

/// The text as JSON; none where it is not.
pub(in crate::capabilities) fn json_of(text: &[u8]) -> Result<Option<Value>, TooMany> {
    if values_of(text) <= MAX_JSON_VALUES {
        return Ok(serde_json::from_slice(text).ok());
    }
    // Read without being built. What is no JSON can have as many commas as it likes.
    if serde_json::from_slice::<IgnoredAny>(text).is_ok() { Err(TooMany) } else { Ok(None) }
}

/// At least as many as there are values and keys in it, if it is JSON.
pub(in crate::capabilities) fn values_of(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' | b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Why a value cannot be a credential; none where it can. Credentials have none of these characters, and a word that psn itself
/// writes would be blotted out in psn's own events from then on.
pub(in crate::capabilities) fn unfit(value: &str) -> Option<&'static str> {
    if value.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\')) {
        return Some("it holds a quote, a backslash, white space or a control character");
    }
    // In any form in which it would be searched for: a word may also be the password of a URL.
    let probe = Redactor::new();
    probe.register(&Secret::new(value));
    probe.finds(vocabulary::words().as_bytes()).then_some("it is a word of psn's own events")
}

pub(in crate::capabilities) struct Captured {
    pub(in crate::capabilities) name: String,
    pub(in crate::capabilities) value: Secret,
}

/// A value that was to be captured and is none that can be.
pub(in crate::capabilities) struct Missed<'c> {
    name: &'c str,
    pointer: &'c str,
    why: &'static str,
    /// It is there, and can be no credential.
    unfit: bool,
}

/// What was found of what was wanted, and what was not.
#[derive(Default)]
pub(in crate::capabilities) struct Picked<'c> {
    captured: Vec<Captured>,
    missed: Vec<Missed<'c>>,
}

/// What becomes of an answer whose values were picked.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::capabilities) enum Left {
    /// References stand in their place; whether anything was changed.
    Shown { changed: bool },
    /// Nothing of it may be shown: the secret may stand anywhere, and nobody knows it by sight.
    Withheld,
}

impl<'c> Picked<'c> {
    /// By JSON pointer.
    pub(in crate::capabilities) fn from_json(
        wanted: impl IntoIterator<Item = (&'c String, &'c String)>,
        json: &Value,
    ) -> Self {
        let mut picked = Self::default();
        for (pointer, name) in wanted {
            picked.one(pointer, name, json.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
        }
        picked
    }

    /// All of a text.
    pub(in crate::capabilities) fn whole(name: &'c str, text: &str) -> Self {
        let mut picked = Self::default();
        picked.one("", name, text);
        picked
    }

    fn one(&mut self, pointer: &'c str, name: &'c str, value: &str) {
        let mut miss = |why, unfit| self.missed.push(Missed { name, pointer, why, unfit });
        match value.len() {
            0 => miss("no text", false),
            // Too short to be kept out of texts.
            n if n < MIN_REDACTED_LEN && !is_public(name) => miss("too short a secret", false),
            n if n > MAX_SECRET_BYTES => miss("too long a secret", false),
            _ => match unfit(value) {
                Some(why) => miss(why, true),
                None => self.captured.push(Captured { name: name.to_owned(), value: Secret::new(value) }),
            },
        }
    }

    /// Registered with the filter, and kept by nobody.
    pub(in crate::capabilities) fn hide(&self, redactor: &Redactor) {
        redactor.register_all(self.captured.iter().filter(|c| !is_public(&c.name)).map(|c| &c.value));
    }

    /// Keeps what was found, and leaves references to it in `json`. `warn` is told what was not found.
    pub(in crate::capabilities) async fn keep(
        mut self,
        json: &mut Value,
        place: &str,
        secrets: &Arc<Secrets>,
        keeper: &Keeper,
        redactor: &Redactor,
        warn: &mut (dyn FnMut(String) + Send),
    ) -> Result<Left, NotReceived> {
        // So that a value that is part of another leaves that one whole.
        self.captured.sort_by_key(|c| std::cmp::Reverse(c.value.expose().len()));
        self.hide(redactor);
        keep(&self.captured, secrets, keeper).await?;
        if let Some(Missed { name, why, .. }) = self.missed.iter().find(|m| m.unfit) {
            return Err(NotReceived::Unfit { place: place.to_owned(), name: (*name).to_owned(), why });
        }
        let changed = leave_references(json, self.captured);
        for Missed { pointer, name, why, .. } in &self.missed {
            let at = if pointer.is_empty() { String::new() } else { format!(" at {pointer}") };
            warn(format!("{place}: {why}{at}, where {name} was expected; nothing was kept under that name"));
        }
        if self.missed.iter().any(|m| !is_public(m.name)) {
            warn(format!("{place} was withheld: it may hold a secret where none was expected"));
            return Ok(Left::Withheld);
        }
        Ok(Left::Shown { changed })
    }
}

/// Why an answer's values could not be kept, found before anything is asked that would be answered by them.
pub(in crate::capabilities) fn refused<'n>(
    names: impl IntoIterator<Item = &'n String>,
    secrets: &Secrets,
    keeper: &Keeper,
) -> Result<(), SecretError> {
    names.into_iter().filter(|name| *name != WITHHELD).try_for_each(|name| secrets.may_keep(keeper, name))
}

async fn keep(captured: &[Captured], secrets: &Arc<Secrets>, keeper: &Keeper) -> Result<(), NotReceived> {
    let captured: Vec<_> =
        captured.iter().filter(|c| c.name != WITHHELD).map(|c| (c.name.clone(), c.value.clone())).collect();
    let (secrets, keeper) = (secrets.clone(), keeper.clone());
    // Keeping a secret waits for the disk. All of them are kept even if the call is given up meanwhile: the service may not show
    // them a second time.
    let kept = tokio::task::spawn_blocking(move || {
        captured
            .into_iter()
            .map(|(name, value)| {
                secrets.keep(&keeper, &name, value).map_err(|source| NotReceived::NotKept { name, source })
            })
            .fold(Ok(()), Result::and)
    });
    match kept.await {
        Ok(kept) => kept,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Replaces each captured value by its reference, wherever it stands.
fn leave_references(json: &mut Value, captured: Vec<Captured>) -> bool {
    let mut changed = false;
    // What may be shown stays readable: the guest needs it for its next paths.
    for Captured { name, value } in captured.into_iter().filter(|c| !is_public(&c.name)) {
        let reference = if name == WITHHELD { REDACTED.to_owned() } else { format!("{{{{secret:{name}}}}}") };
        let value = value.expose();
        changed |= rewrite(json, &mut |s| match () {
            () if s == value => Some(reference.clone()),
            // Shorter ones would be found inside of ordinary words.
            () if value.len() >= MIN_REDACTED_LEN && s.contains(value) => Some(s.replace(value, &reference)),
            () => None,
        });
    }
    changed
}

pub(in crate::capabilities) fn redact_json(json: &mut Value, redactor: &Redactor) -> bool {
    rewrite(json, &mut |s| match redact(s, redactor) {
        Cow::Owned(clean) => Some(clean),
        Cow::Borrowed(_) => None,
    })
}

/// Applies `change` to every string, key, and number as it is written. Whether anything was changed.
fn rewrite(json: &mut Value, change: &mut dyn FnMut(&str) -> Option<String>) -> bool {
    match json {
        Value::String(s) => change(s).map(|new| *s = new).is_some(),
        Value::Number(n) => change(&n.to_string()).map(|new| *json = Value::String(new)).is_some(),
        Value::Array(items) => items.iter_mut().fold(false, |changed, v| rewrite(v, change) | changed),
        Value::Object(map) => {
            let mut changed = false;
            if map.keys().any(|k| change(k).is_some()) {
                *map = std::mem::take(map).into_iter().map(|(k, v)| (change(&k).unwrap_or(k), v)).collect();
                changed = true;
            }
            map.values_mut().fold(changed, |changed, v| rewrite(v, change) | changed)
        }
        Value::Null | Value::Bool(_) => false,
    }
}

/// Without live secrets, and without passwords in URLs, which are secrets that psn has not met yet.
pub(in crate::capabilities) fn redact<'t>(text: &'t str, redactor: &Redactor) -> Cow<'t, str> {
    match redactor.redact(text) {
        Cow::Borrowed(text) => without_url_passwords(text),
        Cow::Owned(text) => Cow::Owned(without_url_passwords(&text).into_owned()),
    }
}

pub(in crate::capabilities) fn without_url_passwords(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut kept = 0;
    for range in url_passwords(text) {
        out.push_str(&text[kept..range.start]);
        out.push_str(REDACTED);
        kept = range.end;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

/// Where passwords stand in `scheme://user:password@host`.
pub(in crate::capabilities) fn url_passwords(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    text.match_indices("://").filter_map(|(at, separator)| {
        let start = at + separator.len();
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '\\' | '`');
        let authority = text[start..].split(ends).next().unwrap_or_default();
        let (user_info, _) = authority.rsplit_once('@')?;
        let (user, password) = user_info.split_once(':')?;
        let from = start + user.len() + 1;
        (!password.is_empty() && password != REDACTED).then_some(from..from + password.len())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_psn_itself_writes_can_be_no_credential() {
        for value in [
            r#""type":""#,
            "a\\b-and-more",
            "two words",
            "line\nbreak",
            "bell\u{7}bell",
            "needs_consent",
            "eds_consen",
            "memory_peak",
            "run.interrupted",
            "psn.events/1",
            "watchdog",
            "neon-provision",
            "docs/errors.md",
            // What is searched for besides the value itself.
            "https://user:needs_consent@host/",
            "needs%5fconsent",
        ] {
            assert!(unfit(value).is_some(), "{value}");
        }
        for value in [
            "napi_0123456789abcdef",
            "postgresql://o:npg_x1y2z3w4@h/db?sslmode=require",
            "tr_prod_AbCdEf",
            "needs_consent_1",
        ] {
            assert_eq!(unfit(value), None, "{value}");
        }
    }

    #[test]
    fn json_is_counted_before_it_is_built() {
        let many = |item: &str| format!("[{}0]", item.repeat(MAX_JSON_VALUES / 2));
        assert!(json_of(many("0,").as_bytes()).unwrap().is_some());
        assert!(json_of(many("{\"a\":1},").as_bytes()).is_err());
        assert!(json_of(many("[],").as_bytes()).is_err());
        assert!(json_of(format!("[\"{}\"]", ",[{:\\\"".repeat(MAX_JSON_VALUES)).as_bytes()).unwrap().is_some());
        assert!(json_of(format!("[{}", ",".repeat(MAX_JSON_VALUES + 1)).as_bytes()).unwrap().is_none(), "no JSON");
        for text in ["1", "[]", "[[],{}]", "{\"a\":[1,2,{\"b\":null}]}", "[\"a,b\"]"] {
            fn count(v: &Value) -> usize {
                1 + match v {
                    Value::Array(items) => items.iter().map(count).sum(),
                    Value::Object(map) => map.values().map(|v| 1 + count(v)).sum::<usize>(),
                    _ => 0,
                }
            }
            let is = count(&serde_json::from_str(text).unwrap());
            assert!(values_of(text.as_bytes()) >= is, "{text}: {is}");
        }
    }

    #[test]
    fn passwords_in_urls_are_replaced() {
        for (text, clean) in [
            (
                "postgresql://owner:npg_x@ep-1.neon.tech/hub?sslmode=require",
                "postgresql://owner:[redacted]@ep-1.neon.tech/hub?sslmode=require",
            ),
            ("a https://u:p@h/ and https://v:q@i b", "a https://u:[redacted]@h/ and https://v:[redacted]@i b"),
            ("https://u:p@q@h/", "https://u:[redacted]@h/"),
            ("https://h/a:b@c", "https://h/a:b@c"),
            ("https://user@h/", "https://user@h/"),
            ("https://u:@h/", "https://u:@h/"),
            ("https://u:[redacted]@h/", "https://u:[redacted]@h/"),
            ("://", "://"),
        ] {
            assert_eq!(without_url_passwords(text), clean);
        }
    }

    #[test]
    fn references_take_the_place_of_values() {
        let capture = |name: &str, value: &str| Captured { name: name.into(), value: Secret::new(value) };
        let mut json = json!({ "uri": "postgresql://o:pw@h/db", "again": ["see postgresql://o:pw@h/db!"], "pw": "short", "word": "shorten", "postgresql://o:pw@h/db": 1 });
        assert!(leave_references(&mut json, vec![capture("URL", "postgresql://o:pw@h/db"), capture("PW", "short")]));
        assert_eq!(
            json,
            json!({ "uri": "{{secret:URL}}", "again": ["see {{secret:URL}}!"], "pw": "{{secret:PW}}", "word": "shorten", "{{secret:URL}}": 1 })
        );
    }

    #[test]
    fn a_number_can_be_a_secret() {
        let redactor = Redactor::new();
        redactor.register(&Secret::new("1234567890"));
        let mut json = json!([1234567890, 12, "x"]);
        assert!(redact_json(&mut json, &redactor));
        assert_eq!(json, json!([REDACTED, 12, "x"]));
    }
}
