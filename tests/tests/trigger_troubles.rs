//! What happens to a hub's Trigger.dev project behind psn's back: a token that is revoked or expires in the middle of a run, a schedule
//! that somebody switched off, no token at all. Each is named, and what psn says to do does it.
use psn_tests::Answer;
use psn_tests::cloud::bundle_small_program;
use psn_tests::edge::{Call, Fault};
use psn_tests::fix::{documented, follow, is_documented};
use psn_tests::rig::{Case, Rig};
use psn_tests::{found, sample};
use serde_json::{Value, json};

const SETUP: [&str; 2] = ["run", "setup"];
/// Moments that a plain test run takes: against the local hub, where each is a setup, and in the cloud. All with `PSN_MATRIX=full`.
const SAMPLE: usize = 2;
const SAMPLE_CLOUD: usize = 5;

/// Some of the calls from the first to the last, spread over the run.
fn moments(calls: usize, few: usize) -> Vec<usize> {
    let every: Vec<usize> = (1..=calls).collect();
    sample::spread(&every, |nth| (nth - 1) * few / calls, sample::size(few, calls), sample::seed())
}

fn rig() -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_psn-tested"))
}

fn calls_of(rig: &Rig, service: &str) -> usize {
    rig.http.calls().iter().filter(|call| call.service == service).count()
}

fn error(answer: &Answer) -> &Value {
    let error = answer.error();
    let code = error["code"].as_str().expect("a code");
    assert!(is_documented(&documented(), code), "{code} is not in docs/errors.md");
    error
}

fn check<'a>(answer: &'a Answer, name: &str) -> &'a Value {
    answer.event(|e| e["type"] == "check" && e["check"] == name)
}

/// A fix, as arguments of psn.
fn command(fix: &Value) -> Vec<&str> {
    let words = fix.as_str().and_then(|text| text.strip_prefix("psn ")).unwrap_or_else(|| panic!("no command: {fix}"));
    words.split(' ').collect()
}

#[test]
fn a_token_that_is_revoked_in_mid_run() {
    let rig = rig();
    let clean = rig.case();
    clean.psn(&SETUP).answer.exits(0);
    let (calls, hub) = (calls_of(&rig, "trigger"), found::hub(&clean));
    assert!(calls >= 6, "{calls} calls with the token: they are not seen");
    let token = clean.secret("TRIGGER_ACCESS_TOKEN").expect("the local hub's token");

    // At the local hub, whose own token comes back with a setup: the hub is complete then, as if nothing had happened.
    for nth in moments(calls, SAMPLE) {
        let case = rig.case();
        rig.http.begin();
        rig.http.revoke_at("trigger", nth);
        let ended = case.spawn(&SETUP, &[]);
        let code = error(&ended.answer)["code"].as_str().unwrap_or_default().to_owned();
        match code.as_str() {
            "keys.key-rejected" | "trigger-provision.token-rejected" => {}
            // Everything was made by then; the checklist says which of its lines it is.
            "validate.check-failed" => {
                let failed = ended.answer.event(|e| e["type"] == "check" && e["status"] == "fail");
                assert!(failed["message"].as_str().is_some_and(|m| m.contains("Access Token")), "{failed}");
                command(&failed["fix"][0]);
            }
            other => panic!("at {nth}: {other}"),
        }
        let how = follow(&case, &ended, &SETUP);
        assert!(how.lost.is_none() && how.words.is_empty(), "at {nth}: {how:?}");
        assert_eq!(found::differences(&hub, &found::hub(&case)), Vec::<String>::new(), "at {nth}");
    }

    in_the_cloud(&rig, &token);
}

/// At the calls that a person's own token is used for, up to where the database's part of a setup would be needed.
fn in_the_cloud(rig: &Rig, token: &str) {
    let step = ["--hub", "cloud", "run", "trigger-provision"];
    let set_token = ["--hub", "cloud", "keys", "set", "TRIGGER_ACCESS_TOKEN", "--stdin"];
    let ready = || {
        let case = rig.case();
        bundle_small_program(&case.folder, |args| case.psn(&[&["--hub", "cloud"], args].concat()).answer);
        case.psn_typed(&set_token, token).exits(0);
        case
    };
    let goes_on = |case: &Case<'_>, at: usize| {
        let ended = case.psn(&step).answer.exits(1);
        assert_eq!(error(&ended)["code"], "trigger-provision.secret-missing", "at {at}: {}", ended.stdout);
        assert_eq!(case.trigger_projects().len(), 1, "at {at}: it is made once");
    };
    let whole = ready();
    goes_on(&whole, 0);
    let calls = {
        // The calls of the step, not those of the look that came after it.
        let case = ready();
        case.psn(&step);
        calls_of(rig, "trigger")
    };
    assert!(calls >= 6, "{calls}");
    for nth in moments(calls, SAMPLE_CLOUD) {
        let case = ready();
        rig.http.begin();
        rig.http.revoke_at("trigger", nth);
        let ended = case.spawn(&step, &[]).answer.exits(1);
        let error = error(&ended);
        assert_eq!(error["code"], "trigger-provision.token-rejected", "at {nth}: {error}");
        // A person makes another one; the fix says how it is given.
        let fix = command(&error["fix"][0]);
        case.psn_typed(&[&["--hub", "cloud"][..], &fix].concat(), token).exits(0);
        goes_on(&case, nth);
    }
}

