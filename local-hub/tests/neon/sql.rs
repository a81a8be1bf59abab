//! SQL over HTTP, as the serverless driver sends it.
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{Hub, project_id, uri};

const KEYS: [&str; 17] = [
    "message",
    "code",
    "detail",
    "hint",
    "position",
    "internalPosition",
    "internalQuery",
    "severity",
    "where",
    "table",
    "column",
    "schema",
    "dataType",
    "constraint",
    "file",
    "line",
    "routine",
];

struct Sql<'a> {
    hub: &'a Hub,
    uri: String,
}

impl Sql<'_> {
    async fn send(&self, headers: &[(&str, &str)], body: String) -> reqwest::Response {
        let (client, origin) = self.hub.client();
        let mut request = client.post(format!("{origin}/sql")).header("Neon-Connection-String", &self.uri).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    async fn ask(&self, headers: &[(&str, &str)], body: Value) -> (StatusCode, Value) {
        let reply = self.send(headers, body.to_string()).await;
        (reply.status(), reply.json().await.expect("JSON"))
    }

    /// Expects a refusal with exactly the keys that clients count on.
    async fn refused(&self, headers: &[(&str, &str)], body: Value, status: u16) -> Value {
        let (actual, reply) = self.ask(headers, body).await;
        assert_eq!(actual.as_u16(), status, "{reply:#}");
        let keys: Vec<&String> = reply.as_object().unwrap().keys().collect();
        assert_eq!(keys, KEYS);
        reply
    }
}

const DRIVER: &[(&str, &str)] = &[("Neon-Raw-Text-Output", "true"), ("Neon-Array-Mode", "true")];

