use super::*;

/// Up to the deployment everything is as it should be.
fn before_deploying(hub: Hub) -> Hub {
    expect_ours(&hub);
    hub.expect("trigger", &format!("GET {PROJECT}")).reply(200, project("cm1", "proj_abc", NAME));
    hub.expect("trigger", &format!("GET {PROJECT}/prod")).reply(200, json!({"apiKey": "tr_prod_x"}));
    expect_variables(&hub, &ALL_VARIABLES);
    hub
}

fn local() -> Hub {
    let mut tasks = facts();
    tasks["deploy"] = "direct".into();
    before_deploying(provisioned().local().facts("tasks", tasks))
}

fn expect_start(hub: &Hub, force: bool, outcome: &str) {
    hub.expect("trigger-env", "POST /api/v1/deployments")
        .body_part("/externalId", HASH.into())
        .body_part("/contentHash", HASH.into())
        .body_part("/force", force.into())
        .reply(200, json!({"id": "deployment_1", "version": "20260101.1", "outcome": outcome}));
}

fn expect_registered(hub: &Hub) {
    hub.expect("trigger-env", "POST /api/v1/deployments/deployment_1/background-workers")
        .reply(200, json!({"id": "worker_1", "version": "20260101.1", "contentHash": HASH}));
}

fn expect_finalized(hub: &Hub, stream: &str) {
    hub.expect("trigger-env", "POST /api/v3/deployments/deployment_1/finalize")
        .body_part("/imageDigest", format!("sha256:{HASH}").into())
        .reply_raw(200, &[("content-type", "text/event-stream")], stream);
}

const COMPLETE: &str = "event: ping\ndata: {}\n\nevent: complete\ndata: {\"id\":\"deployment_1\"}\n\n";

fn expect_status(hub: &Hub, status: &str) {
    let mut body = deployment("deployment_1", status, HASH);
    body["errorData"] =
        if status == "FAILED" { json!({"name": "BuildError", "message": "no such file"}) } else { json!(null) };
    hub.expect("trigger-env", "GET /api/v1/deployments/deployment_1").reply(200, body);
}

#[test]
fn the_local_hub_is_told_about_the_tasks() {
    let hub = local();
    expect_current(&hub, Some("old"));
    expect_start(&hub, false, "created");
    hub.expect("trigger-env", "POST /api/v1/deployments/deployment_1/background-workers")
        .body(json!({
            "localOnly": true,
            "metadata": {
                "contentHash": HASH, "packageVersion": "4.8.3", "cliPackageVersion": "4.8.3", "queues": [], "sourceFiles": [],
                "tasks": [
                    {
                        "id": "watchdog", "filePath": "components/watchdog@sha256-aa.wasm", "triggerSource": "schedule",
                        "schedule": {"cron": "*/15 * * * *", "timezone": "UTC"}, "maxDuration": 60,
                        "retry": {"maxAttempts": 3, "minTimeoutInMs": 1000, "maxTimeoutInMs": 10000, "factor": 2, "randomize": true},
                    },
                    {"id": "publish-post", "filePath": "components/publish-post@sha256-bb.wasm", "queue": {"name": "posts"}},
                ],
            },
            "engine": "V2",
            "supportsLazyAttempts": true,
        }))
        .reply(200, json!({
            "id": "worker_1", "version": "20260101.1", "contentHash": HASH,
            "warnings": [{"code": "schedule_default_window", "message": "the schedule got a window"}],
        }));
    expect_finalized(&hub, COMPLETE);
    expect_status(&hub, "DEPLOYING");
    expect_status(&hub, "DEPLOYED");
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
    assert_eq!(hub.logs().last().unwrap().message, "the schedule got a window");
}

#[test]
fn the_same_tasks_are_deployed_once() {
    let hub = local();
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
    assert!(!hub.journal().iter().any(|line| line.contains("POST")));
}