/// Trigger.dev may refuse to let an API choose a plan, even the free one.
#[test]
fn a_plan_that_only_a_person_can_choose_is_asked_for_with_its_address() {
    let rig = rig();
    rig.case().psn(&SETUP).answer.exits(0);
    let case = rig.case();
    case.psn(&["run", "keys"]).answer.exits(0);
    let token = case.secret("TRIGGER_ACCESS_TOKEN").expect("the local hub's token");
    rig.trigger_json("PUT", "/psn/v1/orgs/local-hub/plan", &token, &json!({ "plan": "none" }));
    rig.http.begin();
    let request = "POST /api/v1/orgs/local-hub/activate-free-plan".to_owned();
    rig.http.spoil(&Call { service: "trigger".to_owned(), request, nth: 1 }, None, Fault::Status(403));
    let ended = case.spawn(&SETUP, &[]);
    assert!(rig.http.fired(), "the free plan is tried first");
    let refused = error(&ended.answer);
    assert_eq!(refused["code"], "trigger-provision.plan-needed");
    assert!(refused["fix"][0].as_str().is_some_and(|fix| fix.ends_with("/orgs/local-hub/select-plan")), "{refused}");
    assert!(case.trigger_projects().is_empty());
    // Somebody does that; here it is the second try that may.
    let how = follow(&case, &ended, &SETUP);
    assert!(how.lost.is_none(), "{how:?}");
    assert_eq!(case.trigger_projects().len(), 1);
}

#[test]
fn a_schedule_that_somebody_switched_off_is_theirs_to_switch_on() {
    let rig = rig();
    let case = rig.case();
    case.psn(&SETUP).answer.exits(0);
    let key = case.secret("TRIGGER_SECRET_KEY").expect("the production key");
    let listed = case.psn(&["task", "schedules"]).answer.exits(0);
    let watchdog = listed.result()["schedules"].as_array().expect("a list").iter().find(|s| s["task"] == "watchdog");
    let id = watchdog.expect("its schedule")["id"].as_str().expect("an id").to_owned();
    assert!(listed.stderr.contains(&id) && listed.stderr.contains("*/15 * * * *"), "{}", listed.stderr);
    let is_active = || rig.trigger("GET", &format!("/api/v1/schedules/{id}"), &key).json()["active"].clone();

    // By hand, as in Trigger.dev's dashboard.
    rig.trigger("POST", &format!("/api/v1/schedules/{id}/deactivate"), &key);
    assert_eq!(is_active(), false);
    // The hub is in order, and whoever looks is told.
    let validated = case.psn(&["run", "validate"]).answer.exits(0);
    let again = case.psn(&SETUP).answer.exits(0);
    assert_eq!(is_active(), false, "setup leaves it as it was left");
    for answer in [&validated, &again] {
        let off = check(answer, "schedule.watchdog");
        assert_eq!((&off["status"], &off["fix"]), (&json!("warn"), &json!(["psn task schedules activate watchdog"])));
    }
    let switched = case.psn(&command(&check(&validated, "schedule.watchdog")["fix"][0])).answer.exits(0);
    assert_eq!(switched.result()["schedules"][0]["active"], true);
    assert_eq!(is_active(), true);
    assert_eq!(check(&case.psn(&["run", "validate"]).answer.exits(0), "schedule.watchdog")["status"], "pass");

    // By its own id too; and what is no schedule is told what is.
    case.psn(&["task", "schedules", "deactivate", &id]).answer.exits(0);
    assert_eq!(is_active(), false);
    let typo = case.psn(&["task", "schedules", "activate", "watchdgo"]).answer.exits(1);
    assert_eq!(error(&typo)["code"], "task.no-such-schedule");
    case.psn(&command(&error(&typo)["fix"][0])).answer.exits(0);
    assert_eq!(is_active(), true);
    let other = case.psn(&["task", "schedules", "activate", "sched_of_nothing"]).answer.exits(1);
    assert_eq!(error(&other)["code"], "task.no-such-schedule");
}

