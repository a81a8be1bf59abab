//! Rescues posts whose publishing got stuck. Every post that is on its way has a deadline, `rescue_at`; whatever should have
//! moved the post on and did not, leaves it in the past, and this task finds it there.
//!
//! For each such post: take a lease (move the deadline on) → ask Trigger.dev how its run is → have the publishing task started
//! with a key made of post and attempt, or its delayed run start now → confirm, unless something else moved the post meanwhile.
//! Killed between any two of these, the next tick does the same again, and the same key starts nothing twice. What may have been
//! published already is never repeated: it is parked for a person to look at. docs/watchdog.md has the whole protocol.

mod decide;
mod look;
mod posts;
mod runs;
mod tally;
mod tick;

use psn_plugin::{db::Uuid, prelude::*};
use serde::Deserialize;
use tick::Round;

/// Milliseconds by which ticks of a schedule are spread, so that many hubs do not ask at the same moment.
const JITTER_MS: u32 = 3_000;

struct Watchdog;

psn_plugin::export_task!(Watchdog);

/// What a person may ask for. A schedule's payload says when it ran, and asks for nothing: the database's clock decides anyway.
#[derive(Default, Deserialize)]
struct Tick {
    /// Says what would be done, and does nothing.
    #[serde(default)]
    dry_run: bool,
    /// Says how this post is and what would be done, and does nothing.
    #[serde(default)]
    explain: Option<Uuid>,
}

impl Task for Watchdog {
    type Payload = Tick;
    type Output = serde_json::Value;

    fn run(Invocation { payload, scheduled_at }: Invocation<Tick>) -> Result<serde_json::Value, Failure> {
        if let Some(post) = payload.explain {
            return look::explain(&post);
        }
        if payload.dry_run {
            return look::dry_run();
        }
        if scheduled_at.is_some() {
            let spread = context::random_bytes(2).iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
            context::sleep_ms(spread % JITTER_MS);
        }
        Ok(json!(Round::begin().run()?))
    }
}

fn runs() -> runs::Runs {
    runs::Runs::of_task(context::setting_or("watchdog.task", "publish-post"))
}

#[cfg(test)]
mod tests;
