//! The two steps that can provide the hub's database, over Neon's API and through Neon's CLI: the same tests for both, through the
//! binary, on the local hub, on its bad days too.
use std::path::{Path, PathBuf};
use std::process::Command;

use psn_tests::admin::Admin;
use psn_tests::clients::installed;
use psn_tests::{Answer, Machine};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-for-faults-that-nobody-guesses";
const STEPS: [&str; 2] = ["neon-provision", "neon-provision-cli"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A machine on which this plugin is the step, with Neon's CLI on its PATH.
struct Hub {
    machine: Machine,
    runtime: tokio::runtime::Runtime,
}

impl Hub {
    fn new(step: &str) -> Self {
        let mut machine = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        let bin = workspace().join("tests/clients/node_modules/.bin");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        machine.env.extend([("PATH".to_owned(), path), ("PSN_TEST_FAULTS_TOKEN".to_owned(), TOKEN.to_owned())]);
        if step != "neon-provision" {
            machine.psn(&["config", "set", "steps.neon-provision", step]).exits(0);
        }
        machine.psn(&["run", "keys"]).exits(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { machine, runtime: tokio::runtime::Runtime::new().expect("threads") }
    }

    fn base(&self) -> String {
        let up = self.machine.psn(&["local", "up"]).exits(0);
        up.result()["endpoints"]["neon"].as_str().expect("an address").trim_end_matches('/').to_owned()
    }

    fn run(&self) -> Answer {
        let answer = self.machine.psn(&["run", "neon-provision"]);
        // What the guest saw is what it could have said.
        if let Some(url) = self.machine.secret("DATABASE_URL_DIRECT") {
            let password = url.split([':', '@']).nth(2).expect("a password").to_owned();
            assert!(!answer.stdout.contains(&password) && !answer.stderr.contains(&password));
        }
        answer
    }

    fn call(&self, method: reqwest::Method, url: String, token: &str, body: Option<Value>) -> (u16, Value) {
        self.runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let mut request = client.request(method, url).bearer_auth(token);
            if let Some(body) = body {
                request = request.json(&body);
            }
            let reply = request.send().await.expect("an answer");
            (reply.status().as_u16(), reply.json().await.unwrap_or(Value::Null))
        })
    }

    fn fault(&self, wish: Value) {
        let url = self.base().replace("/api/v2", "/__psn/faults");
        assert_eq!(self.call(reqwest::Method::POST, url, TOKEN, Some(wish)).0, 204);
    }

    fn org(&self) -> String {
        let key = self.machine.secret("NEON_API_KEY").expect("a key");
        let url = format!("{}/users/me/organizations", self.base());
        let (_, orgs) = self.call(reqwest::Method::GET, url, &key, None);
        orgs["organizations"][0]["id"].as_str().expect("an organisation").to_owned()
    }

    fn projects(&self) -> Vec<Value> {
        let key = self.machine.secret("NEON_API_KEY").expect("a key");
        let url = format!("{}/projects?org_id={}", self.base(), self.org());
        self.call(reqwest::Method::GET, url, &key, None).1["projects"].as_array().expect("a list").clone()
    }

    /// The server's superuser, in the database that psn uses.
    fn admin(&self) -> Admin {
        let url = self.machine.secret("DATABASE_URL_DIRECT").expect("kept");
        let (_, place) = url.rsplit_once('@').expect("an address");
        let (port, database) = place.split_once(':').and_then(|(_, rest)| rest.split_once('/')).expect("a port");
        Admin::at(&self.machine, port.parse().expect("a number"), database.split('?').next().expect("a name"))
    }

    /// Neon's own CLI, as a person uses it.
    fn neon(&self, args: &[&str]) -> Value {
        let output = Command::new(workspace().join("tests/clients/node_modules/.bin/neon"))
            .args(args)
            .args(["--no-analytics", "--no-color", "--output", "json"])
            .current_dir(self.machine.root())
            .env("CI", "1")
            .env("HOME", self.machine.root())
            .env("NEON_API_HOST", self.base())
            .env("NEON_API_KEY", self.machine.secret("NEON_API_KEY").expect("a key"))
            .output()
            .expect("the CLI starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "neon {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

#[test]
fn a_creation_that_was_not_answered_is_found_and_not_repeated() {
    if !installed() {
        return;
    }
    for step in STEPS {
        let hub = Hub::new(step);
        hub.fault(json!({"method": "POST", "path": "/projects", "fault": {"drop": {"applied": true}}}));
        let ran = hub.run().exits(0);
        assert_eq!(ran.steps(), [("neon-provision".to_owned(), "success".to_owned())], "{step}: {}", ran.stdout);
        assert_eq!(hub.projects().len(), 1, "{step}");
        assert!(hub.machine.secret("DATABASE_URL").is_some() && hub.machine.secret("DATABASE_URL_DIRECT").is_some());
        let again = hub.run().exits(0);
        assert_eq!(again.steps(), [("neon-provision".to_owned(), "skipped".to_owned())], "{step}: {}", again.stdout);

        let id = hub.machine.secret("PSN_HUB_ID").expect("a hub");
        hub.machine.psn(&["teardown", "--confirm", &id]).exits(0);
        assert_eq!(hub.projects().len(), 0, "{step}");
        for name in ["DATABASE_URL", "DATABASE_URL_DIRECT"] {
            assert_eq!(hub.machine.secret(name), None, "{step}: {name}");
        }
    }
}

#[test]
fn what_psn_made_the_cli_deletes_and_what_was_deleted_is_offered() {
    if !installed() {
        return;
    }
    for step in STEPS {
        let hub = Hub::new(step);
        // One bad answer to each kind of question, and the creation refused as busy, do not stop it for long.
        hub.fault(json!({"method": "GET", "path": "/projects", "fault": {"reply": {"status": 503}}}));
        hub.fault(json!({"method": "GET", "path": "/projects/*/operations", "fault": {"reply": {"status": 429, "retry_after": 1}}}));
        hub.run().exits(0);
        let project = hub.projects()[0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(hub.neon(&["projects", "get", &project])["id"], project.as_str());
        assert_eq!(hub.neon(&["projects", "delete", &project])["id"], project.as_str());

        let asked = hub.run().exits(4);
        let need = &asked.event(|e| e["status"] == "needs_input")["needs"][0];
        assert_eq!(need["name"], "neon.deleted_project", "{step}: {need}");
        let command = need["next"][0]["command"].as_str().expect("a command");
        assert_eq!(command, format!("psn config set neon.deleted_project recover:{project}"));
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        hub.machine.psn(&words).exits(0);
        hub.run().exits(0);
        let projects = hub.projects();
        assert_eq!((projects.len(), &projects[0]["id"]), (1, &json!(project)), "{step}");
    }
}

#[test]
fn what_the_cli_made_psn_adopts() {
    if !installed() {
        return;
    }
    for step in STEPS {
        let hub = Hub::new(step);
        let made = hub.neon(&["projects", "create", "--name", "my own", "--org-id", &hub.org()]);
        let project = made["project"]["id"].as_str().expect("an id").to_owned();
        hub.machine.psn(&["config", "set", "neon.project_id", &project]).exits(0);
        let ran = hub.run().exits(0);
        let data = &ran.event(|e| e["status"] == "success")["data"];
        assert_eq!((&data["project_id"], &data["created"]), (&json!(project), &json!(false)), "{step}");
        assert!(hub.machine.secret("DATABASE_URL_DIRECT").expect("kept").contains("/neondb?"), "{step}");
        assert_eq!(hub.projects().len(), 1, "{step}");
    }
}

/// What was wished for and is not to be had is taken out by the fix, as it stands.
#[test]
fn a_refused_creation_names_the_command_that_leads_on() {
    let hub = Hub::new("neon-provision");
    hub.machine.psn(&["config", "set", "neon.pg_version", "16"]).exits(0);
    hub.fault(json!({"method": "POST", "path": "/projects", "fault": {"reply": {"status": 422}}}));
    let refused = hub.run().exits(1);
    assert_eq!(refused.error()["code"], "neon-provision.create-refused", "{}", refused.stdout);
    let fixes: Vec<&str> = refused.error()["fix"].as_array().expect("fixes").iter().filter_map(Value::as_str).collect();
    assert_eq!(fixes[..2], ["psn config unset neon.pg_version", "psn run setup"]);
    for fix in &fixes[..2] {
        let words: Vec<&str> = fix.split(' ').skip(1).collect();
        hub.machine.psn(&words).exits(0);
    }
    assert_eq!(hub.projects().len(), 1);
    assert_eq!(hub.machine.psn(&["config", "get", "neon.pg_version"]).exits(1).error()["code"], "config.not-set");
}

/// In a project that psn did not make, others may use the password that somebody set: a person has to say that it may be made anew.
/// Neon's CLI cannot make one, so its step leads to the other.
#[test]
fn an_adopted_projects_password_is_made_anew_only_when_a_person_says_so() {
    if !installed() {
        return;
    }
    let step = "neon-provision-cli";
    let hub = Hub::new(step);
    let made = hub.neon(&["projects", "create", "--name", "my own", "--org-id", &hub.org()]);
    let project = made["project"]["id"].as_str().expect("an id").to_owned();
    hub.machine.psn(&["config", "set", "neon.project_id", &project]).exits(0);
    hub.machine.psn(&["run", "setup"]).exits(0);
    hub.admin().run(&["ALTER ROLE neondb_owner PASSWORD 'changed by somebody'"]);
    let mut codes = Vec::new();
    let mut failed = hub.machine.psn(&["run", "migrate"]).exits(1);
    // As it is printed, error after error.
    loop {
        let error = failed.error().clone();
        codes.push(error["code"].as_str().expect("a code").to_owned());
        assert!(codes.len() < 5, "{codes:?}");
        let fix = error["fix"][0].as_str().expect("a fix").to_owned();
        let words: Vec<&str> = fix.strip_prefix("psn ").expect("a command").split(' ').collect();
        let ended = hub.machine.psn(&words);
        if ended.code == Some(0) && words != ["run", "setup"] {
            failed = hub.machine.psn(&["run", "setup"]);
        } else {
            failed = ended;
        }
        if failed.code == Some(0) {
            break;
        }
    }
    // Not psn's own project; then, not what the CLI can do; then the other step has it done.
    let refused = format!("{step}.password-refused");
    assert_eq!(codes, ["hub.auth", &refused, &refused]);
    assert_eq!(hub.machine.psn(&["config", "get", "neon.reset_password"]).exits(0).result()["value"], project.as_str());
    hub.machine.psn(&["db", "verify"]).exits(0);
}

#[test]
fn an_operation_that_fails_is_an_error_and_the_next_run_goes_on() {
    let hub = Hub::new("neon-provision");
    hub.fault(json!({"fault": {"fail_operation": {"action": "start_compute"}}}));
    let failed = hub.run().exits(1);
    assert_eq!(failed.error()["code"], "neon-provision.operation-failed", "{}", failed.stdout);
    assert_eq!(hub.projects().len(), 1);
}
