//! Neon's reply schemas, as scripts/wire-schemas-neon.py extracts them from its OpenAPI document.
use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../schemas/neon.json")).expect("the committed schemas are JSON")
});

/// Panics unless `body` is what Neon documents for this reply.
pub(crate) fn check(method: &str, path: &str, status: u16, body: &Value) {
    let replies = DOCUMENT["replies"].as_object().expect("replies");
    let route = route(method, path);
    let key = match route {
        // A path that Neon does not have: its errors have the one shape that all have.
        None => "GET /auth error".to_owned(),
        Some(route) if replies.contains_key(&format!("{route} {status}")) => {
            format!("{route} {status}")
        }
        Some(route) => {
            assert!(!(200..300).contains(&status), "Neon documents no {status} for {route}");
            format!("{route} error")
        }
    };
    let mut schema = replies[&key].clone();
    schema["$schema"] = DOCUMENT["$schema"].clone();
    schema["$defs"] = DOCUMENT["$defs"].clone();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("the schema is valid");
    let errors: Vec<_> = validator.iter_errors(body).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(errors.is_empty(), "{key}: {errors:#?}\n{body:#}");
}

/// The documented route of a concrete path; literal segments win over parameters.
fn route(method: &str, path: &str) -> Option<String> {
    let concrete: Vec<_> = path.split('/').collect();
    let mut candidates: Vec<String> = DOCUMENT["replies"]
        .as_object()
        .expect("replies")
        .keys()
        .filter_map(|key| {
            let mut words = key.split(' ');
            let (m, template) = (words.next()?, words.next()?);
            let segments: Vec<_> = template.split('/').collect();
            let fits = m == method
                && segments.len() == concrete.len()
                && segments.iter().zip(&concrete).all(|(s, c)| s == c || s.starts_with('{'));
            fits.then(|| format!("{m} {template}"))
        })
        .collect();
    candidates.sort_by_key(|route| route.matches('{').count());
    candidates.into_iter().next()
}

#[test]
fn the_schemas_refuse_what_they_should() {
    let refuses = |method, path, status, body: Value| {
        std::panic::catch_unwind(|| check(method, path, status, &body)).expect_err("was accepted");
    };
    check("GET", "/auth", 200, &serde_json::json!({"account_id": "a", "auth_method": "api_key_user"}));
    refuses("GET", "/auth", 200, serde_json::json!({"account_id": "a"}));
    refuses("GET", "/auth", 200, serde_json::json!({"account_id": "a", "auth_method": "other"}));
    refuses("GET", "/auth", 200, serde_json::json!({"account_id": "a", "auth_method": "api_key_user", "unknown": 1}));
    refuses("GET", "/auth", 401, serde_json::json!({"message": "no code"}));
    refuses("GET", "/projects/p/operations/o", 200, serde_json::json!({"operation": {"id": "no-uuid"}}));
    // A field that no part of an allOf knows, deep inside.
    refuses(
        "GET",
        "/projects/p/branches",
        200,
        serde_json::json!({"branches": [], "annotations": {}, "pagination": {"sort": "name"}}),
    );
}
