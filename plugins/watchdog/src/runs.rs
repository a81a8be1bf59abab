//! Runs of the publishing task at Trigger.dev.

use std::cell::Cell;

use psn_plugin::{http, http::path, prelude::*};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{decide::Run, posts::Post};

/// Without it Trigger.dev answers in older words, in which a run that was just picked up looks like one at work.
const API_VERSION: (&str, &str) = ("x-trigger-api-version", "2025-07-16");

/// Why a call came to nothing.
pub(crate) enum Refusal {
    /// Away, busy or out of reach: true for every post.
    Unavailable(http::Error),
    /// The task is not deployed: true for every post.
    TaskMissing,
    /// This post's run.
    Refused(http::Error),
    /// The environment's key.
    Key(Failure),
}

pub(crate) struct Triggered {
    pub run_id: String,
    /// The same key started this run before.
    pub is_cached: bool,
}

pub(crate) struct Runs {
    task: String,
    calls: Cell<u32>,
}

impl Runs {
    pub(crate) fn of_task(task: String) -> Self {
        Self { task, calls: Cell::new(0) }
    }

    /// The task that publishes this post.
    pub(crate) fn task_of<'a>(&'a self, post: &'a Post) -> &'a str {
        post.task.as_deref().unwrap_or(&self.task)
    }

    /// Made so far.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.get()
    }

    pub(crate) fn state(&self, post: &Post) -> Result<Run, Refusal> {
        let Some(run_id) = post.run_id.as_deref() else {
            return Ok(Run::None);
        };
        let reply = self.send(http::service("trigger-env").get(path!("/api/v3/runs/{}", run_id)))?;
        if reply.status() == 404 {
            return Ok(Run::Missing);
        }
        let run: RunReply = reply.success().and_then(|reply| reply.json()).map_err(refusal)?;
        Ok(run.state(post))
    }

    /// Starts the next attempt. Asked for again after a crash, the same key answers the same run.
    pub(crate) fn trigger(&self, post: &Post) -> Result<Triggered, Refusal> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            id: String,
            #[serde(default)]
            is_cached: bool,
        }
        let attempt = post.attempt.saturating_add(1);
        let mut body = json!({
            "payload": { "post_id": post.id, "attempt": attempt },
            "options": {
                "payloadType": "application/json",
                "idempotencyKey": key(&context::hub_id(), post.id.as_str(), attempt),
                "tags": [format!("post:{}", post.id)],
            },
        });
        if post.backoff_s > 0 {
            body["options"]["delay"] = format!("{}s", post.backoff_s).into();
        }
        let request = http::service("trigger-env").post(path!("/api/v1/tasks/{}/trigger", self.task_of(post)));
        let reply = self.send(request.json(&body).idempotent())?;
        if reply.status() == 404 {
            return Err(Refusal::TaskMissing);
        }
        let reply: Reply = reply.success().and_then(|reply| reply.json()).map_err(refusal)?;
        Ok(Triggered { run_id: reply.id, is_cached: reply.is_cached })
    }

    /// Has a delayed run start now. False where it is not delayed any more.
    pub(crate) fn reschedule(&self, run_id: &str) -> Result<bool, Refusal> {
        let request = http::service("trigger-env").post(path!("/api/v1/runs/{}/reschedule", run_id));
        let reply = self.send(request.json(&json!({ "delay": "1s" })).idempotent())?;
        if matches!(reply.status(), 400 | 404 | 422) {
            return Ok(false);
        }
        reply.success().map(|_| true).map_err(refusal)
    }

    fn send(&self, request: http::Request) -> Result<http::Response, Refusal> {
        self.calls.set(self.calls.get() + 1);
        request.header(API_VERSION.0, API_VERSION.1).send().map_err(refusal)
    }
}

fn refusal(error: http::Error) -> Refusal {
    match error.kind {
        http::Kind::Status(401 | 403) => Refusal::Key(
            Failure::new("key-rejected", format!("Trigger.dev rejects TRIGGER_SECRET_KEY: {}", error.message))
                .fix("psn run trigger-provision"),
        ),
        http::Kind::Denied => Refusal::Key(error.into()),
        // An answer that makes no sense is this run's; where all of them make none, the breaker opens.
        http::Kind::Status(400..500) | http::Kind::Body | http::Kind::TooLarge if !error.is_outage() => {
            Refusal::Refused(error)
        }
        _ => Refusal::Unavailable(error),
    }
}

/// Characters of a platform's id for a post. The longest known, a Facebook page's, has 50.
const MAX_EXTERNAL_ID: usize = 500;

#[derive(Deserialize)]
struct RunReply {
    status: String,
    /// What the task returned. Not there where it is large, and of any shape.
    #[serde(default)]
    output: serde_json::Value,
}

