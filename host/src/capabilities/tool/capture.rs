//! What a program prints and the guest must not see: it goes to the secret store, and a reference takes its place.
use std::sync::Arc;

use serde_json::Value;

use super::run::Captured as Stream;
use crate::capabilities::Call;
use crate::capabilities::http::capture::{Captured, NotKept, keep, leave_references, redact, redact_json};
use crate::plugins::manifest::ToolCapture;
use crate::secret::{Keeper, Secret, Secrets};

/// The standard output as the guest may see it, with what was to be kept kept.
pub(super) async fn receive(
    call: &mut Call,
    place: &str,
    wanted: &ToolCapture,
    stdout: Stream,
    secrets: &Arc<Secrets>,
    keeper: &Keeper,
) -> Result<String, NotKept> {
    let text = String::from_utf8_lossy(&stdout.bytes).into_owned();
    if stdout.lost > 0 {
        return Ok(withheld(call, place, "is too long to be looked through"));
    }
    if let Some(name) = &wanted.text {
        let value = text.trim();
        if value.is_empty() {
            return Ok(withheld(call, place, "is empty"));
        }
        keep(&[Captured { name: name.clone(), value: Secret::new(value) }], secrets, keeper, &call.redactor).await?;
        return Ok(format!("{{{{secret:{name}}}}}"));
    }
    let Ok(mut json) = serde_json::from_str::<Value>(&text) else {
        return Ok(withheld(call, place, "is not JSON"));
    };
    let mut captured = Vec::new();
    for (pointer, name) in &wanted.json {
        match json.pointer(pointer).and_then(Value::as_str).filter(|value| !value.is_empty()) {
            Some(value) => captured.push(Captured { name: name.clone(), value: Secret::new(value) }),
            None => call.warn(format!("{place} has no text at {pointer}, where {name} was expected")),
        }
    }
    captured.sort_by_key(|c| std::cmp::Reverse(c.value.expose().len()));
    keep(&captured, secrets, keeper, &call.redactor).await?;
    leave_references(&mut json, captured);
    // Parts of what was kept, such as the password of a URL, are expected beside it.
    redact_json(&mut json, &call.redactor);
    Ok(redact(&json.to_string(), &call.redactor).into_owned())
}

/// It may hold the secret in a form that cannot be looked into.
fn withheld(call: &mut Call, place: &str, why: &str) -> String {
    call.warn(format!("{place} should hold a secret and {why}; it was withheld"));
    String::new()
}
