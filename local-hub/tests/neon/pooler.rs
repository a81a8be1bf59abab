//! The pooled port: a real pgbouncer in transaction mode, where this machine has one.
use psn_local_hub::pg::{Clusters, PgOptions, PoolerChoice};
use serde_json::json;
use sqlx::Connection as _;

use super::harness::{Hub, project_id, run, scalar, uri};

fn has_pgbouncer() -> bool {
    let there = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"]
        .iter()
        .any(|file| std::path::Path::new(file).is_file());
    if !there {
        assert!(std::env::var_os("PSN_REQUIRE_CLIENTS").is_none(), "CI has pgbouncer");
        eprintln!("SKIPPED: there is no pgbouncer");
    }
    there
}

async fn pooled_uri(hub: &Hub, project: &str) -> String {
    let path = format!("/projects/{project}/connection_uri?database_name=hub&role_name=hub_owner&pooled=true");
    hub.get(&path).await["uri"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pooled_port_pools_by_transaction_and_knows_every_role() {
    if !has_pgbouncer() {
        return;
    }
    let hub = Hub::start().await;
    let created = hub.create(json!({"branch": {"database_name": "hub", "role_name": "hub_owner"}})).await;
    let project = project_id(&created).to_owned();
    let pooled = pooled_uri(&hub, &project).await;
    let parameters = &created["connection_uris"][0]["connection_parameters"];
    assert_ne!(parameters["host"], parameters["pooler_host"]);
    assert!(pooled.contains(parameters["pooler_host"].as_str().unwrap()), "{parameters}");
    assert!(pooled.contains("sslmode=require") && !pooled.contains("channel_binding"));

    // TLS with the hub's own certificate, the password checked: as on the direct port.
    let mut a = hub.connect(&pooled).await.unwrap();
    let wrong = pooled.replacen(parameters["password"].as_str().unwrap(), "npg_wrong", 1);
    hub.connect(&wrong).await.expect_err("a wrong password gets in");
    hub.connect(&pooled.replace("hub_owner", "cloud_admin")).await.expect_err("the superuser gets in");
    let plain: sqlx::postgres::PgConnectOptions = pooled.parse().unwrap();
    let plain = plain.ssl_mode(sqlx::postgres::PgSslMode::Disable);
    sqlx::PgConnection::connect_with(&plain).await.expect_err("it answers without TLS");

    // What is set in a session is not there in the next transaction of another client: the backend is shared.
    run(&mut a, "SET application_name = 'left behind'").await;
    let backend_a: i32 = scalar(&mut a, "SELECT pg_backend_pid()").await;
    let mut b = hub.connect(&pooled).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut a).await.unwrap();
    sqlx::raw_sql("SELECT 1").execute(&mut a).await.unwrap();
    let backend_b: i32 = scalar_text(&mut b, "SELECT pg_backend_pid()").await;
    sqlx::raw_sql("COMMIT").execute(&mut a).await.unwrap();
    assert_ne!(backend_a, backend_b, "a transaction has its backend to itself");
    let mut backends = std::collections::BTreeSet::from([backend_a, backend_b]);
    for _ in 0..6 {
        let mut client = hub.connect(&pooled).await.unwrap();
        backends.insert(scalar_text(&mut client, "SELECT pg_backend_pid()").await);
    }
    assert_eq!(backends.len(), 2, "eight clients, two backends");

    // A role made with SQL logs in through it too.
    let mut direct = hub.connect(uri(&created)).await.unwrap();
    run(&mut direct, "CREATE ROLE hub_app LOGIN PASSWORD 'a-Long-enough-Passw0rd'").await;
    let app = pooled.replacen("hub_owner", "hub_app", 1).replacen(
        parameters["password"].as_str().unwrap(),
        "a-Long-enough-Passw0rd",
        1,
    );
    let mut app = hub.connect(&app).await.unwrap();
    let who: String = {
        use sqlx::Row as _;
        sqlx::raw_sql("SELECT current_user::text").fetch_one(&mut app).await.unwrap().get(0)
    };
    assert_eq!(who, "hub_app");
}

async fn scalar_text(pg: &mut sqlx::PgConnection, sql: &'static str) -> i32 {
    use sqlx::Row as _;
    // The simple protocol: a prepared statement would not survive the pooler.
    let row = sqlx::raw_sql(sql).fetch_one(pg).await.unwrap();
    row.try_get::<i32, _>(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pooler_outlives_a_restart_and_comes_back_when_killed() {
    if !has_pgbouncer() {
        return;
    }
    let mut hub = Hub::start().await;
    let created = hub.create(json!({"branch": {"database_name": "hub", "role_name": "hub_owner"}})).await;
    let project = project_id(&created).to_owned();
    let pooled = pooled_uri(&hub, &project).await;
    hub.connect(&pooled).await.unwrap();

    // A suspended compute takes its pooler with it, and has it back on the same port.
    let endpoint = format!("/projects/{project}/endpoints/{}", created["endpoints"][0]["id"].as_str().unwrap());
    hub.post(&format!("{endpoint}/suspend"), json!({})).await;
    hub.settle(&project).await;
    hub.connect(&pooled).await.expect_err("it is suspended");
    hub.post(&format!("{endpoint}/start"), json!({})).await;
    hub.settle(&project).await;
    assert_eq!(pooled_uri(&hub, &project).await, pooled);
    hub.connect(&pooled).await.unwrap();

    // Without pgbouncer, pooled is direct, and says so; an address that was given out before leads there too.
    let options = PgOptions { pooler: PoolerChoice::Off, ..PgOptions::default() };
    let clusters = Clusters::open(hub.home.path(), options).unwrap();
    hub.restart(clusters).await;
    let unpooled = pooled_uri(&hub, &project).await;
    assert_eq!(unpooled, uri(&created));
    let mut direct = hub.connect(&pooled).await.unwrap();
    run(&mut direct, "SET application_name = 'mine'").await;
    hub.connect(&pooled).await.unwrap();
    let name: String = scalar(&mut direct, "SELECT current_setting('application_name')").await;
    assert_eq!(name, "mine", "a session of its own");
    // As the end of its process does.
    hub.clusters.close();
    let port = sqlx::postgres::PgConnectOptions::get_port(&pooled.parse().unwrap());
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        tokio::task::yield_now().await;
    }
    let clusters = hub.reopened();
    hub.restart(clusters).await;
    assert_eq!(pooled_uri(&hub, &project).await, pooled, "the port is remembered");
    hub.connect(&pooled).await.unwrap();
}
