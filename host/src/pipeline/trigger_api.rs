//! The runs of the hub's Trigger.dev environment, over Trigger.dev's own API: the same calls on the local hub and in the cloud.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::session::{KIND_MARK, check_kind, find_project, hub_kind, local_up};
use crate::capabilities::http::ServiceMap;
use crate::error::CodedError;
use crate::events::EventSink;
use crate::hub::{self, EnvFiles, HubKind, Settings};
use crate::plugins::registry::Registry;
use crate::redact::Redactor;
use crate::secret::{Secret, Secrets};

const VENDOR: &str = "https://api.trigger.dev";
/// Without it, Trigger.dev answers with names of states that it has given up.
const API_VERSION: (&str, &str) = ("x-trigger-api-version", "2025-07-16");
/// The same for all tries of one call, so that a lost answer does not start a second run.
const CALL_KEY: &str = "x-trigger-request-idempotency-key";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Trigger.dev answers within a second or two; its own SDK waits a minute.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Tries of one call when it is refused for a moment (429, 503), or nothing answers.
const TRIES: u32 = 5;
/// The first pause between two tries, where the answer names none; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A window of Trigger.dev's rate limit is 10 s; a longer wait is for the caller to decide.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Bytes of a reply. A page of 100 runs with 3 MB payloads is not one: lists carry none.
const MAX_REPLY: usize = 16 << 20;

/// Schedules on a page, Trigger.dev's most, and pages read of them: a thousand schedules is its largest plan.
const SCHEDULES: u32 = 100;
const MOST_PAGES: u64 = 20;

/// No answer so far said what time it is there.
const UNKNOWN: i64 = i64::MIN;

/// One environment of one project, and the key to it.
pub struct TriggerApi {
    client: reqwest::Client,
    base: Url,
    key: Secret,
    token: Option<Secret>,
    project: Option<String>,
    kind: HubKind,
    /// How far Trigger.dev's clock was ahead of this one when it answered last, in milliseconds.
    ahead: AtomicI64,
    /// The ids of the tasks that this folder's plugins are.
    pub tasks: Vec<String>,
}

/// A reply with a status that is no success, for the caller to word.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    /// Trigger.dev's own words.
    pub message: String,
}

#[derive(Debug)]
pub enum ApiError {
    Refused(Refused),
    Coded(CodedError),
}

impl From<CodedError> for ApiError {
    fn from(e: CodedError) -> Self {
        Self::Coded(e)
    }
}

impl From<ApiError> for CodedError {
    fn from(e: ApiError) -> Self {
        match e {
            ApiError::Coded(e) => e,
            ApiError::Refused(r) => CodedError::new(
                "task.refused",
                format!("Trigger.dev refused this with status {}: {}", r.status.as_u16(), r.message),
                ["psn task runs", "psn run validate"],
            ),
        }
    }
}

impl TriggerApi {
    /// Needs no run lock: it changes nothing on this machine.
    pub async fn open(
        project: Option<&Path>,
        flag: Option<HubKind>,
        redactor: &Arc<Redactor>,
        events: &EventSink,
    ) -> Result<Self, CodedError> {
        let project = find_project(project, false)?;
        let settings = Settings::load(&project)?;
        let secrets = Secrets::open(Box::new(EnvFiles::new(&project)), Arc::clone(redactor))?;
        let kind = hub_kind(flag, &settings, secrets.get(KIND_MARK).as_ref());
        check_kind(kind, &secrets)?;
        let key = secrets.get("TRIGGER_SECRET_KEY").ok_or_else(|| {
            CodedError::new(
                "task.not-set-up",
                "this hub has no Trigger.dev project yet, so it has no runs",
                ["psn run setup"],
            )
        })?;
        let mut services = match kind {
            HubKind::Cloud => ServiceMap::vendors(),
            HubKind::Local => {
                let endpoints = local_up(events, false).await?;
                ServiceMap::local(endpoints.neon, endpoints.trigger)
            }
        };
        for (service, base) in hub::settings::services(&project)? {
            services.set(&service, base);
        }
        let registry = Registry::open(project.path(), super::FIRST_PARTY);
        let mut tasks: Vec<String> = registry.tasks()?.iter().map(|t| t.manifest.task_id().to_owned()).collect();
        tasks.sort();
        Ok(Self {
            client: client()?,
            base: services.base("trigger-env", VENDOR)?,
            key,
            token: secrets.get("TRIGGER_ACCESS_TOKEN"),
            // Without a person's token only the setting says it.
            project: secrets
                .get("TRIGGER_PROJECT_REF")
                .map(|r| r.expose().to_owned())
                .or_else(|| settings.get("trigger.project_ref").map(str::to_owned)),
            kind,
            ahead: AtomicI64::new(UNKNOWN),
            tasks,
        })
    }

