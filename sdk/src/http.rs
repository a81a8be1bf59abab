//! Calls to the services that the manifest names. The host knows each service's address and adds its credentials.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::{context, sys};

/// How long [`Request::retry_when_busy`] keeps trying, in milliseconds: a locked Neon project is free again well within it.
const BUSY_PATIENCE_MS: u32 = 60_000;
/// First pause and longest pause between such tries, in milliseconds; each is twice the one before.
const BUSY_FIRST_PAUSE_MS: u32 = 500;
const BUSY_LONGEST_PAUSE_MS: u32 = 10_000;
/// How much of an unstructured error page is shown, in characters.
const EXCERPT_CHARS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A service of the manifest, by its name there.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    name: &'a str,
}

pub fn service(name: &str) -> Service<'_> {
    Service { name }
}

impl Service<'_> {
    pub fn get(self, path: impl Into<String>) -> Request {
        self.request(Method::Get, path)
    }

    pub fn head(self, path: impl Into<String>) -> Request {
        self.request(Method::Head, path)
    }

    pub fn post(self, path: impl Into<String>) -> Request {
        self.request(Method::Post, path)
    }

    pub fn put(self, path: impl Into<String>) -> Request {
        self.request(Method::Put, path)
    }

    pub fn patch(self, path: impl Into<String>) -> Request {
        self.request(Method::Patch, path)
    }

    pub fn delete(self, path: impl Into<String>) -> Request {
        self.request(Method::Delete, path)
    }

    /// `path` is below the service's base, without a query. Put values into it with [`path!`].
    pub fn request(self, method: Method, path: impl Into<String>) -> Request {
        Request {
            service: self.name.to_owned(),
            method,
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: Ok(None),
            idempotent: false,
            retry_when_busy: false,
        }
    }
}

/// A path with values in it, each encoded so that it stays one segment: `path!("/projects/{}/operations/{}", project, id)`.
#[doc(inline)]
pub use crate::__path as path;

#[doc(hidden)]
#[macro_export]
macro_rules! __path {
    ($format:literal $(, $value:expr)* $(,)?) => {
        ::std::format!($format $(, $crate::http::encode(&$value))*)
    };
}

