//! What tests/clients/wire.mjs kept of a vendor's client: each reply is held against the vendor's own schema of its route.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::support::{assert_schema, schemas};

/// Method, path with `*` for one segment, and the schema of its 2xx replies.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/api/v2/whoami", "WhoAmIResponseSchema"),
    ("GET", "/api/v1/orgs", "GetOrgsResponseBody"),
    ("GET", "/api/v1/projects", "GetProjectsResponseBody"),
    ("GET", "/api/v1/projects/*", "GetProjectResponseBody"),
    ("GET", "/api/v1/projects/*/environments", "GetProjectEnvironmentsResponseBody"),
    ("GET", "/api/v1/projects/*/runs", "ListRunResponse"),
    ("GET", "/api/v1/projects/*/envvars", "GetEnvironmentVariablesResponseBody"),
    ("GET", "/api/v1/projects/*/envvars/*", "EnvironmentVariables"),
    ("POST", "/api/v1/projects/*/envvars/*", "EnvironmentVariableResponseBody"),
    ("POST", "/api/v1/projects/*/envvars/*/import", "EnvironmentVariableResponseBody"),
    ("GET", "/api/v1/projects/*/envvars/*/*", "EnvironmentVariableWithSecret"),
    ("PUT", "/api/v1/projects/*/envvars/*/*", "EnvironmentVariableResponseBody"),
    ("DELETE", "/api/v1/projects/*/envvars/*/*", "EnvironmentVariableResponseBody"),
    ("POST", "/api/v1/projects/*/background-workers", "CreateBackgroundWorkerResponse"),
    ("GET", "/api/v1/projects/*/*", "GetProjectEnvResponse"),
    ("GET", "/api/v1/projects/*/*/workers/*", "GetWorkerByTagResponse"),
    ("POST", "/api/v1/tasks/*/trigger", "TriggerTaskResponse"),
    ("GET", "/api/v1/runs", "ListRunResponse"),
    ("GET", "/api/v3/runs/*", "RetrieveRunResponse"),
    ("POST", "/api/v2/runs/*/cancel", "CanceledRunResponse"),
    ("POST", "/api/v1/runs/*/replay", "ReplayRunResponse"),
    ("POST", "/api/v1/runs/*/reschedule", "RetrieveRunResponse"),
    ("POST", "/api/v1/idempotencyKeys/*/reset", "ResetIdempotencyKeyResponse"),
    ("POST", "/api/v3/batches", "CreateBatchResponse"),
    ("POST", "/api/v3/batches/*/items", "StreamBatchItemsResponse"),
    ("GET", "/api/v2/batches/*", "RetrieveBatchV2Response"),
    ("GET", "/api/v1/schedules", "ListSchedulesResult"),
    ("POST", "/api/v1/schedules", "ScheduleObject"),
    ("GET", "/api/v1/schedules/*", "ScheduleObject"),
    ("PUT", "/api/v1/schedules/*", "ScheduleObject"),
    ("DELETE", "/api/v1/schedules/*", "DeletedScheduleObject"),
    ("POST", "/api/v1/schedules/*/activate", "ScheduleObject"),
    ("POST", "/api/v1/schedules/*/deactivate", "ScheduleObject"),
    ("GET", "/api/v1/timezones", "TimezonesResult"),
    ("GET", "/engine/v1/dev/config", "DevConfigResponseBody"),
    ("POST", "/engine/v1/dev/dequeue", "DevDequeueResponseBody"),
    ("POST", "/engine/v1/dev/disconnect", "DevDisconnectResponseBody"),
    ("GET", "/engine/v1/dev/runs/*/snapshots/latest", "WorkerApiRunLatestSnapshotResponseBody"),
    ("POST", "/engine/v1/dev/runs/*/snapshots/*/attempts/start", "WorkerApiRunAttemptStartResponseBody"),
    ("POST", "/engine/v1/dev/runs/*/snapshots/*/attempts/complete", "WorkerApiRunAttemptCompleteResponseBody"),
];

/// Routes that the export has no schema for, because the clients read nothing of what they answer.
const NO_SCHEMA: &[(&str, &str)] =
    &[("POST", "/engine/v1/dev/runs/*/snapshots/*/heartbeat"), ("POST", "/otel/*/*"), ("POST", "/otel/*")];

