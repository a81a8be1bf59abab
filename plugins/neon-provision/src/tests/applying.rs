use super::*;

fn expect_create(hub: &Hub) -> psn_plugin::testing::HttpExpectation {
    hub.expect("neon", "POST /projects").body(json!({"project": {
        "name": NAME, "branch": {"database_name": "hub", "role_name": "hub_owner"}, "org_id": "org-1",
    }}))
}

fn created() -> serde_json::Value {
    json!({
        "project": project("p-1", NAME),
        "connection_uris": [{"connection_uri": "postgresql://hub_owner:npg_x@ep-1/hub"}],
        "operations": [
            {"id": "o-1", "action": "create_timeline", "status": "running"},
            {"id": "o-2", "action": "start_compute", "status": "scheduling"},
        ],
    })
}

fn expect_operation(hub: &Hub, id: &str, status: &str) {
    hub.expect("neon", &format!("GET /projects/p-1/operations/{id}")).reply(
        200,
        json!({"operation": {"id": id, "action": "start_compute", "status": status, "error": "out of luck"}}),
    );
}

fn expect_settled_and_kept(hub: &Hub) {
    hub.expect("neon", "GET /projects/p-1/operations").reply(200, json!({"operations": []}));
    expect_endpoint(hub, "ep-1");
    expect_connection_strings(hub, "ep-1");
}

fn position(journal: &[String], entry: &str) -> usize {
    journal.iter().position(|line| line == entry).unwrap_or_else(|| panic!("no `{entry}` in {journal:#?}"))
}

#[test]
fn a_project_is_created_once_with_its_intent_noted_first() {
    let hub = hub_in_org();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    expect_create(&hub).reply(201, created());
    expect_operation(&hub, "o-2", "scheduling");
    expect_operation(&hub, "o-2", "running");
    expect_operation(&hub, "o-2", "finished");
    expect_operation(&hub, "o-1", "skipped");
    expect_endpoint(&hub, "ep-1");
    expect_connection_strings(&hub, "ep-1");

    let report = NeonProvision::apply().unwrap();
    assert_eq!(report.message, format!("Created the Neon project {NAME}"));
    assert!(hub.has_secret("DATABASE_URL") && hub.has_secret("DATABASE_URL_DIRECT"));

    let journal = hub.journal();
    let post = position(&journal, "POST neon /projects");
    assert!(position(&journal, "put intent") < post, "the intent is durable before the creation");
    assert_eq!(journal[post + 1], "put project", "its id is noted before anything else is asked");
    assert!(position(&journal, "delete intent") > post);
    let noted: Noted = hub.noted("project").unwrap();
    assert_eq!((noted.host.as_deref(), noted.operations.len()), (Some("ep-1"), 0));
}

#[test]
fn settings_shape_the_project() {
    let hub = hub_in_org()
        .setting("neon.region", "aws-eu-central-1")
        .setting("neon.pg_version", "16")
        .setting("neon.database", "posts")
        .setting("neon.role", "me");
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    hub.expect("neon", "POST /projects")
        .body_part("/project/region_id", "aws-eu-central-1".into())
        .body_part("/project/pg_version", 16.into())
        .body_part("/project/branch", json!({"database_name": "posts", "role_name": "me"}))
        .reply(422, json!({"code": "", "message": "projects limit exceeded"}));
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(failure.code, "create-refused");
    assert!(failure.message.contains("projects limit exceeded"));
    assert!(hub.noted::<serde_json::Value>("intent").is_none(), "a refusal leaves nothing to look for");
}

#[test]
fn a_project_of_the_name_is_adopted() {
    let hub = hub_in_org();
    expect_search(&hub, &[project("p-1", NAME)]);
    expect_settled_and_kept(&hub);
    let report = NeonProvision::apply().unwrap();
    assert_eq!(report.message, format!("Adopted the Neon project {NAME}"));
    assert!(!hub.noted::<Noted>("project").unwrap().created, "nobody noted an intent: somebody else made it");
}

#[test]
fn a_chosen_project_is_not_this_steps_own() {
    let hub = hub_in_org().setting("neon.project_id", "p-1");
    hub.expect("neon", "GET /projects/p-1").reply(200, json!({"project": project("p-1", "my-database")}));
    expect_settled_and_kept(&hub);
    NeonProvision::apply().unwrap();
    assert!(!hub.noted::<Noted>("project").unwrap().created);
}

