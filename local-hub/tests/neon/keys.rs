//! What each kind of key may do, and how keys come and go.
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{Hub, project_id};

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_and_revoked() {
    let hub = Hub::start().await;
    let made = hub.post("/api_keys", json!({"key_name": "laptop"})).await;
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_i64().unwrap());
    let (status, auth) = hub.call_as(key, Method::GET, "/auth", None).await;
    assert_eq!((status.as_u16(), &auth["auth_method"]), (200, &json!("api_key_user")));
    let listed = hub.get("/api_keys").await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "the hub's own key is not listed: {listed:#}");
    assert_eq!((&listed[0]["name"], listed[0]["last_used_at"].is_string()), (&json!("laptop"), true));
    assert!(!listed.to_string().contains(key));

    assert_eq!(hub.delete(&format!("/api_keys/{id}")).await["revoked"], true);
    assert_eq!(hub.call_as(key, Method::GET, "/auth", None).await.0, 401);
    hub.refused(Method::DELETE, &format!("/api_keys/{id}"), None, 404, "API key not found").await;
    hub.refused(Method::POST, "/api_keys", Some(json!({"key_name": ""})), 400, "1 to 64").await;
    hub.refused(Method::POST, "/api_keys", Some(json!({"key_name": "x".repeat(65)})), 400, "1 to 64").await;
    assert_eq!(hub.get(&format!("/organizations/{}", hub.org)).await["id"], hub.org);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_project_sees_and_changes_that_one_alone() {
    let hub = Hub::start().await;
    let (ours, other) = (hub.create(json!({"name": "ours"})).await, hub.create(json!({"name": "other"})).await);
    let (ours, other) = (project_id(&ours).to_owned(), project_id(&other).to_owned());
    let keys = format!("/organizations/{}/api_keys", hub.org);
    let made = hub.post(&keys, json!({"key_name": "ci", "project_id": ours})).await;
    assert_eq!(made["project_id"], ours);
    let key = made["key"].as_str().unwrap();
    let call = async |method: Method, path: &str, body: Option<Value>| hub.call_as(key, method, path, body).await;

    assert_eq!(call(Method::GET, "/auth", None).await.1["auth_method"], "api_key_org");
    let (_, list) = call(Method::GET, "/projects", None).await;
    let ids: Vec<&str> = list["projects"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [ours.as_str()]);
    assert_eq!(call(Method::GET, &format!("/projects/{ours}/endpoints"), None).await.0, 200);
    assert_eq!(call(Method::GET, &format!("/projects/{other}"), None).await.0, 404);
    for (method, path, body) in [
        (Method::POST, "/projects".to_owned(), Some(json!({"project": {}}))),
        (Method::DELETE, format!("/projects/{ours}"), None),
        (Method::POST, keys.clone(), Some(json!({"key_name": "more"}))),
        (Method::GET, "/users/me".to_owned(), None),
    ] {
        assert_eq!(call(method.clone(), &path, body).await.0, 403, "{method} {path}");
    }
    hub.refused(Method::POST, &keys, Some(json!({"key_name": "x", "project_id": "none-1"})), 404, "project not found")
        .await;
    let org_wide = hub.post(&keys, json!({"key_name": "all"})).await;
    let (_, list) = hub.call_as(org_wide["key"].as_str().unwrap(), Method::GET, "/projects", None).await;
    assert_eq!(list["projects"].as_array().unwrap().len(), 2);
    let listed = hub.get(&keys).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed:#}");
}