#[derive(Debug, Deserialize)]
struct Kept {
    method: String,
    path: String,
    status: u16,
    kind: String,
    body: Option<String>,
}

/// A file for `PSN_WIRE_RECORD`, and what was found in it.
pub struct Record {
    pub file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Record {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("psn-wire-").tempdir().unwrap();
        Self { file: dir.path().join("replies.ndjson"), _dir: dir }
    }

    /// Panics unless each reply is what the vendor says. Answers how many there were on each route, `METHOD path`.
    pub fn check(&self) -> BTreeMap<String, usize> {
        let mut routes = BTreeMap::new();
        for line in std::fs::read_to_string(&self.file).expect("replies were kept").lines() {
            let kept: Kept = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let route = check(&kept);
            *routes.entry(format!("{} {route}", kept.method)).or_default() += 1;
        }
        routes
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(p, s)| *p == "*" || p == s)
}

fn check(kept: &Kept) -> &'static str {
    let Kept { method, path, status, kind, body } = kept;
    if !(200..300).contains(status) {
        let body: Value = serde_json::from_str(body.as_deref().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{method} {path}: {status} is no JSON: {e}"));
        // What all of the vendor's refusals have, and its clients show.
        assert!(body["error"].as_str().is_some_and(|e| !e.is_empty()), "{method} {path}: {status} {body}");
        let problem = kind.starts_with("application/problem+json");
        assert_eq!(problem, body["title"].is_string(), "{method} {path}: {kind} {body}");
        return "refused";
    }
    if let Some((_, pattern, schema)) = ROUTES.iter().find(|(m, p, _)| m == method && fits(p, path)) {
        let body = body.as_deref().unwrap_or_else(|| panic!("{method} {path}: {kind} is no JSON"));
        assert_schema(schema, &serde_json::from_str(body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body}")));
        return pattern;
    }
    let known = NO_SCHEMA.iter().find(|(m, p)| m == method && fits(p, path));
    known.map(|(_, p)| *p).unwrap_or_else(|| {
        // A stream, or no content at all, says nothing that a schema could be about.
        assert!(body.is_none(), "{method} {path} has no schema here");
        "no body"
    })
}

/// The committed schemas are the vendor's, as its export beside this checkout has them.
#[test]
fn the_schemas_are_those_of_the_export() {
    let export = std::env::var_os("PSN_WIRE_SCHEMAS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/wire/trigger-core-4.8.3.jsonschema.json"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read(&export) else {
        eprintln!(
            "SKIPPED: no {}: the committed schemas are used without a look at where they come from",
            export.display()
        );
        return;
    };
    let export: Value = serde_json::from_slice(&text).expect("the export is JSON");
    for (name, schema) in schemas() {
        assert_eq!(schema, &export[name]["input"], "{name}: run scripts/wire-schemas-trigger.py");
    }
    for (_, _, schema) in ROUTES {
        assert!(schemas().contains_key(*schema), "{schema} is not among the committed schemas");
    }
}

#[test]
fn replies_that_are_not_the_vendors_are_seen() {
    let kept = |method: &str, path: &str, status, body: Option<&str>| Kept {
        method: method.to_owned(),
        path: path.to_owned(),
        status,
        kind: "application/json".to_owned(),
        body: body.map(str::to_owned),
    };
    assert_eq!(
        check(&kept("POST", "/api/v1/tasks/t/trigger", 200, Some(r#"{"id":"run_1"}"#))),
        "/api/v1/tasks/*/trigger"
    );
    assert_eq!(check(&kept("GET", "/api/v3/runs/run_1", 404, Some(r#"{"error":"Not found"}"#))), "refused");
    for (method, path, status, body) in [
        ("POST", "/api/v1/tasks/t/trigger", 200, Some(r#"{"ID":"run_1"}"#)),
        ("POST", "/api/v1/tasks/t/trigger", 200, None),
        ("GET", "/api/v1/runs", 200, Some("{}")),
        ("GET", "/api/v3/runs/run_1", 404, Some("{}")),
        ("GET", "/api/v9/unknown", 200, Some("{}")),
    ] {
        let reply = kept(method, path, status, body);
        assert!(std::panic::catch_unwind(|| check(&reply)).is_err(), "{method} {path} {body:?} was accepted");
    }
}
