use super::*;

fn pending() -> Vec<String> {
    match TriggerProvision::inspect().unwrap() {
        State::Pending(changes) => changes,
        other => panic!("not pending: {other:?}"),
    }
}

#[test]
fn without_a_token_nothing_is_asked() {
    let _hub = Hub::new(MANIFEST);
    let State::Needs(needs) = TriggerProvision::inspect().unwrap() else { panic!("no needs") };
    assert_eq!((needs[0].name.as_str(), needs[0].secret), ("TRIGGER_ACCESS_TOKEN", true));
}

#[test]
fn organisations() {
    let hub1 = hub();
    expect_orgs(&hub1, &["acme"]);
    expect_projects(&hub1, &[]);
    assert_eq!(pending()[0], format!("Create the Trigger.dev project {NAME} in ACME"));
    drop(hub1);

    let hub2 = hub();
    expect_orgs(&hub2, &["acme", "globex"]);
    let State::Needs(needs) = TriggerProvision::inspect().unwrap() else { panic!("no needs") };
    assert_eq!((needs[0].name.as_str(), needs[0].secret), ("trigger.org", false));
    assert_eq!(needs[0].choices, ["acme", "globex"]);
    drop(hub2);

    for name in ["acme", "id-acme"] {
        let hub = hub().setting("trigger.org", name);
        expect_orgs(&hub, &["globex", "acme"]);
        expect_ours(&hub);
        assert_eq!(pending()[0], format!("Adopt the Trigger.dev project {NAME} (proj_abc)"));
    }

    let hub3 = hub().setting("trigger.org", "initech");
    expect_orgs(&hub3, &["acme"]);
    let failure = TriggerProvision::inspect().unwrap_err();
    assert_eq!(failure.code, "organisation-not-found");
    assert!(failure.fix[0].ends_with("one of: acme"));
    drop(hub3);

    let hub4 = hub();
    expect_orgs(&hub4, &[]);
    assert_eq!(TriggerProvision::inspect().unwrap_err().code, "no-organisation");
    drop(hub4);

    let hub5 = hub();
    hub5.expect("trigger", "GET /api/v1/orgs").reply(401, json!({"error": "Invalid or Missing Access Token"}));
    assert_eq!(TriggerProvision::inspect().unwrap_err().code, "key-rejected");
}

#[test]
fn several_projects_of_the_name_are_a_persons_choice() {
    let two = [project("cm1", "proj_abc", NAME), project("cm2", "proj_def", NAME)];
    let hub1 = hub();
    expect_orgs(&hub1, &["acme"]);
    expect_projects(&hub1, &two);
    let failure = TriggerProvision::inspect().unwrap_err();
    assert_eq!(failure.code, "ambiguous-project");
    assert!(failure.message.contains("proj_abc, proj_def") && failure.fix[0].contains("trigger.project_ref"));
    drop(hub1);

    for (chosen, expected) in [("proj_def", Ok("(proj_def)")), ("proj_zzz", Err("project-not-found"))] {
        let hub = hub().setting("trigger.project_ref", chosen);
        expect_orgs(&hub, &["acme"]);
        expect_projects(&hub, &two);
        match (TriggerProvision::inspect(), expected) {
            (Ok(State::Pending(changes)), Ok(words)) => {
                assert!(changes[0].contains(words), "{changes:?}")
            }
            (Err(failure), Err(code)) => assert_eq!(failure.code, code),
            (answer, _) => panic!("{answer:?}"),
        }
    }
}

#[test]
fn a_provisioned_hub_is_ready_and_nothing_is_changed() {
    let hub = provisioned();
    expect_ours(&hub);
    expect_complete(&hub);
    expect_variables(&hub, &ALL_VARIABLES);
    let State::Ready(report) = TriggerProvision::inspect().unwrap() else { panic!("not ready") };
    let checks: Vec<_> = report.checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
    assert_eq!(checks, [("tasks", Status::Pass), ("schedule.watchdog", Status::Pass)]);
    assert!(hub.journal().iter().all(|line| line.starts_with("GET")), "{:?}", hub.journal());
}

