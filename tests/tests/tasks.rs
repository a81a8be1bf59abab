//! `psn task`: runs now, later and again, through the binary on the local hub, with the example plugin as the task.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::Path;
use axum::http::HeaderValue;
use axum::routing::{get, post as post_route};
use chrono::{SecondsFormat, TimeDelta, Utc};
use psn_tests::{Answer, Machine};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

const EXAMPLE: &str = env!("PSN_EXAMPLE_PUBLISH_POST");
const TASK: &str = "publish-post";

fn machine() -> Machine {
    Machine::new(env!("CARGO_BIN_EXE_psn-tested"))
}

fn add_example(m: &Machine) {
    let asked = m.psn(&["plugin", "add", EXAMPLE]).exits(4);
    let consent = asked.event(|e| e["status"] == "needs_consent");
    let command = consent["needs"][0]["next"][0]["command"].as_str().expect("a command").to_owned();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    m.psn(&words).exits(0);
}

/// The command's fix, run as it stands, and what it answered.
fn first_fix(m: &Machine, answer: &Answer) -> Answer {
    let fix = answer.error()["fix"][0].as_str().expect("a fix").to_owned();
    let words: Vec<&str> = fix.split(' ').collect();
    assert_eq!(words[0], "psn", "{fix}");
    m.psn(&words[1..])
}

#[track_caller]
fn refused(m: &Machine, args: &[&str], code: i32, error: &str) -> Answer {
    let answer = m.psn(args).exits(code);
    assert_eq!(answer.error()["code"], error, "{}", answer.stdout);
    assert!(answer.error()["fix"].as_array().is_some_and(|f| !f.is_empty()));
    answer
}

fn id(answer: &Answer) -> String {
    answer.result()["id"].as_str().expect("an id").to_owned()
}

/// A post that the example can publish.
async fn stored_post(m: &Machine) -> String {
    let url = m.secret("DATABASE_URL_DIRECT").expect("setup kept the connection string");
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
    let options =
        options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(m.home().join("local-hub/tls/ca.pem"));
    let mut db = PgConnection::connect_with(&options).await.expect("the owner's connection");
    let user: String = sqlx::query_scalar("insert into users (email) values ('t@example.org') returning id::text")
        .fetch_one(&mut db)
        .await
        .expect("a user");
    sqlx::query_scalar(
        "insert into posts (user_id, platform, content, status, scheduled_at, rescue_at) \
         values ($1::uuid, 'nowhere', 'hello', 'scheduled', now(), now() + interval '1 hour') returning id::text",
    )
    .bind(&user)
    .fetch_one(&mut db)
    .await
    .expect("a post")
}

fn status(m: &Machine, run: &str) -> String {
    m.psn(&["task", "show", run]).exits(0).result()["status"].as_str().expect("a status").to_owned()
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.result()["data"]
        .as_array()
        .expect("a page")
        .iter()
        .map(|r| r["id"].as_str().unwrap_or("").to_owned())
        .collect()
}

