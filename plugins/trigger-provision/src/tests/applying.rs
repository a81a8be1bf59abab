use super::*;

fn expect_create(hub: &Hub) -> psn_plugin::testing::HttpExpectation {
    hub.expect("trigger", "POST /api/v1/orgs/acme/projects").body(json!({"name": NAME}))
}

fn expect_keys(hub: &Hub) {
    hub.expect("trigger", &format!("GET {PROJECT}")).reply(200, project("cm1", "proj_abc", NAME));
    hub.expect("trigger", &format!("GET {PROJECT}/prod"))
        .reply(200, json!({"apiKey": "tr_prod_x", "name": "prod", "apiUrl": "", "projectId": "cm1"}));
}

/// Everything after the project is there, found as it should be.
fn expect_the_rest_done(hub: &Hub) {
    expect_keys(hub);
    expect_variables(hub, &ALL_VARIABLES);
    expect_complete(hub);
}

fn expect_import(hub: &Hub, variables: serde_json::Value, secret: bool) {
    hub.expect("trigger", &format!("POST {PROJECT}/envvars/prod/import"))
        .idempotent()
        .body(json!({"variables": variables, "override": true, "isSecret": secret}))
        .reply(200, json!({"success": true}));
}

fn before(journal: &[String], first: &str, second: &str) -> bool {
    let position = |entry: &str| {
        journal.iter().position(|line| line == entry).unwrap_or_else(|| panic!("no `{entry}` in {journal:#?}"))
    };
    position(first) < position(second)
}

#[test]
fn a_project_is_created_once_and_its_environment_filled() {
    let hub = hub();
    expect_orgs(&hub, &["acme"]);
    expect_projects(&hub, &[]);
    expect_create(&hub).reply(200, project("cm1", "proj_abc", NAME));
    expect_keys(&hub);
    expect_variables(&hub, &[]);
    expect_import(
        &hub,
        json!({
            "DATABASE_URL_PLUGIN_WATCHDOG": "{{secret:DATABASE_URL_PLUGIN_WATCHDOG}}",
            "HUB_ENCRYPTION_KEY": "{{secret:HUB_ENCRYPTION_KEY}}",
        }),
        true,
    );
    expect_import(&hub, json!({"PSN_HUB_ID": "7f3a0c1d"}), false);
    expect_complete(&hub);

    let report = TriggerProvision::apply().unwrap();
    assert_eq!(report.message, format!("Created the Trigger.dev project {NAME} and deployed watchdog, publish-post"));
    assert!(hub.has_secret("TRIGGER_SECRET_KEY") && hub.has_secret("TRIGGER_PROJECT_REF"));
    let journal = hub.journal();
    let post = "POST trigger /api/v1/orgs/acme/projects";
    assert!(before(&journal, "put intent", post) && before(&journal, post, "put project"));
    assert!(before(&journal, "put project", &format!("GET trigger {PROJECT}")));
    assert!(hub.noted::<serde_json::Value>("intent").is_none());
    assert_eq!(
        hub.noted::<serde_json::Value>("environment").unwrap(),
        imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"])
    );
}

#[test]
fn only_what_changed_is_sent_again() {
    let hub = provisioned().secret_value("HUB_ENCRYPTION_KEY", "new");
    expect_ours(&hub);
    expect_keys(&hub);
    expect_variables(&hub, &ALL_VARIABLES);
    expect_import(&hub, json!({"HUB_ENCRYPTION_KEY": "{{secret:HUB_ENCRYPTION_KEY}}"}), true);
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn a_secret_that_is_not_there_yet_is_said_before_anything_is_sent() {
    let mut tasks = facts();
    tasks["env"] = json!(["DATABASE_URL_PLUGIN_PUBLISH_POST"]);
    let hub = provisioned().facts("tasks", tasks);
    expect_ours(&hub);
    expect_keys(&hub);
    expect_variables(&hub, &ALL_VARIABLES);
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("secret-missing", "psn run setup"));
}

#[test]
fn a_project_of_the_name_is_adopted() {
    let hub = hub();
    let hub = hub.note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]));
    expect_orgs(&hub, &["acme"]);
    expect_ours(&hub);
    expect_the_rest_done(&hub);
    assert!(TriggerProvision::apply().unwrap().message.starts_with("Adopted"));
}