#[test]
fn a_schedule_that_someone_switched_off_is_a_warning() {
    for (schedules, expected) in [
        (vec![schedule("watchdog", false)], Status::Warn),
        (vec![schedule("watchdog", false), schedule("watchdog", true)], Status::Pass),
    ] {
        let hub = provisioned();
        expect_ours(&hub);
        expect_current(&hub, Some(HASH));
        expect_worker(&hub, &["watchdog", "publish-post"]);
        expect_schedules(&hub, &schedules);
        expect_variables(&hub, &ALL_VARIABLES);
        let State::Ready(report) = TriggerProvision::inspect().unwrap() else { panic!("not ready") };
        assert_eq!(report.checks[1].status, expected);
        assert_eq!(report.checks[1].fix.is_empty(), expected == Status::Pass);
        assert!(!report.checks[1].is_blocking());
    }
}

#[test]
fn what_changed_since_is_pending() {
    type Change = fn(Hub) -> Hub;
    type Lay = fn(&Hub);
    let whole: Lay = |hub| {
        expect_complete(hub);
        expect_variables(hub, &ALL_VARIABLES);
    };
    let cases: [(&str, Change, Lay, &str); 7] = [
        (
            "an older deployment",
            |hub| hub,
            |hub| {
                expect_current(hub, Some("old"));
                expect_variables(hub, &ALL_VARIABLES);
            },
            "version 20260101.1 has other tasks",
        ),
        (
            "no deployment",
            |hub| hub,
            |hub| {
                expect_current(hub, None);
                expect_variables(hub, &ALL_VARIABLES);
            },
            "nothing is deployed",
        ),
        (
            "a task that is missing",
            |hub| hub,
            |hub| {
                expect_current(hub, Some(HASH));
                expect_worker(hub, &["watchdog"]);
                expect_variables(hub, &ALL_VARIABLES);
            },
            "the deployment lacks publish-post",
        ),
        (
            "no schedule",
            |hub| hub,
            |hub| {
                expect_current(hub, Some(HASH));
                expect_worker(hub, &["watchdog", "publish-post"]);
                expect_schedules(hub, &[schedule("other", true)]);
                expect_variables(hub, &ALL_VARIABLES);
            },
            "watchdog has no schedule",
        ),
        (
            "a changed secret",
            |hub| hub.secret_value("HUB_ENCRYPTION_KEY", "new"),
            whole,
            "Set the environment variables HUB_ENCRYPTION_KEY",
        ),
        (
            "a variable that someone deleted",
            |hub| hub,
            |hub| {
                expect_complete(hub);
                expect_variables(hub, &["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]);
            },
            "Set the environment variables PSN_HUB_ID",
        ),
        (
            "a replaced key",
            |hub| hub,
            |hub| {
                hub.expect("trigger-env", "GET /api/v1/deployments/current")
                    .reply(401, json!({"error": "Invalid API Key"}));
                expect_variables(hub, &ALL_VARIABLES);
            },
            "Keep the production key",
        ),
    ];
    for (case, change, lay, expected) in cases {
        let hub = change(provisioned());
        expect_ours(&hub);
        lay(&hub);
        let changes = pending();
        assert!(changes[0].contains(expected), "{case}: {changes:?}");
    }
}

#[test]
fn a_noted_project_that_is_gone_is_looked_for_anew() {
    for gone in [json!([]), json!([project("cm9", "proj_abc", "someone-elses")])] {
        let hub = provisioned();
        hub.expect("trigger", "GET /api/v1/orgs/acme/projects").reply(200, gone.clone());
        expect_orgs(&hub, &["acme"]);
        hub.expect("trigger", "GET /api/v1/orgs/acme/projects").reply(200, gone);
        assert!(pending()[0].starts_with("Create"));
    }
}
