//! Any interleaving of two watchdogs, three runs and a person on one post, at the level of the protocol's functions.
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::PgPool;
use uuid::Uuid;

use crate::hub::Hub;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A watchdog reads the post's attempt and marker.
    Look(usize),
    /// It acts on what it read, however old that is.
    Confirm(usize),
    Park(usize),
    Fail(usize),
    Postpone(usize),
    /// A run with this token.
    Begin(i32),
    /// The platform is called, if this token's begin was true.
    Finish(i32),
    Refused(i32),
    Later(i32),
    Beat(i32),
    /// A person.
    Retry,
    Resolve,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize).prop_map(Step::Look),
        4 => (0..2usize).prop_map(Step::Confirm),
        1 => (0..2usize).prop_map(Step::Park),
        1 => (0..2usize).prop_map(Step::Fail),
        1 => (0..2usize).prop_map(Step::Postpone),
        5 => (1..5i32).prop_map(Step::Begin),
        4 => (1..5i32).prop_map(Step::Finish),
        1 => (1..5i32).prop_map(Step::Refused),
        1 => (1..5i32).prop_map(Step::Later),
        1 => (1..5i32).prop_map(Step::Beat),
        1 => Just(Step::Retry),
        1 => Just(Step::Resolve),
    ]
}

#[derive(Default)]
struct Actors {
    /// What each watchdog read last.
    seen: [Option<i32>; 2],
    /// The token whose run may call the platform, and has not ended.
    holder: Option<i32>,
    calls: u32,
    refusals: u32,
}

async fn yes(db: &PgPool, sql: &str, post: Uuid, token: i32) -> bool {
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).bind(post).bind(token);
    query.fetch_one(db).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

async fn take(db: &PgPool, post: Uuid, step: Step, actors: &mut Actors) -> Result<(), TestCaseError> {
    match step {
        Step::Look(w) => {
            actors.seen[w] = sqlx::query_scalar("SELECT attempt FROM posts WHERE id = $1 AND rescue_at IS NOT NULL")
                .bind(post)
                .fetch_optional(db)
                .await
                .expect("a look");
        }
        Step::Confirm(w) => {
            let Some(token) = actors.seen[w] else { return Ok(()) };
            yes(db, "SELECT psn.confirm($1, $2, 'run', 0, 'lost')", post, token).await;
        }
        Step::Park(w) => {
            let Some(token) = actors.seen[w] else { return Ok(()) };
            yes(db, "SELECT psn.park($1, $2, 'model')", post, token).await;
        }
        Step::Fail(w) => {
            let Some(token) = actors.seen[w] else { return Ok(()) };
            let failed = yes(db, "SELECT psn.fail($1, $2, 'model', false)", post, token).await;
            prop_assert!(!failed || actors.holder.is_none(), "a post that was begun is not failed");
        }
        Step::Postpone(w) => {
            let Some(token) = actors.seen[w] else { return Ok(()) };
            yes(db, "SELECT psn.postpone($1, $2, 60, true)", post, token).await;
        }
        Step::Begin(token) => {
            if yes(db, "SELECT psn.begin_side_effect($1, $2)", post, token).await {
                prop_assert!(actors.holder.is_none(), "{:?} holds the marker, and {token} got it", actors.holder);
                actors.holder = Some(token);
                actors.calls += 1;
                prop_assert!(actors.calls - actors.refusals <= 1, "called twice");
            }
        }
        Step::Finish(token) => {
            let held = actors.holder == Some(token);
            let finished = yes(db, "SELECT psn.finish($1, $2, 'model')", post, token).await;
            prop_assert!(!finished || held, "{token} finishes what it did not begin");
        }
        Step::Refused(token) | Step::Later(token) => {
            if actors.holder != Some(token) {
                return Ok(());
            }
            let sql = match step {
                Step::Refused(_) => "SELECT psn.fail($1, $2, 'no', true)",
                _ => "SELECT psn.retry_later($1, $2, 'later')",
            };
            // The platform says for certain that this call published nothing.
            if yes(db, sql, post, token).await {
                actors.holder = None;
                actors.refusals += 1;
            }
        }
        Step::Beat(token) => {
            yes(db, "SELECT psn.heartbeat($1, $2)", post, token).await;
        }
        Step::Retry => {
            // The person looked, and says the truth.
            let truth = actors.holder.is_none();
            let query = sqlx::query_scalar("SELECT psn.retry_post($1, $2)").bind(post).bind(truth);
            let word: String = query.fetch_one(db).await.expect("an answer");
            prop_assert!(truth || word != "done", "what may be out is not retried");
        }
        Step::Resolve => {
            let query = sqlx::query_scalar("SELECT psn.end_post($1, 'parked', 'by hand', false)").bind(post);
            let _: String = query.fetch_one(db).await.expect("an answer");
        }
    }
    Ok(())
}

#[test]
fn no_interleaving_publishes_twice_or_loses_the_post() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let hub = runtime.block_on(Hub::start(5));
    runtime.block_on(hub.sql(
        "INSERT INTO users (email) VALUES ('a@example.org'); UPDATE psn.kinds SET backoff_min = '0', backoff_max = '0'",
    ));
    let cases = if psn_tests::sample::is_wide() { 2_000 } else { 96 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 5..60), |steps| {
        runtime.block_on(async {
            let post: Uuid = sqlx::query_scalar(
                "INSERT INTO posts (user_id, platform, content, status, scheduled_at, rescue_at)
                 VALUES ((SELECT id FROM users), 'nowhere', 'x', 'scheduled', now() - interval '1 minute', now()) RETURNING id",
            )
            .fetch_one(&hub.db)
            .await
            .expect("a post");
            let mut actors = Actors::default();
            let mut attempt = 0;
            for step in &steps {
                take(&hub.db, post, *step, &mut actors).await?;
                let (status, now, watched, letter): (String, i32, bool, bool) = sqlx::query_as(
                    "SELECT p.status, p.attempt, p.rescue_at IS NOT NULL,
                            EXISTS (SELECT FROM psn.dead_letters d WHERE d.post_id = p.id AND d.state = p.status AND d.resolved_at IS NULL)
                     FROM posts p WHERE p.id = $1",
                )
                .bind(post)
                .fetch_one(&hub.db)
                .await
                .expect("the post");
                prop_assert!(now >= attempt, "the fence went back at {step:?}");
                attempt = now;
                // Watched by the watchdog, out, or before a person.
                let kept = match status.as_str() {
                    "published" => actors.holder.is_some(),
                    "parked" | "failed" => letter,
                    _ => watched,
                };
                prop_assert!(kept, "{status} after {step:?} and nobody knows");
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
