//! What a test expects the plugin to do, and what it is answered.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use serde_json::Value as Json;

use super::World;
use crate::{
    db::{self, RawRows, Value},
    http::{RawError, RawRequest, RawResponse},
    tool,
};

#[derive(Default)]
pub(crate) struct Script {
    expected: VecDeque<Expected>,
}

enum Expected {
    Http(HttpCall, Result<RawResponse, RawError>),
    Sql(SqlCall, Result<SqlReply, db::Error>),
    Tool(ToolCall, Result<tool::Output, tool::Error>),
}

#[derive(Clone)]
pub(crate) enum SqlReply {
    Rows(RawRows),
    Affected(u64),
}

impl Script {
    pub(crate) fn left(&self) -> Vec<String> {
        self.expected.iter().map(Expected::describe).collect()
    }

    fn next(&mut self, got: &str) -> Expected {
        self.expected.pop_front().unwrap_or_else(|| panic!("unexpected call, after all expected ones: {got}"))
    }

    pub(crate) fn http(&mut self, request: &RawRequest) -> Result<RawResponse, RawError> {
        let got = format!("{} {} {}", request.method.as_str(), request.service, request.path);
        match self.next(&got) {
            Expected::Http(call, reply) => {
                call.check(request, &got);
                reply
            }
            other => panic!("expected {}, got {got}", other.describe()),
        }
    }

    pub(crate) fn sql(&mut self, sql: &str, params: &[Value]) -> Result<SqlReply, db::Error> {
        let got = format!("SQL {}", one_line(sql));
        match self.next(&got) {
            Expected::Sql(call, reply) => {
                call.check(sql, params);
                reply
            }
            other => panic!("expected {}, got {got}", other.describe()),
        }
    }

    pub(crate) fn tool(&mut self, name: &str, args: &[&str]) -> Result<tool::Output, tool::Error> {
        let got = format!("program {name} {}", args.join(" "));
        match self.next(&got) {
            Expected::Tool(call, reply) if call.name == name && call.args == args => reply,
            other => panic!("expected {}, got {got}", other.describe()),
        }
    }
}

impl Expected {
    fn describe(&self) -> String {
        match self {
            Self::Http(call, _) => format!("{} at {}", call.request, call.service),
            Self::Sql(call, _) => format!("SQL with {:?}", call.fragments),
            Self::Tool(call, _) => format!("program {} {}", call.name, call.args.join(" ")),
        }
    }
}

/// White space does not matter in SQL: tests should not break when a statement is laid out anew.
pub(crate) fn one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Clone)]
struct HttpCall {
    service: String,
    request: String,
    query: Vec<(String, String)>,
    no_query: Vec<String>,
    headers: Vec<(String, String)>,
    body: Option<Json>,
    body_parts: Vec<(String, Json)>,
    idempotent: bool,
}

impl HttpCall {
    fn check(&self, request: &RawRequest, got: &str) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let line = format!("{} {path}", request.method.as_str());
        assert!(
            request.service == self.service && line == self.request,
            "expected {} at {}, got {got}",
            self.request,
            self.service
        );
        let pairs: Vec<_> = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        for (name, value) in &self.query {
            let encoded = (crate::http::encode(name), crate::http::encode(value));
            let there = pairs.iter().any(|(key, given)| *key == encoded.0 && *given == encoded.1);
            assert!(there, "{got} lacks the query parameter {name}={value}");
        }
        for name in &self.no_query {
            assert!(!pairs.iter().any(|(key, _)| key == name), "{got} must not have the query parameter {name}");
        }
        for (name, value) in &self.headers {
            let there = request.headers.iter().any(|(key, given)| key.eq_ignore_ascii_case(name) && given == value);
            assert!(there, "{got} lacks the header {name}: {value}");
        }
        let body: Option<Json> =
            request.body.as_deref().map(|body| serde_json::from_slice(body).expect("a body of JSON"));
        if let Some(expected) = &self.body {
            assert_eq!(body.as_ref(), Some(expected), "body of {got}");
        }
        for (pointer, expected) in &self.body_parts {
            let part = body.as_ref().and_then(|body| body.pointer(pointer));
            assert_eq!(part, Some(expected), "{pointer} in the body of {got}");
        }
        assert!(!self.idempotent || request.idempotent, "{got} must be marked as idempotent");
    }
}

/// An HTTP request that is expected; ended by its reply.
#[must_use = "an expectation ends with its reply"]
pub struct HttpExpectation {
    world: Rc<RefCell<World>>,
    call: HttpCall,
    times: usize,
}

