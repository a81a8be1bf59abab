//! Posts as this task's own database role sees them: those on their way, without what they say. All that writes is a function of the
//! publishing protocol (migrations/0007), which checks what it relies on; only the database's clock is asked.

use psn_plugin::db::{self, Error, Row, Uuid, Value};
use psn_plugin::params;
use serde_json::json;

/// Seconds that a claimed post is this tick's alone: longer than a tick takes, shorter than the pause to the next.
const LEASE_S: u32 = 300;

#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub id: Uuid,
    /// Confirmed attempts; the fence that every writer checks.
    pub attempt: u32,
    /// The run of the last one.
    pub run_id: Option<String>,
    /// The task of its platform, where that has one of its own.
    pub task: Option<String>,
    /// Why nobody can publish it.
    pub unknown: Option<String>,
    /// Whether the platform may have been called: the intent marker.
    pub has_begun: bool,
    pub is_late: bool,
    /// Seconds until it is to go out; 0 where it is time.
    pub starts_in_s: f64,
    /// Seconds since it was due.
    pub lag_s: f64,
    /// Whether it had all the attempts of its kind.
    pub is_spent: bool,
    /// Runs that died without a word within the window, but for the last.
    pub lost: u32,
    pub poison_cap: u32,
    /// Seconds to pause before the next attempt.
    pub backoff_s: u32,
    /// Seconds since its run gave a sign of life, where it gave one.
    pub silent_s: Option<f64>,
    pub run_deadline_s: u32,
}

impl Post {
    pub(crate) fn is_silent(&self) -> bool {
        self.silent_s.is_some_and(|seconds| seconds > f64::from(self.run_deadline_s))
    }

    fn of(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.get("id")?,
            attempt: row.get("attempt")?,
            run_id: row.get("run_id")?,
            task: row.get("task")?,
            unknown: row.get("unknown")?,
            has_begun: row.get("has_begun")?,
            is_late: row.get("is_late")?,
            starts_in_s: row.get("starts_in_s")?,
            lag_s: row.get("lag_s")?,
            is_spent: row.get("is_spent")?,
            lost: row.get("lost")?,
            poison_cap: row.get::<Option<u32>>("poison_cap")?.unwrap_or(u32::MAX),
            backoff_s: row.get("backoff_s")?,
            silent_s: row.get("silent_s")?,
            run_deadline_s: row.get::<Option<f64>>("run_deadline_s")?.unwrap_or_default() as u32,
        })
    }

    #[cfg(test)]
    pub(crate) fn example(id: &str, attempt: u32) -> Self {
        Self {
            id: Uuid::from(id),
            attempt,
            run_id: None,
            task: None,
            unknown: None,
            has_begun: false,
            is_late: false,
            starts_in_s: 0.0,
            lag_s: 0.0,
            is_spent: false,
            lost: 0,
            poison_cap: 3,
            backoff_s: 0,
            silent_s: None,
            run_deadline_s: 600,
        }
    }
}

const LEASE: &str = "SELECT * FROM psn.lease($1, $2)";

/// At most `limit` posts that are due, the oldest first, for this tick alone.
pub(crate) fn lease(limit: u32) -> Result<Vec<Post>, Error> {
    db::query(LEASE, params![limit, LEASE_S])?.iter().map(Post::of).collect()
}

/// The same, and not taken: the transaction is given up.
pub(crate) fn due(limit: u32) -> Result<Vec<Post>, Error> {
    let transaction = db::begin()?;
    transaction.query(LEASE, params![limit, LEASE_S])?.iter().map(Post::of).collect()
}

/// One post, due or not, and not taken. `None` where the watchdog has nothing to do with it: it is no post, or does not wait.
pub(crate) fn look(id: &Uuid) -> Result<Option<(Post, f64)>, Error> {
    let transaction = db::begin()?;
    let row = transaction.query_first(
        "SELECT EXTRACT(EPOCH FROM rescue_at - now())::float8 AS due_in_s FROM posts
         WHERE id = $1 AND status IN ('scheduled', 'retrying', 'publishing') FOR UPDATE",
        params![id],
    )?;
    let Some(row) = row else { return Ok(None) };
    // The first in line, until the transaction is given up.
    transaction.execute("UPDATE posts SET rescue_at = TIMESTAMP '1000-01-01 00:00:00' WHERE id = $1", params![id])?;
    let post = transaction.query_first(LEASE, params![1, LEASE_S])?;
    let due_in_s = row.get("due_in_s")?;
    post.as_ref().map(Post::of).transpose().map(|post| post.filter(|p| p.id == *id).map(|p| (p, due_in_s)))
}

