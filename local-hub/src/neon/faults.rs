//! Faults that a test asks for: what Neon does on a bad day. Reachable only where the daemon was started with a token for it.
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::LOCKED;
use super::store::operations::Action;
use super::{BASE_PATH, Service};
use crate::pg::{self, ClusterInfo};
use crate::tokens;

/// Where a test asks for them, beside the API.
pub(crate) const PATH: &str = "/__psn/faults";
/// Characters of the shortest token taken: nobody guesses it.
pub const MIN_TOKEN: usize = 32;
/// How often new connections are looked for that are to be ended.
const WATCH: Duration = Duration::from_millis(5);
/// A connection that a test announced and never made is not waited for longer.
const WATCH_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// None is any.
    #[serde(default)]
    pub method: Option<String>,
    /// The path below the API's base; `*` stands for one segment. None is any.
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default = "once")]
    pub times: u32,
    pub fault: Fault,
}

fn once() -> u32 {
    1
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Another answer than the true one. With `applied`, the request was done all the same.
    Reply {
        status: u16,
        #[serde(default)]
        retry_after: Option<u64>,
        #[serde(default)]
        applied: bool,
    },
    /// No answer: the connection is closed. With `applied`, the request was done all the same.
    Drop {
        #[serde(default)]
        applied: bool,
    },
    /// Lists name projects that cannot be looked at now, instead of showing them.
    HideProjects,
    /// The next operation of this kind ends as failed.
    FailOperation { action: String },
}

/// What happens to the compute of a project.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ComputeFault {
    /// Nobody is answered for so long: a cold start.
    Delay { project: String, ms: u64 },
    /// Connections end with 57P01: those that are open, and as many of those to come.
    Terminate { project: String, next: u32 },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Wish {
    Rule(Rule),
    Compute { compute: ComputeFault },
}

#[derive(Clone)]
pub(crate) struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    token: Option<Arc<[u8; 32]>>,
}

impl Faults {
    /// Without a token there are none, and no way to ask for some.
    pub(crate) fn new(token: Option<&str>) -> Self {
        let token = token.filter(|token| token.len() >= MIN_TOKEN).map(|token| Arc::new(tokens::digest(token)));
        Self { rules: Arc::default(), token }
    }