#[test]
fn runs_are_triggered_put_off_cancelled_and_replayed() {
    let m = machine();
    refused(&m, &["task", "runs"], 1, "config.not-found");
    add_example(&m);
    m.psn(&["run", "setup"]).exits(0);
    let post = tokio::runtime::Runtime::new().expect("threads").block_on(stored_post(&m));
    let payload = json!({ "post_id": post, "attempt": 1 }).to_string();
    let trigger = ["task", "trigger", TASK, "--payload", payload.as_str()];
    let with = |more: &[&str]| m.psn(&[&trigger[..], more].concat());

    // Now, to its end: the component really ran, on the hub's database.
    let ran = with(&["--idempotency-key", "first", "--tag", "post:1", "--wait", "90"]).exits(0);
    assert!(ran.stderr.contains("COMPLETED"), "{}", ran.stderr);
    let first = id(&ran);
    let shown = m.psn(&["task", "show", &first]).exits(0);
    assert_eq!(
        shown.result()["output"],
        json!({ "post_id": post, "attempt": 1, "outcome": "published", "external_id": shown.result()["output"]["external_id"] })
    );
    assert_eq!(shown.result()["payload"]["post_id"], post);

    // The same key is the same run; nothing is started.
    let again = with(&["--idempotency-key", "first"]).exits(0);
    assert_eq!((id(&again), &again.result()["cached"]), (first.clone(), &json!(true)));
    assert!(again.stderr.contains("nothing was started"), "{}", again.stderr);

    // Later; put off; sooner.
    let delayed = with(&["--delay", "2h", "--tag", "later", "--ttl", "1h"]).exits(0);
    let later = id(&delayed);
    assert_eq!(delayed.result()["status"], "DELAYED");
    let until = |answer: &Answer| answer.result()["delayed_until"].as_str().expect("a time").to_owned();
    let before = until(&delayed);
    let moved = m.psn(&["task", "reschedule", &later, "--delay", "3h"]).exits(0);
    assert!(until(&moved) > before, "{} is not after {before}", until(&moved));
    m.psn(&["task", "reschedule", &later, "--delay", "1s"]).exits(0);
    let patience = Instant::now() + Duration::from_secs(60);
    while status(&m, &later) != "COMPLETED" {
        assert!(Instant::now() < patience, "a delayed run does not start");
        std::thread::sleep(Duration::from_millis(200));
    }
    let late = refused(&m, &["task", "reschedule", &later, "--delay", "1h"], 1, "task.not-delayed");
    first_fix(&m, &late).exits(0);

    // Cancelled before its time, it keeps its key, and can be replayed.
    let delayed = with(&["--delay", "2h", "--idempotency-key", "second"]).exits(0);
    let second = id(&delayed);
    let cancelled = m.psn(&["task", "cancel", &second]).exits(0);
    assert_eq!(cancelled.result()["status"], "CANCELED");
    m.psn(&["task", "cancel", &second]).exits(0);
    let dead_key = [&trigger[..], &["--idempotency-key", "second"]].concat();
    let replayed = first_fix(&m, &refused(&m, &dead_key, 1, "task.key-cancelled")).exits(0);
    assert_eq!(replayed.result()["replay_of"], second);
    assert_ne!(id(&replayed), second);
    refused(&m, &["task", "cancel", &first], 1, "task.ended");

    // Lists, by each filter, and page by page.
    let by = |args: &[&str]| ids(&m.psn(&[&["task", "runs"], args].concat()).exits(0));
    assert_eq!(by(&["--tag", "post:1"]), std::slice::from_ref(&first));
    assert_eq!(by(&["--status", "canceled"]), std::slice::from_ref(&second));
    assert!(by(&["--status", "FAILED"]).is_empty());
    assert!(by(&["--task", "watchdog", "--tag", "later"]).is_empty());
    assert_eq!(by(&["--from", "2020-01-01T00:00:00Z", "--to", "2021-01-01T00:00:00Z"]), Vec::<String>::new());
    let all = by(&["--task", TASK, "--since", "1d"]);
    assert_eq!(all.len(), 4, "{all:?}");
    let mut paged = Vec::new();
    let mut command = format!("psn task runs --task {TASK} --limit 3");
    loop {
        // As it is told: the filters are in it.
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let page = m.psn(&words).exits(0);
        paged.extend(ids(&page));
        match page.result()["next"].as_str() {
            Some(next) => command = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, all, "pages are the list, in order, without doubles");

    replays_that_change_something(&m, &first, &post);
    filters_by_origin(&m, &first);

    // A run that fails says so: there is no such post.
    let nobody = json!({ "post_id": "00000000-0000-4000-8000-000000000000", "attempt": 1 }).to_string();
    let failed = m.psn(&["task", "trigger", TASK, "--payload", &nobody, "--wait", "90"]).exits(1);
    assert_eq!(failed.error()["code"], "task.run-failed");

    wrong_use(&m);

    // A task that goes and comes back: each time the hub runs what the folder says.
    m.psn(&["plugin", "remove", TASK]).exits(0);
    m.psn(&["run", "setup"]).exits(0);
    refused(&m, &trigger, 1, "task.unknown");
    add_example(&m);
    m.psn(&["run", "setup"]).exits(0);
    with(&["--wait", "90"]).exits(0);
}

fn replays_that_change_something(m: &Machine, first: &str, post: &str) {
    let payload = json!({ "post_id": post, "attempt": 2 }).to_string();
    let args = ["task", "replay", first, "--payload", &payload, "--delay", "2h", "--tag", "again"];
    let replayed = m.psn(&args).exits(0);
    assert_eq!((&replayed.result()["replay_of"], &replayed.result()["status"]), (&json!(first), &json!("DELAYED")));
    let shown = m.psn(&["task", "show", &id(&replayed)]).exits(0).result().clone();
    assert_eq!((&shown["payload"]["attempt"], &shown["tags"]), (&json!(2), &json!(["again"])));
    m.psn(&["task", "cancel", &id(&replayed)]).exits(0);
    // As it was, on the deployment that it ran on, to its end.
    let version = m.psn(&["task", "show", first]).exits(0).result()["version"].as_str().expect("a version").to_owned();
    m.psn(&["task", "replay", first, "--deployment", &version, "--wait", "90"]).exits(0);
    refused(m, &["task", "replay", first, "--payload", "{not json"], 2, "usage.payload");
    refused(m, &["task", "replay", first, "--delay", "tomorrow"], 2, "usage.delay");
    refused(m, &["task", "replay", first, "--tag", "a,b"], 2, "usage.tags");
}

/// Runs by the deployment, the batch and the schedule that they come from.
fn filters_by_origin(m: &Machine, first: &str) {
    let by = |args: &[&str]| ids(&m.psn(&[&["task", "runs"], args].concat()).exits(0));
    let version = m.psn(&["task", "show", first]).exits(0).result()["version"].as_str().expect("a version").to_owned();
    assert!(by(&["--deployment", &version]).contains(&first.to_owned()));
    assert!(by(&["--deployment", "20200101.1"]).is_empty());

    let batch = tokio::runtime::Runtime::new().expect("threads").block_on(batch_of_one(m));
    assert_eq!(by(&["--batch", &batch]).len(), 1);
    assert!(by(&["--batch", "batch_of_nothing"]).is_empty());

    let schedules = m.psn(&["task", "schedules"]).exits(0).result()["schedules"].clone();
    let schedule = schedules[0]["id"].as_str().expect("an id").to_owned();
    // Its time may have come by itself.
    let before = by(&["--schedule", &schedule]).len();
    tokio::runtime::Runtime::new().expect("threads").block_on(is_due(m, &schedule));
    let patience = Instant::now() + Duration::from_secs(60);
    while by(&["--schedule", &schedule]).len() == before {
        assert!(Instant::now() < patience, "a schedule that is due makes no run");
        std::thread::sleep(Duration::from_millis(200));
    }
    for wrong in [["--batch", "run_1"], ["--schedule", "watchdog"]] {
        refused(m, &[&["task", "runs"][..], &wrong].concat(), 2, "usage.filter");
    }
}

/// The local hub's own API, with the production key.
async fn post(m: &Machine, path: &str, kind: &str, body: String) -> Value {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoints = m.psn(&["local", "up"]).exits(0).result()["endpoints"].clone();
    let base = endpoints["trigger"].as_str().expect("an address").trim_end_matches('/').to_owned();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("{base}{path}")).bearer_auth(m.secret("TRIGGER_SECRET_KEY").expect("a key"));
    let reply = request.header("content-type", kind).body(body).send().await.expect("an answer");
    assert!(reply.status().is_success(), "{path}: {}", reply.status());
    reply.json().await.expect("JSON")
}

