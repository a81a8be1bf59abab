//! A hub for one test: a control cluster, the service, and a client that checks what it gets.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use psn_local_hub::pg::{ClusterInfo, Clusters, PgOptions};
use psn_local_hub::tokens;
use psn_local_hub::trigger::{self, TriggerContext};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::script::Script;

const DATABASE: &str = "psn_hub";
/// Only so that a test that would hang fails: nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn schemas() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    SCHEMAS.get_or_init(|| serde_json::from_str(include_str!("../schemas/trigger.json")).unwrap())
}

#[track_caller]
pub fn assert_schema(name: &str, value: &Value) {
    let schema =
        schemas().get(name).unwrap_or_else(|| panic!("no schema {name}: add it to scripts/wire-schemas-trigger.py"));
    let validator = jsonschema::validator_for(schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "not a {name}: {errors:#?}\n{value:#}");
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text))
    }

    /// 2xx and of this schema.
    #[track_caller]
    pub fn ok(self, schema: &str) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        let value = self.json();
        assert_schema(schema, &value);
        value
    }

    /// This status and, in the vendor's place for it, this message.
    #[track_caller]
    pub fn refused(self, status: u16, message: &str) {
        assert_eq!((self.status.as_u16(), self.json()["error"].as_str()), (status, Some(message)), "{}", self.text);
    }
}

struct Service {
    runtime: Option<Runtime>,
    origin: String,
    shutdown: CancellationToken,
    engine: Option<JoinHandle<()>>,
}

pub struct Hub {
    _dir: tempfile::TempDir,
    clusters: Clusters,
    control: ClusterInfo,
    /// For looking and for what no caller can do, such as making something old.
    pub db: PgPool,
    pub token: String,
    pub runner: Arc<Script>,
    service: Service,
    http: reqwest::Client,
}

/// A project and the keys of its environments.
pub struct Project {
    pub reference: String,
    pub id: String,
    pub prod: String,
    pub dev: String,
}

impl Hub {
    pub async fn start() -> Hub {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("psn").tempdir().unwrap();
        // The account that runs Postgres when the tests run as root must get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = dir.path().join("hub");
        fs::create_dir_all(&home).unwrap();
        let clusters = Clusters::open(&home, PgOptions::default()).unwrap();
        let control = clusters.control().await.unwrap();
        let maintenance = PgPool::connect_with(control.superuser_options("postgres")).await.unwrap();
        sqlx::query("CREATE DATABASE psn_hub").execute(&maintenance).await.unwrap();
        maintenance.close().await;
        let db =
            PgPoolOptions::new().max_connections(4).connect_with(control.superuser_options(DATABASE)).await.unwrap();
        let token = tokens::generate("tr_pat_", 40);
        let runner = Arc::new(Script::default());
        let service = Service::start(&control, &token, runner.clone()).await;
        Hub { _dir: dir, clusters, control, db, token, runner, service, http: reqwest::Client::new() }
    }

    pub fn origin(&self) -> &str {
        &self.service.origin
    }

    /// As `kill -9` of the daemon: nothing is finished, nothing is said.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.service.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// As `psn local down`: waits for the engine's end.
    pub async fn stop(&mut self) {
        self.service.shutdown.cancel();
        self.service.engine.take().unwrap().await.unwrap();
        self.kill();
    }

    pub async fn restart(&mut self) {
        self.service = Service::start(&self.control, &self.token, self.runner.clone()).await;
    }

