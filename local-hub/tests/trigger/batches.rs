use serde_json::{Value, json};

use crate::support::{Hub, assert_schema};

const NDJSON: &str = "application/x-ndjson";

fn lines(items: &[Value]) -> String {
    items.iter().inspect(|i| assert_schema("BatchItemNDJSON", i)).map(|i| format!("{i}\n")).collect()
}

#[tokio::test]
async fn a_batch_is_made_filled_and_finished() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let key = project.prod.as_str();
    hub.deploy(key, &[json!("ok")]).await;
    let new = json!({ "runCount": 3, "taskIdentifiers": ["ok"], "idempotencyKey": "b1" });
    assert_schema("CreateBatchRequestBody", &new);
    let made = hub.post("/api/v3/batches", key, new.clone()).await;
    assert_eq!(made.status.as_u16(), 202);
    let made = made.ok("CreateBatchResponse");
    let again = hub.post("/api/v3/batches", key, new).await.ok("CreateBatchResponse");
    assert_eq!((&again["id"], &made["isCached"], &again["isCached"]), (&made["id"], &json!(false), &json!(true)));
    let id = made["id"].as_str().unwrap();
    let path = format!("/api/v3/batches/{id}/items");
    let item = |index: u32, options: Value| json!({ "index": index, "task": "ok", "payload": { "n": index }, "options": options });

    let first = hub.raw(&path, key, NDJSON, lines(&[item(0, json!({})), item(1, json!({}))])).await;
    let first = first.ok("StreamBatchItemsResponse");
    assert_eq!((&first["itemsAccepted"], &first["sealed"]), (&json!(2), &json!(false)));
    // The connection broke and the client sends all of it again; one item is refused for itself.
    let eleven: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    let items = [item(0, json!({})), item(1, json!({})), item(2, json!({ "tags": eleven }))];
    let second = hub.raw(&path, key, NDJSON, lines(&items)).await.ok("StreamBatchItemsResponse");
    assert_eq!(
        (&second["itemsAccepted"], &second["itemsDeduplicated"], &second["sealed"]),
        (&json!(1), &json!(2), &json!(true))
    );
    let shown = hub
        .eventually("the batch", async || {
            let shown = hub.get(&format!("/api/v2/batches/{id}"), key).await.ok("RetrieveBatchV2Response");
            (shown["status"] != "PROCESSING").then_some(shown)
        })
        .await;
    assert_eq!((&shown["status"], shown["runs"].as_array().unwrap().len()), (&json!("PARTIAL_FAILED"), 2));
    assert_eq!(shown["processing"]["errors"][0]["index"], 2);
    let listed = hub.get(&format!("/api/v1/runs?filter%5Bbatch%5D={id}"), key).await.ok("ListRunResponse");
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let run = hub.run(key, shown["runs"][0].as_str().unwrap()).await;
    assert_eq!((&run["batchId"], &run["triggerFunction"]), (&json!(id), &json!("batchTrigger")));

    hub.post(&path, key, json!({}))
        .await
        .refused(415, "Content-Type must be application/x-ndjson or application/ndjson");
    let broken = hub.raw(&path, key, NDJSON, "{\"index\":0,\"task\":\"ok\"}\n{".to_owned()).await;
    assert_eq!(broken.status.as_u16(), 400);
    let outside = hub.raw(&path, key, NDJSON, lines(&[item(3, json!({}))])).await;
    assert_eq!(outside.status.as_u16(), 422);
    hub.raw("/api/v3/batches/batch_none/items", key, NDJSON, String::new())
        .await
        .refused(422, "Batch batch_none not found");
    hub.post("/api/v3/batches", key, json!({ "runCount": 0 }))
        .await
        .refused(400, "runCount must be a positive integer");
    hub.post("/api/v3/batches", key, json!({ "runCount": 1_001 }))
        .await
        .refused(400, "Batch runCount of 1001 exceeds maximum allowed of 1000.");
    assert_eq!(hub.runner.calls().len(), 2);
}
