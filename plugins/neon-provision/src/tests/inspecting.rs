use super::*;

fn pending() -> Vec<String> {
    match NeonProvision::inspect().unwrap() {
        State::Pending(changes) => changes,
        other => panic!("not pending: {other:?}"),
    }
}

fn only_need() -> Need {
    match NeonProvision::inspect().unwrap() {
        State::Needs(mut needs) if needs.len() == 1 => needs.remove(0),
        other => panic!("not one need: {other:?}"),
    }
}

#[test]
fn settings_that_neon_would_refuse_are_asked_for_with_the_choices() {
    let regions = json!({"regions": [{"region_id": "aws-us-east-1"}, {"region_id": "aws-eu-central-1"}]});
    let hub = hub_in_org().setting("neon.region", "mars").setting("neon.pg_version", "9");
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    hub.expect("neon", "GET /regions").reply(200, regions.clone());
    let State::Needs(needs) = NeonProvision::inspect().unwrap() else { panic!("no needs") };
    assert_eq!(needs.iter().map(|need| need.name.as_str()).collect::<Vec<_>>(), ["neon.pg_version", "neon.region"]);
    assert_eq!(needs[0].choices, ["18", "17", "16", "15", "14"]);
    assert_eq!(needs[1].choices, ["aws-us-east-1", "aws-eu-central-1"]);
    drop(hub);

    let hub = hub_in_org().setting("neon.region", "aws-eu-central-1").setting("neon.pg_version", "17");
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    hub.expect("neon", "GET /regions").reply(200, regions);
    pending();
}

#[test]
fn without_a_key_nothing_is_asked() {
    let _hub = Hub::new(MANIFEST);
    let State::Needs(needs) = NeonProvision::inspect().unwrap() else { panic!("no needs") };
    assert_eq!((needs[0].name.as_str(), needs[0].secret), ("NEON_API_KEY", true));
}

#[test]
fn organizations() {
    let orgs = |ids: &[&str]| json!({"organizations": ids.iter().map(|id| json!({"id": id, "name": "N"})).collect::<Vec<_>>()});
    let ask = |status, body| {
        let hub = hub();
        hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "a", "auth_method": "api_key_user"}));
        hub.expect("neon", "GET /users/me/organizations").reply(status, body);
        hub
    };

    let hub = ask(200, orgs(&["org-1"]));
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    assert_eq!(pending()[0], format!("Create the Neon project {NAME}"));
    drop(hub);

    // A key of an organization itself implies its own.
    let hub = self::hub();
    hub.expect("neon", "GET /auth").reply(200, json!({"account_id": "org-1", "auth_method": "api_key_org"}));
    hub.expect("neon", "GET /projects").no_query("org_id").reply(200, listing(&[]));
    expect_deleted(&hub, &[]);
    pending();
    drop(hub);

    let hub = ask(200, orgs(&["org-1", "org-2"]));
    let State::Needs(needs) = NeonProvision::inspect().unwrap() else { panic!("no needs") };
    assert_eq!((needs[0].name.as_str(), needs[0].secret), ("neon.org_id", false));
    assert_eq!(needs[0].choices, ["org-1", "org-2"]);
    drop(hub);

    let hub = self::hub();
    hub.expect("neon", "GET /auth").reply(401, json!({"message": "no"}));
    assert_eq!(NeonProvision::inspect().unwrap_err().code, "key-rejected");
}

#[test]
fn only_an_exact_name_is_the_hubs_project() {
    for (projects, expected) in [
        (vec![], format!("Create the Neon project {NAME}")),
        (
            vec![project("p-2", &format!("{NAME}-old")), project(NAME, "other")],
            format!("Create the Neon project {NAME}"),
        ),
        (vec![project("p-2", "other"), project("p-1", NAME)], format!("Adopt the Neon project {NAME} (p-1)")),
    ] {
        let hub = hub_in_org();
        expect_search(&hub, &projects);
        if expected.starts_with("Create") {
            expect_deleted(&hub, &[]);
        }
        assert_eq!(pending()[0], expected);
    }
}

#[test]
fn every_page_is_read() {
    let hub = hub_in_org();
    let page: Vec<_> = (0..100).map(|n| project(&format!("p-{n}"), &format!("{NAME}-{n}"))).collect();
    hub.expect("neon", "GET /projects").no_query("cursor").reply(200, listing(&page));
    hub.expect("neon", "GET /projects").query("cursor", "c").reply(200, listing(&[project("p-x", NAME)]));
    assert_eq!(pending()[0], format!("Adopt the Neon project {NAME} (p-x)"));
    drop(hub);

    // A cursor that stands still ends the search as well.
    let hub = hub_in_org();
    hub.expect("neon", "GET /projects").times(2).reply(200, listing(&page));
    expect_deleted(&hub, &[]);
    pending();
}