async fn batch_of_one(m: &Machine) -> String {
    let batch = post(m, "/api/v3/batches", "application/json", json!({ "runCount": 1 }).to_string()).await;
    let id = batch["id"].as_str().expect("an id").to_owned();
    let item =
        json!({ "index": 0, "task": "watchdog", "payload": {}, "options": { "payloadType": "application/json" } });
    post(m, &format!("/api/v3/batches/{id}/items"), "application/x-ndjson", item.to_string()).await;
    id
}

/// The schedule's next tick is now, as a person with the control database in hand can have it.
async fn is_due(m: &Machine, schedule: &str) {
    let home = m.home().join("local-hub");
    let postmaster = std::fs::read_to_string(home.join("pg/_control/data/postmaster.pid")).expect("it runs");
    // Line 4 is its port, line 5 its socket's folder.
    let lines: Vec<&str> = postmaster.lines().collect();
    let password = std::fs::read_to_string(home.join("superuser.secret")).expect("a password");
    let options = sqlx::postgres::PgConnectOptions::new()
        .host(lines[4])
        .port(lines[3].parse().expect("a port"))
        .username("cloud_admin")
        .password(password.trim())
        .database("psn_hub");
    let mut db = PgConnection::connect_with(&options).await.expect("the control database");
    let updated = sqlx::query("update trigger.schedules set next_run_at = now() where id = $1")
        .bind(schedule)
        .execute(&mut db)
        .await
        .expect("an update");
    assert_eq!(updated.rows_affected(), 1);
}

