use db::Value;
use psn_plugin::{Timestamp, testing::Hub};

use super::*;

const COLUMNS: [&str; 15] = [
    "id",
    "attempt",
    "run_id",
    "task",
    "unknown",
    "has_begun",
    "is_late",
    "starts_in_s",
    "lag_s",
    "is_spent",
    "lost",
    "poison_cap",
    "backoff_s",
    "silent_s",
    "run_deadline_s",
];

fn hub() -> Hub {
    Hub::new(MANIFEST)
}

fn row(id: &str, attempt: u32, run_id: Option<&str>, has_begun: bool) -> Vec<Value> {
    vec![
        Value::Uuid(id.into()),
        attempt.into(),
        run_id.into(),
        Value::Null,
        Value::Null,
        has_begun.into(),
        false.into(),
        0.0.into(),
        90.5.into(),
        (attempt >= 5).into(),
        0.into(),
        3.into(),
        0.into(),
        Value::Null,
        600.0.into(),
    ]
}

/// A row in which one column is another.
fn with(mut row: Vec<Value>, column: &str, value: impl Into<Value>) -> Vec<Value> {
    row[COLUMNS.iter().position(|name| *name == column).unwrap()] = value.into();
    row
}

fn expect_begin(hub: &Hub) {
    hub.expect_sql(&["psn.begin_tick($1)"]).params(params![75]).rows(&["tick"], vec![vec![Value::Uuid("t-1".into())]]);
}

fn expect_end(hub: &Hub) {
    expect_finale(hub, vec![]);
    expect_release(hub);
}

fn expect_release(hub: &Hub) {
    hub.expect_sql(&["psn.end_tick($1)"])
        .params(params![db::Uuid::from("t-1")])
        .rows(&["moved"], vec![vec![true.into()]]);
}

/// What a tick does when all posts had their turn.
fn expect_finale(hub: &Hub, letters: Vec<Vec<Value>>) {
    let told = letters.len();
    hub.expect_sql(&["psn.unnotified($1)"]).params(params![200]).rows(&["post_id", "state", "cause"], letters);
    if told > 0 {
        hub.expect_sql(&["psn.notified($1)"]).rows(&["marked"], vec![vec![(told as u32).into()]]);
    }
    hub.expect_sql(&["psn.prune($1)"]).params(params![1000]).rows(&["pruned"], vec![vec![0.into()]]);
    hub.expect_sql(&["psn.gauges($1)"]).params(params![10_000]).rows(
        &["backlog", "lag_s", "dead_letters", "xmin_age", "oldest_transaction_s"],
        vec![vec![4.into(), 7.5.into(), 2.into(), 12.into(), 0.0.into()]],
    );
}

fn expect_lease(hub: &Hub, rows: Vec<Vec<Value>>) {
    hub.expect_sql(&["SELECT * FROM psn.lease($1, $2)"]).params(params![100, 300]).rows(&COLUMNS, rows);
}

/// The whole frame of a tick with one batch.
fn expect_claim(hub: &Hub, rows: Vec<Vec<Value>>) {
    expect_begin(hub);
    expect_lease(hub, rows);
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

fn expect_moved(hub: &Hub, sql: &str, params: &[Value], moved: bool) {
    hub.expect_sql(&[sql]).params(params).rows(&["moved"], vec![vec![moved.into()]]);
}

fn expect_confirmed(hub: &Hub, id: &str, attempt: u32, ended: Option<&str>) {
    let params = params![db::Uuid::from(id), attempt, "run_new", 0, ended];
    expect_moved(hub, "psn.confirm($1, $2, $3, $4, $5)", params, true);
}

fn expect_postponed(hub: &Hub, id: &str, attempt: u32, seconds: u32, working: bool) {
    expect_moved(hub, "psn.postpone(", params![db::Uuid::from(id), attempt, seconds, working], true);
}

fn tick() -> Result<serde_json::Value, Failure> {
    Watchdog::run(Invocation { payload: Tick::default(), scheduled_at: None })
}

#[test]
fn nothing_is_due() {
    let hub = hub();
    expect_claim(&hub, vec![]);
    expect_end(&hub);
    assert_eq!(
        tick().unwrap(),
        json!({
            "checked": 0, "claimed": 0, "retriggered": 0, "deduplicated": 0, "rescheduled": 0, "recorded": 0, "parked": 0, "failed": 0,
            "oldest_lag_s": 0, "skipped": {}, "notified": 0, "pruned": 0,
            "gauges": {"backlog": 4, "lag_s": 7, "dead_letters": 2, "xmin_age": 12, "oldest_transaction_s": 0},
        })
    );
}

#[test]
fn one_tick_at_a_time() {
    let hub = hub();
    hub.expect_sql(&["psn.begin_tick($1)"]).rows(&["tick"], vec![vec![Value::Null]]);
    assert_eq!(tick().unwrap()["skipped"], json!({"another-tick": 1}));
}

#[test]
fn a_scheduled_tick_starts_a_little_later_than_others() {
    let hub = hub();
    expect_claim(&hub, vec![]);
    expect_end(&hub);
    Watchdog::run(Invocation { payload: Tick::default(), scheduled_at: Timestamp::parse("2026-01-01T12:00:00Z") })
        .unwrap();
    assert!(hub.slept_ms() < u64::from(JITTER_MS));
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
    expect_confirmed(&hub, "p-1", 0, None);
    expect_end(&hub);
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
    expect_confirmed(&hub, "p-1", 0, None);
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["deduplicated"]), (&json!(0), &json!(1)));
}