#[test]
fn several_projects_of_the_name_are_a_persons_choice() {
    let hub = hub_in_org();
    expect_search(&hub, &[project("p-1", NAME), project("p-2", NAME)]);
    let need = only_need();
    assert_eq!(
        (need.name.as_str(), need.choices.as_slice()),
        ("neon.project_id", &["p-1".to_owned(), "p-2".into()][..])
    );
    drop(hub);

    // One that appears between `inspect` and `apply`.
    let hub = hub_in_org();
    expect_search(&hub, &[project("p-1", NAME), project("p-2", NAME)]);
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fix[0].as_str()),
        ("choice-needed", "psn config set neon.project_id p-1")
    );
    drop(hub);

    let hub = hub_in_org().setting("neon.project_id", "p-1");
    expect_project(&hub, 200);
    assert_eq!(pending()[0], format!("Adopt the Neon project {NAME} (p-1)"));
    drop(hub);

    let hub = hub_in_org().setting("neon.project_id", "p-1");
    expect_project(&hub, 404);
    assert_eq!(NeonProvision::inspect().unwrap_err().code, "project-not-found");
}

#[test]
fn a_search_that_could_not_look_everywhere_is_no_answer() {
    let incomplete = json!({"projects": [], "unavailable_project_ids": ["p-9"], "pagination": {"cursor": "c"}});
    let hub = hub_in_org();
    hub.expect("neon", "GET /projects").reply(200, incomplete.clone());
    expect_search(&hub, &[project("p-1", NAME)]);
    assert!(pending()[0].starts_with("Adopt"));
    drop(hub);

    let hub = hub_in_org();
    hub.expect("neon", "GET /projects").times(3).reply(200, incomplete);
    let failure = NeonProvision::inspect().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retry_after_ms), ("projects-unavailable", Some(30_000)));
}

#[test]
fn a_deleted_project_is_offered_before_an_empty_one_is_made() {
    let mut deleted = project("p-old", NAME);
    deleted["recoverable_until"] = "2026-12-01T00:00:00Z".into();
    let hub = hub_in_org();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[deleted.clone()]);
    let need = only_need();
    assert_eq!(need.name, "neon.deleted_project");
    assert_eq!(need.choices, ["recover:p-old", "leave:p-old"]);
    assert!(need.origin.contains("2026-12-01"), "{}", need.origin);
    drop(hub);

    for (said, change) in [
        ("leave:p-old", format!("Create the Neon project {NAME}")),
        ("recover:p-old", format!("Recover the deleted Neon project {NAME} (p-old)")),
    ] {
        let hub = hub_in_org().setting("neon.deleted_project", said);
        expect_search(&hub, &[]);
        expect_deleted(&hub, &[deleted.clone()]);
        assert_eq!(pending()[0], change);
    }

    // What was said of another one does not count.
    let hub = hub_in_org().setting("neon.deleted_project", "leave:p-older");
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[deleted]);
    assert_eq!(only_need().name, "neon.deleted_project");
}

#[test]
fn a_noted_project_is_ready_when_its_kept_strings_lead_to_it() {
    let host = "127.0.0.1:5499";
    for (noted_host, kept, expected) in [
        (Some(host), &["DATABASE_URL", "DATABASE_URL_DIRECT"][..], None),
        (Some(host), &["DATABASE_URL"], Some("Keep the connection strings of")),
        (None, &["DATABASE_URL", "DATABASE_URL_DIRECT"], Some("Keep the connection strings of")),
        (
            Some("127.0.0.1:1"),
            &["DATABASE_URL", "DATABASE_URL_DIRECT"],
            Some("it moved from 127.0.0.1:1 to 127.0.0.1:5499"),
        ),
    ] {
        let hub = kept.iter().fold(hub().note("project", noted(noted_host)), |hub, name| hub.secret(name));
        expect_project(&hub, 200);
        expect_endpoint(&hub, host);
        match (NeonProvision::inspect().unwrap(), expected) {
            (State::Ready(report), None) => assert_eq!(report.data["project_id"], "p-1"),
            (State::Pending(changes), Some(words)) => {
                assert!(changes[0].contains(words), "{changes:?}")
            }
            (state, _) => panic!("{state:?}"),
        }
        assert!(hub.journal().iter().all(|call| call.starts_with("GET")), "inspect changes nothing");
    }
}

#[test]
fn a_noted_project_that_is_gone_is_looked_for_anew() {
    let hub = hub_in_org().note("project", noted(None));
    expect_project(&hub, 404);
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    assert_eq!(pending()[0], format!("Create the Neon project {NAME}"));
}
