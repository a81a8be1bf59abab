//! Each kind of stuck, and each kind of bad input: the database and Trigger.dev are put into that state, and the real component
//! decides. tests/tests/watchdog.rs does the same through the binary on a local hub.
use serde_json::{Value, json};
use uuid::Uuid;

use crate::hub::Hub;
use crate::platform::{Fate, Mood};

/// A post that is on its way and due; `change` is SQL that makes it special.
async fn post(hub: &Hub, change: &str) -> Uuid {
    let id = Uuid::new_v4();
    hub.sql("INSERT INTO users (email) VALUES ('a@example.org') ON CONFLICT DO NOTHING").await;
    hub.sql(&format!(
        "INSERT INTO posts (id, user_id, platform, content, status, scheduled_at, rescue_at, attempt)
         VALUES ('{id}', (SELECT id FROM users LIMIT 1), 'nowhere', 'x', 'publishing', now() - interval '1 hour', now() - interval '1 minute', 1)"
    ))
    .await;
    if !change.is_empty() {
        hub.sql(&format!("UPDATE posts SET {change} WHERE id = '{id}'")).await;
    }
    id
}

async fn field(hub: &Hub, id: Uuid, what: &str) -> String {
    let sql = format!("SELECT coalesce(({what})::text, 'null') FROM posts WHERE id = $1");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_one(&hub.db)
        .await
        .unwrap_or_else(|e| panic!("{what}: {e}"))
}

