use db::Value;
use psn_plugin::testing::Hub;

use super::*;

fn expect_post(hub: &Hub, platform: &str, status: &str, attempt: u32, has_begun: bool) {
    hub.expect_sql(&["SELECT platform, content, status", "FROM posts WHERE id = $1"])
        .params(params![Uuid::from("p-1")])
        .rows(
            &["platform", "content", "status", "attempt", "has_begun", "external_id"],
            vec![vec![platform.into(), "héllo".into(), status.into(), attempt.into(), has_begun.into(), Value::Null]],
        );
}

fn expect_intent(hub: &Hub, attempt: u32, marked: bool) {
    hub.expect_sql(&["psn.begin_side_effect($1, $2)"])
        .params(params![Uuid::from("p-1"), attempt])
        .rows(&["done"], vec![vec![marked.into()]]);
}

fn expect_published(hub: &Hub) -> psn_plugin::testing::SqlExpectation {
    hub.expect_sql(&["psn.finish($1, $2, $3)"]).params(params![Uuid::from("p-1"), 2, "nowhere:p-1"])
}

fn run(attempt: u32) -> Result<Outcome, Failure> {
    PublishPost::run(Invocation { payload: Payload { post_id: "p-1".into(), attempt }, scheduled_at: None })
}

#[test]
fn intent_then_side_effect_then_result() {
    // The watchdog has counted the attempt already, or is about to.
    for counted in [2, 1] {
        let hub = Hub::new(MANIFEST);
        expect_post(&hub, "nowhere", "publishing", counted, false);
        expect_intent(&hub, 2, true);
        expect_published(&hub).rows(&["done"], vec![vec![true.into()]]);
        let outcome = run(2).unwrap();
        assert_eq!((outcome.outcome, outcome.external_id.as_deref()), ("published", Some("nowhere:p-1")));
        assert_eq!(hub.logs()[0].message, "Publishing 5 characters nowhere");
    }
}

#[test]
fn whatever_is_not_this_runs_to_publish_is_left_alone() {
    for (status, attempt, has_begun, expected) in [
        ("published", 2, true, "published-before"),
        ("draft", 0, false, "not-due"),
        ("parked", 2, true, "not-due"),
        ("cancelled", 2, false, "not-due"),
        ("failed", 2, false, "not-due"),
        ("publishing", 3, false, "superseded"),
        ("publishing", 3, true, "superseded"),
        ("publishing", 2, true, "outcome-unknown"),
    ] {
        let hub = Hub::new(MANIFEST);
        expect_post(&hub, "nowhere", status, attempt, has_begun);
        assert_eq!(run(2).unwrap().outcome, expected, "{status} {attempt} {has_begun}");
        assert!(!hub.journal().iter().any(|line| line.contains("UPDATE")));
        assert!(!hub.logs().iter().any(|line| line.message.starts_with("Publishing")));
    }
}

#[test]
fn of_two_runs_that_read_the_same_post_one_publishes() {
    let hub = Hub::new(MANIFEST);
    expect_post(&hub, "nowhere", "scheduled", 0, false);
    expect_intent(&hub, 2, false);
    assert_eq!(run(2).unwrap().outcome, "superseded");
    assert!(hub.logs().is_empty(), "nothing was published");
}

#[test]
fn a_post_that_moved_on_while_it_was_published_is_reported() {
    let hub = Hub::new(MANIFEST);
    expect_post(&hub, "nowhere", "publishing", 2, false);
    expect_intent(&hub, 2, true);
    expect_published(&hub).rows(&["done"], vec![vec![false.into()]]);
    assert_eq!(run(2).unwrap().outcome, "published");
    assert!(hub.logs()[1].message.contains("moved on"));
}

#[test]
fn what_cannot_be_recorded_is_told_in_the_output() {
    let hub = Hub::new(MANIFEST);
    expect_post(&hub, "nowhere", "publishing", 2, false);
    expect_intent(&hub, 2, true);
    expect_published(&hub).fail("unavailable", None);
    let outcome = run(2).unwrap();
    assert_eq!(
        (outcome.outcome, outcome.attempt, outcome.external_id.as_deref()),
        ("published", 2, Some("nowhere:p-1"))
    );
}

#[test]
fn a_refusal_is_certain_and_takes_the_marker_back() {
    let hub = Hub::new(MANIFEST);
    hub.expect_sql(&["SELECT platform"]).rows(
        &["platform", "content", "status", "attempt", "has_begun", "external_id"],
        vec![vec!["nowhere".into(), " ".into(), "scheduled".into(), 1.into(), false.into(), Value::Null]],
    );
    expect_intent(&hub, 2, true);
    hub.expect_sql(&["psn.fail($1, $2, $3, true)"])
        .params(params![Uuid::from("p-1"), 2, "Nowhere takes no posts that say nothing"])
        .rows(&["done"], vec![vec![true.into()]]);
    assert_eq!(run(2).unwrap().outcome, "refused");
}

#[test]
fn a_post_for_elsewhere_or_of_nobody() {
    let hub = Hub::new(MANIFEST);
    expect_post(&hub, "somewhere", "publishing", 1, false);
    let failure = run(2).unwrap_err();
    assert_eq!(failure.code, "unknown-platform");
    drop(hub);

    let hub = Hub::new(MANIFEST);
    hub.expect_sql(&["SELECT platform"]).rows(&["platform"], vec![]);
    assert_eq!(run(2).unwrap_err().code, "no-such-post");
}
