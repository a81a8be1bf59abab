//! Runs of the publishing task at Trigger.dev.

use std::cell::Cell;

use psn_plugin::{Timestamp, http, http::path, prelude::*};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{decide::Run, posts::Post};

/// Without it Trigger.dev answers in older words, in which a run that was just picked up looks like one at work.
const API_VERSION: (&str, &str) = ("x-trigger-api-version", "2025-07-16");
/// Milliseconds at work after which a run must have been lost: Trigger.dev itself ends runs at their own, shorter, limits.
const LOST_AFTER_MS: i64 = 60 * 60 * 1_000;

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

    pub(crate) fn task(&self) -> &str {
        &self.task
    }

    /// Made so far.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.get()
    }

    pub(crate) fn state(&self, run_id: Option<&str>) -> Result<Run, Refusal> {
        let Some(run_id) = run_id else {
            return Ok(Run::None);
        };
        let reply = self.send(http::service("trigger-env").get(path!("/api/v3/runs/{}", run_id)))?;
        if reply.status() == 404 {
            return Ok(Run::None);
        }
        let run: RunReply = reply.success().and_then(|reply| reply.json()).map_err(refusal)?;
        Ok(run.state(context::now()))
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
        let attempt = post.attempt + 1;
        let request = http::service("trigger-env").post(path!("/api/v1/tasks/{}/trigger", self.task)).json(&json!({
            "payload": { "post_id": post.id, "attempt": attempt },
            "options": {
                "payloadType": "application/json",
                "idempotencyKey": key(&context::hub_id(), post.id.as_str(), attempt),
                "tags": [format!("post:{}", post.id)],
            },
        }));
        let reply = self.send(request.idempotent())?;
        if reply.status() == 404 {
            return Err(Refusal::TaskMissing);
        }
        let reply: Reply = reply.success().and_then(|reply| reply.json()).map_err(refusal)?;
        Ok(Triggered { run_id: reply.id, is_cached: reply.is_cached })
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
        http::Kind::Status(400..500) if !error.is_outage() => Refusal::Refused(error),
        _ => Refusal::Unavailable(error),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunReply {
    status: String,
    started_at: Option<Timestamp>,
}

impl RunReply {
    /// By its status alone: the booleans beside it miss EXPIRED and TIMED_OUT.
    fn state(&self, now: Timestamp) -> Run {
        match self.status.as_str() {
            "PENDING_VERSION" => {
                log::warn!("A run waits for a version of its task that is not deployed: psn run trigger-provision");
                Run::Alive
            }
            "EXECUTING" if self.started_at.is_some_and(|at| now.millis_since(at) > LOST_AFTER_MS) => Run::Overdue,
            "DELAYED" | "QUEUED" | "DEQUEUED" | "EXECUTING" | "WAITING" => Run::Alive,
            "CANCELED" => Run::Cancelled,
            "COMPLETED" | "FAILED" | "CRASHED" | "SYSTEM_FAILURE" | "EXPIRED" | "TIMED_OUT" => Run::Over,
            // Unheard of: doing nothing is what cannot publish twice.
            other => {
                log::warn!("Trigger.dev answers a status that this watchdog does not know: {}", other);
                Run::Alive
            }
        }
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
        let now = Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
        for (status, started_at, expected) in [
            ("DELAYED", None, Run::Alive),
            ("QUEUED", None, Run::Alive),
            ("PENDING_VERSION", None, Run::Alive),
            ("DEQUEUED", None, Run::Alive),
            ("EXECUTING", Some("2026-01-01T11:30:00.000Z"), Run::Alive),
            ("EXECUTING", Some("2026-01-01T10:30:00.000Z"), Run::Overdue),
            ("EXECUTING", None, Run::Alive),
            ("WAITING", Some("2026-01-01T01:00:00.000Z"), Run::Alive),
            ("CANCELED", None, Run::Cancelled),
            ("COMPLETED", None, Run::Over),
            ("FAILED", None, Run::Over),
            ("CRASHED", None, Run::Over),
            ("SYSTEM_FAILURE", None, Run::Over),
            ("EXPIRED", None, Run::Over),
            ("TIMED_OUT", None, Run::Over),
            ("SOMETHING_NEW", None, Run::Alive),
        ] {
            let run: RunReply =
                serde_json::from_value(json!({"id": "run_1", "status": status, "startedAt": started_at})).unwrap();
            assert_eq!(run.state(now), expected, "{status} {started_at:?}");
        }
    }
}
