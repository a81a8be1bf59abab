//! The watchdog through the binary, on a local hub: real runs in each state, and a person who resolves what was parked.
use psn_tests::{Answer, Machine};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

const EXAMPLE: &str = env!("PSN_EXAMPLE_PUBLISH_POST");
const SLEEPER: &str = env!("PSN_FIXTURE_SLEEPER");
/// Runs that the local hub's engine has at work at once.
const AT_ONCE: usize = 4;
/// Seconds that a run on this machine may take to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

struct Stage {
    machine: Machine,
    runtime: tokio::runtime::Runtime,
    db: PgConnection,
}

impl Stage {
    fn set(plugins: &[&str]) -> Self {
        let machine = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        for plugin in plugins {
            let asked = machine.psn(&["plugin", "add", plugin]).exits(4);
            let consent = asked.event(|e| e["status"] == "needs_consent");
            let command = consent["needs"][0]["next"][0]["command"].as_str().expect("a command").to_owned();
            machine.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
        }
        machine.psn(&["run", "setup"]).exits(0);
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let url = machine.secret("DATABASE_URL_DIRECT").expect("setup kept it");
        let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
        let ca = machine.home().join("local-hub/tls/ca.pem");
        let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca);
        let db = runtime.block_on(PgConnection::connect_with(&options)).expect("the database");
        let mut stage = Self { machine, runtime, db };
        stage.sql("INSERT INTO users (email) VALUES ('a@example.org')");
        stage
    }

    fn sql(&mut self, sql: &str) {
        let done = self.runtime.block_on(sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.db));
        done.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn text(&mut self, sql: &str) -> String {
        let query = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql.to_owned()));
        self.runtime.block_on(query.fetch_one(&mut self.db)).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// A post whose first run was started and confirmed, and that is due.
    fn post(&mut self, run: Option<&str>, begun: bool) -> String {
        let run = run.map_or("NULL".to_owned(), |r| format!("'{r}'"));
        let begun = if begun { "now()" } else { "NULL" };
        self.text(&format!(
            "INSERT INTO posts (user_id, platform, content, status, scheduled_at, rescue_at, attempt, run_id, side_effect_at)
             VALUES ((SELECT id FROM users), 'nowhere', 'hello', 'publishing', now() - interval '1 hour', now() - interval '1 minute', 1, {run}, {begun})
             RETURNING id::text"
        ))
    }

    fn status(&mut self, post: &str) -> String {
        self.text(&format!("SELECT status FROM posts WHERE id = '{post}'"))
    }

    /// The run at Trigger.dev that the post is said to have.
    fn has_run(&mut self, post: &str, run: &str) {
        self.sql(&format!("UPDATE posts SET run_id = '{run}' WHERE id = '{post}'"));
    }

    /// A run of another task than the publishing one, as it is now.
    fn other_run(&self, task: &str, payload: &str) -> String {
        let answer = self.psn(&["task", "trigger", task, "--payload", payload]).exits(0);
        answer.result()["id"].as_str().expect("a run's id").to_owned()
    }

    /// A run of a task that is not deployed. psn refuses to start one; the vendor's own clients do not.
    fn undeployed_run(&self) -> String {
        let endpoints = self.psn(&["local", "up"]).exits(0).result()["endpoints"].clone();
        let base = endpoints["trigger"].as_str().expect("an address").trim_end_matches('/').to_owned();
        let key = self.machine.secret("TRIGGER_SECRET_KEY").expect("setup kept it");
        let _ = rustls::crypto::ring::default_provider().install_default();
        self.runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let url = format!("{base}/api/v1/tasks/publish-elsewhere/trigger");
            let sent = client.post(url).bearer_auth(key).json(&serde_json::json!({ "payload": {} })).send().await;
            let reply: Value = sent.expect("an answer").json().await.expect("JSON");
            reply["id"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
        })
    }

    fn run_becomes(&self, run: &str, status: &str) {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let shown = self.psn(&["task", "show", run]).exits(0).result()["status"].clone();
            if shown == status {
                return;
            }
            assert!(std::time::Instant::now() < until, "{run} is {shown} and not {status}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    fn becomes(&mut self, post: &str, status: &str) {
        let until = std::time::Instant::now() + PATIENCE;
        while self.status(post) != status {
            assert!(std::time::Instant::now() < until, "{post} is {} and not {status}", self.status(post));
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    fn psn(&self, args: &[&str]) -> Answer {
        self.machine.psn(args)
    }

    /// A run of the publishing task, by hand.
    fn trigger(&self, post: &str, more: &[&str]) -> String {
        let payload = format!("{{\"post_id\":\"{post}\",\"attempt\":1}}");
        let mut args = vec!["task", "trigger", "publish-post", "--payload", &payload];
        args.extend(more);
        let answer = self.psn(&args).exits(0);
        answer.result()["id"].as_str().expect("a run's id").to_owned()
    }

    fn tick(&self) -> Value {
        let answer = self.psn(&["run", "watchdog"]).exits(0);
        answer.event(|e| e["step"] == "watchdog" && e["status"] == "success")["data"].clone()
    }
}

#[test]
fn real_runs_in_each_state_and_a_person_for_the_rest() {
    let mut stage = Stage::set(&[EXAMPLE]);

    // Started by nobody, and one whose run Trigger.dev has never heard of.
    let missing = stage.post(Some("run_cmissing00000000000000"), false);
    let fresh = stage.post(None, false);
    // Kept for tomorrow, and cancelled.
    let delayed = stage.post(None, false);
    let run = stage.trigger(&delayed, &["--delay", "1d"]);
    stage.sql(&format!("UPDATE posts SET run_id = '{run}' WHERE id = '{delayed}'"));
    let cancelled = stage.post(None, false);
    let run = stage.trigger(&cancelled, &["--delay", "1d"]);
    stage.psn(&["task", "cancel", &run]).exits(0);
    stage.sql(&format!("UPDATE posts SET run_id = '{run}' WHERE id = '{cancelled}'"));
    // Published, and the run was kept from recording it.
    stage.sql("REVOKE EXECUTE ON FUNCTION psn.finish(uuid, integer, text) FROM psn_plugin_publish_post");
    let unrecorded = stage.post(None, false);
    let run = stage.trigger(&unrecorded, &["--wait", "60"]);
    stage.sql(&format!(
        "UPDATE posts SET run_id = '{run}', rescue_at = now() - interval '1 minute' WHERE id = '{unrecorded}'"
    ));
    stage.sql("GRANT EXECUTE ON FUNCTION psn.finish(uuid, integer, text) TO psn_plugin_publish_post");
    // Begun, and its run is gone.
    let ambiguous = stage.post(Some("run_cmissing00000000000001"), true);

    // First only a look.
    let explained = stage.psn(&["run", "watchdog", "--explain", &ambiguous]).exits(0);
    let data = &explained.event(|e| e["status"] == "success")["data"];
    assert!(data["would"].as_str().is_some_and(|w| w.starts_with("park it")), "{data}");
    let dry = stage.psn(&["run", "watchdog", "--dry-run"]).exits(0);
    assert_eq!(dry.event(|e| e["status"] == "success")["data"]["checked"], 6, "{}", dry.stdout);
    assert_eq!(stage.status(&ambiguous), "publishing");

    let answer = stage.psn(&["run", "watchdog"]).exits(0);
    let result = &answer.event(|e| e["step"] == "watchdog" && e["status"] == "success")["data"];
    for (key, count) in
        [("claimed", 6), ("retriggered", 2), ("rescheduled", 1), ("recorded", 1), ("parked", 2), ("notified", 2)]
    {
        assert_eq!(result[key], count, "{key} in {result}");
    }
    assert_eq!(result["gauges"]["dead_letters"], 2, "{result}");
    let told = answer.events.iter().filter(|e| e["type"] == "log" && e["fields"]["state"] == "parked").count();
    assert_eq!(told, 2, "one event for each: {}", answer.stdout);
    assert_eq!(stage.status(&unrecorded), "published");
    assert_eq!(stage.tick()["notified"], 0, "told once");
    for post in [&missing, &fresh, &delayed] {
        stage.becomes(post, "published");
    }

    // A person's part, each error leading on to what works.
    let listed = stage.psn(&["posts", "list", "--status", "parked"]).exits(0);
    assert_eq!(listed.result()["posts"].as_array().map(Vec::len), Some(2));
    let shown = stage.psn(&["posts", "show", &ambiguous]).exits(0);
    assert_eq!(shown.result()["dead_letters"][0]["state"], "parked", "{}", shown.stdout);
    let refused = stage.psn(&["posts", "retry", &ambiguous]).exits(1);
    assert_eq!(refused.error()["code"], "posts.ambiguous");
    let fix = refused.error()["fix"][1].as_str().expect("a fix").to_owned();
    assert_eq!(fix, format!("psn posts retry {ambiguous} --not-published"));
    stage.psn(&fix.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
    assert_eq!(stage.tick()["retriggered"], 1);
    stage.becomes(&ambiguous, "published");
    assert_eq!(stage.psn(&["posts", "retry", &ambiguous]).exits(1).error()["code"], "posts.published");
    stage.psn(&["posts", "fail", &cancelled, "--published-as", "seen-there"]).exits(0);
    let external = stage.text(&format!("SELECT external_id FROM posts WHERE id = '{cancelled}'"));
    assert_eq!((stage.status(&cancelled).as_str(), external.as_str()), ("published", "seen-there"));

    let parked = stage.post(None, false);
    assert_eq!(stage.psn(&["posts", "retry", &parked]).exits(1).error()["code"], "posts.not-ended");
    stage.psn(&["posts", "park", &parked, "--reason", "It rains"]).exits(0);
    assert_eq!(stage.tick()["claimed"], 0);
    stage.psn(&["posts", "fail", &parked]).exits(0);
    assert_eq!(stage.status(&parked), "failed");
    stage.psn(&["posts", "retry", &parked, "--user", "A@example.org"]).exits(0);
    assert_eq!(stage.tick()["retriggered"], 1);
    stage.becomes(&parked, "published");

    // A draft is in nobody's hands, and no fix says otherwise.
    let draft = stage.post(None, false);
    stage.sql(&format!("UPDATE posts SET status = 'draft' WHERE id = '{draft}'"));
    let answer = stage.psn(&["posts", "retry", &draft]).exits(1);
    assert_eq!(answer.error()["code"], "posts.not-scheduled");
    assert_eq!(answer.error()["fix"][0], format!("psn posts show {draft}"));

    // Wrong use.
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (args, code) in [
        (vec!["posts", "show", nobody], "posts.unknown"),
        (vec!["posts", "show", "1; drop table posts"], "posts.bad-id"),
        (vec!["posts", "list", "--user", "who@example.org"], "posts.unknown-user"),
        (vec!["posts", "park", nobody, "--reason", " "], "posts.bad-words"),
        (vec!["posts", "show", &ambiguous, "--user", nobody], "posts.unknown"),
        (vec!["run", "validate", "--dry-run"], "usage.looking"),
    ] {
        let answer = stage.psn(&args);
        assert_eq!(answer.error()["code"], code, "{}", answer.stdout);
        assert_ne!(answer.code, Some(0));
    }
    stage.sql("INSERT INTO users (email) VALUES ('b@example.org')");
    assert_eq!(stage.psn(&["posts", "list"]).exits(1).error()["code"], "posts.which-user");
    stage.psn(&["posts", "list", "--user", "b@example.org"]).exits(0);
}

/// The states in which a run is alive, or ended without a word: at work, silent, behind others, without a deployment, failed.
#[test]
fn runs_that_are_alive_are_waited_for_and_silent_ones_are_not() {
    let mut stage = Stage::set(&[EXAMPLE, SLEEPER]);

    // A run that failed for good, and one that ended well and published nothing: it was started as an attempt that is past.
    let failed = stage.post(None, false);
    let payload = r#"{"post_id":"00000000-0000-4000-8000-000000000000","attempt":1}"#;
    let run = stage.other_run("publish-post", payload);
    stage.run_becomes(&run, "FAILED");
    stage.has_run(&failed, &run);
    let unpublished = stage.post(None, false);
    let payload = format!("{{\"post_id\":\"{unpublished}\",\"attempt\":0}}");
    let run = stage.other_run("publish-post", &payload);
    stage.run_becomes(&run, "COMPLETED");
    stage.has_run(&unpublished, &run);

    // At work, silent, and silent after the platform may have been called. The rest of the engine's slots are taken too.
    let sleepers: Vec<String> = (0..AT_ONCE).map(|_| stage.other_run("sleeper", r#"{"seconds":500}"#)).collect();
    for run in &sleepers {
        stage.run_becomes(run, "EXECUTING");
    }
    let working = stage.post(Some(&sleepers[0]), true);
    let silent = stage.post(Some(&sleepers[1]), false);
    let begun = stage.post(Some(&sleepers[2]), true);
    for (post, minutes) in [(&working, 1), (&silent, 60), (&begun, 60)] {
        stage.sql(&format!(
            "INSERT INTO psn.post_attempts (post_id, attempt, run_id, alive_at)
             VALUES ('{post}', 1, (SELECT run_id FROM posts WHERE id = '{post}'), now() - interval '{minutes} minutes')"
        ));
    }
    // Behind those four, and for a task that nobody has deployed yet.
    let queued = stage.post(None, false);
    let run = stage.trigger(&queued, &[]);
    stage.run_becomes(&run, "QUEUED");
    stage.has_run(&queued, &run);
    let undeployed = stage.post(None, false);
    let run = stage.undeployed_run();
    stage.run_becomes(&run, "PENDING_VERSION");
    stage.has_run(&undeployed, &run);

    let answer = stage.psn(&["run", "watchdog"]).exits(0);
    let result = &answer.event(|e| e["step"] == "watchdog" && e["status"] == "success")["data"];
    for (key, count) in [("claimed", 7), ("retriggered", 3), ("parked", 1), ("notified", 1)] {
        assert_eq!(result[key], count, "{key} in {result}");
    }
    assert_eq!(
        result["skipped"],
        serde_json::json!({ "executing": 1, "queued": 1, "deployment-missing": 1 }),
        "{result}"
    );
    let told = answer.events.iter().filter(|e| e["type"] == "log" && e["level"] == "error").count();
    assert_eq!(told, 2, "the parked one, and the missing deployment: {}", answer.stdout);
    for (post, attempt) in
        [(&failed, 2), (&unpublished, 2), (&silent, 2), (&working, 1), (&queued, 1), (&undeployed, 1)]
    {
        let shown = stage.text(&format!("SELECT attempt || ' ' || status FROM posts WHERE id = '{post}'"));
        assert_eq!(shown, format!("{attempt} publishing"));
    }
    assert_eq!(stage.status(&begun), "parked");
    assert_eq!(stage.tick()["claimed"], 0, "each is looked at again later");

    // The slots are free again: what was started, and what waited behind, is published.
    for run in &sleepers {
        stage.psn(&["task", "cancel", run]).exits(0);
    }
    for post in [&failed, &unpublished, &silent, &queued] {
        stage.sql(&format!(
            "UPDATE posts SET rescue_at = now() - interval '1 minute' WHERE id = '{post}' AND status = 'publishing'"
        ));
        stage.becomes(post, "published");
    }
    // The one at work was cancelled by a person while its outcome was unknown.
    stage.sql(&format!("UPDATE posts SET rescue_at = now() - interval '1 minute' WHERE id = '{working}'"));
    assert_eq!(stage.tick()["parked"], 1);
}
