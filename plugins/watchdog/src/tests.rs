use db::Value;
use psn_plugin::testing::Hub;

use super::*;

const COLUMNS: [&str; 6] = ["id", "attempt", "run_id", "has_begun", "is_too_late", "lag_s"];

fn hub() -> Hub {
    Hub::new(MANIFEST)
}

fn row(id: &str, attempt: u32, run_id: Option<&str>, has_begun: bool) -> Vec<Value> {
    vec![Value::Uuid(id.into()), attempt.into(), run_id.into(), has_begun.into(), Value::Null, 90.5.into()]
}

fn expect_claim(hub: &Hub, rows: Vec<Vec<Value>>) {
    hub.expect_sql(&["WITH due AS MATERIALIZED", "LIMIT $1 FOR UPDATE SKIP LOCKED", "UPDATE posts AS p SET rescue_at"])
        .params(params![100, 300])
        .rows(&COLUMNS, rows);
}

fn expect_run(hub: &Hub, id: &str, status: &str) {
    hub.expect("trigger-env", &format!("GET /api/v3/runs/{id}"))
        .header("x-trigger-api-version", "2025-07-16")
        .reply(200, json!({"id": id, "status": status}));
}

fn expect_trigger(hub: &Hub) -> psn_plugin::testing::HttpExpectation {
    hub.expect("trigger-env", "POST /api/v1/tasks/publish-post/trigger")
        .idempotent()
        .header("x-trigger-api-version", "2025-07-16")
}

fn started(cached: bool) -> serde_json::Value {
    json!({"id": "run_new", "isCached": cached})
}

fn expect_confirmed(hub: &Hub, id: &str, attempt: u32) {
    hub.expect_sql(&[
        "SET attempt = attempt + 1, run_id = $3, status = 'publishing'",
        "WHERE id = $1 AND attempt = $2",
    ])
    .params(params![db::Uuid::from(id), attempt, "run_new", 600])
    .affected(1);
}

fn expect_extended(hub: &Hub, id: &str, attempt: u32, seconds: u32) {
    hub.expect_sql(&["UPDATE posts SET rescue_at = now() + $3", "attempt = $2"])
        .params(params![db::Uuid::from(id), attempt, seconds])
        .affected(1);
}

fn expect_finished(hub: &Hub, id: &str, attempt: u32, status: &str, reason: &str) {
    hub.expect_sql(&["UPDATE posts SET status = $3, rescue_at = NULL, last_error = $4", "attempt = $2"])
        .params(params![db::Uuid::from(id), attempt, status, reason])
        .affected(1);
}

fn tick() -> Result<serde_json::Value, Failure> {
    let tally = Watchdog::run(Invocation { payload: Tick {}, scheduled_at: None })?;
    Ok(serde_json::to_value(tally).unwrap())
}

#[test]
fn nothing_is_due() {
    let hub = hub();
    expect_claim(&hub, vec![]);
    assert_eq!(
        tick().unwrap(),
        json!({
            "checked": 0, "claimed": 0, "retriggered": 0, "deduplicated": 0, "rescheduled": 0, "parked": 0, "failed": 0,
            "oldest_lag_s": 0, "skipped": {},
        })
    );
}

#[test]
fn lease_then_trigger_then_confirm() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false)]);
    expect_trigger(&hub)
        .body(json!({
            "payload": {"post_id": "p-1", "attempt": 1},
            "options": {
                "payloadType": "application/json",
                "idempotencyKey": "15c93de9a59bdaa53914514cda37a314858fd21b401ee1a76cccab7a909d2ea9",
                "tags": ["post:p-1"],
            },
        }))
        .reply(200, started(false));
    expect_confirmed(&hub, "p-1", 0);
    let result = tick().unwrap();
    assert_eq!(
        (&result["retriggered"], &result["checked"], &result["oldest_lag_s"]),
        (&json!(1), &json!(1), &json!(90))
    );
    assert!(!hub.journal().iter().any(|line| line == "begin"), "no transaction is open while Trigger.dev is asked");
}

