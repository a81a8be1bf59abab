//! Trigger.dev as the watchdog sees it, and the platform behind it: runs that end in every way, and a count of side effects that
//! nothing can take back.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::PgPool;
use url::Url;
use uuid::Uuid;

/// What a run will do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Publishes,
    Fails,
    CrashesFirst,
    CrashesAfterMarker,
    CrashesAfterCall,
    /// Publishes, cannot record it, and says so in its output.
    CannotRecord,
    /// At work for ever.
    Silent,
    /// Trigger.dev forgets it.
    Vanishes,
    /// Is given up by Trigger.dev, and goes on all the same, later.
    Zombie,
    /// Waits for its turn for some rounds.
    Queued,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Well,
    Down,
    Limited,
    Nonsense,
}

pub struct Run {
    pub post: Uuid,
    pub attempt: i32,
    pub status: &'static str,
    pub fate: Fate,
    pub output: Value,
    key: String,
    /// Not yet executed.
    pending: bool,
}

#[derive(Default)]
pub struct Inner {
    pub runs: HashMap<String, Run>,
    keys: HashMap<String, String>,
    pub calls: HashMap<Uuid, u32>,
    mood: Option<Mood>,
    /// Every run publishes from now on.
    pub calm: bool,
    next: u64,
    seed: u64,
    pub triggers: u64,
}

pub struct World {
    inner: Mutex<Inner>,
    origin: Url,
}

impl Inner {
    /// xorshift: the same seed, the same story.
    pub fn chance(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn fate(&mut self) -> Fate {
        if self.calm {
            return Fate::Publishes;
        }
        match self.chance() % 100 {
            0..38 => Fate::Publishes,
            38..46 => Fate::Fails,
            46..56 => Fate::CrashesFirst,
            56..63 => Fate::CrashesAfterMarker,
            63..70 => Fate::CrashesAfterCall,
            70..76 => Fate::CannotRecord,
            76..81 => Fate::Silent,
            81..86 => Fate::Vanishes,
            86..94 => Fate::Zombie,
            94..98 => Fate::Queued,
            _ => Fate::Cancelled,
        }
    }

    /// A key is cleared when its run fails, and kept when it succeeds or is cancelled.
    fn ends(&mut self, id: &str, status: &'static str) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.status = status;
        if !matches!(status, "COMPLETED" | "CANCELED") && self.keys.get(&run.key).is_some_and(|known| known == id) {
            self.keys.remove(&run.key);
        }
    }
}

impl World {
    pub async fn start(seed: u64) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = Url::parse(&format!("http://{}", listener.local_addr().expect("bound"))).expect("a URL");
        let inner = Inner { seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, ..Inner::default() };
        let world = Arc::new(Self { inner: Mutex::new(inner), origin });
        let router = Router::new()
            .route("/api/v3/runs/{run}", get(show))
            .route("/api/v1/tasks/{task}/trigger", post(trigger))
            .route("/api/v1/runs/{run}/reschedule", post(reschedule))
            .with_state(Arc::clone(&world));
        tokio::spawn(async move { axum::serve(listener, router).await });
        world
    }

    pub fn origin(&self) -> Url {
        self.origin.clone()
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panicked with it")
    }

    pub fn is(&self, mood: Mood) {
        self.lock().mood = Some(mood);
    }

    /// A run that something else than the watchdog started.
    pub fn add(&self, id: &str, post: Uuid, attempt: i32, status: &'static str, fate: Fate) {
        let run =
            Run { post, attempt, status, fate, output: Value::Null, key: String::new(), pending: status == "QUEUED" };
        self.lock().runs.insert(id.to_owned(), run);
    }

    /// All runs that can go on do, each through the protocol's own functions.
    pub async fn goes_on(&self, db: &PgPool) {
        let ready: Vec<String> = {
            let mut inner = self.lock();
            let mut ids: Vec<String> = inner.runs.iter().filter(|(_, r)| r.pending).map(|(id, _)| id.clone()).collect();
            // The order of a hash map is not the seed's.
            ids.sort_by_key(|id| (id.len(), id.clone()));
            ids.retain(|id| {
                let fate = inner.runs[id].fate;
                inner.calm || !matches!(fate, Fate::Zombie | Fate::Queued) || inner.chance().is_multiple_of(3)
            });
            ids
        };
        for id in ready {
            self.execute(&id, db).await;
        }
    }

