//! SQL over HTTP: what `@neondatabase/serverless` speaks where a program has no TCP. One request is one statement or one
//! transaction; the password in the connection string is checked by Postgres itself.
mod value;
mod wire;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use self::wire::{Answer, PgMessage, Wire, WireError};
use super::Service;
use super::store::operations::{self, Action};
use super::store::projects;
use super::worker;
use crate::pg::{ClusterInfo, SUPERUSER};

/// Bytes of one request's body, as on Neon.
pub(crate) const REQUEST_MAX: usize = 10 << 20;

const CONNECTION: &str = "neon-connection-string";
const RAW: &str = "neon-raw-text-output";
const ARRAYS: &str = "neon-array-mode";
const ISOLATION: HeaderName = HeaderName::from_static("neon-batch-isolation-level");
const READ_ONLY: HeaderName = HeaderName::from_static("neon-batch-read-only");
const DEFERRABLE: HeaderName = HeaderName::from_static("neon-batch-deferrable");

/// The fields of an error, and the letters under which Postgres sends them. Clients count on every one of them.
const FIELDS: [(&str, char); 17] = [
    ("message", 'M'),
    ("code", 'C'),
    ("detail", 'D'),
    ("hint", 'H'),
    ("position", 'P'),
    ("internalPosition", 'p'),
    ("internalQuery", 'q'),
    ("severity", 'S'),
    ("where", 'W'),
    ("table", 't'),
    ("column", 'c'),
    ("schema", 's'),
    ("dataType", 'd'),
    ("constraint", 'n'),
    ("file", 'F'),
    ("line", 'L'),
    ("routine", 'R'),
];

/// No Debug: what it says may quote the caller's data.
pub(crate) struct SqlError {
    status: StatusCode,
    body: Value,
}

impl SqlError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let mut body: Map<String, Value> = FIELDS.iter().map(|(name, _)| ((*name).to_owned(), Value::Null)).collect();
        body.insert("message".to_owned(), message.into().into());
        Self { status, body: body.into() }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    fn of_postgres(message: &PgMessage) -> Self {
        let body: Map<String, Value> =
            FIELDS.iter().map(|(name, letter)| ((*name).to_owned(), message.field(*letter))).collect();
        Self { status: StatusCode::BAD_REQUEST, body: body.into() }
    }

    /// Neon's proxy says it in its own words.
    fn wrong_password(user: &str) -> Self {
        Self::bad_request(format!("password authentication failed for user '{user}'"))
    }
}

impl From<WireError> for SqlError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Refused(message) => Self::of_postgres(&message),
            WireError::TooLarge => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                format!("response is too large (max is {} bytes)", wire::ANSWER_MAX),
            ),
            WireError::Copy => Self::bad_request("COPY is not supported over HTTP"),
            WireError::Io(_) | WireError::OutOfTurn => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "control database");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the local hub failed to answer; `psn local logs` shows why")
    }
}

impl IntoResponse for SqlError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

#[derive(Deserialize)]
struct Query {
    query: String,
    #[serde(default)]
    params: Vec<Value>,
    #[serde(default, rename = "arrayMode")]
    array_mode: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Payload {
    Batch { queries: Vec<Query> },
    Single(Query),
}

/// What the headers say of the rows.
#[derive(Clone, Copy)]
struct Shape {
    raw: bool,
    arrays: bool,
}

pub(crate) async fn sql(State(service): State<Service>, request: Request) -> Result<Response, SqlError> {
    let (parts, body) = request.into_parts();
    let target = Target::read(&parts.headers)?;
    let payload = payload(body).await?;
    let cluster = cluster(&service, target.port).await?;
    let mut wire = target.connect(&cluster).await?;
    let shape = Shape { raw: is_true(&parts.headers, RAW), arrays: is_true(&parts.headers, ARRAYS) };
    match payload {
        Payload::Single(query) => Ok(Json(one(&mut wire, &query, shape).await?).into_response()),
        Payload::Batch { queries } => {
            let batch = Batch::read(&parts.headers)?;
            wire.execute(&batch.begin, &[]).await?;
            let mut results = Vec::with_capacity(queries.len());
            for query in &queries {
                // Dropping the connection rolls back what an error leaves open.
                results.push(one(&mut wire, query, shape).await?);
            }
            wire.execute("COMMIT", &[]).await?;
            Ok((batch.echo, Json(json!({ "results": results }))).into_response())
        }
    }
}

async fn payload(body: Body) -> Result<Payload, SqlError> {
    // What the limit of the body refuses and what breaks off on the way both end here; only the first one is still answered.
    let bytes = to_bytes(body, REQUEST_MAX).await.map_err(|_| {
        SqlError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("request is too large (max is {REQUEST_MAX} bytes)"))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| SqlError::bad_request(format!("invalid request body: {error}")))
}

fn is_true(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value == "true")
}

struct Target {
    user: String,
    password: String,
    database: String,
    port: u16,
    application: String,
}

