//! What becomes of a response before the guest sees it: captured values go to the secret store and leave references behind, and
//! everything else passes the redactor.
use std::borrow::Cow;
use std::sync::Arc;

use super::connect::Answer;
use super::headers::shown_to_guest;
use super::policy::Authorised;
use crate::capabilities::Call;
use crate::capabilities::captured::{Left, NotReceived, Picked, json_of, redact, redact_json};
use crate::secret::{Keeper, Secrets};
use psn_bindings::imports::psn::plugin::http::Response;

/// The response as the guest may see it.
pub(super) async fn receive(
    call: &mut Call,
    authorised: &Authorised,
    answer: Answer,
    secrets: &Arc<Secrets>,
    keeper: &Keeper,
) -> Result<Response, NotReceived> {
    let service = &authorised.service().name;
    let place = format!("a response of the service {service}");
    let Answer { status, headers, mut body } = answer;
    let mut json = match looks_like_json(&body) {
        true => json_of(&body).map_err(|_| NotReceived::TooLarge { place: place.clone() })?,
        false => None,
    };
    let mut changed = false;
    let capture = authorised.capture().filter(|_| status.is_success());
    if let Some(capture) = capture {
        match &mut json {
            Some(value) => {
                let picked = Picked::from_json(capture.values.iter().map(|(pointer, name)| (pointer, name)), value);
                let redactor = Arc::clone(&call.redactor);
                let mut warn = |words: String| call.warn(words);
                match picked.keep(value, &place, secrets, keeper, &redactor, &mut warn).await? {
                    Left::Shown { changed: is } => changed = is,
                    Left::Withheld => (json, body) = (None, Vec::new()),
                }
            }
            None => {
                // It may hold the secret in a form that cannot be looked into.
                call.warn(format!("{place} should hold a secret and is not JSON; it was withheld"));
                body.clear();
            }
        }
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

/// A number or a word alone is text like any other.
fn looks_like_json(body: &[u8]) -> bool {
    body.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|first| matches!(first, b'{' | b'[' | b'"'))
}
