//! What a hub is made of, in a form in which two hubs can be compared: what differs from hub to hub is taken out.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::rig::Case;

/// What is in the database besides people's data, as one text each.
const CATALOG: [(&str, &str); 6] = [
    ("databases", "SELECT datname::text FROM pg_database WHERE NOT datistemplate"),
    (
        "roles",
        "SELECT format('%s login=%s super=%s bypass=%s', rolname, rolcanlogin, rolsuper, rolbypassrls) FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'",
    ),
    ("migrations", "SELECT version::text FROM psn.migrations WHERE success"),
    ("unfinished migrations", "SELECT version::text FROM psn.migrations WHERE NOT success"),
    ("policies", "SELECT format('%s %s %s', tablename, policyname, cmd) FROM pg_policies"),
    (
        "grants",
        "SELECT DISTINCT format('%s %s %s', grantee, table_name, privilege_type) FROM information_schema.column_privileges WHERE grantee LIKE 'psn\\_%'",
    ),
];

/// Everything of it: remote, local, in files.
pub fn hub(case: &Case<'_>) -> Value {
    let neon = case.neon_projects();
    let trigger = case.trigger_projects();
    let mut found = json!({
        "neon projects": neon.len(),
        "trigger projects": trigger.len(),
        "catalog": catalog(case),
        "trigger": deployed(case, trigger.first()),
        "files": files(&case.folder),
        "half-written": half_written(&case.rig.machine.home()),
        "notes": notes(&case.folder),
        "names": names(&case.folder),
    });
    let id_of = |project: Option<&Value>, field: &str| {
        project.and_then(|p| p[field].as_str()).unwrap_or("no such project").to_owned()
    };
    let known = [
        (id_of(neon.first(), "id"), "NEON-PROJECT"),
        (id_of(trigger.first(), "id"), "TRIGGER-PROJECT-ID"),
        (id_of(trigger.first(), "externalRef"), "TRIGGER-PROJECT"),
        (case.secret("PSN_HUB_ID").unwrap_or_else(|| "no id".to_owned()), "HUB"),
        (format!("127.0.0.1:{}", case.rig.sql.port()), "DATABASE"),
    ];
    replace(&mut found, &known);
    found
}

fn catalog(case: &Case<'_>) -> Value {
    let Some(url) = case.secret("DATABASE_URL_DIRECT") else { return Value::Null };
    let ca = case.rig.machine.home().join("local-hub/tls/ca.pem");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a connection string");
        let options = options.ssl_mode(sqlx::postgres::PgSslMode::VerifyFull).ssl_root_cert(ca);
        let mut db = PgConnection::connect_with(&options).await.expect("the hub's database");
        let mut found = serde_json::Map::new();
        for (what, sql) in CATALOG {
            let rows = sqlx::query(sql).fetch_all(&mut db).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            lines.sort();
            found.insert(what.to_owned(), json!(lines));
        }
        let _ = db.close().await;
        Value::Object(found)
    })
}

fn deployed(case: &Case<'_>, project: Option<&Value>) -> Value {
    let (Some(project), Some(key), Some(token)) =
        (project, case.secret("TRIGGER_SECRET_KEY"), case.secret("TRIGGER_ACCESS_TOKEN"))
    else {
        return Value::Null;
    };
    let current = case.rig.trigger("GET", "/api/v1/deployments/current", &key).json();
    let all = case.rig.trigger("GET", "/api/v1/deployments?page%5Bsize%5D=100", &key).json();
    let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
    for deployment in all["data"].as_array().into_iter().flatten() {
        *by_status.entry(deployment["status"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let schedules = case.rig.trigger("GET", "/api/v1/schedules?page=1&perPage=100", &key).json();
    let schedules: Vec<String> = schedules["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| format!("{} {} {}", s["task"], s["generator"]["expression"], s["active"]))
        .collect();
    let external_ref = project["externalRef"].as_str().unwrap_or_default();
    let variables = case.rig.trigger("GET", &format!("/api/v1/projects/{external_ref}/envvars/prod"), &token).json();
    let mut variables: Vec<String> =
        variables.as_array().into_iter().flatten().map(|v| v["name"].as_str().unwrap_or_default().to_owned()).collect();
    variables.sort();
    json!({
        "current": current["status"],
        "deployed": by_status.get("DEPLOYED"),
        "schedules": schedules,
        "variables": variables,
    })
}

/// Paths below the folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).expect("below it").display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// What killed writers left in the account's own folders.
fn half_written(home: &Path) -> Vec<String> {
    let folders = ["cache", "components"].map(|f| home.join(f));
    let all = folders.iter().filter(|f| f.is_dir()).flat_map(|f| files(f));
    all.filter(|f| f.ends_with(".tmp")).collect()
}

/// psn's own notes: those of the plugins whole, of the ledger what was done and by what.
fn notes(folder: &Path) -> Value {
    let mut found = serde_json::Map::new();
    for file in files(&folder.join(".psn/state")) {
        let bytes = std::fs::read(folder.join(".psn/state").join(&file)).expect("a file");
        let mut value: Value = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
        if let Some(steps) = value.get_mut("steps").and_then(Value::as_object_mut) {
            for (_, step) in steps.iter_mut() {
                *step = json!({ "status": step["status"], "component": step["component_sha256"] });
            }
        }
        found.insert(file, value);
    }
    Value::Object(found)
}

/// Names in the env files, which must be read as they are.
fn names(folder: &Path) -> Value {
    let mut found = serde_json::Map::new();
    for file in ["hub.env", "keys.env"] {
        let text = std::fs::read_to_string(folder.join("config").join(file)).unwrap_or_default();
        let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
        let mut names: Vec<&str> = lines.map(|l| l.split_once('=').expect("NAME=VALUE").0).collect();
        names.sort_unstable();
        found.insert(file.to_owned(), json!(names));
    }
    Value::Object(found)
}

/// Takes out ids, times, and the fingerprints of random secrets.
fn replace(value: &mut Value, known: &[(String, &str)]) {
    match value {
        Value::String(text) => {
            // A plugin's note is JSON in a string.
            if let Ok(mut inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text) {
                replace(&mut inner, known);
                *value = inner;
                return;
            }
            for (id, word) in known {
                *text = text.replace(id.as_str(), word);
            }
            if text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                *text = "FINGERPRINT".to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| replace(v, known)),
        Value::Object(map) => {
            let old = std::mem::take(map);
            for (name, mut inner) in old {
                replace(&mut inner, known);
                // The local hub tells a default until it has made the cluster.
                if name == "pg_version" {
                    inner = "VERSION".into();
                }
                let name = known.iter().fold(name, |name, (id, word)| name.replace(id.as_str(), word));
                map.insert(name, inner);
            }
        }
        _ => {}
    }
}

/// Where two of them differ, by path.
pub fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare("", expected, found, &mut all);
    all
}

fn compare(at: &str, expected: &Value, found: &Value, all: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(e), Value::Object(f)) => {
            for name in e.keys().chain(f.keys().filter(|k| !e.contains_key(*k))) {
                compare(&format!("{at}/{name}"), &expected[name.as_str()], &found[name.as_str()], all);
            }
        }
        _ if expected != found => all.push(format!("{at}: {expected} became {found}")),
        _ => {}
    }
}
