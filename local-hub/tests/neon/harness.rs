//! A hub of its own for each test: control cluster, service, HTTP, and a client that checks every reply.
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use psn_local_hub::neon::{self, NeonContext, ResumeFailure};
use psn_local_hub::pg::{Clusters, PgOptions};
use psn_local_hub::tokens;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection, PgPool};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::schemas;

/// Only keeps a broken hub from hanging a test for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// For the tests that ask for faults.
pub(crate) const FAULTS: &str = "a-token-for-faults-that-nobody-guesses";

pub(crate) struct Hub {
    pub(crate) clusters: Clusters,
    /// Of the daemons before; their last operations may still be under way.
    before: Vec<Clusters>,
    pub(crate) db: PgPool,
    pub(crate) key: String,
    pub(crate) org: String,
    address: SocketAddr,
    server: JoinHandle<()>,
    client: reqwest::Client,
    // The last field: the folder goes after everything that uses it.
    pub(crate) home: TempDir,
}

impl Hub {
    pub(crate) async fn start() -> Hub {
        let home = tempfile::tempdir().expect("a temporary folder");
        // Postgres may have to run as another account, which has to get through.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let clusters = open(home.path());
        let db = control_database(&clusters).await;
        let key = tokens::generate("napi_", 64);
        // Ignored where another test of this process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (address, server) = serve(context(&db, &clusters, &key)).await;
        let mut hub = Hub { clusters, before: Vec::new(), db, key, org: String::new(), address, server, client, home };
        let orgs = hub.get("/users/me/organizations").await;
        hub.org = orgs["organizations"][0]["id"].as_str().expect("an organisation").to_owned();
        hub
    }

    pub(crate) fn context(&self) -> NeonContext {
        context(&self.db, &self.clusters, &self.key)
    }

    /// What a new daemon does: nothing is left of the old one but the databases and the folders.
    pub(crate) async fn restart(&mut self, clusters: Clusters) -> Vec<ResumeFailure> {
        self.server.abort();
        self.before.push(std::mem::replace(&mut self.clusters, clusters));
        let failures = neon::resume(&self.context()).await.expect("resume");
        (self.address, self.server) = serve(self.context()).await;
        failures
    }

    /// As another daemon would see this Home.
    pub(crate) fn reopened(&self) -> Clusters {
        open(self.home.path())
    }

    /// Asks for a fault.
    pub(crate) async fn fault(&self, wish: Value) {
        let url = format!("http://{}/__psn/faults", self.address);
        let reply = self.client.post(url).bearer_auth(FAULTS).json(&wish).send().await.expect("an answer");
        assert_eq!(reply.status(), 204, "{wish}: {}", reply.text().await.unwrap_or_default());
    }

    pub(crate) fn client(&self) -> (&reqwest::Client, String) {
        (&self.client, format!("http://{}", self.address))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/api/v2{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// Sends a request and checks the reply against Neon's schema.
    pub(crate) async fn call_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.request(method.clone(), path).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the service answers");
        let status = response.status();
        let request_id = response.headers().get("x-neon-ret-request-id").expect("each reply names its request").clone();
        let text = response.text().await.expect("a body");
        if status == StatusCode::NO_CONTENT {
            assert_eq!(text, "");
            return (status, Value::Null);
        }
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"));
        let bare = path.split('?').next().expect("a path");
        schemas::check(method.as_str(), bare, status.as_u16(), &body);
        if !status.is_success() {
            assert_eq!(body["request_id"], request_id.to_str().expect("a printable id"));
        }
        (status, body)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_as(&self.key, method, path, body).await
    }

    /// Expects success.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body:#}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, reply) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {reply:#}");
        reply
    }

    pub(crate) async fn delete(&self, path: &str) -> Value {
        let (status, reply) = self.call(Method::DELETE, path, None).await;
        assert!(status.is_success(), "DELETE {path}: {status} {reply:#}");
        reply
    }

