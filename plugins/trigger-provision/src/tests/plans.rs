//! What a plan refuses, through the CLI; the end-to-end tests have the same on the local hub.
use super::*;

fn many(count: usize) -> serde_json::Value {
    let tasks: Vec<_> = (0..count)
        .map(|n| json!({"id": format!("t{n}"), "file_path": "", "cron": "*/5 * * * *", "hourly": "0 * * * *"}))
        .collect();
    json!({"content_hash": HASH, "deploy": "direct", "tasks": tasks, "env": [], "plain_env": {}})
}

/// Everything up to the deployment, of a hub whose environment has nothing in it.
fn deploying(hub: Hub) -> Hub {
    let hub = hub.note("environment", json!({"external_ref": "proj_abc", "secrets": {}, "plain": {}}));
    expect_ours(&hub);
    hub.expect("trigger", &format!("GET {PROJECT}")).reply(200, project("cm1", "proj_abc", NAME));
    hub.expect("trigger", &format!("GET {PROJECT}/prod")).reply(200, json!({"apiKey": "tr_prod_x"}));
    hub
}

/// Trigger.dev ends the deployment of this id for this reason.
fn expect_refused(hub: &Hub, external_id: &str, crons: &[Option<&str>], name: &str) {
    hub.expect("trigger-env", "POST /api/v1/deployments")
        .body_part("/externalId", external_id.into())
        .reply(200, json!({"id": "deployment_1", "version": "20260101.1", "outcome": "created"}));
    let registration = hub.expect("trigger-env", "POST /api/v1/deployments/deployment_1/background-workers");
    let registration = crons.iter().enumerate().fold(registration, |expected, (at, cron)| match cron {
        Some(cron) => expected.body_part(&format!("/metadata/tasks/{at}/schedule/cron"), (*cron).into()),
        None => expected,
    });
    registration.reply(400, json!({"error": "no"}));
    let mut failed = deployment("deployment_1", "FAILED", external_id);
    failed["errorData"] = json!({"name": name, "message": "the plan says no"});
    hub.expect("trigger-env", "GET /api/v1/deployments/deployment_1").reply(200, failed);
}

fn expect_taken(hub: &Hub, external_id: &str) {
    hub.expect("trigger-env", "POST /api/v1/deployments")
        .body_part("/externalId", external_id.into())
        .reply(200, json!({"id": "deployment_2", "version": "20260101.2", "outcome": "created"}));
    hub.expect("trigger-env", "POST /api/v1/deployments/deployment_2/background-workers").reply(200, json!({}));
    hub.expect("trigger-env", "POST /api/v3/deployments/deployment_2/finalize").reply_raw(
        200,
        &[("content-type", "text/event-stream")],
        "event: complete\ndata: {}\n\n",
    );
    hub.expect("trigger-env", "GET /api/v1/deployments/deployment_2")
        .reply(200, deployment("deployment_2", "DEPLOYED", external_id));
}

fn expect_plan_variable(hub: &Hub, value: &str) {
    hub.expect("trigger", &format!("POST {PROJECT}/envvars/prod/import"))
        .body(json!({"variables": {"PSN_SCHEDULES": value}, "override": true, "isSecret": false}))
        .reply(200, json!({"success": true}));
}

fn slugs(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("t{n}")).collect()
}

fn expect_all(hub: &Hub, external_id: &str, count: usize, scheduled: usize) {
    expect_current(hub, Some(external_id));
    let slugs = slugs(count);
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    expect_worker(hub, &slugs);
    let schedules: Vec<_> = slugs[..scheduled].iter().map(|slug| schedule(slug, true)).collect();
    expect_schedules(hub, &schedules);
}

