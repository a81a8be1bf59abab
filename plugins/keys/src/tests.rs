use psn_plugin::testing::Hub;

use super::*;

fn both_keys() -> Hub {
    Hub::new(MANIFEST).secret("NEON_API_KEY").secret("TRIGGER_ACCESS_TOKEN")
}

#[test]
fn accepted_keys_are_ready_with_a_check_each() {
    let hub = both_keys();
    hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "u", "auth_method": "api_key_user"}));
    hub.expect("trigger", "GET /api/v2/whoami")
        .reply(200, json!({"userId": "u", "email": "a@b.ch", "dashboardUrl": ""}));
    let State::Ready(report) = Keys::inspect().unwrap() else { panic!("not ready") };
    let checks: Vec<_> = report.checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
    assert_eq!(checks, [("NEON_API_KEY", Status::Pass), ("TRIGGER_ACCESS_TOKEN", Status::Pass)]);
    assert!(!format!("{report:?}").contains("a@b.ch"), "who owns a key is nobody's business");
}

#[test]
fn missing_keys_are_asked_for_with_where_to_find_them_before_any_service_is_called() {
    for (there, expected) in [
        (&[][..], &["NEON_API_KEY", "TRIGGER_ACCESS_TOKEN"][..]),
        (&["NEON_API_KEY"], &["TRIGGER_ACCESS_TOKEN"]),
        (&["TRIGGER_ACCESS_TOKEN"], &["NEON_API_KEY"]),
    ] {
        let _hub = there.iter().fold(Hub::new(MANIFEST), |hub, name| hub.secret(name));
        let State::Needs(needs) = Keys::inspect().unwrap() else { panic!("no needs") };
        assert_eq!(needs.iter().map(|need| need.name.as_str()).collect::<Vec<_>>(), expected);
        assert!(needs.iter().all(|need| need.secret && need.origin.contains("https://")));
    }
}

#[test]
fn the_production_key_stands_in_for_a_token_that_is_not_there() {
    let hub = Hub::new(MANIFEST).secret("NEON_API_KEY").secret("TRIGGER_SECRET_KEY");
    hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "u"}));
    hub.expect("trigger-env", "GET /api/v1/schedules").reply(200, json!({"data": []}));
    let State::Ready(report) = Keys::inspect().unwrap() else { panic!("not ready") };
    let check = report.checks.last().unwrap();
    assert_eq!((check.name.as_str(), check.status), ("TRIGGER_SECRET_KEY", Status::Warn));
    assert_eq!(check.fix, ["psn keys set TRIGGER_ACCESS_TOKEN --stdin"]);
    drop(hub);

    let hub = Hub::new(MANIFEST).secret("NEON_API_KEY").secret("TRIGGER_SECRET_KEY");
    hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "u"}));
    hub.expect("trigger-env", "GET /api/v1/schedules").reply(401, json!({"error": "Invalid API Key"}));
    let failure = Keys::inspect().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fix[0].as_str()),
        ("key-rejected", "psn keys set TRIGGER_SECRET_KEY --stdin")
    );
    drop(hub);

    // Beside a token it is nothing to ask about.
    let hub = both_keys().secret("TRIGGER_SECRET_KEY");
    hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "u"}));
    hub.expect("trigger", "GET /api/v2/whoami").reply(200, json!({"userId": "u"}));
    assert!(matches!(Keys::inspect().unwrap(), State::Ready(_)));
}

#[test]
fn a_local_hub_issues_its_keys_itself() {
    let _hub = Hub::new(MANIFEST).local();
    let failure = Keys::inspect().unwrap_err();
    assert_eq!(failure.code, "local-keys-missing");
    assert_eq!(failure.fix[0], "psn local up");
}

#[test]
fn a_rejected_key_is_told_from_a_service_that_is_down() {
    for (status, code) in [
        (401, "key-rejected"),
        (403, "key-rejected"),
        (500, "service-failed"),
        (524, "service-failed"),
        (404, "not-found"),
    ] {
        let hub = both_keys();
        hub.expect("neon", "GET /auth").reply(status, json!({"code": "", "message": "no"}));
        let failure = Keys::inspect().unwrap_err();
        assert_eq!(failure.code, code, "{status}");
        assert!(failure.message.contains("NEON_API_KEY"), "{}", failure.message);
        let says_how_to_replace = failure.fix.iter().any(|fix| fix == "psn keys set NEON_API_KEY --stdin");
        assert_eq!(says_how_to_replace, code == "key-rejected", "{status}");
    }
    let hub = both_keys();
    hub.expect("neon", "GET /auth").unreachable();
    let failure = Keys::inspect().unwrap_err();
    assert_eq!(failure.code, "service-unreachable");
    assert!(failure.message.contains("may be fine") && failure.retry_after_ms.is_some());
}

#[test]
fn a_rejected_local_key_is_issued_anew() {
    let hub = both_keys().local();
    hub.expect("neon", "GET /auth").reply(401, json!({"message": "no"}));
    assert_eq!(Keys::inspect().unwrap_err().fix[0], "psn local up");
}

#[test]
fn a_busy_service_is_asked_again() {
    let hub = both_keys();
    hub.expect("neon", "GET /auth").reply(503, json!({}));
    hub.expect("neon", "GET /auth").reply(200, json!({}));
    hub.expect("trigger", "GET /api/v2/whoami").reply(401, json!({"error": "Invalid or Missing Access Token"}));
    let failure = Keys::inspect().unwrap_err();
    assert!(
        failure.message.contains("Trigger.dev rejects TRIGGER_ACCESS_TOKEN: Invalid or Missing"),
        "{}",
        failure.message
    );
}
