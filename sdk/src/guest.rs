//! Calls across the border to the host, in the SDK's own types. The test doubles in `testing::backend` have the same functions.

pub mod export;

use crate::{
    Level, Timestamp,
    bindings::imports::psn::plugin as host,
    db::{self, RawRows, Uuid, Value},
    http::{Method, RawError, RawRequest, RawResponse},
    tool,
};

pub(crate) fn http_send(request: &RawRequest) -> Result<RawResponse, RawError> {
    use host::http;
    let method = match request.method {
        Method::Get => http::Method::Get,
        Method::Head => http::Method::Head,
        Method::Post => http::Method::Post,
        Method::Put => http::Method::Put,
        Method::Patch => http::Method::Patch,
        Method::Delete => http::Method::Delete,
    };
    let request = http::Request {
        service: request.service.clone(),
        method,
        path: request.path.clone(),
        headers: request.headers.clone(),
        body: request.body.clone(),
        idempotent: request.idempotent,
    };
    match http::send(&request) {
        Ok(reply) => Ok(RawResponse { status: reply.status, headers: reply.headers, body: reply.body }),
        Err(error) => Err(RawError { code: error.code, message: error.message, sent: error.sent }),
    }
}

pub(crate) fn db_query(sql: &str, params: &[Value]) -> Result<RawRows, db::Error> {
    host::db::query(sql, &lower(params)).map(lift_rows).map_err(lift_error)
}

pub(crate) fn db_execute(sql: &str, params: &[Value]) -> Result<u64, db::Error> {
    host::db::execute(sql, &lower(params)).map_err(lift_error)
}

pub(crate) fn db_open_cursor(sql: &str, params: &[Value]) -> Result<Cursor, db::Error> {
    host::db::open_cursor(sql, &lower(params)).map(Cursor).map_err(lift_error)
}

pub(crate) fn db_begin(as_user: Option<&str>) -> Result<Transaction, db::Error> {
    host::db::begin(as_user).map(Transaction).map_err(lift_error)
}

pub(crate) struct Cursor(host::db::Cursor);

impl Cursor {
    pub(crate) fn next(&self, limit: u32) -> Result<RawRows, db::Error> {
        self.0.next(limit).map(lift_rows).map_err(lift_error)
    }
}

pub(crate) struct Transaction(host::db::Transaction);

impl Transaction {
    pub(crate) fn query(&self, sql: &str, params: &[Value]) -> Result<RawRows, db::Error> {
        self.0.query(sql, &lower(params)).map(lift_rows).map_err(lift_error)
    }

    pub(crate) fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, db::Error> {
        self.0.execute(sql, &lower(params)).map_err(lift_error)
    }

    pub(crate) fn commit(self) -> Result<(), db::Error> {
        host::db::Transaction::commit(self.0).map_err(lift_error)
    }
}

fn lower(params: &[Value]) -> Vec<host::db::Value> {
    use host::db::Value as Wit;
    params
        .iter()
        .map(|value| match value {
            Value::Null => Wit::Null,
            Value::Bool(value) => Wit::Boolean(*value),
            Value::Int(value) => Wit::Int64(*value),
            Value::Float(value) => Wit::Float64(*value),
            Value::Text(value) => Wit::Text(value.clone()),
            Value::Bytes(value) => Wit::Bytes(value.clone()),
            Value::Timestamp(value) => Wit::Timestamp(value.as_micros()),
            Value::Uuid(value) => Wit::Uuid(value.as_str().to_owned()),
            Value::Json(value) => Wit::Json(value.to_string()),
        })
        .collect()
}

fn lift(value: host::db::Value) -> Value {
    use host::db::Value as Wit;
    match value {
        Wit::Null => Value::Null,
        Wit::Boolean(value) => Value::Bool(value),
        Wit::Int64(value) => Value::Int(value),
        Wit::Float64(value) => Value::Float(value),
        Wit::Text(value) => Value::Text(value),
        Wit::Bytes(value) => Value::Bytes(value),
        Wit::Timestamp(value) => Value::Timestamp(Timestamp::from_micros(value)),
        Wit::Uuid(value) => Value::Uuid(Uuid::from(value)),
        // Postgres wrote it, so it parses; should it ever not, the text is still there.
        Wit::Json(value) => serde_json::from_str(&value).map_or(Value::Text(value), Value::Json),
    }
}

fn lift_rows(rows: host::db::Rows) -> RawRows {
    RawRows {
        columns: rows.columns,
        rows: rows.rows.into_iter().map(|row| row.into_iter().map(lift).collect()).collect(),
    }
}

fn lift_error(error: host::db::Error) -> db::Error {
    db::Error { code: error.code, message: error.message, sqlstate: error.sqlstate }
}

pub(crate) fn secret_exists(name: &str) -> bool {
    host::secrets::exists(name)
}

pub(crate) fn secret_fingerprint(name: &str) -> Option<String> {
    host::secrets::fingerprint(name)
}

pub(crate) fn secret_generate(name: &str, bytes: u32) -> Result<(), String> {
    host::secrets::generate(name, bytes)
}

pub(crate) fn state_get(key: &str) -> Option<String> {
    host::state::get(key)
}

pub(crate) fn state_put(key: &str, value: &str) -> Result<(), String> {
    host::state::put(key, value)
}

pub(crate) fn state_delete(key: &str) -> Result<(), String> {
    host::state::delete(key)
}

pub(crate) fn vault_seal(plaintext: &[u8], context: &str) -> Result<String, String> {
    host::vault::seal(plaintext, context)
}

pub(crate) fn vault_open(sealed: &str, context: &str) -> Result<Vec<u8>, String> {
    host::vault::open(sealed, context)
}

pub(crate) fn tool_run(name: &str, args: &[&str]) -> Result<tool::Output, tool::Error> {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    match host::tool::run(name, &args) {
        Ok(output) => Ok(tool::Output { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr }),
        Err(error) => Err(tool::Error { code: error.code, message: error.message, tool: name.to_owned() }),
    }
}

pub(crate) fn hub_facts(topic: &str) -> Result<String, (String, String)> {
    host::hub::facts(topic).map_err(|error| (error.code, error.message))
}

pub(crate) fn run_id() -> String {
    host::context::run_id()
}

pub(crate) fn hub_id() -> String {
    host::context::hub_id()
}

pub(crate) fn attempt() -> u32 {
    host::context::attempt()
}

pub(crate) fn setting(name: &str) -> Option<String> {
    host::context::setting(name)
}

pub(crate) fn now() -> i64 {
    host::context::now()
}

pub(crate) fn sleep_ms(ms: u32) {
    host::context::sleep_ms(ms);
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    host::context::random_bytes(len)
}

pub(crate) fn log(level: Level, message: &str, fields: &[(&str, String)]) {
    use host::events;
    let level = match level {
        Level::Debug => events::Level::Debug,
        Level::Info => events::Level::Info,
        Level::Warn => events::Level::Warn,
        Level::Error => events::Level::Error,
    };
    let fields: Vec<_> = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    events::log(level, message, &fields);
}

pub(crate) fn progress(done: u32, total: u32, message: &str) {
    host::events::progress(done, total, message);
}
