//! Who may ask, what lists hold, and what a wrong request hears.
use std::collections::BTreeSet;

use psn_local_hub::tokens;
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{Hub, branch_path, project_id};

#[tokio::test(flavor = "multi_thread")]
async fn only_a_known_key_gets_in() {
    let hub = Hub::start().await;
    for path in ["/auth", "/projects", "/no/such/route"] {
        let missing = hub.request(Method::GET, path).send().await.unwrap();
        assert_eq!(missing.status(), 401);
        let body: Value = missing.json().await.unwrap();
        assert_eq!(body["message"], "supplied credentials do not pass authentication");
        let (status, body) = hub.call_as("napi_wrong", Method::GET, path, None).await;
        assert_eq!(status, 401);
        assert_eq!(body["message"], "supplied credentials do not pass authentication");
    }
    let auth = hub.get("/auth").await;
    assert_eq!(auth["auth_method"], "api_key_user");
    assert_eq!(hub.get("/users/me").await["id"], auth["account_id"]);
    assert!(hub.org.starts_with("org-local-"));
    assert!(hub.get("/regions").await["regions"].as_array().unwrap().iter().any(|r| r["default"] == true));

    // The caller's own request id comes back, in the header and in the error.
    let reply = hub
        .request(Method::GET, "/projects")
        .bearer_auth(&hub.key)
        .header("x-request-id", "trace-7")
        .send()
        .await
        .unwrap();
    assert_eq!(reply.headers()["x-neon-ret-request-id"], "trace-7");
    assert_eq!(reply.json::<Value>().await.unwrap()["request_id"], "trace-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisations_key_needs_no_org_id_and_sees_no_person() {
    let hub = Hub::start().await;
    let key = tokens::generate("napi_", 64);
    sqlx::query(
        "INSERT INTO neon.api_keys (account_id, kind, org_id, name, digest)
         SELECT account_id, 'organization', id, 'ci', $1 FROM neon.organizations",
    )
    .bind(tokens::digest(&key).as_slice())
    .execute(&hub.db)
    .await
    .unwrap();
    let (status, list) = hub.call_as(&key, Method::GET, "/projects", None).await;
    assert_eq!((status.as_u16(), &list["projects"]), (200, &json!([])));
    let (status, _) = hub.call_as(&key, Method::GET, "/projects?org_id=org-another-1", None).await;
    assert_eq!(status, 404);
    for path in ["/users/me", "/users/me/organizations"] {
        let (status, body) = hub.call_as(&key, Method::GET, path, None).await;
        assert_eq!(status, 403);
        assert_eq!(body["message"], "not allowed for organization API keys");
    }
    assert_eq!(hub.call_as(&key, Method::GET, "/auth", None).await.1["auth_method"], "api_key_org");
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_listed_searched_and_paged() {
    let hub = Hub::start().await;
    let mut ids = BTreeSet::new();
    for name in ["Alpha 100%", "alpha two", "beta"] {
        ids.insert(project_id(&hub.create(json!({"name": name})).await).to_owned());
    }
    let list = async |query: &str| hub.get(&format!("/projects?org_id={}&{query}", hub.org)).await;
    let names = |list: &Value| -> Vec<String> {
        list["projects"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };

    assert_eq!(names(&list("search=ALPHA").await), ["Alpha 100%", "alpha two"]);
    assert_eq!(names(&list("search=%25").await), ["Alpha 100%"], "a percent sign is a percent sign");
    assert_eq!(names(&list("search=nothing-like-it").await), Vec::<String>::new());
    let by_id = list(&format!("search={}", ids.first().unwrap())).await;
    assert_eq!(by_id["projects"].as_array().unwrap().len(), 1);

    // As Neon's CLI walks: until a page is not full.
    let (mut cursor, mut seen, mut pages) = (String::new(), BTreeSet::new(), 0);
    loop {
        let page = list(&format!("limit=2&cursor={cursor}")).await;
        let found = page["projects"].as_array().unwrap();
        seen.extend(found.iter().map(|p| p["id"].as_str().unwrap().to_owned()));
        pages += 1;
        cursor = page["pagination"]["cursor"].as_str().unwrap().to_owned();
        assert!(!cursor.is_empty(), "the cursor comes with the last page too");
        if found.len() < 2 {
            break;
        }
    }
    assert_eq!((seen, pages), (ids.clone(), 2));
    assert_eq!(hub.get("/projects/shared?limit=100").await["projects"], json!([]));

    for (query, says) in [
        ("", "org_id is required, you can find it on your organization settings page"),
        (&*format!("?org_id={}&limit=0", hub.org), "between 1 and 400"),
        (&format!("?org_id={}&limit=401", hub.org), "between 1 and 400"),
        (&format!("?org_id={}&limit=many", hub.org), "invalid query"),
        (&format!("?org_id={}&cursor=elsewhere", hub.org), "cursor"),
    ] {
        hub.refused(Method::GET, &format!("/projects{query}"), None, 400, says).await;
    }
    hub.refused(Method::POST, "/projects", Some(json!({"project": {}})), 400, "org_id is required").await;
    hub.refused(Method::POST, "/projects", Some(json!({})), 400, "project").await;
    let post = hub.request(Method::POST, "/projects").bearer_auth(&hub.key).body("{not json").send().await.unwrap();
    assert_eq!(post.status(), 400);
    hub.refused(Method::GET, "/projects?org_id=org-another-1", None, 404, "organization not found").await;
    hub.refused(Method::GET, "/projects/no-such-project-1", None, 404, "project not found").await;
    hub.refused(Method::PUT, "/projects", None, 405, "method").await;
    hub.refused(Method::GET, "/no/such/route", None, 404, "no route GET /no/such/route").await;

    // Each part of a project belongs to that project only.
    let mut ids = ids.iter();
    let (a, b) = (ids.next().unwrap(), ids.next().unwrap());
    let branch = hub.get(&format!("/projects/{a}/branches")).await["branches"][0]["id"].as_str().unwrap().to_owned();
    hub.get(&format!("/projects/{a}/branches/{branch}")).await;
    hub.refused(Method::GET, &format!("/projects/{b}/branches/{branch}"), None, 404, "branch not found").await;
    hub.refused(Method::GET, &format!("/projects/{b}/branches/{branch}/roles"), None, 404, "branch not found").await;
    let endpoint =
        hub.get(&format!("/projects/{a}/endpoints")).await["endpoints"][0]["id"].as_str().unwrap().to_owned();
    hub.get(&format!("/projects/{a}/endpoints/{endpoint}")).await;
    hub.refused(Method::GET, &format!("/projects/{b}/endpoints/{endpoint}"), None, 404, "endpoint not found").await;
    let operation =
        hub.get(&format!("/projects/{a}/operations?limit=1")).await["operations"][0]["id"].as_str().unwrap().to_owned();
    hub.get(&format!("/projects/{a}/operations/{operation}")).await;
    hub.refused(Method::GET, &format!("/projects/{b}/operations/{operation}"), None, 404, "operation not found").await;
    hub.refused(Method::GET, &format!("/projects/{a}/operations/none"), None, 404, "operation not found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_where_it_should_not_be() {
    let hub = Hub::start().await;
    let created = hub.create(json!({"store_passwords": false})).await;
    let password = created["roles"][0]["password"].as_str().unwrap();
    hub.connect(super::harness::uri(&created)).await.unwrap();
    hub.refused(
        Method::GET,
        &format!("{}/roles/neondb_owner/reveal_password", branch_path(&created)),
        None,
        412,
        "not stored",
    )
    .await;
    let roles = hub.get(&format!("{}/roles", branch_path(&created))).await;
    assert!(roles["roles"][0].get("password").is_none(), "lists name no passwords");
    // Neither the key nor a password that is not to be stored is in any table.
    for (table, column) in [
        ("api_keys", "digest"),
        ("role_passwords", "password"),
        ("role_passwords", "verifier"),
        ("operations", "error"),
    ] {
        let sql = format!("SELECT coalesce(string_agg({column}::text, ' '), '') FROM neon.{table}");
        let all: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&hub.db).await.unwrap();
        assert!(!all.contains(password) && !all.contains(&hub.key), "{table}.{column}");
    }
}
