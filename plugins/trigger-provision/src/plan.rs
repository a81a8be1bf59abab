//! What the plan of the organisation leaves of the schedules. A refusal is remembered, so that the next run does not ask for the
//! same again; a person says when to try anew.

use psn_plugin::prelude::*;

use crate::{
    notes::{self, Noted},
    tasks::{Limits, Tasks},
    trigger::DeploymentError,
};

/// The setting: `exact` fails rather than change a schedule, `hourly` does not ask for more. Without it, what was refused is changed.
const SETTING: &str = "trigger.schedules";
const EXACT: &str = "exact";
const HOURLY: &str = "hourly";
/// Schedules of a project on Trigger.dev's free plan.
const FREE_SCHEDULES: usize = 10;

pub(crate) fn within(noted: &Noted, tasks: &Tasks) -> Result<Tasks, Failure> {
    let limits = match context::setting(SETTING).as_deref() {
        Some(EXACT) => Limits::default(),
        Some(HOURLY) => Limits { hourly: true, ..notes::limits(noted)? },
        _ => notes::limits(noted)?,
    };
    Ok(tasks.within(&limits))
}

/// The tasks that Trigger.dev may take after it refused these; none where less would not help, or is not wanted.
pub(crate) fn less(noted: &Noted, tasks: &Tasks, refused: &DeploymentError) -> Result<Option<Tasks>, Failure> {
    if context::setting(SETTING).as_deref() == Some(EXACT) {
        return Ok(None);
    }
    let mut limits = tasks.limits.clone();
    let scheduled = tasks.scheduled().count();
    match refused.name.as_str() {
        "SchedulePlanLimitError" if !limits.hourly => limits.hourly = true,
        // The one name for all that Trigger.dev refuses; with more schedules than any free plan has, it is most likely them.
        "ServiceValidationError" if limits.schedules.is_none() && scheduled > FREE_SCHEDULES => {
            limits.schedules = Some(FREE_SCHEDULES);
        }
        _ => return Ok(None),
    }
    let less = tasks.within(&limits);
    let changed: Vec<_> =
        tasks.tasks.iter().zip(&less.tasks).filter(|(before, after)| before.cron != after.cron).collect();
    if changed.is_empty() {
        return Ok(None);
    }
    for (before, after) in changed {
        let id = &before.id;
        match &after.cron {
            Some(cron) => {
                log::warn!("The plan allows hourly schedules at most: {} runs at `{}`", id, cron; reason = refused.message)
            }
            None => {
                log::warn!("The plan allows {} schedules: {} has none; start it with psn task trigger {}", FREE_SCHEDULES, id, id; reason = refused.message)
            }
        }
    }
    notes::note_limits(noted, &limits)?;
    Ok(Some(less))
}

/// A plan that took everything as it is written has no limits any more.
pub(crate) fn accepted(noted: &Noted, tasks: &Tasks) -> Result<(), Failure> {
    if context::setting(SETTING).as_deref() == Some(EXACT) && notes::limits(noted)? != tasks.limits {
        notes::note_limits(noted, &tasks.limits)?;
    }
    Ok(())
}

/// What only a person can do about a plan.
pub(crate) fn larger(noted: &Noted) -> String {
    let org = if noted.org.is_empty() { String::new() } else { format!("/orgs/{}/settings/billing", noted.org) };
    format!("Choose a larger plan, signed in at https://cloud.trigger.dev{org}")
}

/// So that nobody wonders why a task comes less often than its manifest says.
pub(crate) fn checks(noted: &Noted, tasks: &Tasks) -> Vec<Check> {
    let Limits { hourly, schedules } = &tasks.limits;
    let mut left = Vec::new();
    if *hourly {
        left.push("hourly schedules at most".to_owned());
    }
    left.extend(schedules.map(|most| format!("{most} schedules")));
    if left.is_empty() {
        return Vec::new();
    }
    let left = left.join(" and ");
    // Whoever said so wants it so.
    if schedules.is_none() && context::setting(SETTING).as_deref() == Some(HOURLY) {
        return vec![Check::pass("schedules", format!("✓ trigger.schedules asks for {left}"))];
    }
    let message = format!("✗ The Trigger.dev plan allows {left}; the tasks were changed to that");
    let mut check = Check::warn("schedules", message);
    if schedules.is_none() {
        check = check.fix("psn config set trigger.schedules hourly");
    }
    vec![check.fix(larger(noted)).fix("psn config set trigger.schedules exact")]
}
