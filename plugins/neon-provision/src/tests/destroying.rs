use super::*;

#[test]
fn exactly_the_noted_project_is_deleted() {
    for (status, words) in [(200, "brings it back until 2026-12-01"), (404, "was deleted before")] {
        let hub = hub().note("project", noted(Some("ep-1")));
        let mut deleted = project("p-1", NAME);
        deleted["recoverable_until"] = "2026-12-01T00:00:00Z".into();
        hub.expect("neon", "DELETE /projects/p-1").idempotent().reply(status, json!({"project": deleted}));
        let report = NeonProvision::destroy().unwrap();
        assert!(report.message.contains(words), "{}", report.message);
        assert!(hub.notes().is_empty());
    }
}

#[test]
fn a_failed_deletion_keeps_the_note() {
    let hub = hub().note("project", noted(Some("ep-1")));
    hub.expect("neon", "DELETE /projects/p-1").reply(500, json!({"message": "oops"}));
    assert_eq!(NeonProvision::destroy().unwrap_err().code, "service-failed");
    assert!(hub.notes().contains_key("project"));
}

#[test]
fn an_adopted_project_is_left_alone() {
    let mut adopted = noted(Some("ep-1"));
    adopted["created"] = false.into();
    let hub = hub().note("project", adopted);
    assert!(NeonProvision::destroy().unwrap().message.contains("alone"));
    assert!(hub.journal().iter().all(|line| !line.contains("neon")));
}

#[test]
fn an_interrupted_creation_is_looked_for_but_not_deleted_by_guess() {
    let intent = json!({"name": NAME, "org_id": "org-1", "started_at": "2026-01-01T00:00:00Z"});
    let hub1 = hub().note("intent", intent.clone());
    expect_search(&hub1, &[project("p-1", NAME)]);
    let failure = NeonProvision::destroy().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("unfinished-creation", "psn run neon-provision"));
    drop(hub1);

    let hub2 = hub().note("intent", intent);
    expect_search(&hub2, &[]);
    NeonProvision::destroy().unwrap();
    assert!(hub2.notes().is_empty());
    drop(hub2);

    let _hub = hub();
    assert_eq!(NeonProvision::destroy().unwrap().message, "psn has made no Neon project for this hub");
}