    /// Expects this status and a message that says so.
    pub(crate) async fn refused(&self, method: Method, path: &str, body: Option<Value>, status: u16, says: &str) {
        let (actual, reply) = self.call(method.clone(), path, body).await;
        assert_eq!(actual.as_u16(), status, "{method} {path}: {reply:#}");
        let message = reply["message"].as_str().expect("a message");
        assert!(message.contains(says), "{method} {path}: {message}");
    }

    pub(crate) async fn create(&self, project: Value) -> Value {
        let mut project = project;
        project["org_id"] = json!(self.org);
        let reply = self.post("/projects", json!({ "project": project })).await;
        self.settle(project_id(&reply)).await;
        reply
    }

    /// Waits until no operation of the project is under way, as Neon's clients do; all must have finished.
    pub(crate) async fn settle(&self, project: &str) {
        for operation in self.ended(project).await {
            assert_eq!(operation["status"], "finished", "{operation:#}");
        }
    }

    /// The operations, after the last one has ended.
    pub(crate) async fn ended(&self, project: &str) -> Vec<Value> {
        let polled = async {
            loop {
                let list = self.get(&format!("/projects/{project}/operations")).await;
                let operations = list["operations"].as_array().expect("operations").clone();
                if operations.iter().all(|o| o["status"] != "scheduling" && o["status"] != "running") {
                    return operations;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, polled).await.expect("the operations end")
    }

    /// As a client that trusts nothing but the hub's certificate.
    pub(crate) async fn connect(&self, uri: &str) -> Result<PgConnection, sqlx::Error> {
        let options =
            PgConnectOptions::from_str(uri)?.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(self.clusters.ca_pem());
        options.connect().await
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.abort();
        self.before.iter().for_each(Clusters::close);
        let clusters = self.clusters.clone();
        // A runtime of its own: this one may be on its way out, and a failed test must leave no server behind either.
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(clusters.stop_all()).map_err(std::io::Error::other)
        })
        .join();
        if !matches!(stopped, Ok(Ok(_))) && !std::thread::panicking() {
            panic!("the servers were not stopped: {stopped:?}");
        }
    }
}

pub(crate) fn open(home: &Path) -> Clusters {
    Clusters::open(home, PgOptions::default()).expect("the Home can be used")
}

async fn control_database(clusters: &Clusters) -> PgPool {
    let control = clusters.control().await.expect("the control cluster starts");
    let mut admin = control.superuser_options("postgres").connect().await.expect("the control cluster answers");
    sqlx::query("CREATE DATABASE psn_hub").execute(&mut admin).await.expect("CREATE DATABASE");
    PgPoolOptions::new().max_connections(10).connect_with(control.superuser_options("psn_hub")).await.expect("a pool")
}

pub(crate) fn context(db: &PgPool, clusters: &Clusters, key: &str) -> NeonContext {
    NeonContext {
        db: db.clone(),
        clusters: clusters.clone(),
        api_key: key.to_owned(),
        origin: "http://127.0.0.1/".parse().expect("a URL"),
        test_token: Some(FAULTS.to_owned()),
    }
}

pub(crate) async fn serve(context: NeonContext) -> (SocketAddr, JoinHandle<()>) {
    let router = neon::router(context).await.expect("the routes");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    (address, server)
}

pub(crate) fn project_id(created: &Value) -> &str {
    created["project"]["id"].as_str().expect("a project id")
}

pub(crate) fn uri(created: &Value) -> &str {
    created["connection_uris"][0]["connection_uri"].as_str().expect("a connection URI")
}

pub(crate) fn branch_path(created: &Value) -> String {
    format!("/projects/{}/branches/{}", project_id(created), created["branch"]["id"].as_str().expect("a branch id"))
}

pub(crate) async fn scalar<T>(pg: &mut PgConnection, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sql).fetch_one(pg).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

pub(crate) async fn run(pg: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pg).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}
