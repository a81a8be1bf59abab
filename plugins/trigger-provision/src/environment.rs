//! The environment variables that the tasks read in Trigger.dev's cloud. A secret travels by reference: this step sees only
//! whether it changed.

use std::collections::BTreeMap;

use psn_plugin::prelude::*;

use crate::{
    notes::{self, Noted},
    tasks::{AS_WRITTEN, PLAN_VARIABLE, Tasks},
    trigger,
};

/// Trigger.dev sets these itself and refuses them from others.
const RESERVED_PREFIX: &str = "TRIGGER_";

/// Names of the variables that the project lacks or has in an older value.
pub(crate) fn stale(noted: &Noted, tasks: &Tasks) -> Result<Vec<String>, Failure> {
    let there = trigger::variables(&noted.external_ref)?;
    let Changes { secrets, plain } = changes(noted, tasks, &there)?;
    Ok(secrets.into_keys().chain(plain.into_keys()).collect())
}

pub(crate) fn bring_up_to_date(noted: &Noted, tasks: &Tasks) -> Result<(), Failure> {
    let there = trigger::variables(&noted.external_ref)?;
    let Changes { secrets, plain } = changes(noted, tasks, &there)?;
    let missing: Vec<_> = secrets.iter().filter(|(_, print)| print.is_none()).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        let message = format!("The tasks need {}, which earlier steps of the setup make", missing.join(", "));
        return Err(Failure::new("secret-missing", message).fix("psn run setup"));
    }
    let mut imported = notes::imported(noted)?;
    if !secrets.is_empty() {
        let references: BTreeMap<_, _> = secrets.keys().map(|name| (name, secrets::reference(name))).collect();
        trigger::import_variables(&noted.external_ref, json!(references), true)?;
        imported.secrets.extend(secrets.into_iter().filter_map(|(name, print)| Some((name, print?))));
        notes::note_imported(&imported)?;
    }
    if !plain.is_empty() {
        trigger::import_variables(&noted.external_ref, json!(plain), false)?;
        imported.plain.extend(plain);
        notes::note_imported(&imported)?;
    }
    Ok(())
}

struct Changes {
    /// With the fingerprint to note; none where the secret does not exist.
    secrets: BTreeMap<String, Option<String>>,
    plain: BTreeMap<String, String>,
}

fn changes(noted: &Noted, tasks: &Tasks, there: &[String]) -> Result<Changes, Failure> {
    let imported = notes::imported(noted)?;
    let wanted = |name: &&String| !name.starts_with(RESERVED_PREFIX);
    let secrets = tasks.env.iter().filter(wanted).map(|name| (name.clone(), secrets::fingerprint(name)));
    let secrets = secrets
        .filter(|(name, print)| {
            print.is_none() || !there.contains(name) || imported.secrets.get(name) != print.as_ref()
        })
        .collect();
    let mut all = tasks.plain_env.clone();
    if imported.plain.contains_key(PLAN_VARIABLE) {
        all.entry(PLAN_VARIABLE.to_owned()).or_insert_with(|| AS_WRITTEN.to_owned());
    }
    let plain = all
        .iter()
        .filter(|(name, _)| wanted(name))
        .filter(|(name, value)| !there.contains(name) || imported.plain.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(Changes { secrets, plain })
}