#[test]
fn a_deployment_that_is_there_but_not_in_use_is_promoted() {
    let hub = local();
    expect_current(&hub, Some("other"));
    expect_start(&hub, false, "existing");
    expect_status(&hub, "DEPLOYED");
    expect_current(&hub, Some("other"));
    hub.expect("trigger-env", "POST /api/v1/deployments/20260101.1/promote")
        .query("allowRollbacks", "true")
        .idempotent()
        .reply(200, json!({"id": "deployment_1"}));
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn a_deployment_that_a_killed_run_left_half_way_is_made_anew() {
    for status in ["PENDING", "BUILDING", "DEPLOYING", "FAILED", "TIMED_OUT"] {
        let hub = local();
        expect_current(&hub, None);
        expect_start(&hub, false, "existing");
        expect_status(&hub, status);
        expect_start(&hub, true, "created");
        expect_registered(&hub);
        expect_finalized(&hub, COMPLETE);
        expect_status(&hub, "DEPLOYED");
        expect_complete(&hub);
        TriggerProvision::apply().unwrap();
    }
}

#[test]
fn an_incomplete_deployment_of_the_same_tasks_is_forced_anew() {
    let hub = local();
    expect_current(&hub, Some(HASH));
    expect_worker(&hub, &["watchdog"]);
    expect_start(&hub, true, "created");
    expect_registered(&hub);
    expect_finalized(&hub, COMPLETE);
    expect_status(&hub, "DEPLOYED");
    expect_current(&hub, Some(HASH));
    expect_worker(&hub, &["watchdog"]);
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "deploy-incomplete");
    assert!(failure.message.contains("lacks publish-post"));
}

#[test]
fn a_deployment_that_fails_says_why() {
    type Lay = fn(&Hub);
    let cases: [(&str, &str, Lay); 3] = [
        ("deploy-refused", "bad tasks", |hub| {
            hub.expect("trigger-env", "POST /api/v1/deployments/deployment_1/background-workers")
                .reply(422, json!({"error": "bad tasks"}));
            expect_status(hub, "BUILDING");
        }),
        ("deploy-failed", "no image", |hub| {
            expect_registered(hub);
            expect_finalized(hub, "event: error\ndata: {\"error\":\"no image\"}\n\n");
        }),
        ("deploy-failed", "no such file", |hub| {
            expect_registered(hub);
            expect_finalized(hub, COMPLETE);
            expect_status(hub, "FAILED");
        }),
    ];
    for (code, words, lay) in cases {
        let hub = local();
        expect_current(&hub, None);
        expect_start(&hub, false, "created");
        lay(&hub);
        let failure = TriggerProvision::apply().unwrap_err();
        assert_eq!(failure.code, code);
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

const INSTALL: [&str; 7] =
    ["ci", "--prefix", ".psn/trigger", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"];

fn cli(external_id: &str, force: bool) -> Vec<&str> {
    let mut args: Vec<&str> =
        "exec --prefix .psn/trigger --no -- trigger deploy .psn/trigger --env prod --native-build \
        --local-bundle --detach --skip-update-check --skip-telemetry --project-ref proj_abc --external-id"
            .split_whitespace()
            .collect();
    args.push(external_id);
    args.extend(force.then_some("--force"));
    args
}

/// Both programs do what they are asked.
fn expect_cli(hub: &Hub, external_id: &str, force: bool) {
    hub.expect_tool("npm", &INSTALL).exits(0, "added 300 packages", "");
    hub.expect_tool("npm", &cli(external_id, force)).exits(0, "Version 20260101.1 is being deployed", "");
}

fn expect_listed(hub: &Hub, deployments: &[serde_json::Value]) {
    hub.expect("trigger-env", "GET /api/v1/deployments")
        .query("page[size]", "20")
        .reply(200, json!({"data": deployments, "pagination": {}}));
}

#[test]
fn the_cloud_is_given_the_tasks_by_its_own_cli_whose_success_is_not_taken_on_trust() {
    let hub = before_deploying(provisioned());
    expect_current(&hub, None);
    expect_listed(&hub, &[]);
    expect_cli(&hub, HASH, false);
    expect_listed(&hub, &[deployment("deployment_0", "DEPLOYED", "old")]);
    expect_listed(&hub, &[deployment("deployment_1", "BUILDING", HASH), deployment("deployment_0", "DEPLOYED", "old")]);
    expect_listed(&hub, &[deployment("deployment_1", "DEPLOYED", HASH)]);
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn a_deployment_that_a_killed_run_left_at_work_is_waited_for() {
    let hub = before_deploying(provisioned());
    expect_current(&hub, None);
    for status in ["BUILDING", "DEPLOYING", "DEPLOYED"] {
        expect_listed(&hub, &[deployment("deployment_1", status, HASH)]);
    }
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn the_cli_fails_is_missing_or_never_ends() {
    let deploying = || {
        let hub = before_deploying(provisioned());
        expect_current(&hub, None);
        expect_listed(&hub, &[]);
        hub
    };
    let hub = deploying();
    hub.expect_tool("npm", &INSTALL).exits(1, "", "npm error code ENOTFOUND\n");
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "deploy-failed");
    assert!(failure.message.contains("(install)") && failure.message.contains("ENOTFOUND"), "{}", failure.message);
    drop(hub);

    let hub = deploying();
    hub.expect_tool("npm", &INSTALL).exits(0, "", "");
    hub.expect_tool("npm", &cli(HASH, false)).exits(1, "", "one\ntwo\nError: no such project\n");
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "deploy-failed");
    assert!(failure.message.contains("no such project"));
    drop(hub);

    let hub = deploying();
    hub.expect_tool("npm", &INSTALL).fail("missing", "install it: Node.js");
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.fix[0].as_str()), ("tool-missing", "install it: Node.js"));
    drop(hub);

    let hub = deploying();
    expect_cli(&hub, HASH, false);
    let mut failed = deployment("deployment_1", "FAILED", HASH);
    failed["error"] = json!({"name": "BuildError", "message": "out of disk"});
    expect_listed(&hub, &[failed]);
    assert!(TriggerProvision::apply().unwrap_err().message.contains("out of disk"));
    drop(hub);

    // Exit code 0, and nothing came of it: 200 ms doubling to 5 s, for a minute.
    let hub = deploying();
    expect_cli(&hub, HASH, false);
    for _ in 0..17 {
        expect_listed(&hub, &[]);
    }
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "deploy-failed");
    assert!(failure.message.contains("no such deployment"), "{}", failure.message);
    drop(hub);

    // The same for ten minutes.
    let hub = deploying();
    expect_cli(&hub, HASH, false);
    for _ in 0..125 {
        expect_listed(&hub, &[deployment("deployment_1", "BUILDING", HASH)]);
    }
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retry_after_ms), ("deploy-slow", Some(60_000)));
}

