//! Publishes one post, at most once: an example to begin a real platform's plugin with. It publishes to a platform named
//! `nowhere`, where publishing is a line in the log, and follows the protocol that keeps a post from appearing twice.
//!
//! The watchdog, or whatever schedules a post, starts this task with the post's id and the number of the attempt. Four things
//! can go wrong at any moment: this run dies, this run is slow and another is started in its place, Trigger.dev starts this run
//! again, or the platform answers too late to be heard. What keeps them apart:
//!
//! 1. **The fence.** `posts.attempt` only grows. A run that was started as attempt 2 changes nothing once the post is at 3.
//! 2. **The intent marker.** `posts.side_effect_at` is set right before the platform is called, by a statement that succeeds for
//!    one run only. From then on nobody may call the platform for this post, until a person or the platform says what happened.
//! 3. **The result.** The post is `published` with the platform's own id for it, and `rescue_at` is null: nobody looks for it.
//!    Or the platform refused it for certain: then the marker is taken back, and the post is `failed` with the platform's words.
//!
//! Between 2 and 3 a crash leaves a post whose outcome is unknown. It is never published again by a guess: the watchdog parks it.

use psn_plugin::{db::Uuid, prelude::*};
use serde::{Deserialize, Serialize};

/// The platform that this plugin publishes to, as `posts.platform` names it.
const PLATFORM: &str = "nowhere";
/// Seconds after which the watchdog looks for a post that was begun: longer than publishing may take.
const DEADLINE_S: u32 = 600;

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
    outcome: &'static str,
    external_id: Option<String>,
}

impl Task for PublishPost {
    type Payload = Payload;
    type Output = Outcome;

    fn run(Invocation { payload, .. }: Invocation<Payload>) -> Result<Outcome, Failure> {
        let Payload { post_id, attempt } = payload;
        let outcome = |outcome, external_id| Ok(Outcome { post_id: post_id.clone(), outcome, external_id });
        let post = read(&post_id)?;
        match decide(&post, attempt) {
            Decision::Publish => {}
            Decision::LeaveAs(words) => {
                log::info!("Nothing to publish: {}", words; post = post_id, attempt = attempt);
                return outcome(words, post.external_id);
            }
            Decision::NotOurs => return Err(not_ours(&post_id, &post.platform)),
        }
        if !mark_intent(&post_id, attempt)? {
            // Between reading the post and marking it another run was faster: it is that run's now.
            return outcome("superseded", None);
        }
        let external_id = match publish(&post_id, &post.content) {
            Ok(external_id) => external_id,
            Err(Refused(reason)) => {
                mark_refused(&post_id, attempt, &reason)?;
                return outcome("refused", None);
            }
        };
        if !mark_published(&post_id, attempt, &external_id)? {
            log::warn!("Published, but the post had moved on meanwhile"; post = post_id, external_id = external_id);
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

/// Fence and marker in one statement: compare and set. The attempt may be one less than ours where the watchdog has started us
/// and not yet counted us; counting it here makes us the only ones.
fn mark_intent(id: &Uuid, attempt: u32) -> Result<bool, Failure> {
    let marked = db::execute(
        "UPDATE posts
        SET side_effect_at = now(), attempt = $2, status = 'publishing', rescue_at = now() + $3 * interval '1 second'
        WHERE id = $1 AND attempt <= $2 AND side_effect_at IS NULL AND status IN ('scheduled', 'retrying', 'publishing')",
        params![id, attempt, DEADLINE_S],
    )?;
    Ok(marked == 1)
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

fn mark_refused(id: &Uuid, attempt: u32, reason: &str) -> Result<(), Failure> {
    db::execute(
        "UPDATE posts
        SET status = 'failed', side_effect_at = NULL, rescue_at = NULL, last_error = $3
        WHERE id = $1 AND attempt = $2 AND status = 'publishing'",
        params![id, attempt, reason],
    )?;
    Ok(())
}

fn mark_published(id: &Uuid, attempt: u32, external_id: &str) -> Result<bool, Failure> {
    let published = db::execute(
        "UPDATE posts
        SET status = 'published', published_at = now(), external_id = $3, rescue_at = NULL, last_error = NULL
        WHERE id = $1 AND attempt = $2 AND side_effect_at IS NOT NULL AND status = 'publishing'",
        params![id, attempt, external_id],
    )?;
    Ok(published == 1)
}

fn not_ours(id: &Uuid, platform: &str) -> Failure {
    Failure::new("unknown-platform", format!("The post {id} is for {platform}; this plugin publishes to {PLATFORM}"))
        .fix(format!("Set watchdog.task in config/psn.toml to a task that publishes to {platform}"))
}

#[cfg(test)]
mod tests;
