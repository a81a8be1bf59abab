//! What a tick would do, without doing it: the same lease, given up, the same questions to Trigger.dev, the same decision.

use psn_plugin::{db::Uuid, prelude::*};
use serde_json::Value;

use crate::{
    decide::{Decision, decide},
    posts::{self, Post},
    runs,
    runs::{Refusal, Runs},
};

/// Posts that a dry run looks at.
const MOST: u32 = 100;

pub(crate) fn dry_run() -> Result<Value, Failure> {
    let runs = runs();
    let mut would = Vec::new();
    let due = posts::due(MOST)?;
    for post in &due {
        would.push(decided(&runs, post)?);
    }
    Ok(
        json!({ "dry_run": true, "checked": due.len(), "would": would, "gauges": posts::gauges(crate::tick::GAUGE_CAP)? }),
    )
}

pub(crate) fn explain(id: &Uuid) -> Result<Value, Failure> {
    let Some((post, due_in_s)) = posts::look(id)? else {
        return Ok(json!({
            "post": id, "waiting": false,
            "why": "The watchdog has nothing to do with it: there is no such post, or it is not on its way (psn posts show says which)",
        }));
    };
    let mut answer = decided(&runs(), &post)?;
    let said = json!({
        "waiting": true,
        "due_in_s": due_in_s,
        "attempt": post.attempt,
        "side_effect_begun": post.has_begun,
        "too_late": post.is_late,
        "starts_in_s": post.starts_in_s,
        "attempts_spent": post.is_spent,
        "lost_runs": post.lost,
        "silent_s": post.silent_s,
    });
    if let (Some(answer), Value::Object(said)) = (answer.as_object_mut(), said) {
        answer.extend(said);
    }
    Ok(answer)
}

fn decided(runs: &Runs, post: &Post) -> Result<Value, Failure> {
    let (run, decision) = match &post.unknown {
        Some(reason) => (None, format!("leave it: {reason}")),
        None => match runs.state(post) {
            Ok(run) => (run.name(), words(&decide(post, run), post)),
            Err(Refusal::Key(failure)) => return Err(failure),
            Err(Refusal::Unavailable(error) | Refusal::Refused(error)) => {
                (None, format!("leave it: Trigger.dev cannot be asked: {error}"))
            }
            Err(Refusal::TaskMissing) => (None, "leave it: its task is not deployed".to_owned()),
        },
    };
    Ok(json!({ "post": post.id, "run_id": post.run_id, "run": run, "would": decision }))
}

fn words(decision: &Decision, post: &Post) -> String {
    match decision {
        Decision::Wait { reason, seconds, .. } => format!("wait {seconds} s: {reason}"),
        Decision::Reschedule => "have its delayed run start now".to_owned(),
        Decision::Record(id) => format!("record that it is published as {id}"),
        Decision::Park(why) => format!("park it: {why}"),
        Decision::Fail => format!("give it up after {} attempts", post.attempt),
        Decision::Trigger { .. } => format!("start attempt {} in {} s", u64::from(post.attempt) + 1, post.backoff_s),
    }
}
