use futures_util::future::join_all;

use crate::support::Hub;

#[tokio::test]
async fn a_credential_that_asks_too_much_is_told_when_to_come_back() {
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let first = hub.get("/api/v1/timezones-that-do-not-exist", "tr_prod_other").await;
    assert_eq!(first.headers["x-ratelimit-limit"], "750");
    assert_eq!(first.headers["x-ratelimit-remaining"], "749");
    let refused = hub
        .eventually("the limit", async || {
            let replies = join_all((0..50).map(|_| hub.get("/api/v1/nothing", &hub.token))).await;
            replies.into_iter().find(|r| r.status.as_u16() == 429)
        })
        .await;
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    assert_eq!(refused.headers["x-ratelimit-remaining"], "0");
    let body = refused.json();
    assert_eq!((body["title"].as_str(), body["status"].as_u64()), (Some("Rate Limit Exceeded"), Some(429)));
    assert_eq!((body["limit"].as_i64(), body["remaining"].as_i64()), (Some(750), Some(-1)));
    let reset = body["reset"].as_u64().unwrap();
    assert!(reset > 1_700_000_000_000, "unix milliseconds: {reset}");
    assert_eq!(refused.headers["x-ratelimit-reset"], reset.to_string());
    assert_eq!(body["error"], body["detail"]);
    // Others are not made to wait, and deploying has a limit of its own.
    hub.get("/api/v1/runs", &project.prod).await.ok("ListRunResponse");
    let deploying = hub.get("/api/v1/deployments", &hub.token).await;
    assert_eq!(deploying.headers["x-ratelimit-limit"], "1500");
}