    async fn execute(&self, id: &str, db: &PgPool) {
        let (post, attempt, fate) = {
            let mut inner = self.lock();
            let Some(run) = inner.runs.get_mut(id) else { return };
            run.pending = false;
            (run.post, run.attempt, run.fate)
        };
        let end = match fate {
            Fate::Fails => "FAILED",
            Fate::CrashesFirst => "CRASHED",
            Fate::Cancelled => "CANCELED",
            Fate::Silent => "EXECUTING",
            Fate::Vanishes => {
                self.lock().runs.remove(id);
                return;
            }
            _ => {
                let began = asked(db, "SELECT psn.begin_side_effect($1, $2)", post, attempt).await;
                if began != Some(true) {
                    // Superseded; or the database was away, and the run does not know whether it may.
                    if began.is_some() { "COMPLETED" } else { "CRASHED" }
                } else if fate == Fate::CrashesAfterMarker {
                    "CRASHED"
                } else {
                    *self.lock().calls.entry(post).or_default() += 1;
                    match fate {
                        Fate::CrashesAfterCall => "TIMED_OUT",
                        Fate::CannotRecord => "COMPLETED",
                        _ => {
                            asked(db, "SELECT psn.finish($1, $2, 'model')", post, attempt).await;
                            "COMPLETED"
                        }
                    }
                }
            }
        };
        let mut inner = self.lock();
        let called = inner.calls.contains_key(&post);
        if let Some(run) = inner.runs.get_mut(id) {
            if fate == Fate::CannotRecord && end == "COMPLETED" && called {
                run.output =
                    json!({ "outcome": "published", "post_id": post, "attempt": attempt, "external_id": "model" });
            }
            // Trigger.dev gave a zombie up long ago.
            if fate == Fate::Zombie {
                return;
            }
        }
        inner.ends(id, end);
    }
}

async fn asked(db: &PgPool, sql: &'static str, post: Uuid, attempt: i32) -> Option<bool> {
    sqlx::query_scalar(sql).bind(post).bind(attempt).fetch_one(db).await.ok()
}

type Shared = State<Arc<World>>;

fn mood(inner: &Inner) -> Option<Response> {
    match inner.mood? {
        Mood::Well => None,
        Mood::Down => Some((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "down" }))).into_response()),
        Mood::Limited => {
            Some((StatusCode::TOO_MANY_REQUESTS, Json(json!({ "error": "Rate limit exceeded" }))).into_response())
        }
        Mood::Nonsense => Some((StatusCode::OK, "<html>").into_response()),
    }
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": "Not found" }))).into_response()
}

async fn show(State(world): Shared, Path(id): Path<String>) -> Response {
    let inner = world.lock();
    if let Some(reply) = mood(&inner) {
        return reply;
    }
    match inner.runs.get(&id) {
        Some(run) => Json(json!({ "id": id, "status": run.status, "output": run.output })).into_response(),
        None => missing(),
    }
}

async fn trigger(State(world): Shared, Path(task): Path<String>, Json(body): Json<Value>) -> Response {
    let mut inner = world.lock();
    if let Some(reply) = mood(&inner) {
        return reply;
    }
    if task != "publish-post" {
        return (StatusCode::NOT_FOUND, Json(json!({ "error": "Task not found" }))).into_response();
    }
    let key = body["options"]["idempotencyKey"].as_str().unwrap_or_default().to_owned();
    assert!(key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{body}");
    if let Some(id) = inner.keys.get(&key) {
        return Json(json!({ "id": id, "isCached": true })).into_response();
    }
    inner.next += 1;
    inner.triggers += 1;
    let id = format!("run_{}", inner.next);
    let fate = inner.fate();
    let post = body["payload"]["post_id"].as_str().and_then(|s| s.parse().ok()).expect("a post's id");
    let attempt = body["payload"]["attempt"].as_i64().and_then(|n| i32::try_from(n).ok()).expect("an attempt");
    let status = if fate == Fate::Zombie { "SYSTEM_FAILURE" } else { "QUEUED" };
    let run = Run { post, attempt, status, fate, output: Value::Null, key: key.clone(), pending: true };
    inner.runs.insert(id.clone(), run);
    if fate != Fate::Zombie {
        inner.keys.insert(key, id.clone());
    }
    Json(json!({ "id": id, "isCached": false })).into_response()
}

async fn reschedule(State(world): Shared, Path(id): Path<String>) -> Response {
    let mut inner = world.lock();
    if let Some(reply) = mood(&inner) {
        return reply;
    }
    match inner.runs.get_mut(&id) {
        Some(run) if run.status == "DELAYED" => {
            run.status = "QUEUED";
            run.pending = true;
            Json(json!({ "id": id })).into_response()
        }
        Some(_) => {
            let error = json!({ "error": "Cannot reschedule a run that is not delayed" });
            (StatusCode::UNPROCESSABLE_ENTITY, Json(error)).into_response()
        }
        None => missing(),
    }
}
