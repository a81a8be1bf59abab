//! Publishes one post, at most once: an example to begin a real platform's plugin with. It publishes to a platform named
//! `nowhere`, where publishing is a line in the log, and follows the protocol that keeps a post from appearing twice.
//!
//! The watchdog, or whatever schedules a post, starts this task with the post's id and the number of the attempt. Four things
//! can go wrong at any moment: this run dies, this run is slow and another is started in its place, Trigger.dev starts this run
//! again, or the platform answers too late to be heard. What keeps them apart:
//!
//! 1. **The fence.** `posts.attempt` only grows. A run that was started as attempt 2 changes nothing once the post is at 3.
//! 2. **The intent marker.** `psn.begin_side_effect` sets `posts.side_effect_at` right before the platform is called, and is true
//!    for one run only. From then on nobody may call the platform for this post, until a person or the platform says what happened.
//! 3. **The result.** `psn.finish`: the post is `published` with the platform's own id for it, and nobody looks for it any more.
//!    Or the platform refused it for certain: `psn.fail` takes the marker back, and the post is `failed` with the platform's words.
//!
//! Between 2 and 3 a crash leaves a post whose outcome is unknown. It is never published again by a guess: the watchdog parks it,
//! unless the run could still say in its output that it published; then the watchdog records that. docs/watchdog.md has the protocol.

use psn_plugin::{db::Uuid, prelude::*};
use serde::{Deserialize, Serialize};

/// The platform that this plugin publishes to, as `posts.platform` names it.
const PLATFORM: &str = "nowhere";

struct PublishPost;

psn_plugin::export_task!(PublishPost);

#[derive(Deserialize)]
struct Payload {
    post_id: Uuid,
    attempt: u32,
}

#[derive(Debug, PartialEq, Serialize)]
struct Outcome {
    post_id: Uuid,
    attempt: u32,
    outcome: &'static str,
    external_id: Option<String>,
}

impl Task for PublishPost {
    type Payload = Payload;
    type Output = Outcome;

    fn run(Invocation { payload, .. }: Invocation<Payload>) -> Result<Outcome, Failure> {
        let Payload { post_id, attempt } = payload;
        let outcome = |outcome, external_id| Ok(Outcome { post_id: post_id.clone(), attempt, outcome, external_id });
        let post = read(&post_id)?;
        match decide(&post, attempt) {
            Decision::Publish => {}
            Decision::LeaveAs(words) => {
                log::info!("Nothing to publish: {}", words; post = post_id, attempt = attempt);
                return outcome(words, post.external_id);
            }
            Decision::NotOurs => return Err(not_ours(&post_id, &post.platform)),
        }
        if !begin_side_effect(&post_id, attempt)? {
            // Between reading the post and marking it another run was faster, or the post is too late by now.
            return outcome("superseded", None);
        }
        let external_id = match publish(&post_id, &post.content) {
            Ok(external_id) => external_id,
            Err(Refused(reason)) => {
                fail(&post_id, attempt, &reason)?;
                return outcome("refused", None);
            }
        };
        // From here on the output is what tells of it, should the database be away: this run must not end as a failure.
        match finish(&post_id, attempt, &external_id) {
            Ok(true) => {}
            Ok(false) => {
                log::warn!("Published, but the post had moved on meanwhile"; post = post_id, external_id = external_id)
            }
            Err(error) => {
                log::error!("Published, and not recorded yet: {}", error; post = post_id, external_id = external_id)
            }
        }
        outcome("published", Some(external_id))
    }
}

struct Post {
    platform: String,
    content: String,
    status: String,
    attempt: u32,
    has_begun: bool,
    external_id: Option<String>,
}

fn read(id: &Uuid) -> Result<Post, Failure> {
    let row = db::query_first(
        "SELECT platform, content, status, attempt, side_effect_at IS NOT NULL AS has_begun, external_id
        FROM posts WHERE id = $1",
        params![id],
    )?;
    let row = row.ok_or_else(|| {
        Failure::new("no-such-post", format!("There is no post {id}"))
            .fix("Start this task with the id of an existing post")
    })?;
    Ok(Post {
        platform: row.get("platform")?,
        content: row.get("content")?,
        status: row.get("status")?,
        attempt: row.get("attempt")?,
        has_begun: row.get("has_begun")?,
        external_id: row.get("external_id")?,
    })
}

#[derive(Debug, PartialEq)]
enum Decision {
    Publish,
    /// With the word for it in the result. Each of these is a success: running again would change nothing.
    LeaveAs(&'static str),
    NotOurs,
}

fn decide(post: &Post, attempt: u32) -> Decision {
    if post.status == "published" {
        return Decision::LeaveAs("published-before");
    }
    if post.platform != PLATFORM {
        return Decision::NotOurs;
    }
    if !matches!(post.status.as_str(), "scheduled" | "retrying" | "publishing") {
        return Decision::LeaveAs("not-due");
    }
    if post.attempt > attempt {
        return Decision::LeaveAs("superseded");
    }
    if post.has_begun {
        return Decision::LeaveAs("outcome-unknown");
    }
    Decision::Publish
}

/// Fence and marker in one statement: compare and set.
fn begin_side_effect(id: &Uuid, attempt: u32) -> Result<bool, db::Error> {
    asked("SELECT psn.begin_side_effect($1, $2) AS done", params![id, attempt])
}

/// The platform said that it did not publish, and why. A time-out, or an answer that was not understood, is none: it leaves the
/// marker where it is.
struct Refused(String);

/// The side effect. For a real platform: one HTTP call, whose answer has the platform's id of the post. Where the platform
/// takes an idempotency key, the post's id makes a good one.
fn publish(id: &Uuid, content: &str) -> Result<String, Refused> {
    if content.trim().is_empty() {
        return Err(Refused("Nowhere takes no posts that say nothing".into()));
    }
    log::info!("Publishing {} characters nowhere", content.chars().count(); post = id);
    Ok(format!("{PLATFORM}:{id}"))
}

fn fail(id: &Uuid, attempt: u32, reason: &str) -> Result<bool, db::Error> {
    asked("SELECT psn.fail($1, $2, $3, true) AS done", params![id, attempt, reason])
}

fn finish(id: &Uuid, attempt: u32, external_id: &str) -> Result<bool, db::Error> {
    asked("SELECT psn.finish($1, $2, $3) AS done", params![id, attempt, external_id])
}

fn asked(sql: &str, params: &[db::Value]) -> Result<bool, db::Error> {
    db::query_first(sql, params)?.map_or(Ok(false), |row| row.get("done"))
}

fn not_ours(id: &Uuid, platform: &str) -> Failure {
    Failure::new("unknown-platform", format!("The post {id} is for {platform}; this plugin publishes to {PLATFORM}"))
        .fix(format!("Set watchdog.task in config/psn.toml to a task that publishes to {platform}"))
}

#[cfg(test)]
mod tests;
