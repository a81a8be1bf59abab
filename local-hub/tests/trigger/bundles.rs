//! Bundles, made by hand as the vendor's CLI makes them; `scripts/deploy.sh` has the CLI itself.
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Hub, Project};

/// As in the CLI's bundles: what is in the deployment, said to the API with the environment's key.
const INDEXER: &str = r#"
import { readFileSync } from 'node:fs';
const { TRIGGER_API_URL: api, TRIGGER_DEPLOYMENT_ID: id, TRIGGER_SECRET_KEY: key } = process.env;
const build = JSON.parse(readFileSync('build.json'));
// The image's path was made one that is there.
readFileSync(build.files[0].out);
const tasks = [{ id: 'watchdog', filePath: 'src/trigger/watchdog.ts', entryPoint: build.files[0].out }];
const metadata = { contentHash: 'c', packageVersion: '4.8.3', cliPackageVersion: '4.8.3', tasks, queues: [], sourceFiles: [] };
const reply = await fetch(`${api}/api/v1/deployments/${id}/background-workers`, {
  method: 'POST',
  headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
  body: JSON.stringify({ localOnly: true, metadata, engine: 'V2', supportsLazyAttempts: true }),
});
if (!reply.ok) process.exit(1);
"#;
const COMPONENT: &str = "components/watchdog@sha256-aa.wasm";

/// The README's commands need no Node.js; `PSN_REQUIRE_CLIENTS=1` makes its absence a failure.
fn node_is_here() -> bool {
    let here = Command::new("node").arg("--version").output().is_ok();
    assert!(here || std::env::var_os("PSN_REQUIRE_CLIENTS").is_none(), "there is no node");
    if !here {
        eprintln!("SKIPPED: bundles are indexed with Node.js, which is not on this machine");
    }
    here
}

fn bundle(indexer: &str, runtime: &str) -> Vec<u8> {
    let build = json!({
        "runtime": runtime,
        "indexControllerEntryPoint": "/app/node_modules/trigger.dev/index.mjs",
        "files": [{ "entry": "src/trigger/watchdog.ts", "out": "/app/src/trigger/watchdog.mjs" }],
        "sources": {},
    });
    let psn = json!({ "tasks": [{ "id": "watchdog", "component": COMPONENT }] });
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in [
        ("./package.json", json!({ "name": "x", "type": "module", "dependencies": {} }).to_string()),
        ("./build.json", build.to_string()),
        ("./psn.json", psn.to_string()),
        ("./src/trigger/watchdog.mjs", String::new()),
        ("./node_modules/trigger.dev/index.mjs", indexer.to_owned()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Uploads it and waits for the end of its deployment.
async fn deployed(hub: &Hub, project: &Project, bundle: Vec<u8>) -> Value {
    let ask = json!({ "type": "deployment_bundle", "contentType": "application/gzip", "contentLength": bundle.len() });
    let artifact = hub.post("/api/v1/artifacts", &project.prod, ask).await.json();
    let key = artifact["artifactKey"].as_str().unwrap().to_owned();
    let mut form = Vec::new();
    let mut part = |head: &str, body: &[u8]| {
        form.extend_from_slice(format!("--psn\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes());
        form.extend_from_slice(body);
        form.extend_from_slice(b"\r\n");
    };
    for name in ["key", "policy"] {
        part(&format!("name=\"{name}\""), artifact["uploadFields"][name].as_str().unwrap().as_bytes());
    }
    part("name=\"file\"; filename=\"deployment.tar.gz\"", &bundle);
    form.extend_from_slice(b"--psn--\r\n");
    let upload = reqwest::Client::new()
        .post(artifact["uploadUrl"].as_str().unwrap())
        .header("content-type", "multipart/form-data; boundary=psn")
        .body(form)
        .send()
        .await;
    assert_eq!(upload.unwrap().status(), 204);
    let native = json!({ "isLocalBuild": false, "isNativeBuild": true, "fromBundle": true, "artifactKey": key });
    let started = hub.initialize(&project.prod, native).await.ok("InitializeDeploymentResponseBody");
    let path = format!("/api/v1/deployments/{}", started["id"].as_str().unwrap());
    hub.eventually("the deployment to end", async || {
        let deployment = hub.get(&path, &project.prod).await.ok("GetDeploymentResponseBody");
        ["DEPLOYED", "FAILED"].contains(&deployment["status"].as_str().unwrap()).then_some(deployment)
    })
    .await
}

#[tokio::test]
async fn a_bundle_says_itself_what_is_in_it_and_its_components_are_run() {
    if !node_is_here() {
        return;
    }
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let deployment = deployed(&hub, &project, bundle(INDEXER, "node-24")).await;
    assert_eq!(deployment["status"], "DEPLOYED", "{deployment}");
    let tasks = deployment["worker"]["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["slug"], &tasks[0]["filePath"]), (1, &json!("watchdog"), &json!(COMPONENT)));
    let (run, _) = hub.trigger(&project.prod, "watchdog", json!({})).await;
    hub.reaches(&project.prod, &run, &["COMPLETED", "FAILED", "CRASHED"]).await;
    assert_eq!(hub.runner.calls().len(), 1);
    // What was uploaded has the size of a program, and nobody reads it again.
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM trigger.artifacts").fetch_one(&hub.db).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_bundle_that_does_not_build_says_why() {
    if !node_is_here() {
        return;
    }
    let hub = Hub::start().await;
    let project = hub.project("psn hub").await;
    let shows_key = "console.error(`no such module, ${process.env.TRIGGER_SECRET_KEY}`); process.exit(3);";
    for (indexer, reason) in [(shows_key, "no such module, [key]"), ("", "does not have a worker")] {
        let deployment = deployed(&hub, &project, bundle(indexer, "node-24")).await;
        assert_eq!((&deployment["status"], &deployment["errorData"]["name"]), (&json!("FAILED"), &json!("BuildError")));
        let message = deployment["errorData"]["message"].as_str().unwrap();
        assert!(message.contains(reason) && !message.contains(&project.prod), "{message}");
    }
}
