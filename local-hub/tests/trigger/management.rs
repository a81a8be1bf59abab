use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Hub, assert_schema};

#[tokio::test]
async fn who_may_ask_and_how_others_are_refused() {
    let hub = Hub::start().await;
    let me = hub.get("/api/v2/whoami", &hub.token).await.ok("WhoAmIResponseSchema");
    assert_eq!(me["dashboardUrl"], hub.origin());

    let missing = hub.get("/api/v2/whoami", "").await;
    assert_eq!(
        (missing.status.as_u16(), &missing.headers["content-type"]),
        (401, &"application/problem+json".parse().unwrap())
    );
    missing.refused(401, "No authorization header provided");

    let project = hub.project("psn hub").await;
    for (path, token, message) in [
        ("/api/v2/whoami", "tr_pat_wrong", "Invalid or Missing Access Token"),
        ("/api/v2/whoami", project.prod.as_str(), "Invalid or Missing Access Token"),
        ("/api/v1/orgs", "nonsense", "Invalid or Missing Access Token"),
        ("/api/v1/runs", "tr_prod_wrong", "Invalid API Key"),
        ("/api/v1/runs", hub.token.as_str(), "Invalid API Key"),
        ("/api/v1/deployments/current", "tr_dev_wrong", "Invalid API Key"),
    ] {
        hub.get(path, token).await.refused(401, message);
    }
    hub.get("/api/v1/nothing", &hub.token).await.refused(404, "Not found");
    hub.send(Method::PUT, "/api/v1/orgs", &hub.token, None).await.refused(405, "Method not allowed");
    hub.post("/api/v1/orgs", &hub.token, json!({ "title": "Another" })).await.refused(404, "Not found");

    // Neither the token nor a trace of it is in the database; the keys of environments have to be.
    let digests: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT digest FROM trigger.access_tokens").fetch_all(&hub.db).await.unwrap();
    assert_eq!(digests, [psn_local_hub::tokens::digest(&hub.token).to_vec()]);
}

#[tokio::test]
async fn projects_live_and_die() {
    let mut hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    assert!(project.prod.starts_with("tr_prod_") && project.dev.starts_with("tr_dev_"));
    let path = format!("/api/v1/projects/{}", project.reference);
    let shown = hub.get(&path, &hub.token).await.ok("GetProjectResponseBody");
    assert_eq!((&shown["name"], &shown["id"]), (&json!("psn hub"), &json!(project.id)));

    // Names are not unique, as at the vendor: adopting one is the caller's work.
    let twin = hub.project("psn hub").await;
    assert_ne!(twin.reference, project.reference);
    let all = hub.get("/api/v1/projects", &hub.token).await.ok("GetProjectsResponseBody");
    assert_eq!(all.as_array().unwrap().len(), 2);
    let org = shown["organization"]["id"].as_str().unwrap();
    let of_org = hub.get(&format!("/api/v1/orgs/{org}/projects"), &hub.token).await.ok("GetProjectsResponseBody");
    assert_eq!(of_org, all);
    hub.post("/api/v1/orgs/nobody/projects", &hub.token, json!({ "name": "x" }))
        .await
        .refused(404, "Organization not found");

    let runtimes = hub.get("/api/v1/projects/runtimes", &hub.token).await.ok("GetProjectRuntimesResponseBody");
    assert_eq!(runtimes[0]["deployment"], Value::Null);
    let envs = hub.get(&format!("{path}/environments"), &hub.token).await.ok("GetProjectEnvironmentsResponseBody");
    assert_eq!(envs.as_array().unwrap().len(), 2);
    let env = hub.get(&format!("{path}/prod"), &project.prod).await.ok("GetProjectEnvResponse");
    assert_eq!((env["apiUrl"].as_str(), env["projectId"].as_str()), (Some(hub.origin()), Some(project.id.as_str())));
    hub.get(&format!("{path}/staging"), &hub.token).await.refused(404, "Environment not found");
    hub.get(&format!("{path}/moon"), &hub.token).await.refused(400, "Invalid Params");
    hub.get("/api/v1/projects/proj_none/prod", &hub.token).await.refused(404, "Project not found");
    let other = format!("/api/v1/projects/{}/prod", twin.reference);
    hub.get(&other, &project.prod).await.refused(
        400,
        "Invalid project ref for this API key. Make sure you are using an API key associated with that project.",
    );

    let renamed = hub.send(Method::PATCH, &path, &hub.token, Some(json!({ "name": "  hub two " }))).await;
    assert_eq!(renamed.json(), json!({ "id": project.id, "name": "hub two" }));
    hub.send(Method::PATCH, &path, &hub.token, Some(json!({ "name": " " }))).await.refused(400, "Invalid request body");

    // All of it survives a restart, and the keys with it.
    hub.stop().await;
    hub.restart().await;
    assert_eq!(hub.get(&path, &hub.token).await.ok("GetProjectResponseBody")["name"], "hub two");
    hub.get("/api/v1/runs", &project.prod).await.ok("ListRunResponse");

    let deleted = hub.send(Method::DELETE, &path, &hub.token, None).await;
    assert_eq!(deleted.json(), json!({ "id": project.id }));
    hub.get(&path, &hub.token).await.refused(404, "Project not found");
    hub.get("/api/v1/runs", &project.prod).await.refused(401, "Invalid API Key");
    hub.send(Method::DELETE, &path, &hub.token, None).await.refused(404, "Project not found");
}