#[test]
fn an_incomplete_deployment_is_forced_through_the_cli_too() {
    let hub = before_deploying(provisioned());
    expect_current(&hub, Some(HASH));
    expect_worker(&hub, &["watchdog", "publish-post"]);
    expect_schedules(&hub, &[]);
    expect_listed(&hub, &[deployment("deployment_1", "DEPLOYED", HASH)]);
    expect_cli(&hub, HASH, true);
    // The one that lacks something is not taken for the new one.
    expect_listed(&hub, &[deployment("deployment_1", "DEPLOYED", HASH)]);
    expect_listed(&hub, &[deployment("deployment_2", "DEPLOYED", HASH), deployment("deployment_1", "DEPLOYED", HASH)]);
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn the_production_key_alone_cannot_deploy_to_the_cloud() {
    let hub = Hub::new(MANIFEST)
        .secret("TRIGGER_SECRET_KEY")
        .secret("HUB_ENCRYPTION_KEY")
        .secret("DATABASE_URL_PLUGIN_WATCHDOG")
        .facts("tasks", facts())
        .setting("trigger.project_ref", "proj_abc")
        .note("environment", imported(&["DATABASE_URL_PLUGIN_WATCHDOG", "HUB_ENCRYPTION_KEY"]));
    expect_variables_through(&hub, "trigger-env", &ALL_VARIABLES);
    expect_current(&hub, Some("old"));
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fix[0].as_str()),
        ("token-missing", "psn keys set TRIGGER_ACCESS_TOKEN --stdin")
    );
}
