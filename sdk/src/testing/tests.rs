use super::{manifest::route_matches, *};
use crate::{db, http, log, params, secrets, state, tool, vault};
use serde_json::json;

const MANIFEST: &str = r#"
[[http]]
service = "s"
base = "https://example.org"
auth = { bearer = "KEY" }
routes = ["GET /things", "GET /things/{thing}", "POST /things"]
capture = { "GET /things/{thing}" = { "/direct" = "URL_DIRECT" }, "GET /things/{thing}?pooled=true" = { "/direct" = "URL_POOLED" } }
inject = { "POST /things" = { "/k" = ["PLUGIN_*"] } }

[db]
"posts" = { select = ["id"] }

[[tool]]
name = "t"
args = [["go", "{}"]]

[settings]
names = ["a.b"]

[vault]
contexts = ["oauth:*"]
"#;

#[test]
fn calls_come_in_order_and_requests_are_checked() {
    let hub = Hub::new(MANIFEST).secret("PLUGIN_A");
    hub.expect("s", "GET /things").query("page[size]", "1").no_query("cursor").header("x-v", "1").reply(200, json!([]));
    hub.expect_sql(&["SELECT id"]).params(params![1]).rows(&["id"], vec![vec![db::Value::Int(1)]]);
    hub.expect("s", "POST /things").body(json!({"k": "{{secret:PLUGIN_A}}"})).idempotent().reply(201, json!({}));

    let service = http::service("s");
    service.get("/things").query("page[size]", 1).header("X-V", "1").send().unwrap();
    assert_eq!(db::query("SELECT\n  id FROM posts WHERE id = $1", params![1]).unwrap().len(), 1);
    service.post("/things").json(&json!({"k": secrets::reference("PLUGIN_A")})).idempotent().send().unwrap();
    state::put("done", &true).unwrap();
    assert_eq!(
        hub.journal(),
        ["GET s /things?page%5Bsize%5D=1", "sql SELECT id FROM posts WHERE id = $1", "POST s /things", "put done"]
    );
}

#[test]
fn captured_values_stay_out_of_the_reply_and_become_secrets() {
    let hub = Hub::new(MANIFEST);
    let thing = json!({"direct": "postgres://u:p@h/d"});
    hub.expect("s", "GET /things/7").times(2).reply(200, thing);
    for (request, name) in [
        (http::service("s").get("/things/7"), "URL_DIRECT"),
        (http::service("s").get("/things/7").query("pooled", true), "URL_POOLED"),
    ] {
        assert!(!secrets::exists(name));
        let reply = request.send().unwrap();
        assert!(secrets::exists(name));
        assert_eq!(reply.json::<Json>().unwrap()["direct"], secrets::reference(name));
    }
}

#[test]
fn busy_services_are_asked_again_for_a_minute() {
    let hub = Hub::new(MANIFEST);
    hub.expect("s", "GET /things").reply_raw(429, &[("Retry-After", "3")], "");
    hub.expect("s", "GET /things").reply(423, json!({}));
    hub.expect("s", "GET /things").reply(200, json!([]));
    assert!(http::service("s").get("/things").retry_when_busy().send().unwrap().is_success());
    assert_eq!(hub.slept_ms(), 3_000 + 1_000);

    hub.expect("s", "GET /things").times(10).reply(503, json!({"message": "still away"}));
    let reply = http::service("s").get("/things").retry_when_busy().send().unwrap();
    assert_eq!(reply.refusal().to_string(), "`s` answered 503 to GET /things: still away");
    assert_eq!(hub.slept_ms(), 4_000 + 55_500);
}

#[test]
fn what_the_manifest_lacks_fails_the_test_with_the_missing_line() {
    let cases: [(&str, fn()); 7] = [
        ("routes of service \"s\" lack a line for \"DELETE /things/7\"", || {
            drop(http::service("s").delete("/things/7").send())
        }),
        ("no [[http]] with service = \"x\"", || drop(http::service("x").get("/things").send())),
        ("inject of service \"s\" lacks \"POST /things\" = { \"\" = [\"OTHER\"] }", || {
            drop(http::service("s").post("/things").json(&secrets::reference("OTHER")).send());
        }),
        ("[secrets] names lacks \"OTHER\"", || drop(secrets::fingerprint("OTHER"))),
        ("[settings] names lacks \"c.d\"", || drop(crate::context::setting("c.d"))),
        ("[[tool]] \"t\" lacks the arguments", || drop(tool::run("t", &["go", "--force"]))),
        ("[vault] contexts lacks \"keys:1\"", || drop(vault::seal(b"x", "keys:1"))),
    ];
    for (expected, call) in cases {
        let hub = Hub::new(MANIFEST);
        let panic = std::panic::catch_unwind(call).expect_err(expected);
        let message = panic.downcast_ref::<String>().expect("a message");
        assert!(message.contains(expected), "{message}");
        drop(hub);
    }
}

#[test]
#[should_panic(expected = "expected calls that were not made: GET /things at s")]
fn calls_that_were_not_made_fail_the_test() {
    let hub = Hub::new(MANIFEST);
    hub.expect("s", "GET /things").reply(200, json!([]));
}

#[test]
fn transactions_roll_back_unless_committed_and_cursors_end() {
    let hub = Hub::new(MANIFEST);
    let rows = || vec![vec![db::Value::Int(1)], vec![db::Value::Int(2)], vec![db::Value::Int(3)]];
    hub.expect_sql(&["UPDATE posts"]).affected(1);
    hub.expect_sql(&["SELECT id"]).rows(&["id"], rows());
    let transaction = db::begin_as(&db::Uuid::from("u-1")).unwrap();
    assert_eq!(transaction.execute("UPDATE posts SET id = 1", params![]).unwrap(), 1);
    transaction.commit().unwrap();
    drop(db::begin().unwrap());
    let ids: Result<Vec<i64>, _> =
        db::open_cursor("SELECT id FROM posts", params![], 2).unwrap().map(|row| row?.get("id")).collect();
    assert_eq!(ids.unwrap(), [1, 2, 3]);
    assert_eq!(
        hub.journal(),
        ["begin as u-1", "sql UPDATE posts SET id = 1", "commit", "begin", "rollback", "sql SELECT id FROM posts"]
    );
}

#[test]
fn logs_are_recorded_with_their_fields() {
    let hub = Hub::new(MANIFEST);
    log::warn!("no task {}", "x"; task = "publish", tries = 2);
    log::info!("plain");
    let lines = hub.logs();
    assert_eq!((lines[0].level, lines[0].message.as_str()), (Level::Warn, "no task x"));
    assert_eq!(lines[0].fields, [("task".to_owned(), "publish".to_owned()), ("tries".to_owned(), "2".to_owned())]);
    assert_eq!(lines[1].fields, []);
}

#[test]
fn the_vault_binds_its_context() {
    let _hub = Hub::new(MANIFEST);
    let sealed = vault::seal(b"token", "oauth:x").unwrap();
    assert_eq!(vault::open(&sealed, "oauth:x").unwrap(), b"token");
    assert!(vault::open(&sealed, "oauth:y").is_err());
}

#[test]
fn routes() {
    for (route, line, expected) in [
        ("GET /a/{b}", "GET /a/1", true),
        ("GET /a/{b}", "POST /a/1", false),
        ("GET /a/{b}", "GET /a/", false),
        ("GET /a/{b}", "GET /a/1/c", false),
        ("GET /a/{b}/c", "GET /a/1/c", true),
    ] {
        assert_eq!(route_matches(route, line), expected, "{route} {line}");
    }
}