#[test]
fn a_run_that_was_started_by_a_tick_that_died_is_confirmed_not_doubled() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false)]);
    expect_trigger(&hub).reply(200, started(true));
    expect_confirmed(&hub, "p-1", 0);
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["deduplicated"]), (&json!(0), &json!(1)));
}

#[test]
fn a_run_faster_than_its_confirmation_only_gets_its_name_noted() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 2, None, false)]);
    expect_trigger(&hub).body_part("/payload/attempt", 3.into()).reply(200, started(false));
    hub.expect_sql(&["SET attempt = attempt + 1"]).affected(0);
    hub.expect_sql(&["UPDATE posts SET run_id = $3"]).params(params![db::Uuid::from("p-1"), 3, "run_new"]).affected(1);
    assert_eq!(tick().unwrap()["retriggered"], 1);
}

#[test]
fn each_state_of_a_run_has_its_outcome() {
    let begun =
        "Parked by the watchdog: its publishing was begun and not finished: look at the platform whether it is there";
    for (status, has_begun, attempt, counter) in [
        ("QUEUED", false, 1, "rescheduled"),
        ("EXECUTING", true, 1, "rescheduled"),
        ("PENDING_VERSION", false, 1, "rescheduled"),
        ("FAILED", false, 1, "retriggered"),
        ("EXPIRED", false, 1, "retriggered"),
        ("COMPLETED", false, 1, "retriggered"),
        ("FAILED", true, 1, "parked"),
        ("CRASHED", false, 5, "failed"),
    ] {
        let hub = hub();
        expect_claim(&hub, vec![row("p-1", attempt, Some("run_old"), has_begun)]);
        expect_run(&hub, "run_old", status);
        match counter {
            "rescheduled" => expect_extended(&hub, "p-1", attempt, 300),
            "parked" => expect_finished(&hub, "p-1", attempt, "parked", begun),
            "failed" => expect_finished(&hub, "p-1", attempt, "failed", "Given up by the watchdog after 5 attempts"),
            _ => {
                expect_trigger(&hub).reply(200, started(false));
                expect_confirmed(&hub, "p-1", attempt);
            }
        }
        let result = tick().unwrap();
        assert_eq!(result[counter], 1, "{status}: {result}");
        assert_eq!(result["checked"], 1);
    }
}

#[test]
fn a_run_that_trigger_has_forgotten_counts_as_none() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 1, Some("run_old"), false)]);
    hub.expect("trigger-env", "GET /api/v3/runs/run_old").reply(404, json!({"error": "Not found"}));
    expect_trigger(&hub).reply(200, started(false));
    expect_confirmed(&hub, "p-1", 1);
    assert_eq!(tick().unwrap()["retriggered"], 1);
}

#[test]
fn a_post_that_moved_on_by_itself_is_left_alone() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 1, None, true)]);
    hub.expect_sql(&["UPDATE posts SET status = $3"]).affected(0);
    let result = tick().unwrap();
    assert_eq!((&result["parked"], &result["skipped"]), (&json!(0), &json!({"changed-meanwhile": 1})));
}

#[test]
fn a_post_past_its_lateness_is_parked() {
    let hub = hub();
    let mut late = row("p-1", 0, None, false);
    late[4] = Value::Bool(true);
    expect_claim(&hub, vec![late]);
    expect_finished(&hub, "p-1", 0, "parked", "Parked by the watchdog: it is later than it may be");
    assert_eq!(tick().unwrap()["parked"], 1);
}

#[test]
fn a_task_that_is_not_deployed_costs_no_attempt_and_is_asked_for_once() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false), row("p-2", 5, None, false), row("p-3", 1, None, false)]);
    expect_trigger(&hub).reply(404, json!({"error": "Task not found"}));
    expect_extended(&hub, "p-1", 0, 900);
    expect_finished(&hub, "p-2", 5, "failed", "Given up by the watchdog after 5 attempts");
    expect_extended(&hub, "p-3", 1, 900);
    let result = tick().unwrap();
    assert_eq!((&result["skipped"], &result["failed"]), (&json!({"task-missing": 2}), &json!(1)));
    assert_eq!(hub.logs().iter().filter(|line| line.message.contains("no task publish-post")).count(), 1);
}

