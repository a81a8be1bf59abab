//! A database that is slow, or fails over in the middle of a tick, and one with any number of stuck posts.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::hub::Hub;

/// Posts that are due; their first run was never started.
async fn stuck(hub: &Hub, posts: u32) {
    hub.sql("DELETE FROM posts; INSERT INTO users (email) VALUES ('a@example.org') ON CONFLICT DO NOTHING").await;
    hub.sql(&format!(
        "INSERT INTO posts (user_id, platform, content, status, scheduled_at, rescue_at)
         SELECT (SELECT id FROM users LIMIT 1), 'nowhere', repeat('x', 200), 'scheduled', now() - interval '1 hour', now() - interval '1 minute'
         FROM generate_series(1, {posts});
         ANALYZE posts"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_is_left_alone_after_one_statement() {
    let hub = Hub::start(11).await;
    hub.world.lock().calm = true;
    stuck(&hub, 150).await;
    // Longer than the two seconds at which a tick gives up.
    hub.sql(
        "CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2.2); RETURN NULL; END';
         CREATE TRIGGER dawdle BEFORE UPDATE ON posts FOR EACH STATEMENT EXECUTE FUNCTION public.dawdle()",
    )
    .await;
    let result = hub.tick().await;
    assert_eq!((&result["claimed"], &result["retriggered"]), (&100.into(), &1.into()), "one batch, one post: {result}");
    assert_eq!(result["skipped"]["slow-database"], 99, "{result}");

    hub.sql("DROP TRIGGER dawdle ON posts").await;
    hub.passes(10).await;
    let result = hub.tick().await;
    assert_eq!(result["retriggered"], 149, "the others, and none of them twice: {result}");
    assert!(result["skipped"].get("slow-database").is_none(), "{result}");
    assert_eq!(hub.world.lock().triggers, 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_in_the_middle_of_a_tick_loses_nothing() {
    const POSTS: u32 = 120;
    const TICKS: u32 = 4;
    let hub = Hub::start(12).await;
    hub.world.lock().calm = true;
    hub.overlapping().await;
    stuck(&hub, POSTS).await;
    let mut cut = 0;
    let mut failures = Vec::new();
    for tick in 0..TICKS {
        let over = AtomicBool::new(false);
        // What a failover looks like to a client: all its connections end with 57P01, again and again for a while.
        let failing_over = async {
            let mut cut = 0;
            while !over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(15 + u64::from(tick) * 20)).await;
                cut += hub
                    .number("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'psn_plugin_watchdog'")
                    .await;
            }
            cut
        };
        let ticking = async {
            let (ended, _) = hub.tick_and_memory().await;
            over.store(true, Ordering::Relaxed);
            ended
        };
        let (ended, ended_connections) = tokio::join!(ticking, failing_over);
        cut += ended_connections;
        if let Err(code) = ended {
            assert!(code.starts_with("database"), "{code}");
            failures.push(code);
        }
        hub.passes(10).await;
    }
    eprintln!("{cut} connections ended under {TICKS} ticks; failed: {failures:?}");
    assert!(cut > 0, "no tick met a failover");
    for _ in 0..3 {
        hub.passes(30).await;
        hub.tick().await;
        hub.world.goes_on(&hub.db).await;
    }
    let published = hub.number("SELECT count(*) FROM posts WHERE status = 'published'").await;
    assert_eq!(published, i64::from(POSTS));
    assert!(hub.world.lock().calls.values().all(|&calls| calls == 1), "a post was published twice");
}

/// Bytes that this process had at most.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kB") << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_backlog() {
    // Each more than a tick may start, so that all do the same work.
    let sizes = if psn_tests::sample::is_wide() { [1_000, 1_000_000] } else { [600, 30_000] };
    let hub = Hub::start(13).await;
    hub.world.lock().calm = true;
    let mut peaks = Vec::new();
    for posts in sizes {
        stuck(&hub, posts).await;
        hub.sql("UPDATE psn.watchdog SET tick_until = '-infinity'").await;
        let before = peak_rss();
        let (ended, peak) = hub.tick_and_memory().await;
        let result = ended.expect("the tick ends well");
        let grown = (peak_rss() - before) >> 10;
        eprintln!("{posts} stuck: {} KiB in the component, {grown} KiB more in the process; {result}", peak >> 10);
        assert_eq!(
            result["gauges"]["backlog"],
            (posts - result["claimed"].as_u64().unwrap_or(0) as u32).min(10_000),
            "{result}"
        );
        assert!(result["retriggered"].as_u64() > Some(100), "{result}");
        peaks.push(peak);
    }
    assert_eq!(peaks[0], peaks[1], "the component's memory at {sizes:?}");
}
