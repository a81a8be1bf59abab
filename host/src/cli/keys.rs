//! `psn keys`: a key comes in by standard input, environment or file, and never by argument.
use std::io::Read as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::args::{KeySource, Keys};
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::Event;
use crate::hub::EnvFiles;
use crate::pipeline::session::find_project;
use crate::redact::MIN_REDACTED_LEN;
use crate::secret::{Secret, Secrets, is_public, is_secret_name};

/// The longest key, in bytes. The longest known is under 500.
const MAX_KEY_BYTES: u64 = 8 * 1024;

pub(super) fn keys(context: &Context, command: Keys) -> Result<Done, CodedError> {
    match command {
        Keys::Set { name, from } => set(context, &name, from),
        Keys::Unset { name } => unset(context, &name),
        Keys::List => list(context),
    }
}

fn set(context: &Context, name: &str, from: KeySource) -> Result<Done, CodedError> {
    let again = format!("psn keys set {name} --stdin");
    check_name(name, "psn keys set NEON_API_KEY --stdin")?;
    let value = read(name, &from)?;
    let value = value.trim();
    if value.is_empty() || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(CodedError::new(
            "keys.bad-value",
            format!("what was given for {name} is empty, or has blanks or line breaks in it"),
            [again],
        ));
    }
    // What is shorter could not be kept out of outputs.
    if value.len() < MIN_REDACTED_LEN {
        return Err(CodedError::new(
            "keys.bad-value",
            format!(
                "what was given for {name} is shorter than {MIN_REDACTED_LEN} characters, which no service's key is"
            ),
            [again],
        ));
    }
    let project = find_project(context.common.project.as_deref(), true)?;
    let secrets = Secrets::open(Box::new(EnvFiles::new(&project)), Arc::clone(&context.redactor))?;
    let secret = Secret::new(value);
    if let Some(kept) = secrets.get(name).filter(|kept| is_the_hubs(name) && kept.expose() != secret.expose()) {
        return Err(hubs_own(name, &kept.fingerprint(name)));
    }
    let fingerprint = secret.fingerprint(name);
    if is_the_hubs(name) {
        secrets.set(name, secret)?
    } else {
        secrets.bring(name, secret)?
    };
    context.events.emit(&Event::Result {
        command: "keys set".to_owned(),
        data: json!({ "name": name, "fingerprint": format!("sha256:{fingerprint}"), "next": "psn run setup" }),
    });
    Ok(Done::Ok)
}

/// What setup makes is made again by the next one; what it cannot make again stays.
fn unset(context: &Context, name: &str) -> Result<Done, CodedError> {
    check_name(name, "psn keys list")?;
    let project = find_project(context.common.project.as_deref(), false)?;
    let secrets = Secrets::open(Box::new(EnvFiles::new(&project)), Arc::clone(&context.redactor))?;
    let Some(kept) = secrets.get(name) else {
        return Err(CodedError::new("keys.not-set", format!("there is no key {name}"), ["psn keys list"]));
    };
    let fingerprint = kept.fingerprint(name);
    if is_the_hubs(name) {
        return Err(hubs_own(name, &fingerprint));
    }
    secrets.unset(name)?;
    context.events.emit(&Event::Result {
        command: "keys unset".to_owned(),
        data: json!({ "name": name, "fingerprint": format!("sha256:{fingerprint}") }),
    });
    Ok(Done::Ok)
}

fn check_name(name: &str, fix: &str) -> Result<(), CodedError> {
    if is_secret_name(name) {
        return Ok(());
    }
    let message = format!("`{name}` is no key's name: capital letters, digits and _");
    Err(CodedError::new("keys.bad-name", message, [fix]))
}

/// What setup makes or psn itself says of the hub, and nobody brings.
fn is_the_hubs(name: &str) -> bool {
    matches!(name, "PSN_HUB" | "PSN_HUB_ID" | "HUB_ENCRYPTION_KEY")
        || name == "DATABASE_URL"
        || name.starts_with("DATABASE_URL_")
}

fn hubs_own(name: &str, fingerprint: &str) -> CodedError {
    CodedError::new(
        "keys.hubs-own",
        format!(
            "{name} is the hub's own (sha256:{fingerprint}): without it, or with another one, psn would lose the hub, or what is sealed in it"
        ),
        [
            "psn keys list".to_owned(),
            format!("Remove the line {name} from config/hub.env yourself, if it must be another"),
        ],
    )
}

fn read(name: &str, from: &KeySource) -> Result<Zeroizing<String>, CodedError> {
    let unreadable = |what: String| {
        CodedError::new(
            "keys.unreadable",
            what,
            [format!("psn keys set {name} --stdin"), format!("psn keys set {name} --from-env {name}")],
        )
    };
    let mut text = Zeroizing::new(String::new());
    if let Some(variable) = &from.from_env {
        *text = std::env::var(variable).map_err(|_| unreadable(format!("the environment has no {variable}")))?;
    } else if let Some(file) = &from.from_file {
        std::fs::File::open(file)
            .and_then(|f| f.take(MAX_KEY_BYTES).read_to_string(&mut text))
            .map_err(|e| unreadable(format!("{}: {e}", file.display())))?;
    } else {
        std::io::stdin()
            .take(MAX_KEY_BYTES)
            .read_to_string(&mut text)
            .map_err(|e| unreadable(format!("standard input: {e}")))?;
    }
    Ok(text)
}

fn list(context: &Context) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), false)?;
    let secrets = Secrets::open(Box::new(EnvFiles::new(&project)), Arc::clone(&context.redactor))?;
    let keys: Map<String, Value> = secrets
        .names()
        .into_iter()
        .filter(|n| !is_public(n))
        .map(|name| {
            let fingerprint = secrets.fingerprint(&name).unwrap_or_default();
            (name, json!(format!("sha256:{fingerprint}")))
        })
        .collect();
    context.events.emit(&Event::Result { command: "keys list".to_owned(), data: Value::Object(keys) });
    Ok(Done::Ok)
}