#[test]
fn a_pause_before_the_next_attempt_is_trigger_devs_to_keep() {
    let hub = hub();
    let post = with(with(row("p-1", 2, Some("run_old"), false), "backoff_s", 55), "task", "other-task");
    expect_claim(&hub, vec![post]);
    expect_run(&hub, "run_old", "FAILED");
    hub.expect("trigger-env", "POST /api/v1/tasks/other-task/trigger")
        .body_part("/options/delay", "55s".into())
        .body_part("/payload/attempt", 3.into())
        .reply(200, started(false));
    let params = params![db::Uuid::from("p-1"), 2, "run_new", 55, "failed"];
    expect_moved(&hub, "psn.confirm(", params, true);
    expect_end(&hub);
    assert_eq!(tick().unwrap()["retriggered"], 1);
}

#[test]
fn each_state_of_a_run_has_its_outcome() {
    let begun =
        "Parked by the watchdog: its publishing was begun and not finished: look at the platform whether it is there";
    let spent = "Given up by the watchdog after 5 attempts";
    for (status, has_begun, attempt, outcome) in [
        ("QUEUED", false, 1, "queued"),
        ("EXECUTING", true, 1, "executing"),
        ("PENDING_VERSION", false, 1, "deployment-missing"),
        ("BRAND_NEW", false, 1, "unknown-run-status"),
        ("FAILED", false, 1, "retriggered"),
        ("EXPIRED", false, 1, "retriggered"),
        ("CRASHED", false, 1, "lost"),
        ("COMPLETED", false, 1, "retriggered"),
        ("FAILED", true, 1, "parked"),
        ("CRASHED", false, 5, "failed"),
    ] {
        let hub = hub();
        expect_claim(&hub, vec![row("p-1", attempt, Some("run_old"), has_begun)]);
        expect_run(&hub, "run_old", status);
        let id = db::Uuid::from("p-1");
        match outcome {
            "queued" => expect_postponed(&hub, "p-1", attempt, 300, false),
            "executing" => expect_postponed(&hub, "p-1", attempt, 600, true),
            "deployment-missing" | "unknown-run-status" => expect_postponed(&hub, "p-1", attempt, 900, false),
            "parked" => expect_moved(&hub, "psn.park(", params![id, attempt, begun], true),
            "failed" => expect_moved(&hub, "psn.fail($1, $2, $3, false)", params![id, attempt, spent], true),
            _ => {
                expect_trigger(&hub).reply(200, started(false));
                expect_confirmed(&hub, "p-1", attempt, Some(if outcome == "lost" { "lost" } else { "failed" }));
            }
        }
        expect_end(&hub);
        let result = tick().unwrap();
        match outcome {
            "lost" => assert_eq!(result["retriggered"], 1),
            "retriggered" | "parked" | "failed" => assert_eq!(result[outcome], 1, "{status}: {result}"),
            _ => assert_eq!(result["skipped"], json!({outcome: 1}), "{status}"),
        }
        assert_eq!(result["checked"], 1);
    }
}