#[test]
fn a_plan_without_frequent_schedules_gets_hourly_ones_and_a_warning() {
    let hub = deploying(provisioned().facts("tasks", many(1)));
    expect_variables(&hub, &[]);
    expect_current(&hub, None);
    expect_refused(&hub, HASH, &[Some("*/5 * * * *")], "SchedulePlanLimitError");
    expect_variables(&hub, &[]);
    expect_plan_variable(&hub, "hourly");
    expect_current(&hub, None);
    let hourly = format!("{HASH}-hourly");
    expect_taken(&hub, &hourly);
    expect_all(&hub, &hourly, 1, 1);
    TriggerProvision::apply().unwrap();
    assert!(hub.logs().iter().any(|line| line.message.contains("t0 runs at `0 * * * *`")), "{:?}", hub.logs());
    let notes = hub.notes();
    drop(hub);

    // The next run asks for no more than that.
    let hub = provisioned().notes_of(notes.clone()).facts("tasks", many(1));
    expect_ours(&hub);
    expect_all(&hub, &hourly, 1, 1);
    expect_variables(&hub, &["PSN_SCHEDULES"]);
    let State::Ready(report) = TriggerProvision::inspect().unwrap() else { panic!("not ready") };
    let check = report.checks.iter().find(|check| check.name == "schedules").unwrap();
    assert_eq!(check.status, Status::Warn);
    assert_eq!(check.fix[0], "psn config set trigger.schedules hourly");
    assert!(check.fix[1].ends_with("/orgs/acme/settings/billing"), "{}", check.fix[1]);
    assert_eq!(check.fix[2], "psn config set trigger.schedules exact");
    drop(hub);

    // Whoever asks for it is not warned of it.
    let hub = provisioned().notes_of(notes.clone()).facts("tasks", many(1)).setting("trigger.schedules", "hourly");
    expect_ours(&hub);
    expect_all(&hub, &hourly, 1, 1);
    expect_variables(&hub, &["PSN_SCHEDULES"]);
    let State::Ready(report) = TriggerProvision::inspect().unwrap() else { panic!("not ready") };
    let check = report.checks.iter().find(|check| check.name == "schedules").unwrap();
    assert_eq!(check.status, Status::Pass, "{check:?}");
    drop(hub);

    // With a better plan, a person says so, and nothing of it stays.
    let hub = provisioned().notes_of(notes).facts("tasks", many(1)).setting("trigger.schedules", "exact");
    expect_ours(&hub);
    hub.expect("trigger", &format!("GET {PROJECT}")).reply(200, project("cm1", "proj_abc", NAME));
    hub.expect("trigger", &format!("GET {PROJECT}/prod")).reply(200, json!({"apiKey": "tr_prod_x"}));
    expect_variables(&hub, &["PSN_SCHEDULES"]);
    expect_plan_variable(&hub, "as-written");
    expect_current(&hub, Some(&hourly));
    expect_taken(&hub, HASH);
    expect_all(&hub, HASH, 1, 1);
    TriggerProvision::apply().unwrap();
    assert_eq!(hub.noted::<serde_json::Value>("plan-limits").unwrap()["limits"]["hourly"], false);
}

#[test]
fn a_plan_with_fewer_schedules_leaves_the_rest_to_be_started_by_hand() {
    let hub = deploying(provisioned().facts("tasks", many(12)).setting("trigger.schedules", "hourly"));
    expect_variables(&hub, &[]);
    expect_plan_variable(&hub, "hourly");
    expect_current(&hub, None);
    expect_refused(&hub, &format!("{HASH}-hourly"), &[Some("0 * * * *"); 12], "ServiceValidationError");
    expect_variables(&hub, &["PSN_SCHEDULES"]);
    expect_plan_variable(&hub, "hourly -t10 -t11");
    expect_current(&hub, None);
    let id = format!("{HASH}-hourly-10");
    expect_taken(&hub, &id);
    expect_all(&hub, &id, 12, 10);
    TriggerProvision::apply().unwrap();
    let warned: Vec<_> = hub.logs().into_iter().filter(|line| line.message.contains("psn task trigger")).collect();
    assert_eq!(warned.len(), 2, "{warned:?}");
}

#[test]
fn a_refusal_that_less_would_not_help_is_an_error() {
    for (setting, name, code) in [
        ("exact", "SchedulePlanLimitError", "schedule-plan-limit"),
        ("auto", "ServiceValidationError", "deploy-failed"),
        ("hourly", "SchedulePlanLimitError", "schedule-plan-limit"),
    ] {
        let hub = deploying(provisioned().facts("tasks", many(1)).setting("trigger.schedules", setting));
        expect_variables(&hub, &[]);
        let mut id = HASH.to_owned();
        if setting == "hourly" {
            expect_plan_variable(&hub, "hourly");
            id += "-hourly";
        }
        expect_current(&hub, None);
        expect_refused(&hub, &id, &[], name);
        let failure = TriggerProvision::apply().unwrap_err();
        assert_eq!(failure.code, code, "{setting}");
        assert!(!failure.fix.is_empty());
    }
}