#[test]
fn a_service_that_is_away_ends_the_tick_with_what_was_done() {
    type Away = fn(psn_plugin::testing::HttpExpectation);
    let cases: [Away; 5] = [
        |post| post.unreachable(),
        |post| post.unanswered(),
        |post| post.reply(429, json!({"error": "Rate limit exceeded"})),
        |post| post.reply(503, json!({})),
        |post| post.reply_raw(524, &[], "<html>"),
    ];
    for away in cases {
        let hub = hub();
        expect_claim(&hub, vec![row("p-1", 0, None, false), row("p-2", 0, None, false), row("p-3", 0, None, false)]);
        expect_trigger(&hub).reply(200, started(false));
        expect_confirmed(&hub, "p-1", 0);
        away(expect_trigger(&hub));
        let result = tick().unwrap();
        assert_eq!((&result["claimed"], &result["checked"], &result["retriggered"]), (&json!(3), &json!(1), &json!(1)));
        assert_eq!(result["skipped"], json!({"trigger-unavailable": 2}));
    }
}

#[test]
fn a_rejected_key_is_a_failure_with_a_fix() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false)]);
    expect_trigger(&hub).reply(401, json!({"error": "Invalid API Key"}));
    let failure = tick().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("key-rejected", "psn run trigger-provision"));
}

#[test]
fn one_refused_post_does_not_stop_the_others() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false), row("p-2", 0, None, false)]);
    expect_trigger(&hub).reply(422, json!({"error": "bad payload"}));
    expect_extended(&hub, "p-1", 0, 300);
    expect_trigger(&hub).reply(200, started(false));
    expect_confirmed(&hub, "p-2", 0);
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["skipped"]), (&json!(1), &json!({"trigger-refused": 1})));
}

#[test]
fn full_batches_are_followed_by_another_until_the_calls_are_used_up() {
    let hub = hub();
    let mut left = CALL_BUDGET;
    while left > 0 {
        let batch: Vec<_> = (0..BATCH).map(|n| row(&format!("p-{n}"), 0, Some("run_old"), false)).collect();
        expect_claim(&hub, batch);
        for n in 0..BATCH {
            if left < 2 {
                break;
            }
            expect_run(&hub, "run_old", "FAILED");
            expect_trigger(&hub).reply(200, started(false));
            expect_confirmed(&hub, &format!("p-{n}"), 0);
            left -= 2;
        }
    }
    // Then one more claim, of which nothing can be done any more.
    expect_claim(&hub, vec![row("p-x", 0, None, false)]);
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["claimed"]), (&json!(500), &json!(501)));
    assert_eq!(result["skipped"], json!({"out-of-calls": 1}));
}

#[test]
fn a_tick_ends_within_its_time() {
    let hub = hub().calls_take_ms(20_000);
    let batch: Vec<_> = (1..=4).map(|n| row(&format!("p-{n}"), 0, None, false)).collect();
    expect_claim(&hub, batch);
    for id in ["p-1", "p-2", "p-3"] {
        expect_trigger(&hub).reply(200, started(false));
        expect_confirmed(&hub, id, 0);
    }
    let result = tick().unwrap();
    assert_eq!((&result["checked"], &result["skipped"]), (&json!(3), &json!({"out-of-time": 1})));
}

#[test]
fn settings_name_the_task_and_the_cap() {
    let hub = hub().setting("watchdog.task", "my-publisher").setting("watchdog.max_attempts", "2");
    expect_claim(&hub, vec![row("p-1", 1, None, false), row("p-2", 2, None, false)]);
    hub.expect("trigger-env", "POST /api/v1/tasks/my-publisher/trigger").reply(200, started(false));
    expect_confirmed(&hub, "p-1", 1);
    expect_finished(&hub, "p-2", 2, "failed", "Given up by the watchdog after 2 attempts");
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["failed"]), (&json!(1), &json!(1)));
}

#[test]
fn a_database_that_is_away_fails_the_tick_for_the_next_to_go_on() {
    let hub = hub();
    hub.expect_sql(&["WITH due"]).fail("unavailable", None);
    let failure = tick().unwrap_err();
    assert_eq!(failure.code, "database-unavailable");
    assert!(failure.retry_after_ms.is_some());
}
