//! trigger-provision against a local hub whose organisation, plan and tokens are switched: what people of Trigger.dev's free plan, of
//! several organisations, or without a token of their own meet.
use std::path::PathBuf;

use psn_tests::cloud::bundle_small_program;
use psn_tests::edge::request;
use psn_tests::{Answer, Machine};
use serde_json::{Value, json};

const STEP: [&str; 2] = ["run", "trigger-provision"];

/// One local hub, its account, and as many folders as there are people.
struct Account {
    m: Machine,
    port: u16,
    token: String,
}

impl Account {
    fn new() -> Self {
        let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        m.psn(&["run", "keys"]).exits(0);
        let up = m.psn(&["local", "up"]).exits(0);
        let url = up.result()["endpoints"]["trigger"].as_str().unwrap().trim_end_matches('/').to_owned();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        let token = m.secret("TRIGGER_ACCESS_TOKEN").expect("the local hub's token");
        Self { m, port, token }
    }

    #[track_caller]
    fn api(&self, method: &str, path: &str, key: &str, body: &Value) -> Value {
        let headers = [
            ("authorization".to_owned(), format!("Bearer {key}")),
            ("content-type".to_owned(), "application/json".to_owned()),
        ];
        let reply = request(self.port, method, path, &headers, body.to_string().as_bytes()).expect("an answer");
        assert!(reply.status < 300, "{method} {path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        reply.json()
    }

    fn plan(&self, plan: &str) {
        self.api("PUT", "/psn/v1/orgs/local-hub/plan", &self.token, &json!({ "plan": plan }));
    }

    /// When the watchdog runs by itself.
    fn cron(&self) -> String {
        let key = self.m.secret("TRIGGER_SECRET_KEY").expect("the production key");
        let schedules = self.api("GET", "/api/v1/schedules", &key, &json!({}));
        let watchdog =
            schedules["data"].as_array().unwrap().iter().find(|s| s["task"] == "watchdog").expect("a schedule");
        watchdog["generator"]["expression"].as_str().unwrap().to_owned()
    }

    fn folder(&self, name: &str) -> Folder<'_> {
        let path = self.m.root().join(name);
        std::fs::create_dir_all(path.join("config")).unwrap();
        Folder { account: self, path, kind: "local" }
    }

    /// A folder of the cloud's, whose Trigger.dev is this hub; what it would deploy is small.
    fn cloud_folder(&self, name: &str) -> Folder<'_> {
        let folder = Folder { kind: "cloud", ..self.folder(name) };
        let base = format!("http://127.0.0.1:{}", self.port);
        std::fs::write(
            folder.path.join("config/services.toml"),
            format!("neon = \"{base}\"\ntrigger = \"{base}\"\ntrigger-env = \"{base}\"\n"),
        )
        .unwrap();
        bundle_small_program(&folder.path, |args| folder.psn(args));
        folder
    }
}

struct Folder<'a> {
    account: &'a Account,
    path: PathBuf,
    kind: &'static str,
}

impl Folder<'_> {
    fn words<'w>(&'w self, args: &[&'w str]) -> Vec<&'w str> {
        [&["--project", self.path.to_str().unwrap(), "--hub", self.kind][..], args].concat()
    }

    fn psn(&self, args: &[&str]) -> Answer {
        self.account.m.psn(&self.words(args))
    }

    fn key(&self, name: &str, value: &str) {
        self.account.m.psn_with_input(&self.words(&["keys", "set", name, "--stdin"]), value).exits(0);
    }

    /// The step fails in this way.
    #[track_caller]
    fn refused(&self, code: &str) -> Answer {
        let answer = self.psn(&STEP).exits(1);
        assert_eq!(answer.error()["code"], format!("trigger-provision.{code}"), "{}", answer.stdout);
        answer
    }

    /// It comes as far as the database's part of the setup, which nobody ran here.
    #[track_caller]
    fn goes_on(&self) {
        self.refused("secret-missing");
    }

    /// Does what the first fix says, to the letter.
    #[track_caller]
    fn follow(&self, answer: &Answer) {
        let fix = answer.error()["fix"][0].as_str().unwrap();
        let command = fix.strip_prefix("psn ").unwrap_or_else(|| panic!("{fix}"));
        self.psn(&command.split(' ').collect::<Vec<_>>()).exits(0);
    }
}

#[test]
fn a_free_plan_gets_hourly_schedules_until_there_is_a_better_one() {
    let account = Account::new();
    let m = &account.m;
    // No plan at all: the free one is chosen, and then refuses a quarter of an hour.
    account.plan("none");
    let setup = m.psn(&["run", "setup"]).exits(0);
    setup.event(|e| e["type"] == "log" && e["level"] == "warn" && e["message"].as_str().unwrap().contains("0 * * * *"));
    assert_eq!(account.cron(), "0 * * * *");
    let again = m.psn(&["run", "setup"]).exits(0);
    assert!(again.steps().iter().all(|(_, status)| status == "skipped"), "{}", again.stdout);
    let warned = again.event(|e| e["type"] == "check" && e["check"] == "schedules" && e["status"] == "warn");
    // Whoever does what it says first has it so, and is not warned again.
    let fix = warned["fix"][0].as_str().unwrap().to_owned();
    m.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    let agreed = m.psn(&["run", "setup"]).exits(0);
    agreed.event(|e| e["type"] == "check" && e["check"] == "schedules" && e["status"] == "pass");
    assert!(agreed.steps().iter().all(|(_, status)| status == "skipped"), "{}", agreed.stdout);

    m.psn(&["config", "set", "trigger.schedules", "exact"]).exits(0);
    let refused = m.psn(&STEP).exits(1);
    assert_eq!(refused.error()["code"], "trigger-provision.schedule-plan-limit", "{}", refused.stdout);
    assert_eq!(account.cron(), "0 * * * *", "what was deployed goes on");
    let fix = refused.error()["fix"][0].as_str().unwrap().to_owned();
    m.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    m.psn(&STEP).exits(0);

    account.plan("unlimited");
    m.psn(&["config", "set", "trigger.schedules", "exact"]).exits(0);
    m.psn(&STEP).exits(0);
    assert_eq!(account.cron(), "*/15 * * * *");
}