    pub(crate) fn are_possible(&self) -> bool {
        self.token.is_some()
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        // Digests are compared, so the time it takes says nothing about the token.
        matches!((&self.token, given), (Some(token), Some(given)) if **token == tokens::digest(given))
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first rule that fits, used up by one.
    fn take(&self, fits: impl Fn(&Rule) -> bool) -> Option<Fault> {
        let mut rules = self.rules();
        let at = rules.iter().position(|rule| rule.times > 0 && fits(rule))?;
        rules[at].times -= 1;
        let fault = rules[at].fault.clone();
        rules.retain(|rule| rule.times > 0);
        Some(fault)
    }

    fn of_request(&self, method: &str, path: &str) -> Option<Fault> {
        self.take(|rule| {
            matches!(rule.fault, Fault::Reply { .. } | Fault::Drop { .. })
                && rule.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && rule.path.as_deref().is_none_or(|wanted| path_fits(wanted, path))
        })
    }

    pub(crate) fn hides_projects(&self) -> bool {
        self.take(|rule| rule.fault == Fault::HideProjects).is_some()
    }

    pub(crate) fn fails(&self, action: Action) -> bool {
        self.take(|rule| matches!(&rule.fault, Fault::FailOperation { action: a } if *a == action.as_str())).is_some()
    }
}

fn path_fits(wanted: &str, path: &str) -> bool {
    let (mut wanted, mut path) = (wanted.split('/'), path.split('/'));
    loop {
        match (wanted.next(), path.next()) {
            (None, None) => return true,
            (Some(w), Some(p)) if w == "*" || w == p => {}
            _ => return false,
        }
    }
}

/// Stands before everything else of the service, where a vendor's network stands.
pub(crate) async fn interfere(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let fault = request
        .uri()
        .path()
        .strip_prefix(BASE_PATH)
        .and_then(|path| faults.of_request(request.method().as_str(), path));
    match fault {
        Some(Fault::Reply { status, retry_after, applied }) => {
            if applied {
                next.run(request).await;
            }
            reply(status, retry_after)
        }
        Some(Fault::Drop { applied }) => {
            if applied {
                next.run(request).await;
            }
            dropped()
        }
        _ => next.run(request).await,
    }
}

fn reply(status: u16, retry_after: Option<u64>) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = if matches!(status, 502 | 504 | 520..=530) {
        // What stands before Neon answers in its own way.
        let page =
            format!("<!DOCTYPE html><html><head><title>{status}</title></head><body>Error {status}</body></html>");
        (code, [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"))], page).into_response()
    } else {
        let message = if status == 423 { LOCKED } else { code.canonical_reason().unwrap_or("refused") };
        let body = json!({ "request_id": uuid::Uuid::new_v4(), "code": "", "message": message });
        (code, Json(body)).into_response()
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A body that fails before its first byte: the connection is closed with nothing written to it.
fn dropped() -> Response {
    let nothing = stream::once(async { Err::<bytes::Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset)) });
    Response::new(Body::from_stream(nothing))
}

/// What is still to happen.
pub(crate) async fn list(State(service): State<Service>, headers: HeaderMap) -> Response {
    if !service.faults.admits(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json!({ "rules": *service.faults.rules() })).into_response()
}

pub(crate) async fn clear(State(service): State<Service>, headers: HeaderMap) -> Response {
    if !service.faults.admits(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    service.faults.rules().clear();
    StatusCode::NO_CONTENT.into_response()
}

pub(crate) async fn add(State(service): State<Service>, headers: HeaderMap, body: bytes::Bytes) -> Response {
    if !service.faults.admits(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let wish: Wish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match wish {
        Wish::Rule(rule) => service.faults.rules().push(rule),
        Wish::Compute { compute } => {
            let (ComputeFault::Delay { project, .. } | ComputeFault::Terminate { project, .. }) = &compute;
            let Some(cluster) = service.clusters.info(project) else {
                return (StatusCode::NOT_FOUND, "no such project runs").into_response();
            };
            let result = match compute {
                ComputeFault::Delay { ms, .. } => {
                    delay(&cluster, Duration::from_millis(ms));
                    Ok(())
                }
                ComputeFault::Terminate { next, .. } => terminate(&cluster, next).await,
            };
            if let Err(error) = result {
                return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
            }
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

/// The postmaster sleeps: connections wait in the kernel's queue until it takes them.
fn delay(cluster: &ClusterInfo, time: Duration) {
    struct Wake(u32);
    impl Drop for Wake {
        fn drop(&mut self) {
            pg::signal(self.0, Signal::CONT);
        }
    }
    pg::signal(cluster.pid, Signal::STOP);
    let wake = Wake(cluster.pid);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        drop(wake);
    });
}

/// Those that have been told already are on their way out, and would be counted twice. Materialized: Postgres orders conditions by
/// cost, and would end this very connection before it asks whose it is.
const END_BACKENDS: &str = "WITH others AS MATERIALIZED (
        SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> current_user AND pid <> ALL ($1)
    ) SELECT pid FROM others WHERE pg_terminate_backend(pid)";

async fn terminate(cluster: &ClusterInfo, mut next: u32) -> Result<(), sqlx::Error> {
    use sqlx::{ConnectOptions as _, Connection as _};
    let mut pg = cluster.superuser_options("postgres").disable_statement_logging().connect().await?;
    let mut told: Vec<i32> = sqlx::query_scalar(END_BACKENDS).bind(Vec::<i32>::new()).fetch_all(&mut pg).await?;
    tokio::spawn(async move {
        let ended = tokio::time::timeout(WATCH_LIMIT, async {
            while next > 0 {
                tokio::time::sleep(WATCH).await;
                let ended: Vec<i32> = sqlx::query_scalar(END_BACKENDS).bind(&told).fetch_all(&mut pg).await?;
                next = next.saturating_sub(u32::try_from(ended.len()).unwrap_or(u32::MAX));
                told.extend(ended);
            }
            pg.close().await
        });
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "connections could not be ended");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_used_up_by_the_requests_that_fit_it() {
        let faults = Faults::new(Some(&"t".repeat(MIN_TOKEN)));
        let fault = Fault::Drop { applied: true };
        let rule = |path: &str, times| Rule {
            method: Some("POST".into()),
            path: Some(path.into()),
            times,
            fault: fault.clone(),
        };
        faults.rules().extend([rule("/projects", 2), rule("/projects/*/recover", 1)]);
        assert_eq!(faults.of_request("GET", "/projects"), None);
        assert_eq!(faults.of_request("POST", "/projects/p"), None);
        assert_eq!(faults.of_request("POST", "/projects"), Some(fault.clone()));
        assert_eq!(faults.of_request("post", "/projects"), Some(fault.clone()));
        assert_eq!(faults.of_request("POST", "/projects"), None);
        assert_eq!(faults.of_request("POST", "/projects/p/recover"), Some(fault));
        assert!(faults.rules().is_empty());
    }

    #[test]
    fn a_token_that_could_be_guessed_is_none() {
        let bearer = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            headers
        };
        let good = "t".repeat(MIN_TOKEN);
        let faults = Faults::new(Some(&good));
        assert!(faults.admits(&bearer(&good)));
        assert!(!faults.admits(&bearer(&"u".repeat(MIN_TOKEN))));
        assert!(!faults.admits(&HeaderMap::new()));
        for none in [None, Some(""), Some("short")] {
            assert!(!Faults::new(none).are_possible());
        }
    }
}