impl RunReply {
    /// By its status alone: the booleans beside it miss EXPIRED and TIMED_OUT.
    fn state(&self, post: &Post) -> Run {
        match self.status.as_str() {
            "PENDING_VERSION" => Run::NoVersion,
            "DELAYED" => Run::Delayed,
            "QUEUED" => Run::Waiting("queued"),
            "DEQUEUED" => Run::Waiting("starting"),
            "WAITING" => Run::Waiting("waiting"),
            "EXECUTING" => Run::Working,
            "CANCELED" => Run::Cancelled,
            "COMPLETED" => self.published(post).map_or(Run::Over { lost: false }, Run::Published),
            "FAILED" | "EXPIRED" => Run::Over { lost: false },
            "CRASHED" | "SYSTEM_FAILURE" | "TIMED_OUT" => Run::Over { lost: true },
            // Unheard of: doing nothing is what cannot publish twice.
            other => {
                log::warn!("Trigger.dev answers a status that this watchdog does not know: {}", other);
                Run::Unheard
            }
        }
    }

    /// The platform's id, where the task says that it published exactly this attempt of this post.
    fn published(&self, post: &Post) -> Option<String> {
        let said = |name: &str| self.output.get(name).and_then(serde_json::Value::as_str);
        let is_this = said("post_id") == Some(post.id.as_str())
            && self.output.get("attempt").and_then(serde_json::Value::as_u64) == Some(u64::from(post.attempt));
        let id = said("external_id").filter(|id| !id.is_empty() && id.chars().count() <= MAX_EXTERNAL_ID);
        id.filter(|_| is_this && said("outcome") == Some("published")).map(str::to_owned)
    }
}

/// In Trigger.dev's own form of a key without scope: 64 hex digits. The hub's id keeps hubs that share a project apart, the attempt
/// makes a new run possible once one has ended well without publishing.
fn key(hub_id: &str, post_id: &str, attempt: u32) -> String {
    let digest = Sha256::digest(format!("psn:{hub_id}:{post_id}:{attempt}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use psn_plugin::testing::Hub;

    use super::*;

    #[test]
    fn keys_differ_by_hub_post_and_attempt() {
        // printf 'psn:7f3a0c1d:p-1:1' | sha256sum
        assert_eq!(key("7f3a0c1d", "p-1", 1), "15c93de9a59bdaa53914514cda37a314858fd21b401ee1a76cccab7a909d2ea9");
        let keys = [
            key("7f3a0c1d", "p-1", 1),
            key("7f3a0c1d", "p-1", 2),
            key("7f3a0c1d", "p-2", 1),
            key("7f3a0c1e", "p-1", 1),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(keys[index + 1..].iter().all(|other| one != other));
        }
    }

    #[test]
    fn statuses() {
        let _hub = Hub::new(crate::MANIFEST);
        for (status, expected) in [
            ("DELAYED", Run::Delayed),
            ("QUEUED", Run::Waiting("queued")),
            ("PENDING_VERSION", Run::NoVersion),
            ("DEQUEUED", Run::Waiting("starting")),
            ("EXECUTING", Run::Working),
            ("WAITING", Run::Waiting("waiting")),
            ("CANCELED", Run::Cancelled),
            ("COMPLETED", Run::Over { lost: false }),
            ("FAILED", Run::Over { lost: false }),
            ("CRASHED", Run::Over { lost: true }),
            ("SYSTEM_FAILURE", Run::Over { lost: true }),
            ("EXPIRED", Run::Over { lost: false }),
            ("TIMED_OUT", Run::Over { lost: true }),
            ("SOMETHING_NEW", Run::Unheard),
        ] {
            let run: RunReply = serde_json::from_value(json!({"id": "run_1", "status": status})).unwrap();
            assert_eq!(run.state(&Post::example("p-1", 1)), expected, "{status}");
        }
    }

    #[test]
    fn an_output_counts_for_its_own_post_and_attempt_only() {
        let _hub = Hub::new(crate::MANIFEST);
        let good = json!({"outcome": "published", "post_id": "p-1", "attempt": 1, "external_id": "x"});
        let state = |output: serde_json::Value| {
            let run: RunReply = serde_json::from_value(json!({"status": "COMPLETED", "output": output})).unwrap();
            run.state(&Post::example("p-1", 1))
        };
        assert_eq!(state(good.clone()), Run::Published("x".into()));
        for (name, value) in [
            ("outcome", json!("superseded")),
            ("post_id", json!("p-2")),
            ("attempt", json!(2)),
            ("external_id", json!(null)),
            ("external_id", json!("")),
            ("external_id", json!("y".repeat(501))),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert_eq!(state(bad), Run::Over { lost: false }, "{name}");
        }
        assert_eq!(state(json!("text")), Run::Over { lost: false });
    }
}
