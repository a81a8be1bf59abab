//! What a program prints and the guest must not see: it goes to the secret store, and a reference takes its place.
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::run::Captured as Stream;
use crate::capabilities::Call;
use crate::capabilities::captured::{Left, NotReceived, Picked, json_of, redact, redact_json, unfit, url_passwords};
use crate::plugins::manifest::ToolCapture;
use crate::redact::MIN_REDACTED_LEN;
use crate::secret::{Keeper, MAX_SECRET_BYTES, Secret, Secrets};

/// Passwords in URLs that one run of a program may print. A connection string and its pooled form are two; each makes every later
/// output dearer to look through.
const MAX_PASSWORDS: usize = 16;

/// The program prints more than can be looked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "its output was withheld: it holds more than {MAX_PASSWORDS} passwords in URLs, or one of more than {MAX_SECRET_BYTES} bytes"
)]
pub(super) struct TooManyPasswords;

/// Registers passwords in URLs: secrets that psn may not have met yet, and that may be printed a second time beside the URL. What is
/// shorter than a secret, or a word of psn's own events, is replaced in its URL only.
pub(super) fn register_passwords(call: &Call, streams: [&Stream; 2]) -> Result<(), TooManyPasswords> {
    let mut found = BTreeSet::new();
    for stream in streams {
        let text = String::from_utf8_lossy(&stream.bytes);
        for range in url_passwords(&text) {
            let password = &text[range];
            if password.len() < MIN_REDACTED_LEN || found.contains(password) {
                continue;
            }
            if password.len() > MAX_SECRET_BYTES || found.len() == MAX_PASSWORDS {
                return Err(TooManyPasswords);
            }
            found.insert(password.to_owned());
        }
    }
    let secrets: Vec<Secret> = found.into_iter().filter(|p| unfit(p).is_none()).map(Secret::new).collect();
    call.redactor.register_all(&secrets);
    Ok(())
}

/// The standard output as the guest may see it, with what was to be kept kept.
pub(super) async fn receive(
    call: &mut Call,
    place: &str,
    wanted: &ToolCapture,
    exit_code: i32,
    stdout: Stream,
    secrets: &Arc<Secrets>,
    keeper: &Keeper,
) -> Result<String, NotReceived> {
    let text = String::from_utf8_lossy(&stdout.bytes).into_owned();
    if stdout.lost > 0 {
        return Ok(withheld(call, place, "is too long to be looked through"));
    }
    let too_large = |_| NotReceived::TooLarge { place: place.to_owned() };
    let mut json = match &wanted.text {
        // All of it is the value, and what is left of it is the reference.
        Some(_) => Value::String(text.trim().to_owned()),
        None => match json_of(text.as_bytes()).map_err(too_large)? {
            Some(json) => json,
            None => return Ok(withheld(call, place, "is not JSON")),
        },
    };
    let picked = match &wanted.text {
        Some(name) => Picked::whole(name, text.trim()),
        None => Picked::from_json(&wanted.json, &json),
    };
    if exit_code != 0 {
        // What a program that failed prints is nothing to keep, and nothing to show: it may have printed the secret before.
        picked.hide(&call.redactor);
        return Ok(withheld(call, place, "is of a run that failed"));
    }
    let redactor = Arc::clone(&call.redactor);
    let mut warn = |words: String| call.warn(words);
    if picked.keep(&mut json, place, secrets, keeper, &redactor, &mut warn).await? == Left::Withheld {
        return Ok(String::new());
    }
    if let (Some(_), Value::String(reference)) = (&wanted.text, &json) {
        return Ok(reference.clone());
    }
    // Parts of what was kept, such as the password of a URL, are expected beside it.
    redact_json(&mut json, &redactor);
    Ok(redact(&json.to_string(), &redactor).into_owned())
}

/// It may hold the secret in a form that cannot be looked into.
fn withheld(call: &mut Call, place: &str, why: &str) -> String {
    call.warn(format!("{place} should hold a secret and {why}; it was withheld"));
    String::new()
}