    /// The ids of the tasks that run now, `None` where the credentials at hand cannot tell. Empty: nothing is deployed.
    pub async fn deployed_tasks(&self) -> Result<Option<Vec<String>>, ApiError> {
        let Some(project) = &self.project else { return Ok(None) };
        let token = self.token.as_ref().unwrap_or(&self.key);
        let path = ["api", "v1", "projects", project, "prod", "workers", "current"];
        match self.call(token, Method::GET, &path, &[], None).await {
            Ok(reply) => Ok(Some(
                reply["worker"]["tasks"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|t| t["slug"].as_str().map(str::to_owned))
                    .collect(),
            )),
            Err(ApiError::Refused(r)) if r.status == StatusCode::NOT_FOUND => Ok(Some(Vec::new())),
            // A token that was revoked since setup: what the key can do, it still can.
            Err(ApiError::Refused(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// How far Trigger.dev's clock is ahead of this machine's; negative when it is behind. None before its first answer.
    pub fn clock_ahead(&self) -> Option<chrono::TimeDelta> {
        Some(self.ahead.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN).map(chrono::TimeDelta::milliseconds)
    }

    fn note_clock(&self, response: &reqwest::Response) {
        let date = response.headers().get(reqwest::header::DATE).and_then(|v| v.to_str().ok());
        if let Some(there) = date.and_then(|text| chrono::DateTime::parse_from_rfc2822(text).ok()) {
            let ahead = there.timestamp_millis() - chrono::Utc::now().timestamp_millis();
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }

    pub async fn trigger(&self, task: &str, payload: &Value, options: &Value) -> Result<Value, ApiError> {
        let body = json!({ "payload": payload, "options": options });
        self.env(Method::POST, &["api", "v1", "tasks", task, "trigger"], &[], Some(&body)).await
    }

    pub async fn list(&self, query: &[(&str, String)]) -> Result<Value, ApiError> {
        self.env(Method::GET, &["api", "v1", "runs"], query, None).await
    }

    pub async fn run(&self, id: &str) -> Result<Value, ApiError> {
        self.env(Method::GET, &["api", "v3", "runs", id], &[], None).await
    }

    pub async fn cancel(&self, id: &str) -> Result<Value, ApiError> {
        self.env(Method::POST, &["api", "v2", "runs", id, "cancel"], &[], Some(&json!({}))).await
    }

    /// `changes`: what is to be different, in the names of Trigger.dev's API.
    pub async fn replay(&self, id: &str, changes: &serde_json::Map<String, Value>) -> Result<Value, ApiError> {
        self.env(Method::POST, &["api", "v1", "runs", id, "replay"], &[], Some(&json!(changes))).await
    }

    pub async fn reschedule(&self, id: &str, delay: &str) -> Result<Value, ApiError> {
        let body = json!({ "delay": delay });
        self.env(Method::POST, &["api", "v1", "runs", id, "reschedule"], &[], Some(&body)).await
    }

    /// All of them, whatever page they are on.
    pub async fn schedules(&self) -> Result<Vec<Value>, ApiError> {
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let query = [("page", page.to_string()), ("perPage", SCHEDULES.to_string())];
            let mut reply = self.env(Method::GET, &["api", "v1", "schedules"], &query, None).await?;
            if let Value::Array(schedules) = reply["data"].take() {
                all.extend(schedules);
            }
            if reply["pagination"]["totalPages"].as_u64().is_none_or(|pages| pages <= page) {
                break;
            }
        }
        Ok(all)
    }

    /// Declared ones too: Trigger.dev's API changes nothing else about those.
    pub async fn switch_schedule(&self, id: &str, active: bool) -> Result<Value, ApiError> {
        let way = if active { "activate" } else { "deactivate" };
        self.env(Method::POST, &["api", "v1", "schedules", id, way], &[], Some(&json!({}))).await
    }

    async fn env(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        match self.call(&self.key, method, path, query, body).await {
            Err(ApiError::Refused(r)) if matches!(r.status.as_u16(), 401 | 403) => {
                Err(ApiError::Coded(CodedError::new(
                    "task.key-rejected",
                    format!("Trigger.dev rejects the key of this hub's environment: {}", r.message),
                    ["psn run trigger-provision"],
                )))
            }
            other => other,
        }
    }

    async fn call(
        &self,
        bearer: &Secret,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let mut url = self.base.clone();
        // A base with http or https always has segments; each part is escaped by itself.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let call = uuid::Uuid::new_v4().to_string();
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let mut request = self
                .client
                .request(method.clone(), url.clone())
                .bearer_auth(bearer.expose())
                .header(API_VERSION.0, API_VERSION.1)
                .header(CALL_KEY, &call)
                .query(query);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.inspect(|response| self.note_clock(response));
            let wait = match answer {
                Ok(response) if is_momentary(response.status()) => {
                    if attempt == TRIES {
                        return Err(self.busy(response.status()).into());
                    }
                    advised(&response).unwrap_or(pause)
                }
                Ok(response) => match read(response).await {
                    Ok((status, reply)) if status.is_success() => return Ok(reply),
                    Ok((status, reply)) => {
                        return Err(ApiError::Refused(Refused { status, message: words(&reply, status) }));
                    }
                    Err(reason) if attempt == TRIES => return Err(self.unreachable(&reason).into()),
                    Err(_) => pause,
                },
                // Trigger.dev knows a repeated call by its key, so that asking again is safe whatever became of the first.
                Err(e) if attempt == TRIES => return Err(self.unreachable(&describe(&e)).into()),
                Err(_) => pause,
            };
            tokio::time::sleep(wait.min(LONGEST_PAUSE)).await;
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    fn busy(&self, status: StatusCode) -> CodedError {
        CodedError::new(
            "task.busy",
            format!("Trigger.dev answered {TRIES} times that it is busy (status {})", status.as_u16()),
            ["psn task runs"],
        )
        .retryable()
    }

    fn unreachable(&self, reason: &str) -> CodedError {
        let fix = match self.kind {
            HubKind::Local => "psn local up",
            HubKind::Cloud => "psn run validate",
        };
        CodedError::new("task.unreachable", format!("Trigger.dev does not answer: {reason}"), [fix]).retryable()
    }
}

/// TLS against the public roots, no redirects, and none of the machine's proxies: the key goes where the map says, or nowhere.
fn client() -> Result<reqwest::Client, CodedError> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT)
        .build()
        .map_err(|e| {
            CodedError::new(
                "task.unreachable",
                format!("psn could not set up its HTTP client: {}", describe(&e)),
                ["psn status"],
            )
        })
}

fn is_momentary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// What the answer itself says of when to come back: Trigger.dev's own header holds Unix milliseconds.
fn advised(response: &reqwest::Response) -> Option<Duration> {
    let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<i64>().ok();
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let until = number("x-ratelimit-reset").map(|at| at - chrono::Utc::now().timestamp_millis());
    let wait = until.or_else(|| number("retry-after").map(|s| s.saturating_mul(1_000)))?;
    // A reset in the past is a clock that differs from ours.
    (wait > 0).then(|| Duration::from_millis(wait.unsigned_abs()))
}

async fn read(mut response: reqwest::Response) -> Result<(StatusCode, Value), String> {
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| describe(&e))? {
        if bytes.len() + chunk.len() > MAX_REPLY {
            return Err(format!("the reply is larger than {MAX_REPLY} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    match serde_json::from_slice(&bytes) {
        Ok(reply) => Ok((status, reply)),
        Err(_) if !status.is_success() => Ok((status, Value::Null)),
        Err(e) => Err(format!("the reply is no JSON: {e}")),
    }
}

fn words(reply: &Value, status: StatusCode) -> String {
    let detail = reply["details"].as_array().and_then(|d| d.first()).and_then(|d| d["message"].as_str());
    let error = reply["error"].as_str().or_else(|| status.canonical_reason()).unwrap_or("no reason was given");
    detail.map_or_else(|| error.to_owned(), |detail| format!("{error}: {detail}"))
}

/// An error with its causes.
fn describe(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = source {
        let words = e.to_string();
        if !text.contains(&words) {
            text = if text.is_empty() { words } else { format!("{text}: {words}") };
        }
        source = e.source();
    }
    text
}