impl HttpExpectation {
    pub(crate) fn new(world: Rc<RefCell<World>>, service: &str, request: &str) -> Self {
        let call = HttpCall {
            service: service.into(),
            request: request.into(),
            query: Vec::new(),
            no_query: Vec::new(),
            headers: Vec::new(),
            body: None,
            body_parts: Vec::new(),
            idempotent: false,
        };
        Self { world, call, times: 1 }
    }

    /// The query has this parameter; it may have more.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.call.query.push((name.into(), value.into()));
        self
    }

    pub fn no_query(mut self, name: &str) -> Self {
        self.call.no_query.push(name.into());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.call.headers.push((name.into(), value.into()));
        self
    }

    /// The whole body.
    pub fn body(mut self, body: Json) -> Self {
        self.call.body = Some(body);
        self
    }

    /// The value at a JSON pointer in the body.
    pub fn body_part(mut self, pointer: &str, value: Json) -> Self {
        self.call.body_parts.push((pointer.into(), value));
        self
    }

    pub fn idempotent(mut self) -> Self {
        self.call.idempotent = true;
        self
    }

    /// The same request with the same reply, so many times.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    pub fn reply(self, status: u16, body: Json) {
        self.reply_raw(status, &[("content-type", "application/json")], &body.to_string());
    }

    pub fn reply_raw(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.end(Ok(RawResponse { status, headers, body: body.into() }));
    }

    /// No connection came about.
    pub fn unreachable(self) {
        self.fail("unreachable", false);
    }

    /// It was sent, and no reply came.
    pub fn unanswered(self) {
        self.fail("unanswered", true);
    }

    pub fn fail(self, code: &str, sent: bool) {
        self.end(Err(RawError { code: code.into(), message: format!("made to fail: {code}"), sent }));
    }

    fn end(self, reply: Result<RawResponse, RawError>) {
        for _ in 0..self.times {
            let expected = Expected::Http(self.call.clone(), reply.clone());
            self.world.borrow_mut().script.expected.push_back(expected);
        }
    }
}

struct SqlCall {
    fragments: Vec<String>,
    params: Option<Vec<Value>>,
}

impl SqlCall {
    fn check(&self, sql: &str, params: &[Value]) {
        let sql = one_line(sql);
        for fragment in &self.fragments {
            assert!(sql.contains(fragment.as_str()), "expected SQL with `{fragment}`, got: {sql}");
        }
        if let Some(expected) = &self.params {
            assert_eq!(params, expected, "parameters of: {sql}");
        }
    }
}

/// A statement that is expected; ended by its result.
#[must_use = "an expectation ends with its result"]
pub struct SqlExpectation {
    world: Rc<RefCell<World>>,
    call: SqlCall,
}

impl SqlExpectation {
    pub(crate) fn new(world: Rc<RefCell<World>>, fragments: &[&str]) -> Self {
        let fragments = fragments.iter().map(|fragment| one_line(fragment)).collect();
        Self { world, call: SqlCall { fragments, params: None } }
    }

    pub fn params(mut self, params: &[Value]) -> Self {
        self.call.params = Some(params.to_vec());
        self
    }

    pub fn rows(self, columns: &[&str], rows: Vec<Vec<Value>>) {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        self.end(Ok(SqlReply::Rows(RawRows { columns, rows })));
    }

    pub fn affected(self, rows: u64) {
        self.end(Ok(SqlReply::Affected(rows)));
    }

    pub fn fail(self, code: &str, sqlstate: Option<&str>) {
        let error = db::Error {
            code: code.into(),
            message: format!("made to fail: {code}"),
            sqlstate: sqlstate.map(Into::into),
        };
        self.end(Err(error));
    }

    fn end(self, reply: Result<SqlReply, db::Error>) {
        self.world.borrow_mut().script.expected.push_back(Expected::Sql(self.call, reply));
    }
}

struct ToolCall {
    name: String,
    args: Vec<String>,
}

/// A program that is expected to be run; ended by how that went.
#[must_use = "an expectation ends with its result"]
pub struct ToolExpectation {
    world: Rc<RefCell<World>>,
    call: ToolCall,
}

impl ToolExpectation {
    pub(crate) fn new(world: Rc<RefCell<World>>, name: &str, args: &[&str]) -> Self {
        Self { world, call: ToolCall { name: name.into(), args: args.iter().map(|&arg| arg.to_owned()).collect() } }
    }

    pub fn exits(self, exit_code: i32, stdout: &str, stderr: &str) {
        self.end(Ok(tool::Output { exit_code, stdout: stdout.into(), stderr: stderr.into() }));
    }

    pub fn fail(self, code: &str, message: &str) {
        let tool = self.call.name.clone();
        self.end(Err(tool::Error { code: code.into(), message: message.into(), tool }));
    }

    fn end(self, reply: Result<tool::Output, tool::Error>) {
        self.world.borrow_mut().script.expected.push_back(Expected::Tool(self.call, reply));
    }
}
