use psn_neon_step::Noted;
use psn_plugin::testing::{Hub, ToolExpectation};

use super::*;

const NAME: &str = "psn-hub-7f3a0c1d";

fn hub() -> Hub {
    Hub::new(MANIFEST).secret("NEON_API_KEY")
}

fn expect(hub: &Hub, args: &[&str]) -> ToolExpectation {
    let all: Vec<&str> = args.iter().copied().chain(["--no-analytics", "--no-color", "--output", "json"]).collect();
    hub.expect_tool("neon", &all)
}

fn answers(hub: &Hub, args: &[&str], reply: &serde_json::Value) {
    expect(hub, args).exits(0, &reply.to_string(), "");
}

const OF_ORG: [&str; 4] = ["projects", "list", "--org-id", "org-1"];
const DELETED: [&str; 5] = ["projects", "list", "--org-id", "org-1", "--recoverable-only"];
const CREATE: [&str; 11] = [
    "projects",
    "create",
    "--no-secrets",
    "--name",
    NAME,
    "--database",
    "hub",
    "--role",
    "hub_owner",
    "--org-id",
    "org-1",
];

fn expect_connection_strings(hub: &Hub) {
    let databases = json!([{"name": "hub", "owner_name": "hub_owner"}]);
    let of = ["--project-id", "p-1", "--role-name", "hub_owner", "--database-name", "hub"];
    let uri = "postgresql://hub_owner:npg_secret@ep-1/hub";
    answers(hub, &["operations", "list", "--project-id", "p-1"], &json!([]));
    answers(hub, &["databases", "list", "--project-id", "p-1"], &databases);
    let looked: Vec<&str> = ["cs"].iter().chain(&of).chain(&["--extended"]).copied().collect();
    answers(hub, &looked, &json!({"connection_string": "[redacted]", "host": "ep-1"}));
    answers(hub, &["databases", "list", "--project-id", "p-1"], &databases);
    for more in [&["--pooled", "--extended"][..], &["--extended"]] {
        let args: Vec<&str> = ["connection-string"].iter().chain(&of).chain(more).copied().collect();
        answers(hub, &args, &json!({"connection_string": uri, "host": "ep-1", "password": "npg_secret"}));
    }
}

#[test]
fn a_project_is_created_once_with_its_intent_noted_first() {
    let hub = hub();
    answers(&hub, &["orgs", "list"], &json!([{"id": "org-1", "name": "N"}]));
    answers(&hub, &OF_ORG, &json!([{"id": "p-9", "name": format!("{NAME}-old")}]));
    answers(&hub, &DELETED, &json!([]));
    answers(&hub, &CREATE, &json!({"project": {"id": "p-1", "name": NAME}}));
    expect_connection_strings(&hub);
    let report = NeonProvisionCli::apply().unwrap();
    assert_eq!(report.message, format!("Created the Neon project {NAME}"));
    assert!(hub.has_secret("DATABASE_URL") && hub.has_secret("DATABASE_URL_DIRECT"));
    let noted: Noted = hub.noted("project").unwrap();
    assert_eq!((noted.host.as_deref(), noted.created), (Some("ep-1"), true));
    let journal = hub.journal();
    let at = |what: &str| journal.iter().position(|line| line.starts_with(what)).unwrap();
    assert!(at("put intent") < at("tool neon projects create"), "{journal:#?}");
}

#[test]
fn a_creation_that_failed_is_looked_for_and_not_repeated() {
    let hub = hub().setting("neon.org_id", "org-1");
    answers(&hub, &OF_ORG, &json!([]));
    answers(&hub, &DELETED, &json!([]));
    expect(&hub, &CREATE).exits(1, "", "ERROR: socket hang up\n");
    answers(&hub, &OF_ORG, &json!([]));
    answers(&hub, &OF_ORG, &json!([{"id": "p-1", "name": NAME}]));
    expect_connection_strings(&hub);
    assert_eq!(NeonProvisionCli::apply().unwrap().message, format!("Created the Neon project {NAME}"));
}

#[test]
fn a_question_that_failed_is_asked_again_and_a_missing_program_is_said() {
    let hub1 = hub().setting("neon.org_id", "org-1");
    for _ in 0..3 {
        expect(&hub1, &OF_ORG).exits(1, "", "ERROR: 503\n");
    }
    answers(&hub1, &OF_ORG, &json!([{"id": "p-1", "name": NAME}]));
    assert!(matches!(NeonProvisionCli::inspect().unwrap(), State::Pending(changes) if changes[0].starts_with("Adopt")));
    drop(hub1);

    let hub2 = hub().setting("neon.org_id", "org-1");
    for _ in 0..4 {
        expect(&hub2, &OF_ORG).exits(1, "", "ERROR: the Neon API rejected the API key\n");
    }
    let failure = NeonProvisionCli::inspect().unwrap_err();
    assert_eq!(failure.code, "neon-cli-failed");
    assert!(failure.message.contains("rejected the API key"), "{failure:?}");
    drop(hub2);

    let hub3 = hub().setting("neon.org_id", "org-1");
    expect(&hub3, &OF_ORG).fail("missing", "install it: npm install --global neon@6.2.3");
    assert!(NeonProvisionCli::inspect().unwrap_err().message.contains("npm install"));
}

#[test]
fn a_key_of_an_organization_needs_none_named() {
    let hub = hub();
    expect(&hub, &["orgs", "list"]).exits(1, "", "ERROR: not allowed for organization API keys\n");
    answers(&hub, &["projects", "list"], &json!({"projects": [], "shared_with_you": []}));
    answers(&hub, &["projects", "list"], &json!({"projects": [{"id": "p-1", "name": NAME}], "shared_with_you": []}));
    assert!(matches!(NeonProvisionCli::inspect().unwrap(), State::Pending(changes) if changes[0].starts_with("Adopt")));
}

#[test]
fn what_psn_made_is_deleted_and_what_was_gone_is_gone() {
    let noted = json!({"id": "p-1", "name": NAME, "created": true, "operations": [], "host": "ep-1"});
    let hub1 = hub().note("project", noted.clone());
    answers(
        &hub1,
        &["projects", "delete", "p-1"],
        &json!({"id": "p-1", "name": NAME, "recoverable_until": "2026-12-01"}),
    );
    assert!(NeonProvisionCli::destroy().unwrap().message.contains("until 2026-12-01"));
    drop(hub1);

    let hub2 = hub().note("project", noted);
    expect(&hub2, &["projects", "delete", "p-1"]).exits(1, "", "ERROR: project not found\n");
    expect(&hub2, &["projects", "get", "p-1"]).exits(1, "", "ERROR: project not found\n");
    answers(&hub2, &["orgs", "list"], &json!([{"id": "org-1", "name": "N"}]));
    answers(&hub2, &OF_ORG, &json!([]));
    assert!(NeonProvisionCli::destroy().unwrap().message.contains("was deleted before"));
}
