//! What becomes of a response before the guest sees it: captured values go to the secret store and leave references behind, and
//! everything else passes the redactor.
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use psn_bindings::imports::psn::plugin::http::Response;
use serde_json::Value;

use super::connect::Answer;
use super::headers::shown_to_guest;
use super::policy::Authorised;
use super::services::Capture;
use crate::capabilities::Call;
use crate::plugins::manifest::WITHHELD;
use crate::redact::{MIN_REDACTED_LEN, REDACTED, Redactor};
use crate::secret::{Keeper, MAX_SECRET_BYTES, Secret, SecretError, Secrets, is_public};

/// A secret that was answered could not be kept. What was asked for was done.
#[derive(Debug, thiserror::Error)]
#[error("the secret {name} was answered, and could not be kept: {source}")]
pub(in crate::capabilities) struct NotKept {
    name: String,
    source: SecretError,
}

/// The response as the guest may see it.
pub(super) async fn receive(
    call: &mut Call,
    authorised: &Authorised,
    answer: Answer,
    secrets: &Arc<Secrets>,
    keeper: &Keeper,
) -> Result<Response, NotKept> {
    let service = &authorised.service().name;
    let place = format!("a response of the service {service}");
    let Answer { status, headers, mut body } = answer;
    let mut json = parse(&body);
    let (mut changed, mut json_withheld) = (false, false);
    let capture = authorised.capture().filter(|_| status.is_success());
    if let Some(capture) = capture {
        match &mut json {
            Some(json) => {
                let (captured, missed) = pick(capture, json);
                keep(&captured, secrets, keeper, &call.redactor).await?;
                changed = leave_references(json, captured);
                for Missed { pointer, name, why } in &missed {
                    call.warn(format!(
                        "{place}: {why} at {pointer}, where {name} was expected; nothing was kept under that name"
                    ));
                }
                // The secret may stand anywhere else in there, and nobody knows it by sight.
                if missed.iter().any(|m| !is_public(m.name)) {
                    call.warn(format!("{place} was withheld: it may hold a secret where none was expected"));
                    (json_withheld, changed) = (true, false);
                }
            }
            None => {
                // It may hold the secret in a form that cannot be looked into.
                call.warn(format!("{place} should hold a secret and is not JSON; it was withheld"));
                body.clear();
            }
        }
    }
    if json_withheld {
        (json, body) = (None, Vec::new());
    }
    let mut leaked = false;
    if let Some(json) = &mut json {
        leaked |= redact_json(json, &call.redactor);
        if changed || leaked {
            body = json.to_string().into_bytes();
        }
    } else if let Ok(text) = std::str::from_utf8(&body)
        && let Cow::Owned(clean) = redact(text, &call.redactor)
    {
        leaked = true;
        body = clean.into_bytes();
    }
    // What is binary, or spread over more than one string.
    if let Cow::Owned(clean) = call.redactor.redact_bytes(&body) {
        leaked = true;
        body = clean;
    }
    let headers = headers
        .iter()
        .filter(|(name, _)| shown_to_guest(name))
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let clean = redact(&value, &call.redactor).into_owned();
            leaked |= clean != value;
            (name.as_str().to_owned(), clean)
        })
        .collect();
    // Beside a captured value, its parts are expected.
    if leaked && capture.is_none() {
        call.leaked(&place);
    }
    Ok(Response { status: status.as_u16(), headers, body })
}

fn parse(body: &[u8]) -> Option<Value> {
    let first = body.iter().find(|b| !b.is_ascii_whitespace())?;
    if !matches!(first, b'{' | b'[' | b'"') {
        return None;
    }
    serde_json::from_slice(body).ok()
}

pub(in crate::capabilities) struct Captured {
    pub(in crate::capabilities) name: String,
    pub(in crate::capabilities) value: Secret,
}

/// A value that was to be captured and is none that can be.
struct Missed<'c> {
    pointer: &'c str,
    name: &'c str,
    why: &'static str,
}

fn pick<'c>(capture: &'c Capture, json: &Value) -> (Vec<Captured>, Vec<Missed<'c>>) {
    let (mut captured, mut missed) = (Vec::new(), Vec::new());
    for (pointer, name) in &capture.values {
        let value = json.pointer(pointer).and_then(Value::as_str).filter(|v| !v.is_empty()).ok_or("no text");
        let value = value.and_then(|v| match v.len() {
            // Too short to be kept out of texts.
            n if n < MIN_REDACTED_LEN && !is_public(name) => Err("too short a secret"),
            n if n > MAX_SECRET_BYTES => Err("too long a secret"),
            _ => Ok(v),
        });
        match value {
            Ok(value) => captured.push(Captured { name: name.clone(), value: Secret::new(value) }),
            Err(why) => missed.push(Missed { pointer, name, why }),
        }
    }
    // So that a value that is part of another leaves that one whole.
    captured.sort_by_key(|c| std::cmp::Reverse(c.value.expose().len()));
    (captured, missed)
}

/// Why an answer's values could not be kept, found before anything is asked that would be answered by them.
pub(in crate::capabilities) fn refused<'n>(
    names: impl IntoIterator<Item = &'n String>,
    secrets: &Secrets,
    keeper: &Keeper,
) -> Result<(), SecretError> {
    names.into_iter().filter(|name| *name != WITHHELD).try_for_each(|name| secrets.may_keep(keeper, name))
}

pub(in crate::capabilities) async fn keep(
    captured: &[Captured],
    secrets: &Arc<Secrets>,
    keeper: &Keeper,
    redactor: &Redactor,
) -> Result<(), NotKept> {
    let mut captured: Vec<_> = captured.iter().map(|c| (c.name.clone(), c.value.clone())).collect();
    for (name, value) in &captured {
        if !is_public(name) {
            redactor.register(value);
        }
    }
    captured.retain(|(name, _)| name != WITHHELD);
    let (secrets, keeper) = (secrets.clone(), keeper.clone());
    // Keeping a secret waits for the disk. All of them are kept even if the call is given up meanwhile: the service may not show
    // them a second time.
    let kept = tokio::task::spawn_blocking(move || {
        captured
            .into_iter()
            .map(|(name, value)| secrets.keep(&keeper, &name, value).map_err(|source| NotKept { name, source }))
            .fold(Ok(()), Result::and)
    });
    match kept.await {
        Ok(kept) => kept,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Replaces each captured value by its reference, wherever it stands.
pub(in crate::capabilities) fn leave_references(json: &mut Value, captured: Vec<Captured>) -> bool {
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
