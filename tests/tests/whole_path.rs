//! From nothing to a working hub, and a stuck post rescued: the whole path, through the binary.
use std::time::{Duration, Instant};

use psn_tests::{Answer, Machine};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, Row as _};

const EXAMPLE: &str = env!("PSN_EXAMPLE_PUBLISH_POST");

const STEPS: [&str; 5] = ["keys", "neon-provision", "migrate", "trigger-provision", "validate"];

fn all(status: &str) -> Vec<(String, String)> {
    STEPS.iter().map(|s| ((*s).to_owned(), status.to_owned())).collect()
}

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

/// The owner's own connection, as a person's SQL client would make it.
async fn database(machine: &Machine) -> PgConnection {
    let url = machine.secret("DATABASE_URL_DIRECT").expect("setup kept the connection string");
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
    let ca = machine.home().join("local-hub/tls/ca.pem");
    let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca);
    PgConnection::connect_with(&options).await.expect("the database takes its owner's password over TLS")
}

/// Adds the example plugin as a person would: look, agree, add.
fn add_example(machine: &Machine) {
    let asked = machine.psn(&["plugin", "add", EXAMPLE]).exits(4);
    let consent = asked.event(|e| e["status"] == "needs_consent");
    assert!(consent["data"]["asks"].as_array().is_some_and(|asks| !asks.is_empty()), "{consent}");
    let command = consent["needs"][0]["next"][0]["command"].as_str().expect("a command").to_owned();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    machine.psn(&words).exits(0);
}

#[test]
fn from_nothing_to_a_hub_with_a_rescued_post() {
    let m = machine();
    add_example(&m);

    let first = m.psn(&["run", "setup"]).exits(0);
    assert_eq!(first.steps(), all("success"));
    assert_numbered(&first);

    let second = m.psn(&["run", "setup"]).exits(0);
    assert_eq!(second.steps(), all("skipped"), "{}", second.stdout);

    let validated = m.psn(&["run", "validate"]).exits(0);
    let checks: Vec<&Value> = validated.events.iter().filter(|e| e["type"] == "check").collect();
    assert!(checks.len() >= 8, "{}", validated.stdout);
    for check in &checks {
        assert_ne!(check["status"], "fail", "{check}");
    }

    let status = m.psn(&["status"]).exits(0);
    assert_eq!(status.result()["set_up"], true, "{}", status.stdout);
    assert_eq!(status.result()["local"]["state"], "running");

    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut db = database(&m).await;
        let user: String = sqlx::query_scalar("insert into users (email) values ('a@example.org') returning id::text")
            .fetch_one(&mut db)
            .await
            .expect("a user");
        // Triggered a while ago, and never heard of again: there is no such run.
        let post: String = sqlx::query_scalar(
            "insert into posts (user_id, platform, content, status, scheduled_at, rescue_at) \
             values ($1::uuid, 'nowhere', 'hello', 'scheduled', now() - interval '1 hour', now() - interval '1 minute') returning id::text",
        )
        .bind(&user)
        .fetch_one(&mut db)
        .await
        .expect("a post");

        let rescued = tokio::task::block_in_place(|| m.psn(&["run", "watchdog"]).exits(0));
        let result = &rescued.event(|e| e["step"] == "watchdog" && e["status"] == "success")["data"];
        assert_eq!(result["retriggered"], 1, "{result}");

        let published = wait_for_status(&mut db, &post, "published").await;
        assert_eq!(published, ("published".to_owned(), 1));

        // Nothing is stuck any more, so nothing is done.
        let idle = tokio::task::block_in_place(|| m.psn(&["run", "watchdog"]).exits(0));
        let result = &idle.event(|e| e["step"] == "watchdog" && e["status"] == "success")["data"];
        assert_eq!(result["claimed"], 0, "{result}");
    });

    let down = m.psn(&["local", "down"]).exits(0);
    assert_eq!(down.result()["stopped"], true);
    let status = m.psn(&["local", "status"]).exits(0);
    assert_eq!(status.result()["state"], "stopped");

    // What was made outlives the services: the next run starts them and finds everything.
    let third = m.psn(&["run", "setup"]).exits(0);
    assert_eq!(third.steps(), all("skipped"), "{}", third.stdout);
}

/// Waits for a post's status; answers it with the attempt.
async fn wait_for_status(db: &mut PgConnection, post: &str, status: &str) -> (String, i32) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let row = sqlx::query("select status, attempt from posts where id = $1::uuid")
            .bind(post)
            .fetch_one(&mut *db)
            .await
            .expect("the post");
        let seen: (String, i32) = (row.get(0), row.get(1));
        if seen.0 == status || Instant::now() > until {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `[2/5] Creating database…`, with index and total to match.
#[track_caller]
fn assert_numbered(answer: &Answer) {
    for (index, step) in (1u64..).zip(STEPS) {
        let event = answer.event(|e| e["type"] == "step" && e["step"] == step);
        assert_eq!((event["index"].as_u64(), event["total"].as_u64()), (Some(index), Some(5)), "{event}");
    }
    let running = answer.event(|e| e["step"] == "neon-provision" && e["status"] == "running");
    assert_eq!(running["message"], "[2/5] Creating database…");
    assert_eq!(answer.events.first().expect("events")["type"], "version");
    assert_eq!(answer.events.last().expect("events")["type"], "summary");
}

#[test]
fn killed_between_any_two_steps_setup_goes_on_to_the_same_hub() {
    let m = machine();
    // Killed after each step in turn, and once in the middle of the step that makes things.
    for step in &STEPS[..4] {
        m.kill_at(&["run", "setup"], |e| e["step"] == *step && (e["status"] == "success" || e["status"] == "skipped"));
    }
    m.psn(&["run", "setup"]).exits(0);
    let second = m.psn(&["run", "setup"]).exits(0);
    assert_eq!(second.steps(), all("skipped"), "{}", second.stdout);
    assert_eq!(projects(&m), 1);
}

#[test]
fn killed_while_a_step_works_setup_makes_nothing_twice() {
    let m = machine();
    for step in ["neon-provision", "migrate", "trigger-provision"] {
        m.kill_at(&["run", "setup"], |e| e["step"] == step && e["status"] == "running");
    }
    m.psn(&["run", "setup"]).exits(0);
    let second = m.psn(&["run", "setup"]).exits(0);
    assert_eq!(second.steps(), all("skipped"), "{}", second.stdout);
    assert_eq!(projects(&m), 1);
}

/// How many Neon projects the local hub has, asked over its own API.
fn projects(machine: &Machine) -> usize {
    let endpoints = machine.psn(&["local", "up"]).exits(0).result()["endpoints"].clone();
    let base = endpoints["neon"].as_str().expect("an address").trim_end_matches('/').to_owned();
    let key = machine.secret("NEON_API_KEY").expect("a key");
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new().expect("threads").block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let get = async |path: String| -> Value {
            let reply = client.get(format!("{base}{path}")).bearer_auth(&key).send().await.expect("an answer");
            assert!(reply.status().is_success(), "{path}: {}", reply.status());
            reply.json().await.expect("JSON")
        };
        let orgs = get("/users/me/organizations".to_owned()).await;
        let org = orgs["organizations"][0]["id"].as_str().expect("an organisation").to_owned();
        get(format!("/projects?org_id={org}&limit=100")).await["projects"].as_array().expect("a list").len()
    })
}
