//! A daemon that dies, at any point, and the next one.
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::harness::{self, Hub, branch_path, project_id, run, scalar, uri};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let mut hub = Hub::start().await;
    let kept = hub.create(json!({"name": "kept"})).await;
    let idle = hub.create(json!({"name": "idle"})).await;
    let gone = hub.create(json!({"name": "gone"})).await;
    let mut pg = hub.connect(uri(&kept)).await.unwrap();
    run(&mut pg, "CREATE TABLE t AS SELECT 42 AS x").await;
    drop(pg);
    let endpoint =
        format!("/projects/{}/endpoints/{}", project_id(&idle), idle["endpoints"][0]["id"].as_str().unwrap());
    hub.post(&format!("{endpoint}/suspend"), json!({})).await;
    hub.settle(project_id(&idle)).await;
    hub.delete(&format!("/projects/{}", project_id(&gone))).await;
    wait_stopped(&hub, project_id(&gone)).await;

    // As after `down`: nothing of the projects runs.
    for created in [&kept, &idle, &gone] {
        hub.clusters.stop(project_id(created)).await.unwrap();
    }
    let (org, before) = (hub.org.clone(), hub.get(&format!("/projects?org_id={}", hub.org)).await);
    let clusters = hub.reopened();
    assert!(hub.restart(clusters).await.is_empty());

    assert_eq!(hub.get("/users/me/organizations").await["organizations"][0]["id"], org.as_str());
    assert_eq!(hub.get(&format!("/projects?org_id={org}")).await["projects"], before["projects"]);
    hub.settle(project_id(&kept)).await;
    let mut pg = hub.connect(uri(&kept)).await.unwrap();
    assert_eq!(scalar::<i32>(&mut pg, "SELECT x FROM t").await, 42);
    assert!(hub.connect(uri(&idle)).await.is_err(), "a suspended endpoint stays suspended");
    assert!(hub.clusters.info(project_id(&gone)).is_none(), "a deleted project is not started");

    // Another key in the credentials: the old one is worth nothing.
    let old = std::mem::replace(&mut hub.key, "napi_another".into());
    let clusters = hub.clusters.clone();
    hub.restart(clusters).await;
    hub.get("/auth").await;
    assert_eq!(hub.call_as(&old, Method::GET, "/auth", None).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_done_by_the_next_daemon() {
    let mut hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let (id, branch) = (project_id(&created).to_owned(), branch_path(&created));
    let superuser = async |hub: &Hub| {
        use sqlx::ConnectOptions;
        hub.clusters.info(&id).unwrap().superuser_options("postgres").connect().await.unwrap()
    };

    // The states that a crash during a creation can leave: nothing in the cluster yet; the role but not the database; all of
    // it, but not written down; no cluster at all.
    for (cut, sql) in [
        (
            "before the role",
            "DROP DATABASE neondb WITH (FORCE)|DROP OWNED BY neondb_owner|DROP ROLE neondb_owner|DROP ROLE neon_superuser",
        ),
        ("after the role", "DROP DATABASE neondb WITH (FORCE)"),
        ("after the database", ""),
        ("before the cluster", ""),
    ] {
        let mut pg = superuser(&hub).await;
        for statement in sql.split('|').filter(|s| !s.is_empty()) {
            if statement == "DROP ROLE neon_superuser" {
                run(&mut pg, "DROP OWNED BY neon_superuser").await;
            }
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
                .execute(&mut pg)
                .await
                .unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        drop(pg);
        if cut == "before the cluster" {
            hub.clusters.remove(&id).await.unwrap();
        }
        for sql in [
            "UPDATE neon.operations SET status = CASE action WHEN 'create_timeline' THEN 'running' ELSE 'scheduling' END, ended_at = NULL
             WHERE action IN ('create_timeline', 'start_compute')",
            "UPDATE neon.roles SET pending = 'create'",
            "UPDATE neon.databases SET pending = 'create'",
            "UPDATE neon.endpoints SET state = 'init'",
        ] {
            sqlx::query(sql).execute(&hub.db).await.unwrap();
        }
        let clusters = hub.reopened();
        assert!(hub.restart(clusters).await.is_empty(), "{cut}");
        hub.settle(&id).await;
        // The port may be another one where the cluster was made anew; the password is the one that was given out.
        let now = hub.get(&format!("/projects/{id}/connection_uri?database_name=neondb&role_name=neondb_owner")).await;
        let mut pg = hub.connect(now["uri"].as_str().unwrap()).await.unwrap_or_else(|e| panic!("{cut}: {e}"));
        assert_eq!(
            scalar::<String>(&mut pg, "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'neondb'").await,
            "neondb_owner"
        );
        let password = |uri: &str| uri.split('@').next().unwrap().to_owned();
        assert_eq!(password(now["uri"].as_str().unwrap()), password(uri(&created)), "{cut}");
    }

    // Drops that were done but not written down.
    hub.post(&format!("{branch}/roles"), json!({"role": {"name": "short"}})).await;
    hub.settle(&id).await;
    sqlx::query("UPDATE neon.roles SET pending = 'drop' WHERE name = 'short'").execute(&hub.db).await.unwrap();
    sqlx::query("UPDATE neon.operations SET status = 'running' WHERE seq = (SELECT max(seq) FROM neon.operations)")
        .execute(&hub.db)
        .await
        .unwrap();
    run(&mut superuser(&hub).await, "DROP ROLE short").await;
    let clusters = hub.reopened();
    assert!(hub.restart(clusters).await.is_empty());
    let (status, _) = hub.call(Method::GET, &format!("{branch}/roles/short"), None).await;
    assert_eq!(status, 404);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM neon.roles WHERE name = 'short'").fetch_one(&hub.db).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_while_creating_leaves_one_whole_project() {
    let mut hub = Hub::start().await;
    // Later and later in the creation; whatever point is hit, the result has to be the same.
    for (round, delay) in [0, 60, 150, 300, 600].into_iter().enumerate() {
        let (db_options, key) = (hub.db.connect_options().as_ref().clone(), hub.key.clone());
        let clusters = hub.reopened();
        let (tell, told) = tokio::sync::oneshot::channel();
        // The daemon: a runtime of its own that goes away with everything that is under way in it.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let daemon = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let db = sqlx::PgPool::connect_with(db_options).await.unwrap();
                let (address, _server) = harness::serve(harness::context(&db, &clusters, &key)).await;
                tell.send(address).unwrap();
                tokio::task::spawn_blocking(move || stopped.recv()).await.unwrap().unwrap();
            });
            runtime.shutdown_background();
        });
        let address = told.await.unwrap();
        let name = format!("round-{round}");
        let body = json!({"project": {"name": name, "org_id": hub.org}});
        let request = hub.request(Method::POST, "/projects").build().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut url = request.url().clone();
        url.set_port(Some(address.port())).unwrap();
        let post = tokio::spawn(client.post(url).bearer_auth(&hub.key).json(&body).send());
        // Only once the intent is written there is something to lose.
        while sqlx::query("SELECT FROM neon.projects WHERE name = $1")
            .bind(&name)
            .fetch_optional(&hub.db)
            .await
            .unwrap()
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(delay)).await;
        stop.send(()).unwrap();
        daemon.join().unwrap();
        post.abort();

        let clusters = hub.reopened();
        let failures = hub.restart(clusters).await;
        assert!(failures.is_empty(), "{name}: {failures:?}");
        let found = hub.get(&format!("/projects?org_id={}&search={name}", hub.org)).await;
        let found = found["projects"].as_array().unwrap();
        assert_eq!(found.len(), 1, "{name}");
        let id = found[0]["id"].as_str().unwrap();
        hub.settle(id).await;
        let uri = hub.get(&format!("/projects/{id}/connection_uri?database_name=neondb&role_name=neondb_owner")).await;
        hub.connect(uri["uri"].as_str().unwrap()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let projects: Vec<String> =
        sqlx::query_scalar("SELECT id FROM neon.projects ORDER BY id").fetch_all(&hub.db).await.unwrap();
    assert_eq!(cluster_folders(&hub), projects, "each folder is a project's, and each project has one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_was_deleted_a_week_ago_is_gone_with_its_folder() {
    let mut hub = Hub::start().await;
    let created = hub.create(json!({})).await;
    let id = project_id(&created).to_owned();
    hub.delete(&format!("/projects/{id}")).await;
    wait_stopped(&hub, &id).await;
    assert_eq!(cluster_folders(&hub), [id.as_str()]);
    sqlx::query("UPDATE neon.projects SET deleted_at = deleted_at - interval '8 days', recoverable_until = recoverable_until - interval '8 days'")
        .execute(&hub.db)
        .await
        .unwrap();
    assert_eq!(hub.get(&format!("/projects?org_id={}&recoverable=true", hub.org)).await["projects"], json!([]));
    hub.refused(Method::POST, &format!("/projects/{id}/recover"), None, 404, "project not found").await;

    let clusters = hub.reopened();
    assert!(hub.restart(clusters).await.is_empty());
    assert_eq!(cluster_folders(&hub), Vec::<String>::new());
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM neon.projects").fetch_one(&hub.db).await.unwrap();
    assert_eq!(rows, 0);
}

/// The folders of projects' clusters, in order.
pub(crate) fn cluster_folders(hub: &Hub) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(hub.home.path().join("pg"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // A project's id ends with eight digits.
        .filter(|name| name.len() > 8 && name.as_bytes()[name.len() - 8..].iter().all(u8::is_ascii_digit))
        .collect();
    names.sort();
    names
}

/// Operations of a deleted project cannot be asked for any more.
async fn wait_stopped(hub: &Hub, project: &str) {
    let sql = "SELECT count(*) FROM neon.operations WHERE project_id = $1 AND status IN ('scheduling', 'running')";
    while sqlx::query_scalar::<_, i64>(sql).bind(project).fetch_one(&hub.db).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
