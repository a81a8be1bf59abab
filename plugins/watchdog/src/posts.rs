//! Posts as this task's own database role sees them: those on their way, without what they say. Every statement that writes
//! checks what it relies on, and only the database's clock is asked.

use psn_plugin::db::{self, Error, Row, Uuid};
use psn_plugin::params;

/// Seconds that a claimed post is this tick's alone: longer than a tick takes, shorter than the pause to the next.
const LEASE_S: u32 = 300;
/// Seconds that a started run has before the post is looked at again.
const RUN_DEADLINE_S: u32 = 600;
/// Seconds after which a post whose run is alive is looked at again.
pub(crate) const EXTENSION_S: u32 = 300;
/// Seconds that a post waits for a task that is not deployed.
pub(crate) const MISSING_TASK_S: u32 = 900;

#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub id: Uuid,
    /// Confirmed attempts; the fence that every writer checks.
    pub attempt: u32,
    /// The run of the last one.
    pub run_id: Option<String>,
    /// Whether the platform may have been called: the intent marker.
    pub has_begun: bool,
    pub is_too_late: bool,
    /// Seconds since it was due.
    pub lag_s: f64,
}

/// Leases at most `limit` posts that are due, the oldest first. Rows that another tick holds are passed over. Materialized: a
/// plan that joins row by row would otherwise lease more than the limit.
pub(crate) fn claim(limit: u32) -> Result<Vec<Post>, Error> {
    let rows = db::query(
        "WITH due AS MATERIALIZED (
            SELECT id, rescue_at AS due_at
            FROM posts
            WHERE rescue_at <= now() AND status IN ('scheduled', 'retrying', 'publishing')
            ORDER BY rescue_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        UPDATE posts AS p
        SET rescue_at = now() + $2 * interval '1 second'
        FROM due
        WHERE p.id = due.id
        RETURNING
            p.id,
            p.attempt,
            p.run_id,
            p.side_effect_at IS NOT NULL AS has_begun,
            p.scheduled_at + p.max_lateness < now() AS is_too_late,
            EXTRACT(EPOCH FROM now() - due.due_at)::float8 AS lag_s",
        params![limit, LEASE_S],
    )?;
    rows.iter().map(post).collect()
}

fn post(row: &Row) -> Result<Post, Error> {
    Ok(Post {
        id: row.get("id")?,
        attempt: row.get("attempt")?,
        run_id: row.get("run_id")?,
        has_begun: row.get("has_begun")?,
        // Null without a limit to its lateness.
        is_too_late: row.get::<Option<bool>>("is_too_late")?.unwrap_or(false),
        lag_s: row.get("lag_s")?,
    })
}

/// Each of these answers whether the post was still as it was claimed.
pub(crate) fn extend(post: &Post, seconds: u32) -> Result<bool, Error> {
    changed(db::execute(
        "UPDATE posts SET rescue_at = now() + $3 * interval '1 second'
        WHERE id = $1 AND attempt = $2 AND status IN ('scheduled', 'retrying', 'publishing')",
        params![&post.id, post.attempt, seconds],
    ))
}

pub(crate) fn park(post: &Post, reason: &str) -> Result<bool, Error> {
    finish(post, "parked", &format!("Parked by the watchdog: {reason}"))
}

pub(crate) fn fail(post: &Post) -> Result<bool, Error> {
    finish(post, "failed", &format!("Given up by the watchdog after {} attempts", post.attempt))
}

fn finish(post: &Post, status: &str, reason: &str) -> Result<bool, Error> {
    changed(db::execute(
        "UPDATE posts SET status = $3, rescue_at = NULL, last_error = $4
        WHERE id = $1 AND attempt = $2 AND status IN ('scheduled', 'retrying', 'publishing')",
        params![&post.id, post.attempt, status, reason],
    ))
}

/// Counts the attempt, now that its run exists. The run may have been faster and counted it itself; then only its name is noted,
/// so that the next tick can ask about it.
pub(crate) fn confirm(post: &Post, run_id: &str) -> Result<bool, Error> {
    let confirmed = changed(db::execute(
        "UPDATE posts
        SET attempt = attempt + 1, run_id = $3, status = 'publishing', rescue_at = now() + $4 * interval '1 second'
        WHERE id = $1 AND attempt = $2 AND status IN ('scheduled', 'retrying', 'publishing')",
        params![&post.id, post.attempt, run_id, RUN_DEADLINE_S],
    ))?;
    if !confirmed {
        db::execute(
            "UPDATE posts SET run_id = $3
            WHERE id = $1 AND attempt = $2 AND status IN ('scheduled', 'retrying', 'publishing')",
            params![&post.id, post.attempt + 1, run_id],
        )?;
    }
    Ok(confirmed)
}

fn changed(rows: Result<u64, Error>) -> Result<bool, Error> {
    rows.map(|rows| rows == 1)
}
