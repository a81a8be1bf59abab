mod applying;
mod destroying;
mod inspecting;

use psn_neon_step::Noted;
use psn_plugin::testing::Hub;

use super::*;

const NAME: &str = "psn-hub-7f3a0c1d";

/// A cloud hub with a key.
fn hub() -> Hub {
    Hub::new(MANIFEST).secret("NEON_API_KEY")
}

/// And with the organization settled.
fn hub_in_org() -> Hub {
    hub().setting("neon.org_id", "org-1")
}

fn noted(host: Option<&str>) -> serde_json::Value {
    json!({
        "id": "p-1", "name": NAME, "region_id": "aws-eu-central-1", "pg_version": 17,
        "created": true, "operations": [], "host": host,
    })
}

fn project(id: &str, name: &str) -> serde_json::Value {
    json!({"id": id, "name": name, "region_id": "aws-eu-central-1", "pg_version": 17})
}

fn listing(projects: &[serde_json::Value]) -> serde_json::Value {
    json!({"projects": projects, "pagination": {"cursor": "c"}, "applications": {}, "integrations": {}})
}

fn expect_search(hub: &Hub, projects: &[serde_json::Value]) {
    hub.expect("neon", "GET /projects")
        .query("search", NAME)
        .query("limit", "100")
        .query("org_id", "org-1")
        .no_query("recoverable")
        .reply(200, listing(projects));
}

fn expect_deleted(hub: &Hub, projects: &[serde_json::Value]) {
    hub.expect("neon", "GET /projects")
        .query("search", NAME)
        .query("recoverable", "true")
        .reply(200, listing(projects));
}

fn expect_project(hub: &Hub, status: u16) {
    let body =
        if status == 200 { json!({"project": project("p-1", NAME)}) } else { json!({"message": "project not found"}) };
    hub.expect("neon", "GET /projects/p-1").reply(status, body);
}

fn expect_endpoint(hub: &Hub, host: &str) {
    let endpoint = |id: &str, kind: &str| json!({"id": id, "host": host, "type": kind, "disabled": false});
    hub.expect("neon", "GET /projects/p-1/endpoints")
        .reply(200, json!({"endpoints": [endpoint("ep-ro", "read_only"), endpoint("ep-1", "read_write")]}));
}

fn expect_connection_strings(hub: &Hub, host: &str) {
    let uri = |pooler: &str| json!({"uri": format!("postgresql://hub_owner:npg_x@{pooler}{host}/hub")});
    let request = || {
        hub.expect("neon", "GET /projects/p-1/connection_uri")
            .query("database_name", "hub")
            .query("role_name", "hub_owner")
    };
    request().query("pooled", "true").reply(200, uri("pooler."));
    request().no_query("pooled").reply(200, uri(""));
}
