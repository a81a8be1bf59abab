//! Roles, databases and endpoints of a project, and what happens while an operation is under way.
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::harness::{Hub, branch_path, project_id, run, scalar, uri};

const LOCKED: &str = "project already has running conflicting operations, scheduling of new ones is prohibited";

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_databases_come_and_go() {
    let hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let (id, branch) = (project_id(&created).to_owned(), branch_path(&created));

    let role = hub.post(&format!("{branch}/roles"), json!({"role": {"name": "Second Owner"}})).await;
    assert_eq!(role["operations"][0]["action"], "apply_config");
    assert!(role["role"]["password"].as_str().unwrap().starts_with("npg_"));
    hub.settle(&id).await;
    let database = hub
        .post(&format!("{branch}/databases"), json!({"database": {"name": "second", "owner_name": "Second Owner"}}))
        .await;
    assert_eq!(database["database"]["owner_name"], "Second Owner");
    hub.settle(&id).await;
    assert_eq!(hub.get(&format!("{branch}/databases")).await["databases"].as_array().unwrap().len(), 2);
    assert_eq!(hub.get(&format!("{branch}/databases/second")).await["database"]["id"], database["database"]["id"]);
    assert_eq!(hub.get(&format!("{branch}/roles/Second%20Owner")).await["role"]["name"], "Second Owner");

    let uri_path = format!("/projects/{id}/connection_uri?database_name=second&role_name=Second%20Owner");
    let second = hub.get(&uri_path).await["uri"].as_str().unwrap().to_owned();
    let mut pg = hub.connect(&second).await.unwrap();
    run(&mut pg, "CREATE TABLE kept (id int); CREATE ROLE made_with_sql").await;
    assert!(
        scalar::<bool>(&mut pg, "SELECT rolbypassrls AND rolcreaterole FROM pg_roles WHERE rolname = current_user")
            .await
    );
    pg.close().await.unwrap();

    // What exists already, made here or with SQL.
    for (path, body, says) in [
        ("roles", json!({"role": {"name": "Second Owner"}}), "already exists"),
        ("roles", json!({"role": {"name": "made_with_sql"}}), "already exists"),
        ("databases", json!({"database": {"name": "second", "owner_name": "neondb_owner"}}), "already exists"),
    ] {
        hub.refused(Method::POST, &format!("{branch}/{path}"), Some(body), 409, says).await;
    }
    hub.refused(Method::POST, &format!("{branch}/roles"), Some(json!({"role": {"name": "pg_mine"}})), 400, "reserved")
        .await;
    hub.refused(
        Method::POST,
        &format!("{branch}/databases"),
        Some(json!({"database": {"name": "x", "owner_name": "nobody"}})),
        404,
        "role not found",
    )
    .await;
    hub.refused(Method::GET, &uri_path.replace("second", "third"), None, 404, "database not found").await;
    hub.refused(Method::GET, &format!("{branch}/roles/nobody/reveal_password"), None, 404, "role not found").await;
    hub.refused(Method::GET, &format!("/projects/{id}/connection_uri?role_name=x"), None, 400, "database_name").await;

    // A new password, and the old one is worth nothing.
    let reset = hub.post(&format!("{branch}/roles/Second%20Owner/reset_password"), json!({})).await;
    assert_ne!(reset["role"]["password"], role["role"]["password"]);
    hub.settle(&id).await;
    assert!(hub.connect(&second).await.is_err());
    let fresh = hub.get(&uri_path).await["uri"].as_str().unwrap().to_owned();
    hub.connect(&fresh).await.unwrap().close().await.unwrap();

    hub.refused(Method::DELETE, &format!("{branch}/roles/Second%20Owner"), None, 422, "owns the databases second")
        .await;
    // Somebody being connected does not keep a database; what a role owns elsewhere does not keep the role.
    let elsewhere = fresh.replace("/second?", "/neondb?");
    let mut pg = hub.connect(&elsewhere).await.unwrap();
    run(&mut pg, "CREATE SCHEMA left_behind; CREATE TABLE left_behind.t AS SELECT 7 AS x").await;
    let _open = hub.connect(&fresh).await.unwrap();
    hub.delete(&format!("{branch}/databases/second")).await;
    hub.settle(&id).await;
    hub.delete(&format!("{branch}/roles/Second%20Owner")).await;
    hub.settle(&id).await;
    let mut owner = hub.connect(uri(&created)).await.unwrap();
    let left: String = scalar(&mut owner, "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles WHERE rolname ~ 'Owner|_owner|made' AND rolname !~ '^pg_'").await;
    assert_eq!(left, "made_with_sql,neondb_owner");
    assert_eq!(
        scalar::<i32>(&mut owner, "SELECT x FROM left_behind.t").await,
        7,
        "what the role owned is the database owner's now"
    );
    for gone in ["roles/Second%20Owner", "databases/second"] {
        let (status, _) = hub.call(Method::DELETE, &format!("{branch}/{gone}"), None).await;
        assert_eq!(status, 204);
        let (status, _) = hub.call(Method::GET, &format!("{branch}/{gone}"), None).await;
        assert_eq!(status, 404);
    }

    let silent = hub.post(&format!("{branch}/roles"), json!({"role": {"name": "group", "no_login": true}})).await;
    assert!(silent["role"].get("password").is_none());
    assert_eq!(silent["role"]["authentication_method"], "no_login");
    hub.settle(&id).await;
    assert!(!scalar::<bool>(&mut owner, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'group'").await);
    hub.refused(Method::POST, &format!("{branch}/roles/group/reset_password"), None, 422, "cannot log in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_worked_on_takes_no_changes() {
    let hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let (id, branch) = (project_id(&created).to_owned(), branch_path(&created));
    let endpoint = created["endpoints"][0]["id"].as_str().unwrap();

    // Holds the work up where a worker begins it.
    let mut held = hub.db.acquire().await.unwrap().detach();
    lock(&mut held, &id, "pg_advisory_lock").await;
    let role = hub.post(&format!("{branch}/roles"), json!({"role": {"name": "late"}})).await;
    let operation = role["operations"][0]["id"].as_str().unwrap();
    assert_eq!(hub.get(&format!("/projects/{id}/operations/{operation}")).await["operation"]["status"], "scheduling");

    for (method, path, body) in [
        (Method::PATCH, format!("/projects/{id}"), Some(json!({"project": {"name": "x"}}))),
        (Method::DELETE, format!("/projects/{id}"), None),
        (Method::POST, format!("{branch}/roles"), Some(json!({"role": {"name": "another"}}))),
        (Method::DELETE, format!("{branch}/roles/neondb_owner"), None),
        (Method::POST, format!("{branch}/roles/neondb_owner/reset_password"), None),
        (
            Method::POST,
            format!("{branch}/databases"),
            Some(json!({"database": {"name": "x", "owner_name": "neondb_owner"}})),
        ),
        (Method::DELETE, format!("{branch}/databases/neondb"), None),
        (Method::POST, format!("/projects/{id}/endpoints/{endpoint}/start"), None),
        (Method::POST, format!("/projects/{id}/endpoints/{endpoint}/suspend"), None),
        (Method::POST, format!("/projects/{id}/endpoints/{endpoint}/restart"), None),
    ] {
        hub.refused(method, &path, body, 423, LOCKED).await;
    }
    // Reading goes on, and so does connecting.
    hub.get(&format!("/projects/{id}")).await;
    hub.get(&format!("{branch}/roles")).await;
    hub.connect(uri(&created)).await.unwrap();

    lock(&mut held, &id, "pg_advisory_unlock").await;
    hub.settle(&id).await;
    let late = hub.get(&format!("/projects/{id}/connection_uri?database_name=neondb&role_name=late")).await;
    hub.connect(late["uri"].as_str().unwrap()).await.unwrap();
    hub.post(&format!("{branch}/roles"), json!({"role": {"name": "another"}})).await;
    hub.settle(&id).await;
}

async fn lock(db: &mut PgConnection, project: &str, function: &str) {
    let sql = format!("SELECT {function}(hashtextextended($1, 0))");
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(format!("neon project {project}")).execute(db).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_suspended_started_and_restarted() {
    let hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let (id, branch) = (project_id(&created).to_owned(), branch_path(&created));
    let endpoint = format!("/projects/{id}/endpoints/{}", created["endpoints"][0]["id"].as_str().unwrap());
    let state = async || hub.get(&endpoint).await["endpoint"]["current_state"].as_str().unwrap().to_owned();
    assert_eq!(state().await, "active");
    assert_eq!(hub.post(&format!("{endpoint}/start"), json!({})).await["operations"], json!([]), "nothing to do");

    let suspended = hub.post(&format!("{endpoint}/suspend"), json!({})).await;
    assert_eq!(suspended["endpoint"]["pending_state"], "idle");
    assert_eq!(suspended["operations"][0]["action"], "suspend_compute");
    hub.settle(&id).await;
    assert_eq!(state().await, "idle");
    assert!(hub.connect(uri(&created)).await.is_err());
    assert!(hub.clusters.info(&id).is_none());

    // A change starts it first.
    let role = hub.post(&format!("{branch}/roles"), json!({"role": {"name": "waker"}})).await;
    let actions: Vec<_> =
        role["operations"].as_array().unwrap().iter().map(|o| o["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["start_compute", "apply_config"]);
    hub.settle(&id).await;
    assert_eq!(state().await, "active");
    let mut pg = hub.connect(uri(&created)).await.unwrap();
    let before: i64 = scalar(&mut pg, "SELECT extract(epoch FROM pg_postmaster_start_time())::bigint * 1000000").await;
    let pid_before = hub.clusters.info(&id).unwrap().pid;

    hub.post(&format!("{endpoint}/restart"), json!({})).await;
    hub.settle(&id).await;
    assert_eq!(state().await, "active");
    let mut pg = hub.connect(uri(&created)).await.unwrap();
    let after: i64 = scalar(&mut pg, "SELECT extract(epoch FROM pg_postmaster_start_time())::bigint * 1000000").await;
    assert!(after >= before);
    assert_ne!(hub.clusters.info(&id).unwrap().pid, pid_before, "another server answers at the same address");
}
