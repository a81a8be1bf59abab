//! What both services have in common: who may ask, the log of requests, the health route.
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::files;

pub(super) const HEALTH: &str = "/__psn/health";
/// Bytes; one older generation is kept.
pub(super) const LOG_MAX: u64 = 8 << 20;
/// Characters of a path that the log keeps.
const LOGGED_PATH: usize = 300;
/// A daemon on this machine answers in a millisecond; a busy one gets time.
const HEALTH_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes. Ours is a few hundred; a stranger's answer is not read to its end.
const HEALTH_MAX: u64 = 8 << 10;

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Health {
    pub(super) pid: u32,
    pub(super) version: String,
    /// Tells this start of this Home from everything else that may answer on the port.
    pub(super) instance: String,
}

#[derive(Clone)]
struct Front {
    service: &'static str,
    port: u16,
    log: Arc<RequestLog>,
}

/// A service with the health route, behind the guard and the log.
pub(super) fn front(service: &'static str, port: u16, router: Router, health: Health, log: Arc<RequestLog>) -> Router {
    let front = Front { service, port, log };
    router
        .route(HEALTH, get(move || async move { axum::Json(health) }))
        .layer(middleware::from_fn_with_state(front, pass))
}

async fn pass(State(front): State<Front>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = match refuse(request.headers(), front.port) {
        Some((status, why)) => {
            // Both vendors' shapes of an error: `message` with a code is Neon's, `error` Trigger.dev's.
            let body = serde_json::json!({ "code": "", "message": why, "error": why });
            (status, axum::Json(body)).into_response()
        }
        None => next.run(request).await,
    };
    if uri.path() != HEALTH {
        let query = uri.query().unwrap_or("");
        front.log.write(&Entry {
            at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            service: front.service,
            method: method.as_str(),
            path: uri.path().chars().take(LOGGED_PATH).collect(),
            // Names only: values can be secrets.
            query: url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name.into_owned()).collect(),
            status: response.status().as_u16(),
            ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }
    response
}

/// A page in a browser can reach loopback ports: by its own script (it sends Origin) or by a name that it made resolve
/// to 127.0.0.1 (that name is in Host). Neither is a client of a hub on this machine.
fn refuse(headers: &HeaderMap, port: u16) -> Option<(StatusCode, &'static str)> {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let ours = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|name| host.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')) == Some(port.to_string().as_str()));
    if !ours {
        return Some((StatusCode::MISDIRECTED_REQUEST, "the local hub answers on 127.0.0.1 and localhost only"));
    }
    if headers.contains_key(header::ORIGIN) {
        return Some((StatusCode::FORBIDDEN, "the local hub does not answer web pages"));
    }
    None
}

/// One JSON line for each request: no headers, no bodies, no values of queries.
#[derive(Serialize)]
struct Entry<'a> {
    at: String,
    service: &'a str,
    method: &'a str,
    path: String,
    query: Vec<String>,
    status: u16,
    ms: u64,
}

pub(super) struct RequestLog {
    path: PathBuf,
    open: Mutex<(File, u64)>,
}

impl RequestLog {
    pub(super) fn open(path: &Path) -> io::Result<RequestLog> {
        files::rotate(path, LOG_MAX)?;
        Ok(RequestLog { path: path.to_owned(), open: Mutex::new(append(path)?) })
    }

    /// A log that cannot be written must not fail the request.
    fn write(&self, entry: &Entry<'_>) {
        let mut line = serde_json::to_vec(entry).expect("strings and numbers are JSON");
        line.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 > LOG_MAX
            && files::rotate(&self.path, LOG_MAX).is_ok()
            && let Ok(fresh) = append(&self.path)
        {
            *open = fresh;
        }
        if open.0.write_all(&line).is_ok() {
            open.1 += line.len() as u64;
        }
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// Asks whoever listens on the port; `None` when it is not a daemon of ours.
pub(super) async fn ask(port: u16) -> Option<Health> {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {HEALTH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(HEALTH_MAX).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(HEALTH_PATIENCE, asked).await.ok()?.ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Health> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| serde_json::from_str(body).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str, origin: Option<&str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        refuse(&headers, 20123).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_loopback_names_with_the_port_are_answered() {
        for host in ["127.0.0.1:20123", "localhost:20123", "[::1]:20123"] {
            assert_eq!(refused(host, None), None);
        }
        for host in [
            "evil.example:20123",
            "127.0.0.1.evil.example:20123",
            "localhost.:20123",
            "127.0.0.1",
            "127.0.0.1:20124",
            "127.0.0.1:201234",
            "127.0.0.1:20123@evil.example",
            "",
        ] {
            assert_eq!(refused(host, None), Some(421), "{host}");
        }
        assert_eq!(refuse(&HeaderMap::new(), 20123).unwrap().0, StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn a_web_page_is_refused_even_one_from_this_machine() {
        for origin in ["https://evil.example", "http://localhost:20123", "null"] {
            assert_eq!(refused("127.0.0.1:20123", Some(origin)), Some(403));
        }
    }

    #[test]
    fn a_stranger_on_the_port_is_not_taken_for_the_daemon() {
        let ours = Health { pid: 1, version: "2".into(), instance: "x".into() };
        let body = serde_json::to_string(&ours).unwrap();
        assert_eq!(parse(format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}").as_bytes()), Some(ours));
        for stranger in [
            format!("HTTP/1.1 404 Not Found\r\n\r\n{body}"),
            "HTTP/1.1 200 OK\r\n\r\n<html>".into(),
            "SSH-2.0-OpenSSH_9.6\r\n".into(),
            String::new(),
        ] {
            assert_eq!(parse(stranger.as_bytes()), None);
        }
    }
}
