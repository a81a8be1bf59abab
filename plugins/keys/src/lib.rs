//! Which keys the chosen hub needs, which of them are there, and whether their services accept them. Changes nothing.

use psn_plugin::{context::HubKind, prelude::*};

/// A key that a person brings, and how its service is asked about it.
struct Key {
    name: &'static str,
    /// As in the manifest, and as people call it.
    service: &'static str,
    company: &'static str,
    /// Answers 200 to every kind of key that is valid, without reading or changing anything.
    proof: &'static str,
    origin: &'static str,
    store: &'static str,
}

const KEYS: [Key; 2] = [
    Key {
        name: "NEON_API_KEY",
        service: "neon",
        company: "Neon",
        proof: "/auth",
        origin: "Neon console, Account settings, API keys: https://console.neon.tech/app/settings/api-keys",
        store: "psn keys set NEON_API_KEY --stdin",
    },
    Key {
        name: "TRIGGER_ACCESS_TOKEN",
        service: "trigger",
        company: "Trigger.dev",
        proof: "/api/v2/whoami",
        origin: "Trigger.dev, Account, Personal Access Tokens: https://cloud.trigger.dev/account/tokens",
        store: "psn keys set TRIGGER_ACCESS_TOKEN --stdin",
    },
];

/// What is left to a person who has no token: setup goes on with less, and says so.
const PRODUCTION_KEY: Key = Key {
    name: "TRIGGER_SECRET_KEY",
    service: "trigger-env",
    company: "Trigger.dev",
    proof: "/api/v1/schedules",
    origin: "Trigger.dev, the project's API keys, production: https://cloud.trigger.dev",
    store: "psn keys set TRIGGER_SECRET_KEY --stdin",
};

/// The keys to look at: the production key stands in for a token that is not there.
fn keys() -> [&'static Key; 2] {
    let [neon, token] = &KEYS;
    [neon, if !secrets::exists(token.name) && secrets::exists(PRODUCTION_KEY.name) { &PRODUCTION_KEY } else { token }]
}

struct Keys;

psn_plugin::export_step!(Keys);

impl Step for Keys {
    fn inspect() -> Result<State, Failure> {
        let keys = keys();
        let missing: Vec<_> = keys.into_iter().filter(|key| !secrets::exists(key.name)).collect();
        if !missing.is_empty() {
            return ask_for(&missing);
        }
        let checks = keys.into_iter().map(prove).collect::<Result<Vec<_>, _>>()?;
        let names = keys.map(|key| key.name);
        Ok(State::ready(
            Report::new(format!("{} keys are there, and their services accept them", keys.len()))
                .data(json!({ "keys": names }))
                .checks(checks),
        ))
    }
}

/// Nobody can look up a local hub's keys: its services issue them when they first start.
fn ask_for(missing: &[&Key]) -> Result<State, Failure> {
    if context::hub_kind() == HubKind::Local {
        let names: Vec<_> = missing.iter().map(|key| key.name).collect();
        let message = format!("The local hub has not issued {} yet", names.join(" and "));
        return Err(Failure::new("local-keys-missing", message).fix("psn local up").fix("psn run setup --hub local"));
    }
    Ok(State::needs(missing.iter().map(|key| Need::secret(key.name, key.origin))))
}

/// A service that is away says nothing about a key: only its own refusal makes a key a rejected one.
fn prove(key: &Key) -> Result<Check, Failure> {
    let reply = http::service(key.service).get(key.proof).retry_when_busy().send();
    let error = match reply.and_then(http::Response::success) {
        Ok(_) if key.name == PRODUCTION_KEY.name => {
            let message =
                "✗ Trigger.dev accepts TRIGGER_SECRET_KEY, with which psn can do less than with an access token";
            return Ok(Check::warn(key.name, message).fix("psn keys set TRIGGER_ACCESS_TOKEN --stdin"));
        }
        Ok(_) => {
            return Ok(Check::pass(key.name, format!("✓ {} accepts {}", key.company, key.name)));
        }
        Err(error) => error,
    };
    Err(match error.status() {
        Some(401) => rejected(key, format!("{} rejects {}: {}", key.company, key.name, error.message)),
        Some(403) => {
            rejected(key, format!("{} knows {}, but it may do nothing: {}", key.company, key.name, error.message))
        }
        _ if error.is_outage() => Failure::from(error)
            .context(format!("{} could not be asked about {}; the key itself may be fine", key.company, key.name)),
        _ => Failure::from(error).context(format!("Checking {}", key.name)),
    })
}

fn rejected(key: &Key, message: String) -> Failure {
    let failure = Failure::new("key-rejected", message);
    match context::hub_kind() {
        // Its own keys come back with the next setup; a person has none to give.
        HubKind::Local => failure.fix("psn local up").fix("psn run setup --hub local"),
        HubKind::Cloud => failure.fix(key.store).fix(format!("Make a new one: {}", key.origin)),
    }
}

#[cfg(test)]
mod tests;
