//! What the credentials at hand open: everything, or with the production key alone only that environment.

use psn_plugin::prelude::*;

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
        let origin = "Trigger.dev, Account, Personal Access Tokens: https://cloud.trigger.dev/account/tokens";
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

pub(crate) const SET_TOKEN: &str = "psn keys set TRIGGER_ACCESS_TOKEN --stdin";
