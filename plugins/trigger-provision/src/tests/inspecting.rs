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
    assert_eq!(failure.fix, ["psn config set trigger.org acme"]);
    drop(hub3);

    let hub4 = hub();
    expect_orgs(&hub4, &[]);
    assert_eq!(TriggerProvision::inspect().unwrap_err().code, "no-organisation");
    drop(hub4);

    let hub5 = unasked();
    hub5.expect("trigger", "GET /api/v2/whoami").reply(401, json!({"error": "Invalid or Missing Access Token"}));
    let failure = TriggerProvision::inspect().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fix[0].as_str()),
        ("token-rejected", "psn keys set TRIGGER_ACCESS_TOKEN --stdin")
    );
    drop(hub5);

    // Where it is the local hub's own, nobody has another to give.
    let hub6 = unasked().local();
    hub6.expect("trigger", "GET /api/v2/whoami").reply(401, json!({"error": "Invalid or Missing Access Token"}));
    assert_eq!(TriggerProvision::inspect().unwrap_err().fix, ["psn run setup --hub local"]);
}

#[test]
fn a_credential_that_is_revoked_between_two_calls_is_named() {
    let refused = json!({"error": "Invalid or Missing Access Token"});
    // Not taken for an organisation's token, which may not list organisations either.
    let hub1 = hub();
    hub1.expect("trigger", "GET /api/v1/orgs").reply(401, refused.clone());
    hub1.expect("trigger", "GET /api/v2/whoami").reply(401, refused.clone());
    assert_eq!(TriggerProvision::inspect().unwrap_err().code, "token-rejected");
    drop(hub1);

    let hub2 = provisioned();
    hub2.expect("trigger", "GET /api/v1/orgs/acme/projects").reply(401, refused.clone());
    assert_eq!(TriggerProvision::inspect().unwrap_err().code, "token-rejected");
    drop(hub2);

    let hub3 = provisioned();
    expect_ours(&hub3);
    expect_current(&hub3, Some(HASH));
    expect_worker(&hub3, &["watchdog", "publish-post"]);
    hub3.expect("trigger-env", "GET /api/v1/schedules").reply(401, json!({"error": "Invalid API Key"}));
    let failure = TriggerProvision::inspect().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("key-rejected", "psn run trigger-provision"));
}

/// The token is good all the same, so it is an organisation's.
fn expect_no_list(hub: &Hub, status: u16) {
    let refused = json!({"error": "Invalid or Missing Access Token"});
    hub.expect("trigger", "GET /api/v1/orgs").reply(status, refused.clone());
    hub.expect("trigger", "GET /api/v2/whoami").reply(200, json!({"userId": "u1"}));
    hub.expect("trigger", "GET /api/v1/orgs").reply(status, refused);
}

#[test]
fn an_organisations_token_opens_the_project_that_a_person_names() {
    for status in [401, 403] {
        let hub = hub();
        expect_no_list(&hub, status);
        let State::Needs(needs) = TriggerProvision::inspect().unwrap() else { panic!("no needs") };
        assert_eq!((needs[0].name.as_str(), needs[0].secret), ("trigger.project_ref", false));
    }
    let production = json!({"apiKey": "tr_prod_x", "name": "ours", "apiUrl": "", "projectId": "cm1"});
    for (reply, expected) in [
        ((200, production), Ok("Adopt the Trigger.dev project ours (proj_abc)")),
        ((404, json!({"error": "Project not found"})), Err("project-not-found")),
    ] {
        let hub = hub().setting("trigger.project_ref", "proj_abc");
        expect_no_list(&hub, 401);
        hub.expect("trigger", &format!("GET {PROJECT}/prod")).reply(reply.0, reply.1);
        match (TriggerProvision::inspect(), expected) {
            (Ok(State::Pending(changes)), Ok(words)) => assert_eq!(changes[0], words),
            (Err(failure), Err(code)) => {
                assert_eq!(failure.code, code);
                assert_eq!(failure.fix, ["psn config unset trigger.project_ref"], "which asks for another");
            }
            (answer, _) => panic!("{answer:?}"),
        }
    }
}

#[test]
fn the_production_key_alone_is_a_subset_and_says_so() {
    let key = || Hub::new(MANIFEST).secret("TRIGGER_SECRET_KEY").facts("tasks", facts());
    let _hub = key();
    let State::Needs(needs) = TriggerProvision::inspect().unwrap() else { panic!("no needs") };
    assert_eq!(needs[0].name, "trigger.project_ref", "a key does not say which project it opens");
    drop(_hub);

    let hub = key()
        .secret("HUB_ENCRYPTION_KEY")
        .secret("DATABASE_URL_PLUGIN_WATCHDOG")
        .setting("trigger.project_ref", "proj_abc")
        .note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]));
    expect_current(&hub, Some(HASH));
    expect_worker_through(&hub, "trigger-env", &["watchdog", "publish-post"]);
    expect_schedules(&hub, &[schedule("watchdog", true)]);
    expect_variables_through(&hub, "trigger-env", &ALL_VARIABLES);
    let State::Ready(report) = TriggerProvision::inspect().unwrap() else { panic!("not ready") };
    let access = report.checks.iter().find(|check| check.name == "access").unwrap();
    assert_eq!((access.status, access.fix[0].as_str()), (Status::Warn, "psn keys set TRIGGER_ACCESS_TOKEN --stdin"));
    assert!(hub.journal().iter().all(|line| !line.contains(" trigger ")), "{:?}", hub.journal());
}

#[test]
fn several_projects_of_the_name_are_a_persons_choice() {
    let two = [project("cm1", "proj_abc", NAME), project("cm2", "proj_def", NAME)];
    let hub1 = hub();
    expect_orgs(&hub1, &["acme"]);
    expect_projects(&hub1, &two);
    let failure = TriggerProvision::inspect().unwrap_err();
    assert_eq!(failure.code, "ambiguous-project");
    assert!(
        failure.message.contains("proj_abc, proj_def")
            && failure.fix[1] == "psn config set trigger.project_ref proj_def"
    );
    drop(hub1);

    for (chosen, expected) in [("proj_def", Ok("(proj_def)")), ("proj_zzz", Err("project-not-found"))] {
        let hub = hub().setting("trigger.project_ref", chosen);
        expect_orgs(&hub, &["acme"]);
        expect_projects(&hub, &two);
        match (TriggerProvision::inspect(), expected) {
            (Ok(State::Pending(changes)), Ok(words)) => {
                assert!(changes[0].contains(words), "{changes:?}")
            }
            (Err(failure), Err(code)) => {
                assert_eq!(failure.code, code);
                assert!(failure.message.contains("proj_abc is psn-hub-7f3a0c1d"), "{}", failure.message);
                assert_eq!(
                    failure.fix,
                    [
                        "psn config set trigger.project_ref proj_abc",
                        "psn config set trigger.project_ref proj_def",
                        "psn config unset trigger.project_ref"
                    ]
                );
            }
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
        let fix: &[&str] = if expected == Status::Warn { &["psn task schedules activate watchdog"] } else { &[] };
        assert_eq!(report.checks[1].fix, fix);
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
