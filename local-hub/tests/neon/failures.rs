//! What cannot be done is said, and leaves nothing behind.
use psn_local_hub::neon::OperationError;
use psn_local_hub::pg::{Clusters, PgOptions};
use reqwest::Method;
use serde_json::json;

use super::harness::{Hub, project_id, uri};

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_cannot_be_made_is_not_there() {
    let mut hub = Hub::start().await;
    // The same Home, with a folder that holds no Postgres.
    let empty = tempfile::tempdir().unwrap();
    let options = PgOptions { bin: Some(empty.path().to_owned()), ..PgOptions::default() };
    let clusters = Clusters::open(hub.home.path(), options).unwrap();
    hub.restart(clusters).await;

    let wish = json!({"project": {"name": "impossible", "org_id": hub.org}});
    hub.refused(Method::POST, "/projects", Some(wish), 503, "local.postgres-unusable").await;
    assert_eq!(hub.get(&format!("/projects?org_id={}", hub.org)).await["projects"], json!([]));
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM neon.projects").fetch_one(&hub.db).await.unwrap();
    assert_eq!(rows, 0);
    assert_eq!(super::resume::cluster_folders(&hub), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_start_says_why_and_is_started_by_the_next_daemon() {
    let mut hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let id = project_id(&created).to_owned();
    hub.clusters.stop(&id).await.unwrap();
    // Somebody else listens where the project's clients look.
    let address = created["connection_uris"][0]["connection_parameters"]["host"].as_str().unwrap();
    let stranger = std::net::TcpListener::bind(address).unwrap();

    let clusters = hub.reopened();
    let failures = hub.restart(clusters).await;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].project_id, id);
    let OperationError::Cluster { source } = &failures[0].error else { panic!("{:?}", failures[0]) };
    assert_eq!(source.code(), "local.port-taken");
    let operations = hub.ended(&id).await;
    assert_eq!(operations[0]["status"], "failed");
    assert!(operations[0]["error"].as_str().unwrap().starts_with("local.port-taken: "), "{}", operations[0]);
    assert_eq!(operations[0]["failures_count"], 3);
    let endpoint = format!("/projects/{id}/endpoints/{}", created["endpoints"][0]["id"].as_str().unwrap());
    assert_eq!(hub.get(&endpoint).await["endpoint"]["current_state"], "idle");

    // Still taken: a start that was asked for fails as well, and is what the next daemon does.
    hub.post(&format!("{endpoint}/start"), json!({})).await;
    assert_eq!(hub.ended(&id).await[0]["status"], "failed");
    drop(stranger);
    let clusters = hub.reopened();
    assert!(hub.restart(clusters).await.is_empty());
    assert_eq!(hub.get(&endpoint).await["endpoint"]["current_state"], "active");
    hub.connect(uri(&created)).await.unwrap();
}
