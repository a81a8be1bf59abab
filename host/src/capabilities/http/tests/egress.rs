//! What leaves the host.
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::resolve::tests::Fixed;
use super::*;

#[tokio::test]
async fn a_request_carries_the_hosts_credential_and_goes_where_the_policy_says() {
    let service = Service::start(|_, _| json(&serde_json::json!({ "projects": [] }))).await;
    let mut rig = rig(&service);
    let mut r = request(Method::Get, "/projects?limit=100&page[size]=1");
    r.headers = vec![("Accept".into(), "application/json".into())];
    let response = send(&mut rig, r).await.unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, &br#"{"projects":[]}"#[..]));
    assert!(response.headers.contains(&("content-type".into(), "application/json".into())));
    let seen = &service.seen()[0];
    assert_eq!(seen.line(), "GET /api/v2/projects?limit=100&page[size]=1 HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("host"), Some(format!("127.0.0.1:{}", service.port).as_str()));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert!(seen.header("user-agent").unwrap().starts_with("psn/"));
    let usage = rig.call.meter.usage();
    assert_eq!((usage.host_calls, usage.http_calls), (1, 1));
    assert!(usage.http_bytes_in > 15 && usage.http_bytes_out > 10, "{usage:?}");
}

#[tokio::test]
async fn a_header_credential_goes_to_its_own_service_only() {
    let neon = Service::start(|_, _| json(&serde_json::json!({}))).await;
    let other = Service::start(|_, _| json(&serde_json::json!({}))).await;
    let mut services = ServiceMap::vendors();
    services.set("neon", neon.base());
    services.set("other", other.base());
    let mut rig = Rig::with_secrets(|secrets| Http::new(&manifest(TABLES), &services, secrets).unwrap());
    rig.secret("NEON_API_KEY", KEY);
    rig.secret("OTHER_KEY", "other-canary-0002");
    get(&mut rig).await.unwrap();
    send(&mut rig, Request { service: "other".into(), ..request(Method::Get, "/") }).await.unwrap();
    assert_eq!(other.seen()[0].line(), "GET /api/v2 HTTP/1.1");
    assert_eq!(other.seen()[0].header("x-other-key"), Some("other-canary-0002"));
    assert_eq!(other.seen()[0].header("authorization"), None);
    assert_eq!(neon.seen()[0].header("x-other-key"), None);
}

#[tokio::test]
async fn references_in_a_json_body_become_secrets_on_the_way_out() {
    // The service answers what it got, and the guest does not learn it.
    let service = Service::start(|_, seen| reply("200 OK", &[], &seen.body)).await;
    let mut rig = rig(&service);
    rig.secret("DATABASE_URL_PLUGIN_WATCHDOG", "postgresql://p:\"canary3\"@h/db");
    let mut r = request(Method::Put, "/projects/p-1");
    r.body = Some(
        br#"{"variables": [{"name": "DATABASE_URL", "value": "{{secret:DATABASE_URL_PLUGIN_WATCHDOG}}", "n": 1.50}]}"#
            .to_vec(),
    );
    let response = send(&mut rig, r).await.unwrap();
    assert_eq!(
        String::from_utf8(service.seen()[0].body.clone()).unwrap(),
        r#"{"variables": [{"name": "DATABASE_URL", "value": "postgresql://p:\"canary3\"@h/db", "n": 1.50}]}"#
    );
    let body = String::from_utf8(response.body).unwrap();
    assert!(!body.contains("canary3") && body.contains("[redacted]"), "{body}");
    assert_eq!(rig.call.leaks, ["a response of the service neon"]);
}

#[tokio::test]
async fn what_is_refused_never_reaches_a_socket() {
    let service = Service::start(|_, _| json(&serde_json::json!({}))).await;
    let mut rig = rig(&service);
    rig.secret("OTHER_SECRET", "not for this service");
    let with_header = |name: &str, value: &str| Request {
        headers: vec![(name.into(), value.into())],
        ..request(Method::Get, "/projects")
    };
    let with_body = |body: &str| Request { body: Some(body.as_bytes().to_vec()), ..request(Method::Post, "/projects") };
    let cases = [
        (request(Method::Get, "/users/me"), "denied", r#""GET /users/me"]"#),
        (request(Method::Put, "/projects"), "denied", r#""PUT /projects"]"#),
        (request(Method::Get, "/projects/../users/me"), "denied", "dots"),
        (request(Method::Get, "/projects%2f..%2fusers"), "denied", "different ways"),
        (request(Method::Get, "//evil.example/projects"), "denied", "empty"),
        (request(Method::Get, "@evil.example/projects"), "denied", "begins with `/`"),
        (request(Method::Get, "https://evil.example/projects"), "denied", "begins with `/`"),
        (request(Method::Get, "/projects?x={{secret:HUB_KEY}}"), "denied", "percent-encoded"),
        (request(Method::Get, "/projects?x=%7B%7Bsecret:HUB_KEY%7D%7D"), "denied", "the path or query"),
        (request(Method::Get, "/projects/p/connection_uri"), "denied", "pooled=true"),
        (Request { service: "evil".into(), ..request(Method::Get, "/x") }, "denied", "[[http]]"),
        (with_header("Authorization", "Bearer mine"), "denied", "credentials are added by the host"),
        (with_header("Host", "evil.example"), "denied", "where a request goes"),
        (with_header("x-note", "a\r\nHost: evil.example"), "denied", "control character"),
        (with_header("Transfer-Encoding", "chunked"), "denied", "frames"),
        (with_header("x-note", "{{secret:HUB_KEY}}"), "denied", "a header"),
        (with_body(r#"{"a": "{{secret:OTHER_SECRET}}"}"#), "denied", r#""/a" = ["OTHER_SECRET"] } }"#),
        (with_body(r#"{"b": "{{secret:HUB_KEY}}"}"#), "denied", r#"{ "POST /projects" = { "/b" = ["HUB_KEY"] } }"#),
        (
            Request { body: Some(br#"{"a": "{{secret:HUB_KEY}}"}"#.to_vec()), ..request(Method::Put, "/projects/p") },
            "denied",
            r#"{ "PUT /projects/{project}" = "#,
        ),
        (with_body("a={{secret:HUB_KEY}}"), "denied", "not JSON"),
        (with_body(r#"{"a": "{{secret:HUB_KEY}}"}"#), "secret-missing", "psn keys set HUB_KEY"),
        (with_body(&"x".repeat((1 << 20) + 1)), "too-large", "1048577 bytes"),
        (Request { service: "other".into(), ..request(Method::Get, "/") }, "secret-missing", "OTHER_KEY"),
    ];
    for (request, code, says) in cases {
        let asked = format!("{} {}", request.service, request.path);
        let e = send(&mut rig, request).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), (code, false), "{asked}: {}", e.message);
        assert!(e.message.contains(says), "{asked}: {}", e.message);
        assert!(!e.message.contains("canary") && !e.message.contains("mine"));
    }
    rig.call.transaction_open = true;
    let e = get(&mut rig).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("denied", false));
    assert!(e.message.contains("transaction"));
    assert_eq!(service.connections(), 0);
    assert_eq!(rig.call.meter.usage().http_calls, 0);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    // The same port answers on loopback: only the check stands between.
    let service = Service::start(|_, _| json(&serde_json::json!({}))).await;
    let mut services = ServiceMap::vendors();
    services.set("neon", format!("https://rebound.example:{}/", service.port).parse().unwrap());
    for address in
        ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
    {
        let mut rig = Rig::with_secrets(|secrets| Http::new(&manifest(TABLES), &services, secrets).unwrap());
        rig.secret("NEON_API_KEY", KEY);
        rig.cap.lookup = Box::new(Fixed(vec![address]));
        let e = get(&mut rig).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), ("denied", false), "{address}: {}", e.message);
        assert!(e.message.contains("not a public address"), "{}", e.message);
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn redirects_are_the_guests_to_see_and_nobodys_to_follow() {
    let inside = Service::start(|_, _| json(&serde_json::json!({}))).await;
    let elsewhere = format!("http://127.0.0.1:{}/latest/meta-data", inside.port);
    let service = Service::start(move |_, _| reply("307 Temporary Redirect", &[("location", &elsewhere)], "")).await;
    let mut rig = rig(&service);
    let response = get(&mut rig).await.unwrap();
    assert_eq!(response.status, 307);
    assert!(response.headers.iter().any(|(n, v)| n == "location" && v.ends_with("/latest/meta-data")));
    assert_eq!((service.seen().len(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn a_warm_connection_is_used_again_and_a_closed_one_replaced() {
    let closing = AtomicUsize::new(1);
    let service = Service::start(move |n, _| match reply("200 OK", &[], "ok") {
        Reply::Raw(bytes) if n == closing.load(Ordering::SeqCst) => Reply::Last(bytes),
        reply => reply,
    })
    .await;
    let mut rig = rig(&service);
    get(&mut rig).await.unwrap();
    send(&mut rig, request(Method::Post, "/projects")).await.unwrap();
    assert_eq!(service.connections(), 1);
    // The service closed it after the second answer, without a word.
    assert_eq!(get(&mut rig).await.unwrap().status, 200);
    assert_eq!((service.connections(), service.seen().len()), (2, 3));
}
