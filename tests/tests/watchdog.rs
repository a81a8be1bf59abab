//! The watchdog through the binary, on a local hub: real runs in each state, and a person who resolves what was parked.
use psn_tests::{Answer, Machine};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

const EXAMPLE: &str = env!("PSN_EXAMPLE_PUBLISH_POST");
/// Seconds that a run on this machine may take to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

struct Stage {
    machine: Machine,
    runtime: tokio::runtime::Runtime,
    db: PgConnection,
}

impl Stage {
    fn set() -> Self {
        let machine = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
        let asked = machine.psn(&["plugin", "add", EXAMPLE]).exits(4);
        let consent = asked.event(|e| e["status"] == "needs_consent");
        let command = consent["needs"][0]["next"][0]["command"].as_str().expect("a command").to_owned();
        machine.psn(&command.split(' ').skip(1).collect::<Vec<_>>()).exits(0);
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
    let mut stage = Stage::set();

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
