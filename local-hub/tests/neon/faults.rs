//! The bad days that a test can ask for, and that nobody else can.
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{FAULTS, Hub, context, project_id, serve, uri};

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_replaced_as_often_as_asked() {
    let hub = Hub::start().await;
    let list = format!("/projects?org_id={}", hub.org);
    for (status, retry_after, html) in
        [(423, None, false), (429, Some(7), false), (503, None, false), (524, None, true)]
    {
        hub.fault(json!({"method": "GET", "path": "/projects", "times": 2,
                         "fault": {"reply": {"status": status, "retry_after": retry_after}}}))
            .await;
        for _ in 0..2 {
            let reply = hub.request(Method::GET, &list).bearer_auth(&hub.key).send().await.unwrap();
            assert_eq!(reply.status(), status);
            let header = |name: &str| reply.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(header("retry-after"), retry_after.map(|seconds: u64| seconds.to_string()));
            assert_eq!(header("content-type").unwrap().starts_with("text/html"), html);
        }
        assert_eq!(hub.get(&list).await["projects"], json!([]));
    }
    hub.fault(json!({"path": "/projects", "fault": "hide_projects"})).await;
    let created = hub.create(json!({"name": "there"})).await;
    let hidden = hub.get(&list).await;
    assert_eq!(hidden["unavailable_project_ids"], json!([project_id(&created)]));
    assert_eq!(hidden["projects"], json!([]));
    assert_eq!(hub.get(&list).await["projects"][0]["id"], project_id(&created));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_can_be_done_and_not_answered() {
    let hub = Hub::start().await;
    let wish = json!({"project": {"name": "silent", "org_id": hub.org}});
    let post = || hub.request(Method::POST, "/projects").bearer_auth(&hub.key).json(&wish).send();
    let names = async || -> usize {
        hub.get(&format!("/projects?org_id={}", hub.org)).await["projects"].as_array().unwrap().len()
    };
    hub.fault(json!({"method": "POST", "path": "/projects", "fault": {"drop": {"applied": false}}})).await;
    assert!(post().await.is_err(), "no answer");
    assert_eq!(names().await, 0);
    hub.fault(json!({"method": "POST", "path": "/projects", "fault": {"drop": {"applied": true}}})).await;
    assert!(post().await.is_err(), "no answer");
    assert_eq!(names().await, 1);
    hub.fault(json!({"method": "POST", "path": "/projects", "fault": {"reply": {"status": 524, "applied": true}}}))
        .await;
    assert_eq!(post().await.unwrap().status(), 524);
    assert_eq!(names().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_fail_and_computes_are_slow_or_gone() {
    let hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let project = project_id(&created);
    let endpoint = format!("/projects/{project}/endpoints/{}", created["endpoints"][0]["id"].as_str().unwrap());

    hub.fault(json!({"fault": {"fail_operation": {"action": "start_compute"}}})).await;
    hub.post(&format!("{endpoint}/restart"), json!({})).await;
    let last = &hub.ended(project).await[0];
    assert_eq!((&last["action"], &last["status"]), (&json!("start_compute"), &json!("failed")));
    hub.post(&format!("{endpoint}/start"), json!({})).await;
    assert_eq!(hub.ended(project).await[0]["status"], "finished");

    let mut open = hub.connect(uri(&created)).await.unwrap();
    hub.fault(json!({"compute": {"terminate": {"project": project, "next": 1}}})).await;
    let error = sqlx::query("SELECT 1").execute(&mut open).await.expect_err("it was ended");
    let code = error.as_database_error().and_then(|e| e.code().map(|c| c.into_owned()));
    assert!(matches!(code.as_deref(), Some("57P01") | None), "{error}");
    // The next one is ended too, whenever it comes; the one after that is not.
    if let Ok(mut next) = hub.connect(uri(&created)).await {
        sqlx::query("SELECT pg_sleep(10)").execute(&mut next).await.expect_err("it was ended");
    }
    hub.connect(uri(&created)).await.unwrap();

    let begun = Instant::now();
    hub.fault(json!({"compute": {"delay": {"project": project, "ms": 700}}})).await;
    hub.connect(uri(&created)).await.unwrap();
    assert!(begun.elapsed().as_millis() >= 650, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_token_gets_a_fault_and_an_ordinary_hub_has_none() {
    let hub = Hub::start().await;
    let (client, origin) = hub.client();
    let url = |origin: &str| format!("{origin}/__psn/faults");
    let wish: Value = json!({"fault": {"drop": {}}});
    for token in ["", "wrong", &hub.key] {
        let reply = client.post(url(&origin)).bearer_auth(token).json(&wish).send().await.unwrap();
        assert_eq!(reply.status(), 401);
    }
    hub.get("/auth").await;
    let listed = client.get(url(&origin)).bearer_auth(FAULTS).send().await.unwrap();
    assert_eq!(listed.json::<Value>().await.unwrap(), json!({"rules": []}));

    let mut ordinary = context(&hub.db, &hub.clusters, &hub.key);
    ordinary.test_token = None;
    let (address, server) = serve(ordinary).await;
    let reply = client.post(url(&format!("http://{address}"))).bearer_auth(FAULTS).json(&wish).send().await.unwrap();
    assert_eq!(reply.status(), 404);
    server.abort();
}