/// Name, status at Trigger.dev, change of the post, more SQL, what the result counts, the status of the post afterwards.
type Case = (&'static str, Option<&'static str>, &'static str, &'static str, Value, &'static str);

async fn clear(hub: &Hub) {
    hub.sql("DELETE FROM posts; UPDATE psn.watchdog SET tick_until = '-infinity'").await;
    hub.world.lock().runs.clear();
    hub.world.is(Mood::Well);
}

/// How often the table of posts was scanned. A session keeps its counts to itself for up to 10 s, unless it ends.
async fn scans(hub: &Hub) -> i64 {
    hub.sql(
        "SELECT pg_stat_force_next_flush();
         SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )
    .await;
    hub.number("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'posts'").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_stuck_has_its_answer() {
    let hub = Hub::start(1).await;
    hub.world.lock().calm = true;
    let begun = "side_effect_at = now() - interval '1 hour'";
    let silent = "INSERT INTO psn.post_attempts (post_id, attempt, run_id, alive_at) SELECT id, 1, 'run_x', now() - interval '1 hour' FROM posts";
    let cases: [Case; 24] = [
        ("never started", None, "status = 'scheduled', attempt = 0", "", json!({"retriggered": 1}), "publishing"),
        ("started and silent", Some("EXECUTING"), "", silent, json!({"retriggered": 1}), "publishing"),
        ("begun and silent", Some("EXECUTING"), begun, silent, json!({"parked": 1}), "parked"),
        ("at work", Some("EXECUTING"), begun, "", json!({"skipped": {"executing": 1}}), "publishing"),
        ("failed", Some("FAILED"), "", "", json!({"retriggered": 1}), "publishing"),
        ("crashed", Some("CRASHED"), "", "", json!({"retriggered": 1}), "publishing"),
        ("expired", Some("EXPIRED"), "", "", json!({"retriggered": 1}), "publishing"),
        ("timed out", Some("TIMED_OUT"), "", "", json!({"retriggered": 1}), "publishing"),
        ("ended, unpublished", Some("COMPLETED"), "", "", json!({"retriggered": 1}), "publishing"),
        ("run missing", Some("MISSING"), "", "", json!({"retriggered": 1}), "publishing"),
        (
            "deployment missing",
            Some("PENDING_VERSION"),
            "",
            "",
            json!({"skipped": {"deployment-missing": 1}}),
            "publishing",
        ),
        (
            "task missing",
            None,
            "",
            "UPDATE psn.platforms SET task = 'other-task'",
            json!({"skipped": {"task-missing": 1}}),
            "publishing",
        ),
        ("queued", Some("QUEUED"), "", "", json!({"skipped": {"queued": 1}}), "publishing"),
        ("delayed past its time", Some("DELAYED"), "", "", json!({"rescheduled": 1}), "publishing"),
        (
            "delayed until its time",
            Some("DELAYED"),
            "scheduled_at = now() + interval '1 hour', rescue_at = now()",
            "",
            json!({"skipped": {"delayed": 1}}),
            "publishing",
        ),
        (
            "not yet its time",
            None,
            "status = 'scheduled', attempt = 0, scheduled_at = now() + interval '1 hour', rescue_at = now()",
            "",
            json!({"skipped": {"not-yet-due": 1}}),
            "scheduled",
        ),
        ("published, not recorded", Some("PUBLISHED"), begun, "", json!({"recorded": 1}), "published"),
        ("ambiguous", Some("CRASHED"), begun, "", json!({"parked": 1}), "parked"),
        ("cancelled", Some("CANCELED"), "", "", json!({"parked": 1}), "parked"),
        ("too late", None, "scheduled_at = now() - interval '13 hours'", "", json!({"parked": 1}), "parked"),
        ("attempts used up", Some("FAILED"), "attempt = 5", "", json!({"failed": 1}), "failed"),
        ("attempts past the cap", Some("FAILED"), "attempt = 2147483647", "", json!({"failed": 1}), "failed"),
        (
            "poison",
            Some("CRASHED"),
            "attempt = 3",
            "INSERT INTO psn.post_attempts (post_id, attempt, outcome) SELECT id, n, 'lost' FROM posts, generate_series(1, 2) n",
            json!({"parked": 1}),
            "parked",
        ),
        ("unheard of", Some("BRAND_NEW"), "", "", json!({"skipped": {"unknown-run-status": 1}}), "publishing"),
    ];
    for (name, run, change, more, counted, status) in cases {
        clear(&hub).await;
        hub.sql("UPDATE psn.platforms SET task = NULL").await;
        let id = post(&hub, change).await;
        if !more.is_empty() {
            hub.sql(more).await;
        }
        if let Some(run) = run {
            hub.sql(&format!("UPDATE posts SET run_id = 'run_x' WHERE id = '{id}'")).await;
            let at_trigger = if run == "PUBLISHED" { "COMPLETED" } else { run };
            if run != "MISSING" {
                let attempt = if change.contains("attempt =") { 3 } else { 1 };
                hub.world.add("run_x", id, attempt, at_trigger, Fate::Publishes);
            }
            if run == "PUBLISHED" {
                let output = json!({"outcome": "published", "post_id": id, "attempt": 1, "external_id": "x-9"});
                hub.world.lock().runs.get_mut("run_x").expect("just added").output = output;
            }
        }
        let result = hub.tick().await;
        for (key, expected) in counted.as_object().expect("an object") {
            assert_eq!(&result[key], expected, "{name}: {result}");
        }
        assert_eq!(field(&hub, id, "status").await, status, "{name}");
        // Whatever is still on its way is looked at again, and not at once.
        let waits = ["scheduled", "retrying", "publishing"].contains(&status);
        let again = if waits { "rescue_at > now() + interval '30 seconds'" } else { "rescue_at IS NULL" };
        assert_eq!(field(&hub, id, again).await, "true", "{name}");
        let letters = hub.number("SELECT count(*) FROM psn.dead_letters WHERE notified_at IS NOT NULL").await;
        assert_eq!(letters, i64::from(["parked", "failed"].contains(&status)), "{name}: told once");
        // A second tick right after has nothing to do, and tells nobody again.
        let idle = hub.tick().await;
        assert_eq!((&idle["claimed"], &idle["notified"]), (&json!(0), &json!(0)), "{name}: {idle}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_and_bad_weather_lose_nothing() {
    let hub = Hub::start(2).await;
    hub.world.lock().calm = true;

    // Refused where it is written.
    let id = post(&hub, "").await;
    for (sql, state) in [
        ("UPDATE posts SET status = 'flying'", "23514"),
        ("UPDATE posts SET rescue_at = 'infinity'", "23514"),
        ("UPDATE posts SET scheduled_at = '-infinity'", "23514"),
        ("UPDATE posts SET max_lateness = interval '-1 hour'", "23514"),
        ("UPDATE posts SET max_lateness = interval '100000 years'", "23514"),
        ("DELETE FROM users", "23001"),
        ("UPDATE psn.kinds SET run_deadline = interval '-1 s'", "23514"),
        ("UPDATE psn.kinds SET start_deadline = interval '9 years'", "23514"),
        ("UPDATE psn.watchdog SET keep_records = interval '1 day'", "23514"),
    ] {
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&hub.db).await.expect_err(sql);
        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
        assert!(code == state || (state == "23001" && code == "23503"), "{sql}: {error}");
    }
    // Absurd, and taken: nothing overflows.
    hub.sql(&format!("UPDATE posts SET scheduled_at = '0001-01-01', rescue_at = '0001-01-01', max_lateness = interval '10 years' WHERE id = '{id}'")).await;
    assert_eq!(hub.tick().await["parked"], 1);

    // More than a batch of what nobody can publish does not starve the one post that can be.
    clear(&hub).await;
    let id = post(&hub, "").await;
    hub.sql("INSERT INTO posts (user_id, platform, kind, content, status, scheduled_at, rescue_at)
             SELECT (SELECT id FROM users LIMIT 1), CASE WHEN n % 2 = 0 THEN 'elsewhere' ELSE 'nowhere' END, CASE WHEN n % 2 = 0 THEN 'post' ELSE 'opera' END,
                    'x', 'scheduled', now() - interval '2 hours', now() - interval '1 hour' FROM generate_series(1, 250) n").await;
    let result = hub.tick().await;
    assert_eq!(result["skipped"], json!({"unknown-kind": 125, "unknown-platform": 125}), "{result}");
    assert_eq!(result["retriggered"], 1, "{result}");
    let left = hub.number("SELECT count(*) FROM posts WHERE status = 'scheduled' AND attempt = 0 AND rescue_at > now() + interval '5 hours'").await;
    assert_eq!(left, 250);
    assert_eq!(field(&hub, id, "attempt").await, "2");

    // Trigger.dev away, busy, or talking nonsense; then the same posts are rescued.
    for (mood, reason) in [
        (Mood::Down, "trigger-unavailable"),
        (Mood::Limited, "trigger-unavailable"),
        (Mood::Nonsense, "trigger-refused"),
    ] {
        clear(&hub).await;
        let id = post(&hub, "").await;
        hub.world.is(mood);
        let result = hub.tick().await;
        assert_eq!(result["skipped"], json!({ reason: 1 }), "{mood:?}: {result}");
        hub.world.is(Mood::Well);
        hub.passes(10).await;
        assert_eq!(hub.tick().await["retriggered"], 1, "{mood:?}");
        assert_eq!(field(&hub, id, "attempt").await, "2");
    }

    // A database that takes no writes, then one that refuses one post's: a coded failure, a skip, and the next tick goes on.
    clear(&hub).await;
    post(&hub, "").await;
    hub.sql("ALTER ROLE psn_plugin_watchdog SET default_transaction_read_only = on").await;
    let refused = hub.run(json!({}), None).await.expect("not killed").expect_err("it cannot write");
    assert!(refused.starts_with("database"), "{refused}");
    hub.sql("ALTER ROLE psn_plugin_watchdog RESET default_transaction_read_only").await;
    hub.sql("ALTER TABLE posts ADD CONSTRAINT odd CHECK (run_id IS NULL)").await;
    assert_eq!(hub.tick().await["skipped"], json!({"database-refused": 1}));
    hub.sql("ALTER TABLE posts DROP CONSTRAINT odd").await;
    hub.passes(10).await;
    // The run was started before the refusal: the same key answers it.
    assert_eq!(hub.tick().await["deduplicated"], 1);

    // Another tick's claim is respected while it lasts.
    hub.sql("UPDATE psn.watchdog SET tick = gen_random_uuid(), tick_until = now() + interval '1 minute'").await;
    assert_eq!(hub.tick().await["skipped"], json!({"another-tick": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_changes_nothing_and_says_what_a_tick_would_do() {
    let hub = Hub::start(3).await;
    let id = post(&hub, "run_id = 'run_x'").await;
    hub.world.add("run_x", id, 1, "FAILED", Fate::Fails);
    let before = field(&hub, id, "to_jsonb(posts)").await;
    let dry = hub.run(json!({"dry_run": true}), None).await.expect("not killed").expect("it looks");
    assert!(dry["would"][0]["would"].as_str().is_some_and(|w| w.starts_with("start attempt 2 in")), "{dry}");
    let explained = hub.run(json!({"explain": id}), None).await.expect("not killed").expect("it looks");
    assert!(explained["would"].as_str().is_some_and(|w| w.starts_with("start attempt 2")), "{explained}");
    assert_eq!(explained["attempt"], 1);
    let nothing = hub.run(json!({"explain": Uuid::new_v4()}), None).await.expect("not killed").expect("it looks");
    assert_eq!(nothing["waiting"], false);
    assert_eq!(field(&hub, id, "to_jsonb(posts)").await, before);
    assert_eq!(hub.world.lock().triggers, 0);
}

/// The statement leases what it was asked for under any plan, and reads the deadline's index however many posts there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_holds_under_any_plan() {
    let hub = Hub::start(4).await;
    hub.sql("INSERT INTO users (email) VALUES ('a@example.org');
             INSERT INTO posts (user_id, platform, content, status, scheduled_at, rescue_at)
             SELECT (SELECT id FROM users), 'nowhere', 'x', CASE WHEN n % 20 = 0 THEN 'scheduled' ELSE 'published' END, now() - interval '1 hour',
                    CASE WHEN n % 20 = 0 THEN now() - interval '1 minute' END FROM generate_series(1, 20000) n; ANALYZE posts").await;
    for settings in [
        "SET LOCAL enable_seqscan = on",
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_material = off; SET LOCAL enable_memoize = off",
        "SET LOCAL enable_nestloop = off",
    ] {
        let mut tx = hub.db.begin().await.expect("a transaction");
        sqlx::raw_sql(settings).execute(&mut *tx).await.expect("settings");
        let leased: i64 =
            sqlx::query_scalar("SELECT count(*) FROM psn.lease(10, 300)").fetch_one(&mut *tx).await.expect("a lease");
        let moved: i64 = sqlx::query_scalar("SELECT count(*) FROM posts WHERE rescue_at > now()")
            .fetch_one(&mut *tx)
            .await
            .expect("a count");
        assert_eq!((leased, moved), (10, 10), "{settings}");
    }
    // As the watchdog's own role, policies and all: no scan of the table.
    hub.sql("UPDATE posts SET rescue_at = now() + interval '1 day' WHERE rescue_at IS NOT NULL").await;
    hub.sql("VACUUM ANALYZE posts").await;
    let before = scans(&hub).await;
    assert_eq!(hub.tick().await["claimed"], 0);
    assert_eq!(scans(&hub).await, before, "an idle tick scans no table");
}
