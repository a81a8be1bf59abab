//! The keys: what setup made is there, and the services accept what a person brought.

use psn_plugin::{context::HubKind, http, prelude::*};

use crate::{ENVIRONMENT_KEY, TOKEN, bad, good, went_wrong};

/// What config/hub.env must have for the hub to work.
const MADE_BY_SETUP: [(&str, &str); 4] = [
    ("HUB_ENCRYPTION_KEY", "psn run setup"),
    ("DATABASE_URL", "psn run neon-provision"),
    ("DATABASE_URL_DIRECT", "psn run neon-provision"),
    ("DATABASE_URL_APP", "psn run migrate"),
];

pub(crate) fn check() -> Vec<Check> {
    vec![made_by_setup(), brought("NEON_API_KEY", "Neon", http::service("neon").get("/auth")), token()]
}

/// Without it the production key still shows most of what is deployed: that is said, and the hub works.
fn token() -> Check {
    if !secrets::exists(TOKEN) && secrets::exists(ENVIRONMENT_KEY) && context::hub_kind() == HubKind::Cloud {
        let message = format!(
            "✗ {TOKEN} is not there: with {ENVIRONMENT_KEY} alone psn checks the key, the project of trigger.project_ref, its \
             deployment and its schedules; it cannot look for projects, fetch another key or deploy"
        );
        return Check::warn(format!("key.{TOKEN}"), message).fix(format!("psn keys set {TOKEN} --stdin"));
    }
    brought(TOKEN, "Trigger.dev", http::service("trigger").get("/api/v2/whoami"))
}

fn made_by_setup() -> Check {
    let name = "hub-env";
    let missing: Vec<_> = MADE_BY_SETUP.iter().filter(|(secret, _)| !secrets::exists(secret)).collect();
    let Some((_, fix)) = missing.first() else {
        return good(name, "config/hub.env has what setup makes");
    };
    let names: Vec<_> = missing.iter().map(|(secret, _)| *secret).collect();
    bad(name, format!("config/hub.env lacks {}", names.join(", "))).fix(*fix)
}

/// A service that is away fails the check too, but is not said to have rejected anything.
fn brought(secret: &str, company: &str, proof: http::Request) -> Check {
    let name = format!("key.{secret}");
    let replace = match context::hub_kind() {
        HubKind::Local => "psn run setup --hub local".to_owned(),
        HubKind::Cloud => format!("psn keys set {secret} --stdin"),
    };
    if !secrets::exists(secret) {
        return bad(name, format!("{secret} is not there")).fix(replace);
    }
    match proof.retry_when_busy().send().and_then(http::Response::success) {
        Ok(_) => good(name, format!("{company} accepts {secret}")),
        Err(error) if matches!(error.status(), Some(401 | 403)) => {
            bad(name, format!("{company} rejects {secret}: {}", error.message)).fix(replace)
        }
        Err(error) => went_wrong(name, error),
    }
}