#[tokio::test]
async fn environment_variables_are_redacted_for_all_but_the_environment() {
    const SECRET: &str = "postgres://user:s3cr3t@127.0.0.1/db";
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let base = format!("/api/v1/projects/{}/envvars", project.reference);
    let import = json!({ "variables": { "DATABASE_URL": SECRET, "TRIGGER_SECRET_KEY": "mine" }, "isSecret": true, "override": true });
    assert_schema("ImportEnvironmentVariablesRequestBody", &import);
    hub.post(&format!("{base}/prod/import"), &hub.token, import).await.ok("EnvironmentVariableResponseBody");
    let new = json!({ "name": "REGION", "value": "eu" });
    hub.post(&format!("{base}/prod"), &project.prod, new).await.ok("EnvironmentVariableResponseBody");

    for token in [&hub.token, &project.prod] {
        let reply = hub.get(&format!("{base}/prod"), token).await;
        assert!(!reply.text.contains("s3cr3t"));
        let list = reply.json();
        list.as_array().unwrap().iter().for_each(|v| assert_schema("EnvironmentVariableWithSecret", v));
        assert_eq!(
            list,
            json!([
                { "name": "DATABASE_URL", "value": "<redacted>", "isSecret": true },
                { "name": "REGION", "value": "eu", "isSecret": false },
            ])
        );
        let one = hub.get(&format!("{base}/prod/DATABASE_URL"), token).await.ok("EnvironmentVariableWithSecret");
        assert_eq!(one["value"], "<redacted>");
    }
    let real = hub.get(&base, &project.prod).await.ok("GetEnvironmentVariablesResponseBody");
    assert_eq!(real["variables"], json!({ "DATABASE_URL": SECRET, "REGION": "eu" }));
    hub.get(&base, &hub.token).await.refused(401, "Invalid API Key");
    let dev = hub.get(&base, &project.dev).await.ok("GetEnvironmentVariablesResponseBody");
    assert_eq!(dev["variables"], json!({}));

    // Importing again keeps what is secret a secret, and without `override` changes nothing at all.
    let again = json!({ "variables": { "DATABASE_URL": "new", "OTHER": "x" } });
    let refused = hub.post(&format!("{base}/prod/import"), &hub.token, again.clone()).await;
    assert_eq!(refused.status.as_u16(), 400);
    let mut forced = again;
    forced["override"] = json!(true);
    hub.post(&format!("{base}/prod/import"), &hub.token, forced).await.ok("EnvironmentVariableResponseBody");
    let one = hub.get(&format!("{base}/prod/DATABASE_URL"), &hub.token).await.ok("EnvironmentVariableWithSecret");
    assert_eq!((&one["value"], &one["isSecret"]), (&json!("<redacted>"), &json!(true)));

    let only_ours = json!({ "variables": { "TRIGGER_API_URL": "x" } });
    hub.post(&format!("{base}/prod/import"), &hub.token, only_ours)
        .await
        .refused(400, "You must set at least one valid variable. All the variables submitted are not allowed.");
    let put = |value: &str| Some(json!({ "value": value }));
    let name = format!("{base}/prod/REGION");
    hub.send(Method::PUT, &name, &hub.token, put("us")).await.ok("EnvironmentVariableResponseBody");
    assert_eq!(hub.get(&name, &hub.token).await.json()["value"], "us");
    hub.send(Method::DELETE, &name, &hub.token, None).await.ok("EnvironmentVariableResponseBody");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        hub.send(method, &name, &hub.token, put("us")).await.refused(404, "Environment variable not found");
    }
    hub.get(&format!("{base}/dev"), &project.prod).await.refused(
        400,
        "Invalid environment slug for this API key. Make sure you are using an API key associated with that environment.",
    );
}

#[tokio::test]
async fn an_organizations_token_opens_its_own_projects_and_nothing_else() {
    let hub = Hub::start().await;
    let ours = hub.project("ours").await;
    let orgs = hub.get("/api/v1/orgs", &hub.token).await.ok("GetOrgsResponseBody");
    let org = orgs[0]["slug"].as_str().unwrap();
    let other = hub.post("/psn/v1/orgs", &hub.token, json!({ "slug": "globex", "title": "Globex" })).await.json();
    let theirs = hub.post("/api/v1/orgs/globex/projects", &hub.token, json!({ "name": "theirs" })).await;
    let theirs = theirs.ok("GetProjectResponseBody");
    assert_eq!(theirs["organization"]["id"], other["id"]);
    assert_eq!(hub.get("/api/v1/orgs", &hub.token).await.json().as_array().unwrap().len(), 2);

    let tokens = format!("/psn/v1/orgs/{org}/tokens");
    let token = hub.post(&tokens, &hub.token, json!({})).await.json()["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("tr_oat_"));
    hub.get("/api/v2/whoami", &token).await.ok("WhoAmIResponseSchema");
    let env = |project: &str| format!("/api/v1/projects/{project}/prod");
    let production = hub.get(&env(&ours.reference), &token).await.ok("GetProjectEnvResponse");
    assert_eq!(production["apiKey"], ours.prod.as_str());
    hub.get(&env(theirs["externalRef"].as_str().unwrap()), &token).await.refused(404, "Project not found");
    // What belongs to a person.
    for path in
        ["/api/v1/orgs", &format!("/api/v1/orgs/{org}/projects"), &format!("/api/v1/projects/{}", ours.reference)]
    {
        hub.get(path, &token).await.refused(401, "Invalid or Missing Access Token");
    }
    hub.post(&tokens, &token, json!({})).await.refused(401, "Invalid or Missing Access Token");

    hub.send(Method::DELETE, &tokens, &hub.token, None).await;
    hub.get("/api/v2/whoami", &token).await.refused(401, "Invalid or Missing Access Token");
    hub.get(&env(&ours.reference), &token).await.refused(401, "Invalid or Missing Access Token");
}