    pub async fn send(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Reply {
        self.send_with(method, path, token, body, &[("x-trigger-api-version", "2025-07-16")]).await
    }

    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.origin()));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert!(headers.contains_key("x-ratelimit-remaining") || token.is_empty(), "no rate limit headers on {path}");
        Reply { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn raw(&self, path: &str, token: &str, content_type: &str, body: String) -> Reply {
        let url = format!("{}{path}", self.origin());
        let request = self.http.post(url).bearer_auth(token).header("content-type", content_type).body(body);
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str, token: &str) -> Reply {
        self.send(Method::GET, path, token, None).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Reply {
        self.send(Method::POST, path, token, Some(body)).await
    }

    pub async fn project(&self, name: &str) -> Project {
        let orgs = self.get("/api/v1/orgs", &self.token).await.ok("GetOrgsResponseBody");
        let path = format!("/api/v1/orgs/{}/projects", orgs[0]["slug"].as_str().unwrap());
        let project = self.post(&path, &self.token, json!({ "name": name })).await.ok("GetProjectResponseBody");
        let reference = project["externalRef"].as_str().unwrap().to_owned();
        let mut keys = Vec::new();
        for env in ["prod", "dev"] {
            let path = format!("/api/v1/projects/{reference}/{env}");
            let reply = self.get(&path, &self.token).await.ok("GetProjectEnvResponse");
            keys.push(reply["apiKey"].as_str().unwrap().to_owned());
        }
        let dev = keys.pop().unwrap();
        let prod = keys.pop().unwrap();
        Project { reference, id: project["id"].as_str().unwrap().to_owned(), prod, dev }
    }

    /// Registers these tasks (ids, or objects as the vendor's schema has them) and makes them current. Returns the version.
    pub async fn deploy(&self, key: &str, tasks: &[Value]) -> String {
        let init = self.initialize(key, json!({})).await.ok("InitializeDeploymentResponseBody");
        let id = init["id"].as_str().unwrap();
        self.register(key, id, tasks).await.ok("CreateBackgroundWorkerResponse");
        let events = self.finalize(key, id, json!({})).await;
        assert_eq!(events.last().map(|(name, _)| name.as_str()), Some("complete"), "{events:?}");
        init["version"].as_str().unwrap().to_owned()
    }

    pub async fn initialize(&self, key: &str, more: Value) -> Reply {
        let mut body =
            json!({ "contentHash": "5b1ed3ff", "type": "MANAGED", "runtime": "node-24", "isLocalBuild": true });
        merge(&mut body, more);
        assert_schema("InitializeDeploymentRequestBody", &body);
        self.post("/api/v1/deployments", key, body).await
    }

    pub async fn register(&self, key: &str, deployment: &str, tasks: &[Value]) -> Reply {
        let tasks: Vec<Value> = tasks.iter().map(task).collect();
        let body = json!({
            "localOnly": true,
            "engine": "V2",
            "metadata": { "contentHash": "5b1ed3ff", "packageVersion": "4.8.3", "cliPackageVersion": "4.8.3", "tasks": tasks, "queues": [] },
        });
        assert_schema("CreateBackgroundWorkerRequestBody", &body);
        self.post(&format!("/api/v1/deployments/{deployment}/background-workers"), key, body).await
    }

    /// The events of the reply: name and data.
    pub async fn finalize(&self, key: &str, deployment: &str, body: Value) -> Vec<(String, Value)> {
        assert_schema("FinalizeDeploymentRequestBody", &body);
        let reply = self.post(&format!("/api/v3/deployments/{deployment}/finalize"), key, body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let event = |block: &str| {
            let (name, data) = block.split_once('\n').unwrap();
            let name = name.strip_prefix("event: ").unwrap().to_owned();
            (name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap())
        };
        reply.text.split("\n\n").filter(|block| !block.is_empty()).map(event).collect()
    }

    /// Triggers a task; the reply's id and whether it was known.
    pub async fn trigger(&self, key: &str, task: &str, options: Value) -> (String, bool) {
        self.trigger_with(key, task, json!({ "n": 1 }), options).await
    }

    pub async fn trigger_with(&self, key: &str, task: &str, payload: Value, options: Value) -> (String, bool) {
        let body = json!({ "payload": payload, "options": options });
        assert_schema("TriggerTaskRequestBody", &body);
        let reply = self.post(&format!("/api/v1/tasks/{task}/trigger"), key, body).await.ok("TriggerTaskResponse");
        (reply["id"].as_str().unwrap().to_owned(), reply["isCached"].as_bool().unwrap())
    }

    pub async fn run(&self, key: &str, id: &str) -> Value {
        self.get(&format!("/api/v3/runs/{id}"), key).await.ok("RetrieveRunResponse")
    }

    pub async fn status(&self, key: &str, id: &str) -> String {
        self.run(key, id).await["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the run is in one of these states.
    pub async fn reaches(&self, key: &str, id: &str, states: &[&str]) -> Value {
        self.eventually(&format!("{id} to be {states:?}"), async || {
            let run = self.run(key, id).await;
            let reached = states.contains(&run["status"].as_str().unwrap());
            reached.then_some(run)
        })
        .await
    }

    /// Asks until there is an answer.
    pub async fn eventually<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let asked = async {
            loop {
                if let Some(answer) = ask().await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => panic!("waited in vain for {what}"),
        }
    }

    /// Runs one statement on the control database.
    pub async fn sql(&self, statement: &'static str, id: &str) {
        let result = sqlx::query(statement).bind(id).execute(&self.db).await.unwrap();
        assert!(result.rows_affected() > 0, "{statement} found nothing");
    }
}

impl Service {
    /// On a runtime of its own, so that it can be killed.
    async fn start(control: &ClusterInfo, token: &str, runner: Arc<Script>) -> Service {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        let (options, access_token, stop) = (control.superuser_options(DATABASE), token.to_owned(), shutdown.clone());
        let started = runtime.spawn(async move {
            let db = PgPoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
            let ctx = TriggerContext { db, access_token, origin: Url::parse(&origin).unwrap(), runner, shutdown: stop };
            let service = trigger::start(ctx).await.unwrap();
            tokio::spawn(async move { axum::serve(listener, service.router).await });
            (origin, service.engine)
        });
        let (origin, engine) = started.await.unwrap();
        Service { runtime: Some(runtime), origin, shutdown, engine: Some(engine) }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
        let clusters = self.clusters.clone();
        // A drop cannot wait on the test's own runtime.
        let stopped = std::thread::spawn(move || Runtime::new().unwrap().block_on(clusters.stop_all())).join();
        if !std::thread::panicking() {
            stopped.unwrap().unwrap();
        }
    }
}

fn task(task: &Value) -> Value {
    let mut full = match task {
        Value::String(id) => json!({ "id": id }),
        other => other.clone(),
    };
    let file = format!("components/{}.wasm", full["id"].as_str().unwrap());
    full.as_object_mut().unwrap().entry("filePath").or_insert(json!(file));
    full
}

fn merge(into: &mut Value, more: Value) {
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        into[name] = value;
    }
}