/// Each of these answers whether the post was still as it was leased.
pub(crate) fn postpone(post: &Post, seconds: u32, working: bool) -> Result<bool, Error> {
    asked("SELECT psn.postpone($1, $2, $3, $4) AS moved", params![&post.id, post.attempt, seconds, working])
}

pub(crate) fn park(post: &Post, why: &str) -> Result<bool, Error> {
    asked("SELECT psn.park($1, $2, $3) AS moved", params![&post.id, post.attempt, why])
}

pub(crate) fn fail(post: &Post, why: &str) -> Result<bool, Error> {
    asked("SELECT psn.fail($1, $2, $3, false) AS moved", params![&post.id, post.attempt, why])
}

pub(crate) fn finish(post: &Post, external_id: &str) -> Result<bool, Error> {
    asked("SELECT psn.finish($1, $2, $3) AS moved", params![&post.id, post.attempt, external_id])
}

/// Counts the attempt, now that its run exists.
pub(crate) fn confirm(post: &Post, run_id: &str, ended: Option<&str>) -> Result<bool, Error> {
    asked(
        "SELECT psn.confirm($1, $2, $3, $4, $5) AS moved",
        params![&post.id, post.attempt, run_id, post.backoff_s, ended],
    )
}

/// The claim of this tick; `None` while another is at work.
pub(crate) fn begin_tick(seconds: u32) -> Result<Option<Uuid>, Error> {
    one("SELECT psn.begin_tick($1) AS tick", params![seconds])?.get("tick")
}

pub(crate) fn end_tick(tick: &Uuid) -> Result<bool, Error> {
    asked("SELECT psn.end_tick($1) AS moved", params![tick])
}

pub(crate) struct DeadLetter {
    pub post: Uuid,
    pub state: String,
    pub cause: String,
}

pub(crate) fn unnotified(most: u32) -> Result<Vec<DeadLetter>, Error> {
    let rows = db::query("SELECT post_id, state, cause FROM psn.unnotified($1)", params![most])?;
    let letter =
        |row: &Row| Ok(DeadLetter { post: row.get("post_id")?, state: row.get("state")?, cause: row.get("cause")? });
    rows.iter().map(letter).collect()
}

pub(crate) fn notified(letters: &[DeadLetter]) -> Result<(), Error> {
    let told: Vec<_> = letters.iter().map(|l| json!({ "post": l.post, "state": l.state })).collect();
    one("SELECT psn.notified($1) AS marked", params![Value::Json(json!(told))]).map(drop)
}

pub(crate) fn prune(most: u32) -> Result<u32, Error> {
    one("SELECT psn.prune($1) AS pruned", params![most])?.get("pruned")
}

#[derive(Debug, serde::Serialize)]
pub(crate) struct Gauges {
    /// Posts that are due, up to the number that was counted.
    pub backlog: u32,
    /// Seconds since the most overdue was due.
    pub lag_s: u64,
    /// Posts that wait for a person.
    pub dead_letters: u32,
    /// Transactions that the oldest snapshot reaches back: vacuum waits for it.
    pub xmin_age: u64,
    pub oldest_transaction_s: u64,
}

pub(crate) fn gauges(most: u32) -> Result<Gauges, Error> {
    let row = one("SELECT * FROM psn.gauges($1)", params![most])?;
    Ok(Gauges {
        backlog: row.get("backlog")?,
        lag_s: row.get::<f64>("lag_s")?.max(0.0) as u64,
        dead_letters: row.get("dead_letters")?,
        xmin_age: row.get::<i64>("xmin_age")?.max(0) as u64,
        oldest_transaction_s: row.get::<f64>("oldest_transaction_s")?.max(0.0) as u64,
    })
}

fn asked(sql: &str, params: &[Value]) -> Result<bool, Error> {
    one(sql, params)?.get("moved")
}

fn one(sql: &str, params: &[Value]) -> Result<Row, Error> {
    db::query_first(sql, params)?.ok_or_else(|| Error {
        code: "column".into(),
        message: format!("no row came back from: {sql}"),
        sqlstate: None,
    })
}
