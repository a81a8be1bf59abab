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
    before_deploying(provisioned().local())
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
    let cases: [(&str, &str, Lay); 4] = [
        ("deploy-refused", "bad tasks", |hub| {
            hub.expect("trigger-env", "POST /api/v1/deployments/deployment_1/background-workers")
                .reply(422, json!({"error": "bad tasks"}));
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
        ("schedule-plan-limit", "hourly", |hub| {
            expect_registered(hub);
            expect_finalized(hub, COMPLETE);
            let mut body = deployment("deployment_1", "FAILED", HASH);
            body["errorData"] =
                json!({"name": "SchedulePlanLimitError", "message": "Free plan limited to hourly schedules or less"});
            hub.expect("trigger-env", "GET /api/v1/deployments/deployment_1").reply(200, body);
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

const CLI: [&str; 6] = ["deploy", "--env", "prod", "--skip-update-check", "--external-id", HASH];

fn expect_listed(hub: &Hub, deployments: &[serde_json::Value]) {
    hub.expect("trigger-env", "GET /api/v1/deployments")
        .query("page[size]", "20")
        .reply(200, json!({"data": deployments, "pagination": {}}));
}

#[test]
fn the_cloud_is_given_the_tasks_by_its_own_cli_whose_success_is_not_taken_on_trust() {
    let hub = before_deploying(provisioned());
    expect_current(&hub, None);
    hub.expect_tool("trigger", &CLI).exits(0, "Version 20260101.1 deployed", "");
    expect_listed(&hub, &[deployment("deployment_0", "DEPLOYED", "old")]);
    expect_listed(&hub, &[deployment("deployment_1", "BUILDING", HASH), deployment("deployment_0", "DEPLOYED", "old")]);
    expect_listed(&hub, &[deployment("deployment_1", "DEPLOYED", HASH)]);
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}

#[test]
fn the_cli_fails_is_missing_or_never_ends() {
    let deploying = || {
        let hub = before_deploying(provisioned());
        expect_current(&hub, None);
        hub
    };
    let hub = deploying();
    hub.expect_tool("trigger", &CLI).exits(1, "", "one\ntwo\nError: no such project\n");
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(failure.code, "deploy-failed");
    assert!(failure.message.contains("no such project"));
    drop(hub);

    let hub = deploying();
    hub.expect_tool("trigger", &CLI).fail("missing", "npm install --global trigger.dev@4.8.3");
    let failure = TriggerProvision::apply().unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fix[0].as_str()),
        ("tool-missing", "npm install --global trigger.dev@4.8.3")
    );
    drop(hub);

    let hub = deploying();
    hub.expect_tool("trigger", &CLI).exits(0, "", "");
    let mut failed = deployment("deployment_1", "FAILED", HASH);
    failed["error"] = json!({"name": "BuildError", "message": "out of disk"});
    expect_listed(&hub, &[failed]);
    assert!(TriggerProvision::apply().unwrap_err().message.contains("out of disk"));
    drop(hub);

    let hub = deploying();
    hub.expect_tool("trigger", &CLI).exits(0, "", "");
    // 200 ms doubling to 5 s, for 600 s.
    for _ in 0..125 {
        expect_listed(&hub, &[]);
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
    let forced: Vec<_> = CLI.into_iter().chain(["--force"]).collect();
    hub.expect_tool("trigger", &forced).exits(0, "", "");
    expect_listed(&hub, &[deployment("deployment_2", "DEPLOYED", HASH)]);
    expect_complete(&hub);
    TriggerProvision::apply().unwrap();
}