#[test]
fn validate_with_the_production_key_alone_shows_what_it_opens() {
    let rig = rig();
    let owner = rig.case();
    owner.psn(&SETUP).answer.exits(0);
    let secret = |name: &str| owner.secret(name).unwrap_or_else(|| panic!("no {name}"));
    let (token, reference, key) =
        (secret("TRIGGER_ACCESS_TOKEN"), secret("TRIGGER_PROJECT_REF"), secret("TRIGGER_SECRET_KEY"));

    let guest = rig.case();
    let cloud = |args: &[&str]| guest.psn(&[&["--hub", "cloud"], args].concat()).answer;
    bundle_small_program(&guest.folder, cloud);
    guest.psn_typed(&["--hub", "cloud", "keys", "set", "TRIGGER_SECRET_KEY", "--stdin"], &key).exits(0);
    // What this folder would deploy is deployed there, as Trigger.dev's own program tells it.
    let exported = cloud(&["task", "export", "out"]).exits(0);
    deploy(&rig, &key, exported.result());

    // The database's part is not set up here, so that validate fails; what the key opens is shown all the same.
    let validate = ["run", "validate"];
    let unnamed = cloud(&validate).exits(1);
    assert_eq!(error(&unnamed)["code"], "validate.check-failed");
    assert_eq!(check(&unnamed, "trigger.project")["status"], "skip", "a key does not say which project it is for");
    cloud(&["config", "set", "trigger.project_ref", &reference]).exits(0);
    let subset = cloud(&validate);
    for (name, status) in [
        ("key.TRIGGER_ACCESS_TOKEN", "warn"),
        ("trigger.project", "pass"),
        ("trigger.key", "pass"),
        ("deployment", "pass"),
        ("schedule.watchdog", "pass"),
    ] {
        assert_eq!(check(&subset, name)["status"], status, "{}", subset.stdout);
    }
    let said = check(&subset, "key.TRIGGER_ACCESS_TOKEN");
    assert!(said["message"].as_str().is_some_and(|m| m.contains("cannot look for projects")), "{said}");
    assert_eq!(check(&subset, "deployment")["message"].as_str().map(|m| m.contains("watchdog")), Some(true));

    // Another project's reference is not taken for this key's.
    cloud(&["config", "set", "trigger.project_ref", "proj_of_somebody_else"]).exits(0);
    let other = cloud(&validate);
    assert_eq!(check(&other, "trigger.project")["status"], "fail", "{}", other.stdout);
    cloud(&["config", "set", "trigger.project_ref", &reference]).exits(0);

    // With the token, as the warning says, there is nothing left to say of it.
    let fix = command(&said["fix"][0]);
    guest.psn_typed(&[&["--hub", "cloud"][..], &fix].concat(), &token).exits(0);
    let whole = cloud(&validate);
    for name in ["key.TRIGGER_ACCESS_TOKEN", "trigger.project", "deployment"] {
        assert_eq!(check(&whole, name)["status"], "pass", "{}", whole.stdout);
    }
}

/// A deployment of what was exported, which becomes the current one.
fn deploy(rig: &Rig, key: &str, exported: &Value) {
    let post = |path: &str, body: Value| {
        let reply = rig.trigger_json("POST", path, key, &body);
        assert!(reply.status < 300, "{path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        reply
    };
    let hash = exported["content_hash"].as_str().expect("a hash");
    let started = post(
        "/api/v1/deployments",
        json!({ "contentHash": hash, "externalId": hash, "type": "MANAGED", "isLocalBuild": true, "triggeredVia": "cli:manual" }),
    );
    let id = started.json()["id"].as_str().expect("an id").to_owned();
    let tasks = [json!({ "id": "watchdog", "filePath": "src/trigger/watchdog.ts", "triggerSource": "schedule",
        "schedule": { "cron": "*/15 * * * *", "timezone": "UTC" } })];
    post(
        &format!("/api/v1/deployments/{id}/background-workers"),
        json!({ "localOnly": true, "engine": "V2", "supportsLazyAttempts": true, "metadata": { "contentHash": hash,
            "packageVersion": "4.8.3", "cliPackageVersion": "4.8.3", "tasks": tasks, "queues": [], "sourceFiles": [] } }),
    );
    let body = json!({ "imageDigest": format!("sha256:{hash}"), "skipPromotion": false, "skipPushToRegistry": true });
    post(&format!("/api/v3/deployments/{id}/finalize"), body);
}