/// Percent-encodes everything that has a meaning in a path or a query.
pub fn encode(value: &impl fmt::Display) -> String {
    let mut encoded = String::new();
    for byte in value.to_string().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[derive(Debug)]
#[must_use = "a request is sent by `send`"]
pub struct Request {
    service: String,
    method: Method,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Result<Option<Vec<u8>>, String>,
    idempotent: bool,
    retry_when_busy: bool,
}

impl Request {
    pub fn query(mut self, name: impl fmt::Display, value: impl fmt::Display) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(&encode(&name));
        self.query.push('=');
        self.query.push_str(&encode(&value));
        self
    }

    /// As [`Request::query`], where there is a value.
    pub fn maybe_query(self, name: impl fmt::Display, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Not for credentials: the host adds those, and refuses a request that brings its own.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A string in it may be a [`crate::secrets::reference`].
    pub fn json<T: Serialize + ?Sized>(mut self, body: &T) -> Self {
        self.body = serde_json::to_vec(body).map(Some).map_err(|error| error.to_string());
        self.header("content-type", "application/json")
    }

    /// The service applies this request at most once however often it is sent: the host may send it again.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sends it again, for up to a minute, while the service answers 423, 429 or 503. Only for services that promise not to
    /// have applied such a request.
    pub fn retry_when_busy(mut self) -> Self {
        self.retry_when_busy = true;
        self
    }

    /// Any reply is a [`Response`], whatever its status: [`Response::success`] turns a refusal into an error.
    pub fn send(mut self) -> Result<Response, Error> {
        let body =
            std::mem::replace(&mut self.body, Ok(None)).map_err(|message| self.error(Kind::Body, message, false))?;
        let raw = RawRequest {
            service: self.service.clone(),
            method: self.method,
            path: format!("{}{}", self.path, self.query),
            headers: self.headers.clone(),
            body,
            idempotent: self.idempotent,
        };
        let mut pause = BUSY_FIRST_PAUSE_MS;
        let mut waited = 0;
        loop {
            let reply = sys::http_send(&raw).map_err(|error| {
                let kind = Kind::of(&error.code, error.sent);
                self.error(kind, error.message, error.sent)
            })?;
            let response = Response { request: self.describe(), service: self.service.clone(), reply };
            if !self.retry_when_busy || !response.is_busy() {
                return Ok(response);
            }
            let next = response.asked_pause_ms().unwrap_or(pause).clamp(1, BUSY_LONGEST_PAUSE_MS);
            if waited + next > BUSY_PATIENCE_MS {
                return Ok(response);
            }
            context::sleep_ms(next);
            waited += next;
            pause = pause.saturating_mul(2);
        }
    }

    fn describe(&self) -> String {
        format!("{} {}", self.method.as_str(), self.path)
    }

    fn error(&self, kind: Kind, message: String, sent: bool) -> Error {
        Error { kind, service: self.service.clone(), request: self.describe(), message, sent }
    }
}

#[derive(Debug, Clone)]
pub struct Response {
    request: String,
    service: String,
    reply: RawResponse,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.reply.status)
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.reply.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn body(&self) -> &[u8] {
        &self.reply.body
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.reply.body).into_owned()
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.reply.body).map_err(|error| self.error(Kind::Body, error.to_string()))
    }

    /// The response itself, unless its status is a refusal.
    pub fn success(self) -> Result<Self, Error> {
        if self.is_success() { Ok(self) } else { Err(self.refusal()) }
    }

    /// As an error that says what the service said.
    pub fn refusal(&self) -> Error {
        self.error(Kind::Status(self.status()), self.explanation())
    }

    fn error(&self, kind: Kind, message: String) -> Error {
        Error { kind, service: self.service.clone(), request: self.request.clone(), message, sent: true }
    }

    fn is_busy(&self) -> bool {
        matches!(self.status(), 423 | 429 | 503)
    }

    /// `Retry-After` in seconds, or Trigger.dev's `x-ratelimit-reset` in milliseconds since 1970.
    fn asked_pause_ms(&self) -> Option<u32> {
        if let Some(seconds) = self.header("retry-after").and_then(|text| text.trim().parse::<u32>().ok()) {
            return Some(seconds.saturating_mul(1_000));
        }
        let reset: i64 = self.header("x-ratelimit-reset")?.trim().parse().ok()?;
        u32::try_from(reset - context::now().as_micros() / 1_000).ok()
    }

    /// The words for people in an error reply, in the shapes that services use.
    fn explanation(&self) -> String {
        if let Ok(serde_json::Value::Object(body)) = serde_json::from_slice(&self.reply.body) {
            for field in ["message", "error", "detail", "title"] {
                match body.get(field) {
                    Some(serde_json::Value::String(text)) if !text.is_empty() => {
                        return text.clone();
                    }
                    Some(serde_json::Value::Object(inner)) => {
                        if let Some(text) = inner.get("message").and_then(|text| text.as_str()) {
                            return text.to_owned();
                        }
                    }
                    _ => {}
                }
            }
        }
        let text = self.text();
        // A proxy's error page says nothing that its status does not.
        if text.trim_start().starts_with('<') {
            String::new()
        } else {
            text.trim().chars().take(EXCERPT_CHARS).collect()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The manifest does not allow it.
    Denied,
    /// No connection came about: nothing was sent.
    Unreachable,
    /// It was sent, and no reply came: it may or may not have been applied.
    Unanswered,
    TooLarge,
    Deadline,
    /// A reply with this status, where [`Response::success`] was asked for.
    Status(u16),
    /// A body that could not be written or read as JSON.
    Body,
    Other,
}

impl Kind {
    fn of(code: &str, sent: bool) -> Self {
        match code {
            "denied" => Self::Denied,
            "unreachable" if sent => Self::Unanswered,
            "unreachable" => Self::Unreachable,
            "unanswered" => Self::Unanswered,
            "too-large" => Self::TooLarge,
            "deadline" => Self::Deadline,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Error {
    pub kind: Kind,
    pub service: String,
    /// Method and path.
    pub request: String,
    pub message: String,
    sent: bool,
}

impl Error {
    /// The status of a reply that was refused.
    pub fn status(&self) -> Option<u16> {
        match self.kind {
            Kind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the service may have done what was asked, so that a creation must be looked up before it is repeated. 503 says
    /// that nothing was done; other server errors, gateway time-outs among them, say nothing.
    pub fn may_have_been_applied(&self) -> bool {
        match self.kind {
            Kind::Status(503) => false,
            Kind::Status(status) => status >= 500,
            _ => self.sent,
        }
    }

    /// Whether the service was away or busy, as against refusing.
    pub fn is_outage(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::Unanswered | Kind::Status(423 | 429 | 500..))
    }

    #[cfg(test)]
    pub(crate) fn for_test(kind: Kind) -> Self {
        Self { kind, service: "example".into(), request: "GET /things".into(), message: "words".into(), sent: true }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, request, message, .. } = self;
        match self.kind {
            Kind::Status(status) if message.is_empty() => {
                write!(f, "`{service}` answered {status} to {request}")
            }
            Kind::Status(status) => {
                write!(f, "`{service}` answered {status} to {request}: {message}")
            }
            Kind::Unreachable => write!(f, "`{service}` could not be reached: {message}"),
            Kind::Unanswered => write!(f, "`{service}` did not answer {request}: {message}"),
            _ => write!(f, "{request} at `{service}`: {message}"),
        }
    }
}

impl std::error::Error for Error {}

/// As it crosses the border to the host.
#[derive(Debug, Clone)]
pub(crate) struct RawRequest {
    pub(crate) service: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) idempotent: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct RawError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) sent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_their_segment() {
        assert_eq!(path!("/projects/{}/x", "a/b?c#d e"), "/projects/a%2Fb%3Fc%23d%20e/x");
        let request =
            service("s").get("/runs").query("page[size]", 1).query("filter", "a,b&c").maybe_query("no", None::<u8>);
        assert_eq!(request.query, "?page%5Bsize%5D=1&filter=a%2Cb%26c");
    }

    #[test]
    fn explanations() {
        let explanation = |body: &str| {
            let reply = RawResponse { status: 400, headers: vec![], body: body.into() };
            Response { request: "GET /".into(), service: "s".into(), reply }.explanation()
        };
        for (body, expected) in [
            (r#"{"request_id":"1","code":"","message":"project not found"}"#, "project not found"),
            (r#"{"error":"Task not found"}"#, "Task not found"),
            (r#"{"error":{"message":"inner"}}"#, "inner"),
            (r#"{"title":"Rate Limit Exceeded","detail":"soon"}"#, "soon"),
            ("<!doctype html><title>524</title>", ""),
            ("plain words", "plain words"),
            ("", ""),
        ] {
            assert_eq!(explanation(body), expected, "{body}");
        }
    }

    #[test]
    fn only_an_answer_that_says_so_rules_out_that_a_request_was_applied() {
        for (kind, sent, expected) in [
            (Kind::Unreachable, false, false),
            (Kind::Unanswered, true, true),
            (Kind::Deadline, true, true),
            (Kind::Deadline, false, false),
            (Kind::Denied, false, false),
            (Kind::Status(503), true, false),
            (Kind::Status(524), true, true),
            (Kind::Status(500), true, true),
            (Kind::Status(422), true, false),
            (Kind::Status(423), true, false),
        ] {
            let error = Error { sent, ..Error::for_test(kind) };
            assert_eq!(error.may_have_been_applied(), expected, "{kind:?} sent: {sent}");
        }
    }
}