/// What is typed wrong, and what a hub in another state answers.
fn wrong_use(m: &Machine) {
    refused(m, &["task", "trigger", TASK, "--payload", "{not json"], 2, "usage.payload");
    for delay in ["tomorrow", "2020-01-01T00:00:00Z", "0s"] {
        refused(m, &["task", "trigger", TASK, "--delay", delay], 2, "usage.delay");
    }
    refused(m, &["task", "trigger", TASK, "--ttl", "soon"], 2, "usage.time");
    refused(m, &["task", "trigger", TASK, "--tag", "a,b"], 2, "usage.tags");
    refused(m, &["task", "trigger", TASK, "--idempotency-key", ""], 2, "usage.key");
    refused(m, &["task", "show", "run_../../orgs"], 2, "usage.run-id");
    refused(m, &["task", "runs", "--since", "x"], 2, "usage.time");
    assert_eq!(m.psn(&["task", "runs", "--status", "DONE"]).code, Some(2));
    let none = "run_00000000000000000000000000";
    for command in ["show", "cancel", "replay"] {
        refused(m, &["task", command, none], 1, "task.no-such-run");
    }
    refused(m, &["task", "reschedule", none, "--delay", "1h"], 1, "task.no-such-run");

    // A typing error is told the nearest name, and that command works.
    let typo = refused(m, &["task", "trigger", "watchdgo"], 1, "task.unknown");
    assert_eq!(typo.error()["fix"][0], "psn task trigger watchdog");
    first_fix(m, &typo).exits(0);

    // The environment's key was replaced behind psn's back: the fix fetches the new one.
    let endpoints = m.psn(&["local", "up"]).exits(0).result()["endpoints"].clone();
    let base = endpoints["trigger"].as_str().expect("an address").trim_end_matches('/').to_owned();
    let (token, project) =
        (m.secret("TRIGGER_ACCESS_TOKEN").expect("a token"), m.secret("TRIGGER_PROJECT_REF").expect("a ref"));
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new().expect("threads").block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{base}/api/v1/projects/{project}/prod/regenerate-api-key");
        let reply = client.post(url).bearer_auth(token).send().await.expect("an answer");
        assert!(reply.status().is_success(), "{}", reply.status());
        let _: Value = reply.json().await.expect("JSON");
    });
    let rejected = refused(m, &["task", "runs"], 1, "task.key-rejected");
    first_fix(m, &rejected).exits(0);
    m.psn(&["task", "runs"]).exits(0);
    clocks_that_differ(m);
}