#[test]
fn a_delayed_run_starts_now_and_is_not_doubled() {
    for (status, counted) in [(200, json!({"rescheduled": 1})), (422, json!({"rescheduled": 0}))] {
        let hub = hub();
        expect_claim(&hub, vec![row("p-1", 1, Some("run_old"), false)]);
        expect_run(&hub, "run_old", "DELAYED");
        hub.expect("trigger-env", "POST /api/v1/runs/run_old/reschedule")
            .body(json!({"delay": "1s"}))
            .idempotent()
            .reply(status, json!({"id": "run_old"}));
        expect_postponed(&hub, "p-1", 1, 300, false);
        expect_end(&hub);
        assert_eq!(tick().unwrap()["rescheduled"], counted["rescheduled"]);
    }
}

#[test]
fn what_trigger_dev_says_is_published_is_recorded() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 2, Some("run_old"), true)]);
    let output = json!({"outcome": "published", "post_id": "p-1", "attempt": 2, "external_id": "x-9"});
    hub.expect("trigger-env", "GET /api/v3/runs/run_old")
        .reply(200, json!({"id": "run_old", "status": "COMPLETED", "output": output}));
    expect_moved(&hub, "psn.finish(", params![db::Uuid::from("p-1"), 2, "x-9"], true);
    expect_end(&hub);
    assert_eq!(tick().unwrap()["recorded"], 1);
}

#[test]
fn a_run_that_trigger_has_forgotten_counts_as_lost() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 1, Some("run_old"), false)]);
    hub.expect("trigger-env", "GET /api/v3/runs/run_old").reply(404, json!({"error": "Not found"}));
    expect_trigger(&hub).reply(200, started(false));
    expect_confirmed(&hub, "p-1", 1, Some("lost"));
    expect_end(&hub);
    assert_eq!(tick().unwrap()["retriggered"], 1);
}

#[test]
fn a_post_that_moved_on_by_itself_is_left_alone() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 1, None, true)]);
    hub.expect_sql(&["psn.park("]).rows(&["moved"], vec![vec![false.into()]]);
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!((&result["parked"], &result["skipped"]), (&json!(0), &json!({"changed-meanwhile": 1})));
}

#[test]
fn unknown_kinds_and_platforms_are_left_and_reported() {
    let hub = hub();
    expect_claim(
        &hub,
        vec![
            with(row("p-1", 0, None, false), "unknown", "unknown-kind"),
            with(row("p-2", 0, None, false), "unknown", "unknown-platform"),
        ],
    );
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!(result["skipped"], json!({"unknown-kind": 1, "unknown-platform": 1}));
    assert_eq!(hub.logs().len(), 2);
}

#[test]
fn a_person_is_told_once_of_each() {
    let hub = hub();
    expect_claim(&hub, vec![]);
    expect_finale(&hub, vec![vec![Value::Uuid("p-1".into()), "parked".into(), "why".into()]]);
    expect_release(&hub);
    assert_eq!(tick().unwrap()["notified"], 1);
    let told: Vec<_> = hub.logs().iter().map(|line| line.message.clone()).collect();
    assert_eq!(told, ["A post needs a person: why"]);
}

#[test]
fn what_one_post_makes_the_database_refuse_keeps_no_other_waiting() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 1, None, true), row("p-2", 1, None, true)]);
    hub.expect_sql(&["psn.park("]).fail("database", Some("23514"));
    hub.expect_sql(&["psn.park("]).rows(&["moved"], vec![vec![true.into()]]);
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!((&result["parked"], &result["skipped"]), (&json!(1), &json!({"database-refused": 1})));
}

#[test]
fn a_task_that_is_not_deployed_costs_no_attempt_and_is_asked_for_once() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false), row("p-2", 5, None, false), row("p-3", 1, None, false)]);
    expect_trigger(&hub).reply(404, json!({"error": "Task not found"}));
    expect_postponed(&hub, "p-1", 0, 900, false);
    expect_moved(
        &hub,
        "psn.fail(",
        params![db::Uuid::from("p-2"), 5, "Given up by the watchdog after 5 attempts"],
        true,
    );
    expect_postponed(&hub, "p-3", 1, 900, false);
    expect_end(&hub);
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
        expect_confirmed(&hub, "p-1", 0, None);
        away(expect_trigger(&hub));
        expect_end(&hub);
        let result = tick().unwrap();
        assert_eq!((&result["claimed"], &result["checked"], &result["retriggered"]), (&json!(3), &json!(1), &json!(1)));
        assert_eq!(result["skipped"], json!({"trigger-unavailable": 2}));
    }
}