#[test]
fn a_new_project_is_told_everything_whatever_the_old_one_knew() {
    let mut other = imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]);
    other["external_ref"] = "proj_old".into();
    let hub = provisioned().note("environment", other);
    expect_ours(&hub);
    expect_keys(&hub);
    expect_variables(&hub, &ALL_VARIABLES);
    hub.expect("trigger", &format!("POST {PROJECT}/envvars/prod/import")).times(2).reply(200, json!({"success": true}));
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn an_organisation_without_a_plan_gets_the_free_one_where_that_is_allowed() {
    let refused = json!({"error": "You must select a plan for this organization before creating projects."});
    for (activation, expected) in [
        (200, None),
        (409, None),
        (404, Some("plan-needed")),
        (403, Some("plan-needed")),
        (401, Some("token-rejected")),
        (500, Some("service-failed")),
    ] {
        let hub = hub().note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]));
        expect_orgs(&hub, &["acme"]);
        expect_projects(&hub, &[]);
        expect_create(&hub).reply(402, refused.clone());
        hub.expect("trigger", "POST /api/v1/orgs/acme/activate-free-plan").reply(activation, json!({"plan": "free"}));
        if expected.is_none() {
            expect_create(&hub).reply(200, project("cm1", "proj_abc", NAME));
            expect_the_rest_done(&hub);
        }
        let answer = TriggerProvision::apply();
        assert_eq!(answer.err().map(|failure| failure.code).as_deref(), expected, "{activation}");
    }

    // Once, and no more.
    let hub = hub();
    expect_orgs(&hub, &["acme"]);
    expect_projects(&hub, &[]);
    expect_create(&hub).reply(402, refused.clone());
    hub.expect("trigger", "POST /api/v1/orgs/acme/activate-free-plan").reply(200, json!({"plan": "free"}));
    expect_create(&hub).reply(402, refused);
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "plan-needed");
    assert!(failure.fix[0].contains("/orgs/acme/select-plan"));
}

#[test]
fn an_unanswered_creation_is_looked_for_and_never_repeated() {
    let unanswered: [fn(psn_plugin::testing::HttpExpectation); 2] =
        [|post| post.unanswered(), |post| post.reply(500, json!({"error": "Something went wrong"}))];
    for reply in unanswered {
        let hub = hub().note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]));
        expect_orgs(&hub, &["acme"]);
        expect_projects(&hub, &[]);
        reply(expect_create(&hub));
        expect_projects(&hub, &[]);
        expect_ours(&hub);
        expect_the_rest_done(&hub);
        assert!(TriggerProvision::apply().unwrap().message.starts_with("Created"));
    }

    let hub1 = hub();
    expect_orgs(&hub1, &["acme"]);
    expect_projects(&hub1, &[]);
    expect_create(&hub1).unanswered();
    for _ in 0..4 {
        expect_projects(&hub1, &[]);
    }
    assert!(TriggerProvision::apply().unwrap_err().retry_after_ms.is_some());
    let notes = hub1.notes();
    drop(hub1);

    // The next run gives it time to appear before it asks for another.
    let hub2 =
        hub().notes_of(notes).note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]));
    expect_orgs(&hub2, &["acme"]);
    expect_projects(&hub2, &[]);
    expect_ours(&hub2);
    expect_the_rest_done(&hub2);
    assert!(TriggerProvision::apply().unwrap().message.starts_with("Created"), "what was asked for is psn's own");
}

#[test]
fn a_refusal_says_what_trigger_said() {
    let others: Vec<_> = (0..10).map(|n| project(&format!("cm{n}"), &format!("proj_{n}"), "other")).collect();
    let full = hub();
    expect_orgs(&full, &["acme"]);
    expect_projects(&full, &others);
    expect_create(&full).reply(400, json!({"error": "Failed to create project"}));
    expect_projects(&full, &others);
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "project-limit");
    assert_eq!(failure.fix[0], "psn config set trigger.project_ref proj_0");
    assert!(failure.message.contains("proj_9 is other"), "{}", failure.message);
    drop(full);

    let hub = hub();
    expect_orgs(&hub, &["acme"]);
    expect_projects(&hub, &[]);
    expect_create(&hub).reply(400, json!({"error": "Failed to create project"}));
    expect_projects(&hub, &[]);
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "create-refused");
    assert!(failure.message.contains("Failed to create project"));
    assert!(hub.noted::<serde_json::Value>("intent").is_none());
}

#[test]
fn destroy_deletes_exactly_the_noted_project() {
    for (status, words) in [(200, "Deleted the"), (404, "Deleted before")] {
        let hub = provisioned_unasked();
        hub.expect("trigger", &format!("DELETE {PROJECT}")).idempotent().reply(status, json!({"id": "cm1"}));
        assert!(TriggerProvision::destroy().unwrap().message.starts_with(words));
        assert!(hub.notes().is_empty());
    }

    let mut chosen = noted();
    chosen["chosen"] = true.into();
    let hub1 = provisioned_unasked().note("project", chosen);
    assert!(TriggerProvision::destroy().unwrap().message.contains("alone"));
    drop(hub1);

    let intent = json!({"name": NAME, "org": "acme", "started_at": "2026-01-01T00:00:00Z"});
    let hub2 = unasked().note("intent", intent);
    expect_ours(&hub2);
    assert_eq!(TriggerProvision::destroy().unwrap_err().code, "unfinished-creation");
    drop(hub2);

    let _hub = unasked();
    assert!(TriggerProvision::destroy().unwrap().message.contains("made no"));
}
