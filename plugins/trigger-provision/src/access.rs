//! What the credentials at hand open: everything, or with the production key alone only that environment.

use psn_plugin::{context::HubKind, prelude::*};

use crate::{
    ENVIRONMENT_KEY, TOKEN, find,
    notes::{self, Noted},
};

pub(crate) enum Access {
    /// A person's token, or an organisation's.
    Token,
    /// The production key alone, and the project that it is for.
    KeyOnly(Noted),
    Missing(Vec<Need>),
}

pub(crate) fn access() -> Result<Access, Failure> {
    if secrets::exists(TOKEN) {
        find::token_is_good()?;
        return Ok(Access::Token);
    }
    if !secrets::exists(ENVIRONMENT_KEY) {
        let origin = format!("Trigger.dev, Account, Personal Access Tokens: {TOKENS}");
        return Ok(Access::Missing(vec![Need::secret(TOKEN, origin)]));
    }
    if let Some(noted) = notes::noted()? {
        return Ok(Access::KeyOnly(noted));
    }
    // A key does not say which project it opens.
    let Some(external_ref) = context::setting("trigger.project_ref") else {
        return Ok(Access::Missing(vec![find::project_need()]));
    };
    let noted = Noted {
        id: String::new(),
        name: external_ref.clone(),
        external_ref,
        org: String::new(),
        created: false,
        chosen: true,
    };
    Ok(Access::KeyOnly(noted))
}

/// Said wherever it went well all the same.
pub(crate) fn key_only() -> Check {
    Check::warn(
        "access",
        "✗ Only the production key is here: psn sets the environment and checks deployment and schedules, and cannot look \
         for the project, fetch a new key or deploy to the cloud",
    )
    .fix(SET_TOKEN)
}

/// Trigger.dev does not know the token, at whatever call of a run.
pub(crate) fn token_rejected() -> Failure {
    let failure = Failure::new(
        "token-rejected",
        "Trigger.dev rejects the access token: it was revoked, has expired, or is mistyped",
    );
    match context::hub_kind() {
        // Its own come back with the next setup; a person has none to give.
        HubKind::Local => failure.fix("psn run setup --hub local"),
        HubKind::Cloud => failure.fix(SET_TOKEN).fix(format!("Make a new one, signed in at {TOKENS}")),
    }
}

/// The same for the production key, which a token fetches anew.
pub(crate) fn key_rejected() -> Failure {
    if secrets::exists(TOKEN) {
        return Failure::new("key-rejected", "Trigger.dev rejects the production key: it was regenerated")
            .fix("psn run trigger-provision");
    }
    Failure::new("key-rejected", "Trigger.dev rejects the production key, and there is no token to fetch another")
        .fix(SET_TOKEN)
        .fix("psn keys set TRIGGER_SECRET_KEY --stdin")
}

/// Where a person makes a token.
const TOKENS: &str = "https://cloud.trigger.dev/account/tokens";
pub(crate) const SET_TOKEN: &str = "psn keys set TRIGGER_ACCESS_TOKEN --stdin";
