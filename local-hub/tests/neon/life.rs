//! The whole life of a project, as a client lives it.
use std::str::FromStr;

use reqwest::Method;
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::harness::{Hub, branch_path, project_id, run, scalar, uri};

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_created_used_deleted_and_recovered() {
    let hub = Hub::start().await;
    let created = hub
        .create(json!({"name": "psn-hub", "region_id": "aws-eu-central-1", "branch": {"database_name": "hub", "role_name": "hub_owner"}}))
        .await;
    let id = project_id(&created).to_owned();
    assert_eq!(created["project"]["name"], "psn-hub");
    assert_eq!(created["project"]["region_id"], "aws-eu-central-1");
    assert_eq!(created["branch"]["name"], "main");
    assert_eq!(created["branch"]["default"], true);
    assert_eq!(created["databases"][0]["name"], "hub");
    let actions: Vec<_> =
        created["operations"].as_array().unwrap().iter().map(|o| o["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["create_timeline", "start_compute"]);

    let mut owner = hub.connect(uri(&created)).await.unwrap();
    assert_eq!(scalar::<String>(&mut owner, "SELECT current_user::text").await, "hub_owner");
    assert_eq!(scalar::<String>(&mut owner, "SELECT current_database()::text").await, "hub");
    let major: i32 = scalar(&mut owner, "SELECT current_setting('server_version_num')::int / 10000").await;
    let project = hub.get(&format!("/projects/{id}")).await["project"].clone();
    assert_eq!(project["pg_version"], major, "the project says which Postgres it really has");
    let attributes: String = scalar(
        &mut owner,
        "SELECT concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication, rolcanlogin,
                pg_has_role(oid, 'neon_superuser', 'member')) FROM pg_roles WHERE rolname = current_user",
    )
    .await;
    assert_eq!(attributes, "f t t t t t t t");
    assert_eq!(
        scalar::<String>(&mut owner, "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'hub'").await,
        "hub_owner"
    );

    // The owner makes the app's role and a table under row-level security, which holds for the app and not for the owner.
    run(
        &mut owner,
        "CREATE ROLE hub_app LOGIN PASSWORD 'Correct-horse-42-battery';
         CREATE TABLE posts (id int PRIMARY KEY, tenant text NOT NULL);
         ALTER TABLE posts ENABLE ROW LEVEL SECURITY;
         ALTER TABLE posts FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON posts USING (tenant = current_setting('app.tenant', true));
         GRANT SELECT ON posts TO hub_app;
         INSERT INTO posts VALUES (1, 'a'), (2, 'b')",
    )
    .await;
    assert_eq!(scalar::<i64>(&mut owner, "SELECT count(*) FROM posts").await, 2);
    let app_uri = uri(&created).replace(&credentials(uri(&created)), "hub_app:Correct-horse-42-battery");
    let mut app = hub.connect(&app_uri).await.unwrap();
    assert!(
        !scalar::<bool>(&mut app, "SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user").await
    );
    assert_eq!(scalar::<i64>(&mut app, "SELECT count(*) FROM posts").await, 0);
    run(&mut app, "SET app.tenant = 'a'").await;
    assert_eq!(scalar::<i64>(&mut app, "SELECT count(*) FROM posts").await, 1);
    drop((owner, app));

    // Without TLS nobody gets in.
    let plain = PgConnectOptions::from_str(uri(&created)).unwrap().ssl_mode(PgSslMode::Disable);
    assert!(plain.connect().await.is_err());

    // Renamed: the id and the address stay.
    let (_, renamed) =
        hub.call(Method::PATCH, &format!("/projects/{id}"), Some(json!({"project": {"name": "renamed"}}))).await;
    assert_eq!(renamed["project"]["name"], "renamed");
    assert_eq!(hub.get(&format!("/projects/{id}")).await["project"]["name"], "renamed");

    hub.delete(&format!("/projects/{id}")).await;
    hub.refused(Method::GET, &format!("/projects/{id}"), None, 404, "project not found").await;
    let listed = hub.get(&format!("/projects?org_id={}", hub.org)).await;
    assert_eq!(listed["projects"], json!([]));
    let deleted = hub.get(&format!("/projects?org_id={}&recoverable=true", hub.org)).await;
    assert_eq!(deleted["projects"][0]["id"], id.as_str());
    assert!(deleted["projects"][0]["recoverable_until"].is_string());

    // While its cluster is being stopped, the recovery has to wait; Neon's clients send it again.
    let recovered = loop {
        let (status, body) = hub.call(Method::POST, &format!("/projects/{id}/recover"), None).await;
        if status != 423 {
            break body;
        }
        assert!(body["message"].as_str().unwrap().starts_with("project already has running conflicting operations"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(recovered["project"]["id"], id.as_str());
    assert_eq!(recovered["branches"][0]["id"], created["branch"]["id"]);
    assert!(
        hub.get(&format!("/projects?org_id={}&recoverable=true", hub.org)).await["projects"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    hub.settle(&id).await;
    let mut owner = hub.connect(uri(&created)).await.unwrap();
    assert_eq!(
        scalar::<i64>(&mut owner, "SELECT count(*) FROM posts").await,
        2,
        "the data and the connection string are as before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_apart_even_with_the_same_names() {
    let hub = Hub::start().await;
    // At once: the answers must not mix.
    let (a, b) = tokio::join!(hub.create(json!({"name": "twin"})), hub.create(json!({"name": "twin"})));
    assert_ne!(project_id(&a), project_id(&b));
    for created in [&a, &b] {
        assert_eq!(created["roles"][0]["name"], "neondb_owner");
        assert_eq!(created["project"]["name"], "twin");
    }
    let (password_a, password_b) = (credentials(uri(&a)), credentials(uri(&b)));
    assert_ne!(password_a, password_b);

    let mut owner = hub.connect(uri(&a)).await.unwrap();
    run(&mut owner, "CREATE ROLE visitor LOGIN PASSWORD 'Correct-horse-42-battery'").await;
    hub.connect(uri(&b)).await.unwrap();
    // The owner of one with its password, and a role that only one has, at the other.
    for credentials in [password_a.as_str(), "visitor:Correct-horse-42-battery"] {
        let stranger = uri(&b).replace(&password_b, credentials);
        let error = hub.connect(&stranger).await.expect_err("a stranger got in");
        let code = error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned());
        assert_eq!(code.as_deref(), Some("28P01"), "{error}");
    }

    // What was revealed is what works, and the pooled string too.
    let role = hub.get(&format!("{}/roles/neondb_owner/reveal_password", branch_path(&b))).await;
    assert_eq!(format!("neondb_owner:{}", role["password"].as_str().unwrap()), password_b);
    let path = format!("/projects/{}/connection_uri?database_name=neondb&role_name=neondb_owner", project_id(&b));
    assert_eq!(hub.get(&path).await["uri"], uri(&b));
    let pooled = hub.get(&format!("{path}&pooled=true")).await["uri"].as_str().unwrap().to_owned();
    hub.connect(&pooled).await.unwrap();
}

/// `role:password` of a connection URI.
fn credentials(uri: &str) -> String {
    uri.strip_prefix("postgresql://")
        .and_then(|rest| rest.split_once('@'))
        .expect("credentials in the URI")
        .0
        .to_owned()
}
