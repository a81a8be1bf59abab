use serde_json::{Value, json};

use crate::support::Hub;

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn lists_have_a_window_filters_and_pages() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("ok"), json!("refuse")]).await;
    let mut runs = Vec::new();
    for n in 0..7 {
        let task = if n == 3 { "refuse" } else { "ok" };
        let tag = if n % 2 == 0 { "even" } else { "odd" };
        let (id, _) = hub.trigger(key, task, json!({ "tags": [tag], "test": n == 6 })).await;
        hub.reaches(key, &id, &["COMPLETED", "FAILED"]).await;
        runs.insert(0, id);
    }
    let list = async |query: &str| hub.get(&format!("/api/v1/runs?{query}"), key).await.ok("ListRunResponse");
    let all = list("").await;
    assert_eq!(ids(&all), runs, "newest first");
    assert_eq!((&all["pagination"], &all["data"][0]["env"]["name"]), (&json!({}), &json!("prod")));

    // Forward, and back again.
    let first = list("page%5Bsize%5D=3").await;
    assert_eq!(
        (ids(&first), first["pagination"].get("previous")),
        (runs[..3].iter().map(String::as_str).collect(), None)
    );
    let next = first["pagination"]["next"].as_str().unwrap();
    let second = list(&format!("page%5Bsize%5D=3&page%5Bafter%5D={next}")).await;
    assert_eq!(ids(&second), runs[3..6]);
    let next = second["pagination"]["next"].as_str().unwrap();
    let last = list(&format!("page%5Bsize%5D=3&page%5Bafter%5D={next}")).await;
    assert_eq!((ids(&last), last["pagination"].get("next")), (vec![runs[6].as_str()], None));
    let previous = last["pagination"]["previous"].as_str().unwrap();
    let back = list(&format!("page%5Bsize%5D=3&page%5Bbefore%5D={previous}")).await;
    assert_eq!(ids(&back), runs[3..6]);
    let previous = back["pagination"]["previous"].as_str().unwrap();
    let back = list(&format!("page%5Bsize%5D=3&page%5Bbefore%5D={previous}")).await;
    assert_eq!(
        (ids(&back), back["pagination"].get("previous")),
        (runs[..3].iter().map(String::as_str).collect(), None)
    );

    for (query, expected) in [
        ("filter%5Bstatus%5D=FAILED", vec![3]),
        ("filter%5Bstatus%5D=FAILED,COMPLETED&filter%5Btag%5D=odd", vec![1, 3, 5]),
        ("filter%5BtaskIdentifier%5D=refuse", vec![3]),
        ("filter%5BtaskIdentifier%5D=refuse,ok&filter%5BisTest%5D=true", vec![0]),
        ("filter%5Bqueue%5D=task/refuse", vec![3]),
        ("filter%5Bstatus%5D=WAITING", vec![]),
        ("filter%5Bregion%5D=us-east-1", vec![]),
        ("filter%5Bschedule%5D=sched_none", vec![]),
    ] {
        let expected: Vec<&str> = expected.into_iter().map(|n: usize| runs[n].as_str()).collect();
        assert_eq!(ids(&list(query).await), expected, "{query}");
    }

    // What is older than a week is seen only by those who say so.
    hub.sql("UPDATE trigger.runs SET created_at = now() - interval '8 days' WHERE id = $1", &runs[6]).await;
    assert_eq!(list("").await["data"].as_array().unwrap().len(), 6);
    for query in [
        "filter%5BcreatedAt%5D%5Bperiod%5D=30d",
        "filter%5BcreatedAt%5D%5Bfrom%5D=0",
        "filter%5BcreatedAt%5D%5Bfrom%5D=2001-01-01",
    ] {
        assert_eq!(list(query).await["data"].as_array().unwrap().len(), 7, "{query}");
    }
    assert_eq!(ids(&list("filter%5BcreatedAt%5D%5Bto%5D=2001-01-01").await), Vec::<&str>::new());

    for query in ["filter%5Bstatus%5D=DONE", "page%5Bsize%5D=101", "filter%5BcreatedAt%5D%5Bfrom%5D=yesterday"] {
        hub.get(&format!("/api/v1/runs?{query}"), key).await.refused(400, "Query Error");
    }
    hub.get("/api/v1/runs?page%5Bafter%5D=run_none", key).await.refused(400, "Invalid cursor");

    // With the access token, by project.
    let path = format!("/api/v1/projects/{}/runs", project.reference);
    let reply = hub.get(&format!("{path}?filter%5Benv%5D=prod"), &hub.token).await.ok("ListRunResponse");
    assert_eq!(reply["data"].as_array().unwrap().len(), 6);
    hub.get(&path, &hub.token).await.refused(400, "No environment found");
    assert_eq!(ids(&hub.get("/api/v1/runs", &project.dev).await.ok("ListRunResponse")), Vec::<&str>::new());
}

#[tokio::test]
async fn names_of_states_depend_on_the_api_version() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    let slow = json!({ "maxAttempts": 2, "minTimeoutInMs": 3_600_000, "maxTimeoutInMs": 3_600_000 });
    hub.deploy(key, &[json!({ "id": "fail", "retry": slow })]).await;
    let (id, _) = hub.trigger(key, "fail", json!({})).await;
    hub.eventually("the retry", async || (hub.run(key, &id).await["error"].is_object()).then_some(())).await;
    assert_eq!(hub.status(key, &id).await, "EXECUTING");
    let old = hub.send_with(reqwest::Method::GET, &format!("/api/v3/runs/{id}"), key, None, &[]).await.json();
    assert_eq!((&old["status"], &old["isExecuting"]), (&json!("REATTEMPTING"), &json!(true)));
    let found = hub.get("/api/v1/runs?filter%5Bstatus%5D=REATTEMPTING", key).await.ok("ListRunResponse");
    assert_eq!(ids(&found), [id.as_str()]);
}