#[tokio::test(flavor = "multi_thread")]
async fn statements_answer_as_the_driver_expects() {
    let hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let sql = Sql { hub: &hub, uri: uri(&created).to_owned() };

    let (status, reply) =
        sql.ask(DRIVER, json!({"query": "select $1::int as x, $2::text[] as a", "params": ["5", ["p", null]]})).await;
    assert_eq!(status, 200, "{reply:#}");
    assert_eq!(
        reply,
        json!({
            "command": "SELECT", "rowCount": 1, "rows": [["5", "{p,NULL}"]], "rowAsArray": true,
            "fields": [
                {"name": "x", "dataTypeID": 23, "tableID": 0, "columnID": 0, "dataTypeSize": 4, "dataTypeModifier": -1, "format": "text"},
                {"name": "a", "dataTypeID": 1009, "tableID": 0, "columnID": 0, "dataTypeSize": -1, "dataTypeModifier": -1, "format": "text"},
            ],
        })
    );
    let (_, reply) = sql.ask(&[], json!({"query": "select 1 as n, true as b, array[1,2] as a, 9::int8 as big"})).await;
    assert_eq!(reply["rows"], json!([{"n": 1, "b": true, "a": [1, 2], "big": "9"}]));
    let (_, reply) = sql.ask(DRIVER, json!({"query": "create table t (id int primary key, n text)"})).await;
    assert_eq!((&reply["command"], &reply["rowCount"], &reply["fields"]), (&json!("CREATE"), &Value::Null, &json!([])));
    let (_, reply) = sql.ask(DRIVER, json!({"query": "insert into t values (1, $1)", "params": [null]})).await;
    assert_eq!((&reply["command"], &reply["rowCount"]), (&json!("INSERT"), &json!(1)));

    let error = sql.refused(DRIVER, json!({"query": "insert into t values (1)"}), 400).await;
    assert_eq!(
        (&error["code"], &error["constraint"], &error["table"]),
        (&json!("23505"), &json!("t_pkey"), &json!("t"))
    );
    assert_eq!(sql.refused(DRIVER, json!({"query": "selec 1"}), 400).await["code"], "42601");
    sql.refused(DRIVER, json!({"query": "copy t from stdin"}), 400).await;
    sql.refused(DRIVER, json!({"no": "query"}), 400).await;

    // One transaction: all of it or nothing, in the mode that was asked for.
    let serializable: &[(&str, &str)] =
        &[DRIVER[0], DRIVER[1], ("Neon-Batch-Isolation-Level", "Serializable"), ("Neon-Batch-Read-Only", "true")];
    let reply = sql
        .send(
            serializable,
            json!({"queries": [{"query": "show transaction_isolation"}, {"query": "show transaction_read_only"}]})
                .to_string(),
        )
        .await;
    assert_eq!(reply.headers()["neon-batch-isolation-level"], "Serializable");
    assert_eq!(reply.headers()["neon-batch-read-only"], "true");
    let body: Value = reply.json().await.unwrap();
    assert_eq!(
        [&body["results"][0]["rows"], &body["results"][1]["rows"]],
        [&json!([["serializable"]]), &json!([["on"]])]
    );
    let batch = json!({"queries": [{"query": "insert into t values (2)"}, {"query": "insert into t values (1)"}]});
    assert_eq!(sql.refused(DRIVER, batch, 400).await["code"], "23505");
    let (_, reply) = sql.ask(DRIVER, json!({"query": "select count(*) from t"})).await;
    assert_eq!(reply["rows"], json!([["1"]]));
    sql.refused(&[("Neon-Batch-Isolation-Level", "Chaos")], json!({"queries": []}), 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_what_is_too_much() {
    let hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let good = uri(&created).to_owned();
    let password = created["roles"][0]["password"].as_str().unwrap();
    let one = json!({"query": "select 1"});
    let to = |uri: String| Sql { hub: &hub, uri };

    let wrong = to(good.replacen(password, "npg_wrong", 1)).refused(DRIVER, one.clone(), 400).await;
    assert_eq!(
        (&wrong["message"], &wrong["code"]),
        (&json!("password authentication failed for user 'neondb_owner'"), &Value::Null)
    );
    let admin = to(good.replacen("neondb_owner", "cloud_admin", 1)).refused(DRIVER, one.clone(), 400).await;
    assert_eq!(admin["message"], "password authentication failed for user 'cloud_admin'");
    assert_eq!(to(good.replace("/neondb?", "/none?")).refused(DRIVER, one.clone(), 400).await["code"], "3D000");
    for uri in [
        "nonsense",
        "http://a:b@127.0.0.1:1/c",
        "postgres://a@127.0.0.1:1/c",
        "postgres://a:b@127.0.0.1:1/c",
        "postgres://a:b@h/c",
    ] {
        to(uri.to_owned()).refused(DRIVER, one.clone(), 400).await;
    }

    let sql = to(good);
    let large = json!({"query": "select $1", "params": ["x".repeat(10 << 20)]});
    assert_eq!(sql.refused(DRIVER, large, 413).await["message"], "request is too large (max is 10485760 bytes)");
    let much = json!({"query": "select repeat('x', 1000000) from generate_series(1, 11)"});
    assert_eq!(sql.refused(DRIVER, much, 507).await["message"], "response is too large (max is 10485760 bytes)");
    assert_eq!(sql.ask(DRIVER, json!({"query": "select length($1)", "params": ["x".repeat(9 << 20)]})).await.0, 200);

    // A query wakes a suspended compute; a deleted project is not woken.
    let project = project_id(&created);
    let endpoint = format!("/projects/{project}/endpoints/{}", created["endpoints"][0]["id"].as_str().unwrap());
    hub.post(&format!("{endpoint}/suspend"), json!({})).await;
    hub.settle(project).await;
    assert_eq!(sql.ask(DRIVER, one.clone()).await.0, 200);
    hub.delete(&format!("/projects/{project}")).await;
    for _ in 0..200 {
        let (_, listed) = hub.call(Method::GET, &format!("/projects?org_id={}&recoverable=true", hub.org), None).await;
        if listed["projects"].as_array().is_some_and(|p| !p.is_empty()) && hub.clusters.info(project).is_none() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    sql.refused(DRIVER, one, 400).await;
}