#[test]
fn nonsense_in_a_row_opens_the_breaker() {
    let hub = hub();
    expect_claim(&hub, (0..9).map(|n| row(&format!("p-{n}"), 0, None, false)).collect());
    for n in 0..5 {
        expect_trigger(&hub).reply_raw(200, &[("content-type", "text/html")], "<html>");
        expect_postponed(&hub, &format!("p-{n}"), 0, 300, false);
    }
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!(result["skipped"], json!({"trigger-refused": 5, "trigger-refuses": 4}));
}

#[test]
fn a_rejected_key_is_a_failure_with_a_fix() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false)]);
    expect_trigger(&hub).reply(401, json!({"error": "Invalid API Key"}));
    expect_release(&hub);
    let failure = tick().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("key-rejected", "psn run trigger-provision"));
}

#[test]
fn one_refused_post_does_not_stop_the_others() {
    let hub = hub();
    expect_claim(&hub, vec![row("p-1", 0, None, false), row("p-2", 0, None, false)]);
    expect_trigger(&hub).reply(422, json!({"error": "bad payload"}));
    expect_postponed(&hub, "p-1", 0, 300, false);
    expect_trigger(&hub).reply(200, started(false));
    expect_confirmed(&hub, "p-2", 0, None);
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["skipped"]), (&json!(1), &json!({"trigger-refused": 1})));
}

#[test]
fn full_batches_are_followed_by_another_until_a_budget_is_used_up() {
    let hub = hub();
    expect_begin(&hub);
    for _ in 0..tick::TRIGGER_BUDGET / tick::BATCH {
        expect_lease(&hub, (0..tick::BATCH).map(|n| row(&format!("p-{n}"), 0, None, false)).collect());
        for n in 0..tick::BATCH {
            expect_trigger(&hub).reply(200, started(false));
            expect_confirmed(&hub, &format!("p-{n}"), 0, None);
        }
    }
    // Then one more lease, of which nothing can be done any more.
    expect_lease(&hub, vec![row("p-x", 0, None, false)]);
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!((&result["retriggered"], &result["claimed"]), (&json!(500), &json!(501)));
    assert_eq!(result["skipped"], json!({"out-of-triggers": 1}));
}

#[test]
fn calls_to_trigger_dev_are_bounded() {
    let hub = hub();
    expect_begin(&hub);
    let mut left = tick::CALL_BUDGET;
    while left > 1 {
        expect_lease(&hub, (0..tick::BATCH).map(|n| row(&format!("p-{n}"), 1, Some("run_old"), false)).collect());
        for n in 0..tick::BATCH {
            if left < 2 {
                break;
            }
            expect_run(&hub, "run_old", "QUEUED");
            expect_postponed(&hub, &format!("p-{n}"), 1, 300, false);
            left -= 1;
        }
    }
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!(result["skipped"], json!({"queued": 999, "out-of-calls": 1}));
}

#[test]
fn a_tick_ends_within_its_time() {
    let hub = hub().calls_take_ms(20_000);
    expect_claim(&hub, (1..=4).map(|n| row(&format!("p-{n}"), 0, None, false)).collect());
    for id in ["p-1", "p-2", "p-3"] {
        expect_trigger(&hub).reply(200, started(false));
        expect_confirmed(&hub, id, 0, None);
    }
    expect_end(&hub);
    let result = tick().unwrap();
    assert_eq!((&result["checked"], &result["skipped"]), (&json!(3), &json!({"out-of-time": 1})));
}

#[test]
fn the_default_task_is_a_setting() {
    let hub = hub().setting("watchdog.task", "my-publisher");
    expect_claim(&hub, vec![row("p-1", 1, None, false)]);
    hub.expect("trigger-env", "POST /api/v1/tasks/my-publisher/trigger").reply(200, started(false));
    expect_confirmed(&hub, "p-1", 1, None);
    expect_end(&hub);
    assert_eq!(tick().unwrap()["retriggered"], 1);
}

#[test]
fn a_database_that_is_away_fails_the_tick_for_the_next_to_go_on() {
    let hub = hub();
    expect_begin(&hub);
    hub.expect_sql(&["psn.lease"]).fail("unavailable", None);
    hub.expect_sql(&["psn.end_tick"]).fail("unavailable", None);
    let failure = tick().unwrap_err();
    assert_eq!(failure.code, "database-unavailable");
    assert!(failure.retry_after_ms.is_some());
}
