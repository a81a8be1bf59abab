//! Teardown removes what psn made, and nothing else, and can be killed like setup.
use psn_tests::points::{Moment, Seam};
use psn_tests::rig::{Case, Rig};
use psn_tests::sample;
use serde_json::Value;
use sqlx::Connection as _;

const SETUP: [&str; 2] = ["run", "setup"];
/// Points of a sampled run: a hub each.
const SAMPLE: usize = 5;

fn rig() -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_psn-tested"))
}

fn confirmed(case: &Case<'_>) -> Vec<String> {
    ["teardown", "--confirm", &case.secret("PSN_HUB_ID").expect("a hub")].map(str::to_owned).to_vec()
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// What must be true when it is done.
fn assert_gone(case: &Case<'_>) {
    assert_eq!((case.neon_projects().len(), case.trigger_projects().len()), (0, 0));
    for name in [
        "DATABASE_URL",
        "DATABASE_URL_DIRECT",
        "DATABASE_URL_APP",
        "DATABASE_URL_PLUGIN_WATCHDOG",
        "TRIGGER_SECRET_KEY",
        "TRIGGER_PROJECT_REF",
    ] {
        assert_eq!(case.secret(name), None, "{name}");
    }
    // A deleted database can be recovered, and is of use with this key only.
    for name in ["PSN_HUB_ID", "HUB_ENCRYPTION_KEY", "NEON_API_KEY", "TRIGGER_ACCESS_TOKEN"] {
        assert!(case.secret(name).is_some(), "{name}");
    }
}

#[test]
fn it_says_first_then_removes_and_setup_can_begin_again() {
    let rig = rig();
    let case = rig.case();
    case.psn(&SETUP).answer.exits(0);
    let project = case.neon_projects()[0]["id"].as_str().unwrap().to_owned();

    let planned = case.psn(&["teardown"]).answer.exits(3);
    let would: Vec<_> = planned.steps().into_iter().filter(|(_, status)| status == "planned").map(|(s, _)| s).collect();
    assert_eq!(would, ["trigger-provision", "neon-provision"], "in reverse order: {}", planned.stdout);
    assert_eq!((case.neon_projects().len(), case.trigger_projects().len()), (1, 1), "nothing is gone yet");
    let next = planned.result()["next"].as_str().unwrap().to_owned();
    assert_eq!(next, format!("psn {}", confirmed(&case).join(" ")));

    let other = case.psn(&["teardown", "--confirm", "00000000"]).answer.exits(1);
    assert_eq!(other.error()["code"], "teardown.other-hub");
    assert_eq!(other.error()["fix"][0], "psn teardown");
    assert_eq!(case.neon_projects().len(), 1);

    let done = case.psn(&words(&confirmed(&case))).answer.exits(0);
    let order: Vec<String> = done.steps().into_iter().map(|(step, _)| step).collect();
    assert_eq!(order, ["validate", "trigger-provision", "migrate", "neon-provision", "keys"]);
    assert_gone(&case);
    // There is nothing left to do, and that is fine.
    case.psn(&["teardown"]).answer.exits(0);
    case.psn(&words(&confirmed(&case))).answer.exits(0);

    // The deleted database is offered, and only a person's word begins with an empty one.
    let offered = case.psn(&SETUP).answer.exits(4);
    let need = &offered.event(|e| e["status"] == "needs_input")["needs"][0];
    assert_eq!(need["name"], "neon.deleted_project", "{}", offered.stdout);
    let leave = format!("leave:{project}");
    case.psn(&["config", "set", "neon.deleted_project", &leave]).answer.exits(0);
    case.psn(&SETUP).answer.exits(0);
    assert_eq!((case.neon_projects().len(), case.trigger_projects().len()), (1, 1));
}

#[test]
fn killed_at_any_point_the_same_command_goes_on() {
    let seed = sample::seed();
    let rig = rig();
    let points = {
        let case = rig.case();
        case.psn(&SETUP).answer.exits(0);
        let command = confirmed(&case);
        let (ended, points) = case.points(&words(&command));
        ended.answer.exits(0);
        assert_gone(&case);
        points
    };
    assert!(points.iter().any(|p| p.seam == Seam::Http && p.moment == Moment::Sent), "{points:?}");
    let most = sample::size(SAMPLE, points.len());
    let chosen = sample::spread(&points, |p| (p.seam, p.moment), most, seed);
    let mut deaths = 0;
    for point in &chosen {
        let case = rig.case();
        case.psn(&SETUP).answer.exits(0);
        let command = confirmed(&case);
        deaths += usize::from(case.psn_dies(&words(&command), *point).killed);
        let again = case.psn(&words(&command)).answer;
        assert_eq!(again.code, Some(0), "{point}, seed {seed}: {}{}", again.stdout, again.stderr);
        assert_gone(&case);
    }
    eprintln!("teardown: {} points, {} tried, {deaths} deaths, all survived; seed {seed}", points.len(), chosen.len());
    assert!(deaths > 0, "nothing was killed");
}

#[test]
fn what_was_adopted_is_left_alone() {
    let rig = rig();
    let case = rig.case();
    case.psn(&SETUP).answer.exits(0);
    // Another machine: the keys and the hub's id came along, psn's notes did not.
    std::fs::remove_dir_all(case.folder.join(".psn/state")).unwrap();
    case.psn(&SETUP).answer.exits(0);

    // What a plugin that is no longer installed left behind.
    let url: sqlx::postgres::PgConnectOptions = case.secret("DATABASE_URL_DIRECT").unwrap().parse().unwrap();
    let url = url.ssl_root_cert(rig.machine.home().join("local-hub/tls/ca.pem"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut owner = sqlx::PgConnection::connect_with(&url).await.unwrap();
        let left = "CREATE ROLE psn_plugin_gone; GRANT CONNECT ON DATABASE hub TO psn_plugin_gone";
        sqlx::raw_sql(left).execute(&mut owner).await.unwrap();
    });
    let hub_env = case.folder.join("config/hub.env");
    let text = std::fs::read_to_string(&hub_env).unwrap();
    std::fs::write(&hub_env, text + "DATABASE_URL_PLUGIN_GONE=postgresql://of-a-removed-plugin\n").unwrap();

    let planned = case.psn(&["teardown"]).answer;
    let neon = planned.event(|e| e["step"] == "neon-provision");
    assert!(neon["status"] == "skipped" && neon["message"].as_str().unwrap().contains("adopted"), "{neon}");
    let done = case.psn(&words(&confirmed(&case))).answer.exits(0);
    for step in ["neon-provision", "trigger-provision"] {
        let said = done.event(|e| e["step"] == step && e["status"] != "running");
        assert!(said["message"].as_str().unwrap().contains("alone"), "{said}");
    }
    assert_eq!((case.neon_projects().len(), case.trigger_projects().len()), (1, 1));
    let roles = done.event(|e| e["step"] == "migrate" && e["status"] != "running");
    for role in ["psn_app", "psn_plugin_watchdog", "psn_plugin_gone"] {
        assert!(roles["message"].as_str().unwrap().contains(role), "psn's roles go: {roles}");
    }
    assert_eq!((case.secret("DATABASE_URL"), case.secret("DATABASE_URL_PLUGIN_GONE")), (None, None));

    // And it can be taken up again.
    case.psn(&SETUP).answer.exits(0);
    let drift: Value = case.psn(&["status", "--drift"]).answer.exits(0).events.last().cloned().unwrap();
    assert_eq!(drift["status"], "success");
}
