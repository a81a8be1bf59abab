//! The crash model: lost runs, crashes before and after the side effect, the watchdog killed anywhere, several watchdogs at once,
//! Trigger.dev away or talking nonsense, the database restarted, clocks that jump. Two counts must be zero: posts with two side
//! effects, and posts that are neither published nor to be seen by a person. The whole table: scripts/watchdog-model.sh.
mod hub;
mod interleavings;
mod platform;
mod stuck;
mod weather;

use std::collections::BTreeMap;

use hub::Hub;
use platform::{Fate, Mood};
use uuid::Uuid;

/// Posts of one story.
const POSTS: u32 = 250;
/// Rounds with faults, and at most so many without until all is settled.
const ROUNDS: u32 = 8;
const CALM_ROUNDS: u32 = 40;

#[derive(Default, Debug)]
struct Table {
    calls: [u64; 3],
    outcomes: BTreeMap<String, u64>,
    invisible: u64,
    doubles: u64,
    triggers: u64,
    kills: u64,
}

/// The number of stories: 10,000 posts and more when asked for.
fn stories() -> u64 {
    std::env::var("PSN_MODEL_STORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

async fn story(hub: &mut Hub, seed: u64, table: &mut Table) {
    hub.sql("DELETE FROM posts; DELETE FROM users; UPDATE psn.watchdog SET tick_until = '-infinity'").await;
    hub.world.lock().calm = false;
    let user = hub
        .number("WITH u AS (INSERT INTO users (email) VALUES ('a@example.org') RETURNING 1) SELECT count(*) FROM u")
        .await;
    assert_eq!(user, 1);
    hub.sql(&format!(
        "INSERT INTO posts (user_id, platform, content, status, scheduled_at, max_lateness)
         SELECT (SELECT id FROM users), 'nowhere', 'x', 'scheduled', now() - interval '10 minutes', interval '30 days'
         FROM generate_series(1, {POSTS})"
    ))
    .await;
    let mut restarted = false;
    for round in 0..ROUNDS + CALM_ROUNDS {
        let faults = round < ROUNDS;
        let (watchdogs, kills, minutes) = {
            let mut inner = hub.world.lock();
            inner.calm = !faults;
            let watchdogs = if faults { 1 + inner.chance() % 3 } else { 1 };
            // Polls of the tick. Small numbers as often as large ones, as ticks differ in length; and one that no tick is too
            // short for, so that each story has a kill.
            let kills: Vec<Option<u32>> = (0..watchdogs)
                .map(|_| {
                    (faults && inner.chance().is_multiple_of(2))
                        .then(|| (inner.chance() % 4_000) as u32 >> (inner.chance() % 6))
                })
                .enumerate()
                .map(|(i, kill)| if (round, i) == (0, 0) { Some(20) } else { kill })
                .collect();
            // Mostly forward; sometimes the clock is set back.
            let minutes =
                if faults && inner.chance().is_multiple_of(8) { -90 } else { 20 + (inner.chance() % 200) as i64 };
            (watchdogs, kills, minutes)
        };
        let roll = hub.world.lock().chance() % 10;
        hub.world.is(match (faults, roll) {
            (true, 0) => Mood::Down,
            (true, 1) => Mood::Limited,
            (true, 2) => Mood::Nonsense,
            _ => Mood::Well,
        });
        hub.passes(minutes).await;
        let killed = if watchdogs == 1 {
            let (ended, ()) = tokio::join!(hub.tick_until(kills[0]), hub.world.goes_on(&hub.db));
            vec![ended]
        } else {
            let second = kills.get(1).copied().flatten();
            let third = kills.get(2).copied().flatten();
            let (a, b, c, ()) = tokio::join!(
                hub.tick_until(kills[0]),
                hub.tick_until(second),
                async { if watchdogs == 3 { hub.tick_until(third).await } else { Some(Ok(serde_json::Value::Null)) } },
                hub.world.goes_on(&hub.db),
            );
            vec![a, b, c]
        };
        table.kills += killed.iter().filter(|k| k.is_none()).count() as u64;
        hub.world.is(Mood::Well);
        hub.world.goes_on(&hub.db).await;
        if round == ROUNDS / 2 && !restarted && seed.is_multiple_of(10) {
            restarted = true;
            hub.restart_database().await;
        }
        if !faults
            && hub.number("SELECT count(*) FROM posts WHERE status IN ('scheduled', 'retrying', 'publishing')").await
                == 0
        {
            break;
        }
    }
    // Zombies get their last chance to do harm.
    for _ in 0..5 {
        hub.world.goes_on(&hub.db).await;
    }
    count(hub, table).await;
}

async fn count(hub: &Hub, table: &mut Table) {
    let posts: Vec<(Uuid, String, bool)> = sqlx::query_as(
        "SELECT p.id, p.status, EXISTS (SELECT FROM psn.dead_letters d WHERE d.post_id = p.id AND d.state = p.status AND d.resolved_at IS NULL)
         FROM posts p",
    )
    .fetch_all(&hub.db)
    .await
    .expect("posts");
    assert_eq!(posts.len(), POSTS as usize);
    let inner = hub.world.lock();
    for (id, status, visible) in posts {
        let calls = inner.calls.get(&id).copied().unwrap_or_default();
        table.calls[calls.min(2) as usize] += 1;
        table.doubles += u64::from(calls > 1);
        table.invisible += u64::from(status != "published" && !visible);
        // What is recorded as published was published; what failed was not.
        assert!(status != "published" || calls == 1, "{id} is published after {calls} calls");
        assert!(status != "failed" || calls == 0, "{id} failed after {calls} calls");
        *table.outcomes.entry(status).or_default() += 1;
    }
    table.triggers = inner.triggers;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_post_is_lost_and_none_published_twice() {
    let stories = stories();
    let mut hub = Hub::start(42).await;
    hub.overlapping().await;
    let mut table = Table::default();
    for seed in 0..stories {
        story(&mut hub, seed, &mut table).await;
    }
    let [none, one, more] = table.calls;
    eprintln!("{} posts, {} runs started, {} ticks killed", stories * u64::from(POSTS), table.triggers, table.kills);
    eprintln!(
        "| side effects: 0 / 1 / 2+ | {} | neither published nor visible |",
        table.outcomes.keys().cloned().collect::<Vec<_>>().join(" | ")
    );
    let outcomes: Vec<String> = table.outcomes.values().map(u64::to_string).collect();
    eprintln!("| {none} / {one} / {more} | {} | {} |", outcomes.join(" | "), table.invisible);
    assert_eq!((table.doubles, table.invisible), (0, 0), "{table:?}");
    assert!(table.outcomes["published"] > u64::from(POSTS) * stories / 2, "{table:?}");
    assert!(table.kills > 0 && table.outcomes.contains_key("parked"), "{table:?}");
}

/// The watchdog is killed at one moment after the other of the same tick; the next ticks put everything right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_next_ticks_put_it_right() {
    let hub = Hub::start(7).await;
    hub.world.lock().calm = true;
    let step = if psn_tests::sample::is_wide() { 1 } else { 41 };
    let mut at = 1;
    loop {
        hub.sql("DELETE FROM posts; DELETE FROM users; INSERT INTO users (email) VALUES ('a@example.org')").await;
        let ids = ["fresh", "failed", "begun", "delayed"].map(|_| Uuid::new_v4());
        for (i, id) in ids.iter().enumerate() {
            let begun = if i == 2 { "now()" } else { "NULL" };
            let run = if i == 0 { "NULL".to_owned() } else { format!("'old_{i}'") };
            hub.sql(&format!(
                "INSERT INTO posts (id, user_id, platform, content, status, scheduled_at, rescue_at, attempt, run_id, side_effect_at)
                 VALUES ('{id}', (SELECT id FROM users), 'nowhere', 'x', '{}', now() - interval '1 hour', now() - interval '1 minute', {}, {run}, {begun})",
                if i == 0 { "scheduled" } else { "publishing" },
                i32::from(i != 0),
            ))
            .await;
        }
        hub.world.add("old_1", ids[1], 1, "FAILED", Fate::Fails);
        hub.world.add("old_2", ids[2], 1, "CRASHED", Fate::CrashesAfterMarker);
        hub.world.add("old_3", ids[3], 1, "DELAYED", Fate::Publishes);
        let ended = hub.tick_until(Some(at)).await;
        for _ in 0..3 {
            hub.world.goes_on(&hub.db).await;
            hub.passes(120).await;
            hub.tick().await;
        }
        hub.world.goes_on(&hub.db).await;
        let status = async |id: Uuid| -> String {
            sqlx::query_scalar("SELECT status FROM posts WHERE id = $1")
                .bind(id)
                .fetch_one(&hub.db)
                .await
                .expect("a post")
        };
        for (id, expected, calls) in
            [(ids[0], "published", 1), (ids[1], "published", 1), (ids[2], "parked", 0), (ids[3], "published", 1)]
        {
            assert_eq!(status(id).await, expected, "killed at poll {at}");
            assert_eq!(hub.world.lock().calls.get(&id).copied().unwrap_or_default(), calls, "killed at poll {at}");
        }
        let told = hub
            .number("SELECT count(*) FROM psn.dead_letters WHERE notified_at IS NOT NULL AND resolved_at IS NULL")
            .await;
        assert_eq!(told, 1, "killed at poll {at}");
        if ended.is_some() {
            assert!(at > 30, "a tick makes more host calls than that");
            break;
        }
        at += step;
    }
}