impl Target {
    fn read(headers: &HeaderMap) -> Result<Self, SqlError> {
        let bad = |why: &str| SqlError::bad_request(format!("invalid connection string: {why}"));
        let text = headers
            .get(CONNECTION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| bad("the header Neon-Connection-String is missing"))?;
        // The parser's error could quote a part of it.
        let url = Url::parse(text).map_err(|_| bad("it is no URL"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(bad("it begins with neither postgres:// nor postgresql://"));
        }
        let decoded = |text: &str| {
            percent_decode_str(text).decode_utf8().map(|t| t.into_owned()).map_err(|_| bad("it is not UTF-8"))
        };
        let user = decoded(url.username())?;
        let database = decoded(url.path().trim_start_matches('/'))?;
        if user.is_empty() || database.is_empty() {
            return Err(bad("it names no user or no database"));
        }
        let application = url.query_pairs().find(|(name, _)| name == "application_name").map(|(_, v)| v.into_owned());
        Ok(Self {
            password: decoded(url.password().ok_or_else(|| bad("it has no password"))?)?,
            user,
            database,
            port: url.port().ok_or_else(|| bad("it has no port, and every database of the local hub has its own"))?,
            application: application.unwrap_or_default(),
        })
    }

    async fn connect(&self, cluster: &ClusterInfo) -> Result<Wire, SqlError> {
        // Over TCP, pg_hba.conf refuses it too.
        if self.user == SUPERUSER {
            return Err(SqlError::wrong_password(&self.user));
        }
        let socket = cluster.socket_dir.join(format!(".s.PGSQL.{}", cluster.port));
        let connected = Wire::connect(&socket, &self.user, &self.password, &self.database, &self.application).await;
        connected.map_err(|error| match error {
            WireError::Refused(message) if message.is_failed_login() => SqlError::wrong_password(&self.user),
            error => error.into(),
        })
    }
}

/// The cluster that listens on this port, which a suspended one does again after it was asked: as on Neon, a query wakes it.
async fn cluster(service: &Service, port: u16) -> Result<ClusterInfo, SqlError> {
    let unknown = || SqlError::bad_request(format!("no database of the local hub is reached on port {port}"));
    let project = service.clusters.id_of_port(port).ok_or_else(unknown)?;
    if let Some(cluster) = service.clusters.info(&project) {
        return Ok(cluster);
    }
    let mut tx = service.db.begin().await?;
    if !projects::is_there(&mut *tx, &project).await? {
        return Err(unknown());
    }
    if projects::lock_idle(&mut tx, &project).await? {
        for endpoint in projects::endpoints(&mut *tx, &project).await? {
            operations::schedule(&mut tx, &endpoint, &[Action::StartCompute]).await?;
        }
    }
    tx.commit().await?;
    let _ = worker::spawn(service, &project, None).await;
    let failed = || SqlError::new(StatusCode::INTERNAL_SERVER_ERROR, "the database could not be started");
    service.clusters.info(&project).ok_or_else(failed)
}

async fn one(wire: &mut Wire, query: &Query, shape: Shape) -> Result<Value, SqlError> {
    let params: Vec<_> = query.params.iter().map(value::parameter).collect();
    let answer = wire.execute(&query.query, &params).await?;
    Ok(reply(answer, Shape { arrays: query.array_mode.unwrap_or(shape.arrays), ..shape }))
}

fn reply(answer: Answer, shape: Shape) -> Value {
    let Answer { columns, rows, tag } = answer;
    let fields: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "dataTypeID": column.type_oid,
                "tableID": column.table_oid,
                "columnID": column.column_id,
                "dataTypeSize": column.type_size,
                "dataTypeModifier": column.type_modifier,
                "format": "text",
            })
        })
        .collect();
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| {
            let values = row.into_iter().zip(&columns).map(|(text, c)| value::json(text, c.type_oid, shape.raw));
            if shape.arrays {
                Value::Array(values.collect())
            } else {
                Value::Object(columns.iter().map(|c| c.name.clone()).zip(values).collect())
            }
        })
        .collect();
    let command = tag.split(' ').next().unwrap_or_default();
    // `INSERT 0 5`, `SELECT 5`; a definition has no number.
    let count = tag.rsplit(' ').next().and_then(|last| last.parse::<u64>().ok());
    json!({ "command": command, "rowCount": count, "rows": rows, "fields": fields, "rowAsArray": shape.arrays })
}

/// A transaction as the headers want it.
struct Batch {
    begin: String,
    /// The headers that were given come back.
    echo: HeaderMap,
}

impl Batch {
    fn read(headers: &HeaderMap) -> Result<Self, SqlError> {
        let mut begin = "BEGIN".to_owned();
        let mut echo = HeaderMap::new();
        if let Some(level) = headers.get(ISOLATION) {
            begin += match level.as_bytes() {
                b"ReadUncommitted" => " ISOLATION LEVEL READ UNCOMMITTED",
                b"ReadCommitted" => " ISOLATION LEVEL READ COMMITTED",
                b"RepeatableRead" => " ISOLATION LEVEL REPEATABLE READ",
                b"Serializable" => " ISOLATION LEVEL SERIALIZABLE",
                _ => return Err(SqlError::bad_request("invalid isolation level")),
            };
            echo.insert(ISOLATION, level.clone());
        }
        for (name, words) in [(READ_ONLY, " READ ONLY"), (DEFERRABLE, " DEFERRABLE")] {
            if is_true(headers, name.as_str()) {
                begin += words;
                echo.insert(name, HeaderValue::from_static("true"));
            }
        }
        Ok(Self { begin, echo })
    }
}