/// A Trigger.dev whose clock is two hours ahead. Answers its address, and counts what it was told to start or to move.
fn two_hours_ahead(told: Arc<AtomicUsize>) -> String {
    let run = |status: &'static str| {
        json!({ "id": "run_cskewed", "status": status, "taskIdentifier": "watchdog", "payload": { "post": 1 },
        "delayedUntil": "2099-01-01T00:00:00.000Z" })
    };
    let count = move || told.fetch_add(1, Ordering::SeqCst);
    let (started, moved, cancelled) = (count.clone(), count.clone(), count);
    let date = (Utc::now() + TimeDelta::hours(2)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let date = HeaderValue::try_from(date).expect("a date");
    let app = axum::Router::new()
        .route(
            "/api/v1/projects/{project}/prod/workers/current",
            get(|| async { Json(json!({ "worker": { "tasks": [{ "slug": "watchdog" }] } })) }),
        )
        .route(
            "/api/v1/tasks/watchdog/trigger",
            post_route(move || async move {
                started();
                Json(json!({ "id": "run_cskewed", "isCached": false }))
            }),
        )
        .route(
            "/api/v3/runs/{run}",
            get(move |Path(id): Path<String>| async move {
                Json(match id.as_str() {
                    // A replay of the other, at once.
                    "run_cnew" => json!({ "id": id, "status": "QUEUED", "payload": { "post": 1 } }),
                    _ => run("DELAYED"),
                })
            }),
        )
        .route("/api/v1/runs/{run}/replay", post_route(|| async { Json(json!({ "id": "run_cnew" })) }))
        .route(
            "/api/v2/runs/run_cnew/cancel",
            post_route(move || async move {
                cancelled();
                Json(json!({ "id": "run_cnew" }))
            }),
        )
        .route(
            "/api/v1/runs/{run}/reschedule",
            post_route(move || async move {
                moved();
                Json(run("DELAYED"))
            }),
        )
        .layer(axum::middleware::map_response(move |mut response: axum::response::Response| {
            response.headers_mut().insert("date", date.clone());
            async move { response }
        }));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        tokio::runtime::Runtime::new().expect("threads").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, app).await
        })
    });
    format!("http://{address}")
}

/// A date that is to come here and past there would start a task at once.
fn clocks_that_differ(m: &Machine) {
    let told = Arc::new(AtomicUsize::new(0));
    let base = two_hours_ahead(told.clone());
    std::fs::write(
        m.project().join("config/services.toml"),
        format!("trigger = \"{base}\"\ntrigger-env = \"{base}\"\n"),
    )
    .expect("a file");
    let in_an_hour = (Utc::now() + TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    for command in [&["task", "trigger", "watchdog"][..], &["task", "reschedule", "run_cskewed"][..]] {
        let before = told.load(Ordering::SeqCst);
        let args = [command, &["--delay", &in_an_hour]].concat();
        let skewed = refused(m, &args, 1, "task.clock-skew");
        assert_eq!(told.load(Ordering::SeqCst), before, "nothing was started or moved");
        first_fix(m, &skewed).exits(0);
        assert_eq!(told.load(Ordering::SeqCst), before + 1, "the fix does what was meant");
    }
    // It is one of before a replay could change anything, too: what it makes instead is stopped, and the fix does what was meant.
    let before = told.load(Ordering::SeqCst);
    let replayed = ["task", "replay", "run_cskewed", "--delay", "2h"];
    let changed = refused(m, &replayed, 1, "task.replay-changed");
    assert_eq!(told.load(Ordering::SeqCst), before + 1, "what it made was cancelled, and nothing else was done");
    assert_eq!(changed.error()["fix"][0], r#"psn task trigger watchdog --payload '{"post":1}' --delay 2h"#);
    // What is to come on both clocks, and a span, need no such care.
    m.psn(&["task", "trigger", "watchdog", "--delay", "2099-01-01T00:00:00Z"]).exits(0);
    std::fs::remove_file(m.project().join("config/services.toml")).expect("the file");
}