/// A creation may have been applied though it was not answered: it is looked for, and never asked for twice.
#[test]
fn an_unanswered_creation_is_looked_for() {
    let unanswered: [fn(psn_plugin::testing::HttpExpectation); 4] = [
        |post| post.unanswered(),
        |post| post.fail("deadline", true),
        |post| post.reply_raw(524, &[], "<html>time-out</html>"),
        |post| post.reply_raw(201, &[], "cut off"),
    ];
    for (appears_after, reply) in [1, 3].into_iter().flat_map(|looks| unanswered.map(|reply| (looks, reply))) {
        let hub = hub_in_org();
        expect_search(&hub, &[]);
        expect_deleted(&hub, &[]);
        reply(expect_create(&hub));
        for _ in 1..appears_after {
            expect_search(&hub, &[]);
        }
        expect_search(&hub, &[project("p-1", NAME)]);
        expect_settled_and_kept(&hub);
        assert_eq!(NeonProvision::apply().unwrap().message, format!("Created the Neon project {NAME}"));
        let posts = hub.journal().iter().filter(|line| line.starts_with("POST")).count();
        assert_eq!(posts, 1);
    }
}

#[test]
fn a_creation_that_does_not_show_is_left_to_the_next_run_which_looks_again_before_it_asks() {
    let hub = hub_in_org();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    expect_create(&hub).unanswered();
    for _ in 0..4 {
        expect_search(&hub, &[]);
    }
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retry_after_ms), ("service-unreachable", Some(30_000)));
    let notes = hub.notes();
    assert!(notes.contains_key("intent") && !notes.contains_key("project"));
    drop(hub);

    let hub = hub_in_org().notes_of(notes.clone());
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    expect_search(&hub, &[]);
    expect_search(&hub, &[project("p-1", NAME)]);
    expect_settled_and_kept(&hub);
    NeonProvision::apply().unwrap();
    assert!(hub.noted::<Noted>("project").unwrap().created, "this step asked for it");
    drop(hub);

    // Long after, "not found" means that it was never made.
    let mut intent: serde_json::Value = serde_json::from_str(&notes["intent"]).unwrap();
    intent["started_at"] = "2025-01-01T00:00:00Z".into();
    let hub = hub_in_org().note("intent", intent);
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    expect_create(&hub).reply(201, created());
    expect_operation(&hub, "o-2", "finished");
    expect_operation(&hub, "o-1", "finished");
    expect_endpoint(&hub, "ep-1");
    expect_connection_strings(&hub, "ep-1");
    NeonProvision::apply().unwrap();
}

#[test]
fn a_busy_service_promises_that_nothing_was_made() {
    let hub = hub_in_org();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    expect_create(&hub).reply(503, json!({"message": "try later"}));
    expect_create(&hub).reply(429, json!({"message": "slow down"}));
    expect_create(&hub).reply(201, created());
    expect_operation(&hub, "o-2", "finished");
    expect_operation(&hub, "o-1", "finished");
    expect_endpoint(&hub, "ep-1");
    expect_connection_strings(&hub, "ep-1");
    NeonProvision::apply().unwrap();
}

#[test]
fn a_run_killed_while_waiting_goes_on_waiting_for_the_same_operations() {
    let mut unsettled = noted(None);
    unsettled["operations"] = json!(["o-1"]);
    let hub = hub().note("project", unsettled);
    expect_project(&hub, 200);
    expect_operation(&hub, "o-1", "running");
    hub.expect("neon", "GET /projects/p-1/operations/o-1").reply(404, json!({"message": "operation not found"}));
    expect_endpoint(&hub, "ep-1");
    expect_connection_strings(&hub, "ep-1");
    NeonProvision::apply().unwrap();
    assert!(!hub.journal().iter().any(|line| line.starts_with("POST")));
}

#[test]
fn operations_that_fail_or_never_end() {
    let unsettled = || {
        let mut unsettled = noted(None);
        unsettled["operations"] = json!(["o-1"]);
        let hub = hub().note("project", unsettled);
        expect_project(&hub, 200);
        hub
    };
    for status in ["failed", "error", "cancelled"] {
        let hub = unsettled();
        expect_operation(&hub, "o-1", status);
        let failure = NeonProvision::apply().unwrap_err();
        assert_eq!(failure.code, "operation-failed");
        assert!(failure.message.contains(status) && failure.message.contains("out of luck"), "{failure:?}");
        assert!(hub.noted::<Noted>("project").unwrap().operations.is_empty(), "the next run judges by what is there");
    }

    let hub = unsettled();
    // 200 ms doubling to 5 s, for 240 s.
    for _ in 0..53 {
        expect_operation(&hub, "o-1", "running");
    }
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retry_after_ms), ("operation-slow", Some(60_000)));
    assert!((240_000..250_000).contains(&hub.slept_ms()), "{}", hub.slept_ms());
}

