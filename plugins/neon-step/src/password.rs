//! The owner's password, where the database refuses the one that is kept: somebody changed it in Neon's console, or by SQL, which
//! Neon need not know of.

use psn_plugin::{hub, prelude::*};
use serde::Deserialize;

use crate::{
    api::Neon,
    notes::{self, Noted},
    settle,
};

/// What the host finds out by logging in as the owner.
const TOPIC: &str = "owner-login";
/// Lets psn reset the password in a project that it did not make. The id is its value, so that it is about that project alone.
const RESET: &str = "neon.reset_password";

#[derive(Deserialize)]
struct Login {
    owner: String,
}

/// Where nobody can tell now, as while the database does not answer, nothing is reset: what needs the database says why.
pub(crate) fn is_refused() -> bool {
    hub::facts::<Login>(TOPIC).is_ok_and(|login| login.owner == "refused")
}

/// What is kept is what Neon says it is. Where the database refuses that too, Neon makes a new password, and `keep` has it kept.
pub(crate) fn settle(
    neon: &impl Neon,
    noted: &mut Noted,
    keep: impl Fn(&mut Noted) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if is_refused() {
        let role = noted.database().owner_name;
        if !noted.created && context::setting(RESET).as_deref() != Some(&noted.id) {
            return Err(not_ours(noted, &role));
        }
        // Noted first: between the new password and its keeping, what is kept is known to be stale.
        noted.resetting = true;
        notes::note(noted)?;
        log::warn!("The database refuses the password that Neon knows; Neon makes a new one"; role = role);
        let operations = neon.reset_password(&noted.id, &role)?;
        noted.operations = operations.into_iter().map(|operation| operation.id).collect();
        notes::note(noted)?;
        settle::wait(neon, noted)?;
        keep(noted)?;
        if is_refused() {
            let message = format!("The database refuses {role} with the new password too");
            return Err(Failure::new("password-refused", message)
                .fix("psn run setup")
                .fix(format!("Look at the role: https://console.neon.tech/app/projects/{}", noted.id)));
        }
    }
    if noted.resetting {
        noted.resetting = false;
        notes::note(noted)?;
    }
    Ok(())
}

/// Other programs may use the password that somebody chose there.
fn not_ours(noted: &Noted, role: &str) -> Failure {
    let message = format!(
        "The database of {} refuses {role} with the password that Neon knows, and psn did not make that project: a new password would cut off whoever uses the present one",
        noted.name
    );
    Failure::new("password-refused", message).fix(format!("psn config set {RESET} {}", noted.id)).fix("psn run setup")
}