#[test]
fn organisations_projects_and_tokens_that_do_not_fit_say_what_would() {
    let account = Account::new();
    let create = |n: usize| {
        let body = json!({ "name": format!("other {n}") });
        account.api("POST", "/api/v1/orgs/local-hub/projects", &account.token, &body)
    };

    let stranger = account.folder("stranger");
    stranger.psn(&["config", "set", "trigger.org", "initech"]).exits(0);
    let unknown = stranger.refused("organisation-not-found");
    stranger.follow(&unknown);
    stranger.goes_on();

    // As many projects as the free plan allows.
    let existing: Vec<Value> = (0..9).map(create).collect();
    account.plan("free");
    let late = account.folder("late");
    let full = late.refused("project-limit");
    let reference = existing[0]["externalRef"].as_str().unwrap();
    late.follow(&full);
    late.goes_on();
    let adopted = std::fs::read_to_string(late.path.join("config/psn.toml")).unwrap();
    assert!(full.error()["message"].as_str().unwrap().contains("other 0"), "a person sees which is which");
    assert!(adopted.contains("proj_"), "{adopted}");
    account.plan("unlimited");

    // A reference of nothing: the projects that there are are one command each.
    let lost = account.folder("lost");
    lost.psn(&["config", "set", "trigger.project_ref", "proj_of_nobody"]).exits(0);
    let unknown = lost.refused("project-not-found");
    let choices = unknown.error()["fix"].as_array().unwrap();
    assert!(choices.iter().any(|fix| *fix == format!("psn config set trigger.project_ref {reference}")), "{choices:?}");
    lost.follow(&unknown);
    lost.goes_on();

    // Nobody guesses who pays.
    account.api("POST", "/psn/v1/orgs", &account.token, &json!({ "slug": "globex", "title": "Globex" }));
    let member = account.folder("member");
    let asked = member.psn(&STEP).exits(4);
    let needs = asked.event(|e| e["status"] == "needs_input")["needs"][0].clone();
    assert_eq!((&needs["name"], &needs["choices"]), (&json!("trigger.org"), &json!(["local-hub", "globex"])));
    member.psn(&["config", "set", "trigger.org", "globex"]).exits(0);
    member.goes_on();
    let theirs = account.api("GET", "/api/v1/orgs/globex/projects", &account.token, &json!({}));
    assert_eq!(theirs.as_array().unwrap().len(), 1, "made where the person said");

    // An organisation's token opens a project and cannot look for one.
    let tokens = "/psn/v1/orgs/local-hub/tokens";
    let issued = account.api("POST", tokens, &account.token, &json!({}));
    let robot = account.cloud_folder("robot");
    robot.key("TRIGGER_ACCESS_TOKEN", issued["token"].as_str().unwrap());
    let asked = robot.psn(&STEP).exits(4);
    assert_eq!(asked.event(|e| e["status"] == "needs_input")["needs"][0]["name"], "trigger.project_ref");
    robot.psn(&["config", "set", "trigger.project_ref", theirs[0]["externalRef"].as_str().unwrap()]).exits(0);
    // It cannot list what there is: without the reference that is none, it asks again.
    let unseen = robot.refused("project-not-found");
    robot.follow(&unseen);
    robot.psn(&STEP).exits(4);
    robot.psn(&["config", "set", "trigger.project_ref", reference]).exits(0);
    robot.goes_on();
    let prod = format!("/api/v1/projects/{reference}/prod");
    let key = account.api("GET", &prod, &account.token, &json!({}))["apiKey"].as_str().unwrap().to_owned();
    assert_eq!(psn_tests::secret_in(&robot.path, "TRIGGER_SECRET_KEY").as_deref(), Some(key.as_str()));
    account.api("DELETE", tokens, &account.token, &json!({}));
    let revoked = robot.refused("token-rejected");
    assert_eq!(revoked.error()["fix"][0], "psn keys set TRIGGER_ACCESS_TOKEN --stdin");
    robot.key("TRIGGER_ACCESS_TOKEN", &account.token);
    robot.goes_on();

    // The production key alone: the environment is set with it, and that it cannot deploy is said.
    let guest = account.cloud_folder("guest");
    guest.key("TRIGGER_SECRET_KEY", &key);
    let asked = guest.psn(&STEP).exits(4);
    assert_eq!(asked.event(|e| e["status"] == "needs_input")["needs"][0]["name"], "trigger.project_ref");
    guest.psn(&["config", "set", "trigger.project_ref", reference]).exits(0);
    guest.key("DATABASE_URL_PLUGIN_WATCHDOG", "postgresql://psn_plugin_watchdog:secret@db.example/hub");
    guest.refused("token-missing");
    let variables = account.api("GET", &format!("/api/v1/projects/{reference}/envvars/prod"), &key, &json!({}));
    let watchdog = variables.as_array().unwrap().iter().find(|v| v["name"] == "DATABASE_URL_PLUGIN_WATCHDOG");
    assert_eq!(watchdog.expect("it was set")["value"], "<redacted>", "as a secret");
    guest.psn(&["config", "set", "trigger.project_ref", "proj_of_somebody_else"]).exits(0);
    let other = guest.psn(&STEP).exits(1);
    assert!(!other.error()["fix"].as_array().unwrap().is_empty(), "{}", other.stdout);
}