#[test]
fn a_moved_endpoint_gets_new_strings_without_a_new_project() {
    let hub = hub().note("project", noted(Some("127.0.0.1:1"))).secret_value("DATABASE_URL", "old");
    expect_project(&hub, 200);
    hub.expect("neon", "GET /projects/p-1/operations").reply(
        200,
        json!({"operations": [
            {"id": "o-7", "action": "start_compute", "status": "running"},
            {"id": "o-6", "action": "suspend_compute", "status": "failed"},
        ]}),
    );
    expect_operation(&hub, "o-7", "finished");
    expect_endpoint(&hub, "127.0.0.1:2");
    expect_connection_strings(&hub, "127.0.0.1:2");
    NeonProvision::apply().unwrap();
    assert_eq!(hub.noted::<Noted>("project").unwrap().host.as_deref(), Some("127.0.0.1:2"));
}

/// An adopted project that lacks `hub`, with these databases instead.
fn expect_other_databases(hub: &Hub, databases: serde_json::Value) {
    expect_project(hub, 200);
    hub.expect("neon", "GET /projects/p-1/operations").reply(200, json!({"operations": []}));
    expect_endpoint(hub, "ep-1");
    hub.expect("neon", "GET /projects/p-1/connection_uri").reply(404, json!({"message": "role not found"}));
    hub.expect("neon", "GET /projects/p-1/branches")
        .reply(200, json!({"branches": [{"id": "br-2", "default": false}, {"id": "br-1", "default": true}]}));
    hub.expect("neon", "GET /projects/p-1/branches/br-1/databases").reply(200, json!({"databases": databases}));
}

fn adopted() -> serde_json::Value {
    let mut adopted = noted(None);
    adopted["created"] = false.into();
    adopted
}

#[test]
fn an_adopted_projects_only_database_is_the_hubs() {
    let hub = hub().note("project", adopted());
    expect_other_databases(&hub, json!([{"name": "neondb", "owner_name": "neondb_owner"}]));
    for pooled in [true, false] {
        let request = hub
            .expect("neon", "GET /projects/p-1/connection_uri")
            .query("database_name", "neondb")
            .query("role_name", "neondb_owner");
        let request = if pooled { request.query("pooled", "true") } else { request.no_query("pooled") };
        request.reply(200, json!({"uri": "postgresql://neondb_owner:npg_x@ep-1/neondb"}));
    }
    NeonProvision::apply().unwrap();
    let noted: Noted = hub.noted("project").unwrap();
    assert_eq!((noted.database.as_deref(), noted.role.as_deref()), (Some("neondb"), Some("neondb_owner")));
}

#[test]
fn a_database_that_the_project_lacks_names_the_settings() {
    let hub1 = hub().note("project", noted(None));
    expect_project(&hub1, 200);
    hub1.expect("neon", "GET /projects/p-1/operations").reply(200, json!({"operations": []}));
    expect_endpoint(&hub1, "ep-1");
    hub1.expect("neon", "GET /projects/p-1/connection_uri").reply(404, json!({"message": "role not found"}));
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(failure.code, "database-not-found");
    assert!(failure.fix[0].contains("neon.role"));
    drop(hub1);

    let hub2 = hub().note("project", adopted());
    let of = |name: &str| json!({"name": name, "owner_name": "me"});
    expect_other_databases(&hub2, json!([of("blog"), of("shop")]));
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(failure.code, "database-unclear");
    assert_eq!(failure.fix, ["psn config set neon.database blog", "psn config set neon.database shop"]);
}

#[test]
fn a_key_that_may_not_create_is_told_which_project_it_is_for() {
    let hub = hub_in_org();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    expect_create(&hub).reply(403, json!({"code": "", "message": "not for this key"}));
    hub.expect("neon", "GET /projects").no_query("search").reply(200, listing(&[project("p-7", "mine")]));
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(failure.code, "key-cannot-create");
    assert_eq!(failure.fix[0], "psn config set neon.project_id p-7");
    assert!(hub.noted::<serde_json::Value>("intent").is_none(), "nothing was made");
}

#[test]
fn a_deleted_project_is_recovered_when_a_person_says_so() {
    let hub = hub_in_org().setting("neon.deleted_project", "recover:p-1");
    let mut deleted = project("p-1", NAME);
    deleted["deleted_at"] = "2026-11-20T00:00:00Z".into();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[deleted]);
    hub.expect("neon", "POST /projects/p-1/recover")
        .reply(200, json!({"project": project("p-1", NAME), "branches": []}));
    expect_settled_and_kept(&hub);
    assert_eq!(NeonProvision::apply().unwrap().message, format!("Adopted the Neon project {NAME}"));
}

#[test]
fn without_a_durable_intent_nothing_is_created() {
    let hub = hub_in_org().full_disk();
    expect_search(&hub, &[]);
    expect_deleted(&hub, &[]);
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(failure.code, "state-not-saved");
    assert!(!hub.journal().iter().any(|line| line.starts_with("POST")));
}

#[test]
fn verify_looks_at_project_endpoint_and_secrets() {
    let complete = || hub().note("project", noted(Some("ep-1"))).secret("DATABASE_URL").secret("DATABASE_URL_DIRECT");
    let endpoints = |hub: &Hub, endpoints| {
        expect_project(hub, 200);
        hub.expect("neon", "GET /projects/p-1/endpoints").reply(200, json!({"endpoints": endpoints}));
    };
    let there = |disabled: bool| json!([{"id": "ep-1", "host": "ep-1", "type": "read_write", "disabled": disabled}]);

    let hub1 = complete();
    endpoints(&hub1, there(false));
    assert!(NeonProvision::verify().is_ok());
    drop(hub1);

    let hub2 = complete();
    endpoints(&hub2, there(true));
    assert_eq!(NeonProvision::verify().unwrap_err().code, "endpoint-disabled");
    drop(hub2);

    let hub3 = complete();
    endpoints(&hub3, json!([]));
    assert_eq!(NeonProvision::verify().unwrap_err().code, "project-incomplete");
    drop(hub3);

    let hub4 = complete();
    expect_project(&hub4, 404);
    assert_eq!(NeonProvision::verify().unwrap_err().code, "project-incomplete");
    drop(hub4);

    let hub5 = hub().note("project", noted(Some("ep-1"))).secret("DATABASE_URL");
    endpoints(&hub5, there(false));
    assert!(NeonProvision::verify().unwrap_err().message.contains("DATABASE_URL_DIRECT"));
}

fn expect_branches(hub: &Hub) {
    hub.expect("neon", "GET /projects/p-1/branches")
        .reply(200, json!({"branches": [{"id": "br-2", "default": false}, {"id": "br-1", "default": true}]}));
}

/// A hub whose database refuses what Neon knows.
fn hub_with_refused_owner(created: bool) -> Hub {
    let mut project = noted(Some("ep-1"));
    project["created"] = created.into();
    hub_in_org().note("project", project).facts("owner-login", json!({"owner": "refused"}))
}

#[test]
fn a_refused_password_is_made_anew_with_a_note_first_and_out_of_this_plugins_sight() {
    let hub = hub_with_refused_owner(true);
    expect_project(&hub, 200);
    expect_settled_and_kept(&hub);
    expect_branches(&hub);
    hub.expect("neon", "POST /projects/p-1/branches/br-1/roles/hub_owner/reset_password").reply(
        200,
        json!({
            "role": {"name": "hub_owner", "password": "npg_canary"},
            "operations": [{"id": "o-9", "action": "apply_config", "status": "running"}],
        }),
    );
    expect_operation(&hub, "o-9", "finished");
    expect_endpoint(&hub, "ep-1");
    expect_connection_strings(&hub, "ep-1");

    // The test's database goes on refusing: that is said, and what was begun stays noted.
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("password-refused", "psn run setup"));
    let journal = hub.journal();
    let post = position(&journal, "POST neon /projects/p-1/branches/br-1/roles/hub_owner/reset_password");
    assert_eq!(journal[..post].iter().rfind(|line| line.starts_with("put ")).map(String::as_str), Some("put project"));
    assert!(hub.noted::<Noted>("project").unwrap().resetting);
}

#[test]
fn an_adopted_projects_password_waits_for_a_persons_word() {
    let hub = hub_with_refused_owner(false);
    expect_project(&hub, 200);
    expect_settled_and_kept(&hub);
    let failure = NeonProvision::apply().unwrap_err();
    assert_eq!(failure.code, "password-refused");
    assert_eq!(failure.fix, ["psn config set neon.reset_password p-1", "psn run setup"]);
}
