//! What the guest gets to see.
use base64::Engine as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;
use crate::secret::{MAX_SECRET_BYTES, Secret, SecretBackend, SecretError, Secrets};

const URI: &str =
    "postgresql://hub_owner:npg_Canary4Secret@ep-x-1.neon.tech/hub?sslmode=require&channel_binding=require";

/// Every form in which a value could come back.
fn forms(value: &str) -> Vec<String> {
    let engine = base64::engine::general_purpose::STANDARD;
    let mut forms = vec![
        value.to_owned(),
        utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
        hex::encode(value),
        serde_json::json!(value).to_string().trim_matches('"').to_owned(),
    ];
    forms.extend(["", "a", "ab"].map(|before| engine.encode(format!("{before}{value}"))));
    forms
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

#[tokio::test]
async fn a_captured_secret_is_kept_and_never_shown() {
    let answer = serde_json::json!({
        "project": { "id": "p-1", "name": "psn-hub" },
        "connection_uris": [{
            "connection_uri": URI,
            "connection_parameters": { "password": "npg_Canary4Secret", "role": "hub_owner", "host": "ep-x-1.neon.tech" },
        }],
        "echo": forms(URI),
        "parts": forms("npg_Canary4Secret"),
        "nested": [[{ "see": format!("use {URI} now") }]],
    });
    // Escaped as Go does it.
    let body = answer.to_string().replace('&', "\\u0026");
    let service = Service::start(move |_, _| {
        reply("201 Created", &[("content-type", "application/json"), ("location", URI), ("x-request-id", "r-1")], &body)
    })
    .await;
    let mut rig = rig(&service);
    let response =
        send(&mut rig, Request { body: Some(br#"{"project":{}}"#.to_vec()), ..request(Method::Post, "/projects") })
            .await
            .unwrap();
    assert_eq!(rig.secrets.get("DATABASE_URL_DIRECT").unwrap().expose(), URI);
    let seen: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(seen["connection_uris"][0]["connection_uri"], "{{secret:DATABASE_URL_DIRECT}}");
    assert_eq!(seen["nested"][0][0]["see"], "use {{secret:DATABASE_URL_DIRECT}} now");
    assert_eq!(seen["connection_uris"][0]["connection_parameters"]["password"], "[redacted]");
    assert_eq!(seen["connection_uris"][0]["connection_parameters"]["host"], "ep-x-1.neon.tech");
    assert_eq!(seen["project"]["id"], "p-1");
    let everything = format!("{}\n{:?}", text(&response), response.headers);
    for form in forms(URI).iter().chain(&forms("npg_Canary4Secret")) {
        assert!(!everything.contains(form.trim_end_matches('=')), "{form} came through");
    }
    assert!(response.headers.contains(&("x-request-id".into(), "r-1".into())));
    assert!(rig.warnings().is_empty(), "{:?}", rig.warnings());

    // From now on it is stopped everywhere, also where nothing is captured.
    let again = Service::start(|_, _| json(&serde_json::json!({ "uri": URI, "error": format!("bad {URI}") }))).await;
    let mut services = ServiceMap::vendors();
    services.set("neon", again.base());
    rig.cap = Http::new(&manifest(TABLES), &services, rig.secrets.clone()).unwrap();
    let response = get(&mut rig).await.unwrap();
    assert_eq!(text(&response), r#"{"uri":"[redacted]","error":"bad [redacted]"}"#);
    assert_eq!(rig.call.leaks, ["a response of the service neon"]);
}

#[tokio::test]
async fn only_a_success_is_captured() {
    let service = Service::start(|_, _| {
        reply(
            "409 Conflict",
            &[("content-type", "application/json")],
            r#"{"connection_uris":[{"connection_uri":"someone elses"}]}"#,
        )
    })
    .await;
    let mut rig = rig(&service);
    let response = send(&mut rig, request(Method::Post, "/projects")).await.unwrap();
    assert_eq!(response.status, 409);
    assert!(!rig.secrets.exists("DATABASE_URL_DIRECT"));
    assert!(rig.warnings().is_empty());
}

#[tokio::test]
async fn a_success_without_the_secret_is_reported_and_withheld() {
    let huge = format!(r#"{{"uri": "{}"}}"#, "h".repeat(MAX_SECRET_BYTES + 1));
    for (body, warning) in [
        (r#"{"uri": null, "id": 1}"#, "no text at /uri, where DATABASE_URL was expected"),
        (r#"{"uri": ""}"#, "no text at /uri"),
        (r#"{"uri": 1234567890123456}"#, "no text at /uri"),
        (r#"{"uri": {"value": "npg_Fresh5-and-long"}}"#, "no text at /uri"),
        (r#"{"uri": ["npg_Fresh5-and-long"]}"#, "no text at /uri"),
        // Where the value went is not known.
        (r#"{"url": "postgresql://o:npg_Fresh5@h/db"}"#, "no text at /uri"),
        (r#"{"data": {"uri": "npg_Fresh5-and-long"}}"#, "no text at /uri"),
        (r#"{"uri": "npg_Fre"}"#, "too short a secret at /uri"),
        (&huge, "too long a secret at /uri"),
        (r#"[{"uri": "npg_Fresh5-and-long"}]"#, "no text at /uri"),
        ("uri: postgresql://o:npg_Fresh5@h/db", "is not JSON; it was withheld"),
        ("\u{feff}{\"uri\": \"npg_Fresh5-and-long\"}", "is not JSON; it was withheld"),
        ("", "withheld"),
    ] {
        let owned = body.to_owned();
        let service = Service::start(move |_, _| reply("200 OK", &[], &owned)).await;
        let mut rig = rig(&service);
        let response = send(&mut rig, request(Method::Get, "/projects/p/connection_uri?pooled=true")).await.unwrap();
        assert_eq!((response.status, text(&response).as_str()), (200, ""), "{body:.60}");
        assert!(!rig.secrets.exists("DATABASE_URL"));
        let warnings = rig.warnings().join("; ");
        assert!(warnings.contains(warning) && warnings.contains("withheld"), "{warnings}");
        assert!(!warnings.contains("Fresh"), "{warnings}");
    }
}

#[tokio::test]
async fn a_value_that_can_be_no_credential_is_refused_with_the_rest() {
    for value in ["needs_consent", "\"type\":\"", "two words here", "run.interrupted"] {
        let service =
            Service::start(move |_, _| json(&serde_json::json!({ "uri": value, "more": "npg_Fresh6-and-long" }))).await;
        let mut rig = rig(&service);
        let e = send(&mut rig, request(Method::Get, "/projects/p/connection_uri?pooled=true")).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), ("secret-unfit", true), "{value}: {}", e.message);
        assert!(e.message.contains("DATABASE_URL") && !e.message.contains("npg_Fresh6"), "{}", e.message);
        assert!(!rig.secrets.exists("DATABASE_URL") && !rig.call.redactor.finds(value.as_bytes()), "{value}");
    }
}

#[tokio::test]
async fn an_answer_of_very_many_values_is_too_large() {
    let service = Service::start(|_, _| reply("200 OK", &[], format!("[{}1]", "{\"a\":1},".repeat(150_000)))).await;
    let e = get(&mut rig(&service)).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("too-large", true), "{}", e.message);
}

/// What another has set is neither replaced nor asked for.
#[tokio::test]
async fn a_call_whose_answer_could_not_be_kept_is_not_made() {
    let service = Service::start(|_, _| json(&serde_json::json!({ "uri": "npg_Fresh7-and-long" }))).await;
    let tables = "[[http]]\nservice = \"neon\"\nbase = \"https://api.example.com\"\nroutes = [\"GET /key\"]\ncapture = { \"GET /key\" = { \"/uri\" = \"A_KEY\" } }\n";
    let mut services = ServiceMap::vendors();
    services.set("neon", service.base());
    let foreign = crate::plugins::manifest::Manifest { own: false, ..manifest(tables) };
    let mut rig = Rig::with_secrets(|secrets| Http::new(&foreign, &services, secrets).unwrap());
    rig.secret("A_KEY", "of-a-person");
    let e = send(&mut rig, request(Method::Get, "/key")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent, service.seen().len()), ("denied", false, 0), "{}", e.message);
    assert_eq!(rig.secrets.get("A_KEY").unwrap().expose(), "of-a-person");
}

/// What may be shown is a name that the hub keeps, and no secret: its absence gives nothing away.
#[tokio::test]
async fn a_missing_value_that_is_no_secret_withholds_nothing() {
    let service = Service::start(|_, _| reply("200 OK", &[], r#"{"id": "t-1"}"#)).await;
    let tables = "[[http]]\nservice = \"neon\"\nbase = \"https://api.example.com\"\nroutes = [\"GET /project\"]\ncapture = { \"GET /project\" = { \"/externalRef\" = \"TRIGGER_PROJECT_REF\" } }\n";
    let mut services = ServiceMap::vendors();
    services.set("neon", service.base());
    let mut rig = Rig::with_secrets(|secrets| Http::new(&manifest(tables), &services, secrets).unwrap());
    let response = send(&mut rig, request(Method::Get, "/project")).await.unwrap();
    assert_eq!(text(&response), r#"{"id": "t-1"}"#);
    assert_eq!(rig.warnings().len(), 1);
}

#[tokio::test]
async fn a_secret_in_pieces_on_the_wire_is_whole_again_before_it_is_looked_for() {
    // Each chunk its own write, cut at another place each time.
    let service = Service::start(|n, _| {
        let (head, tail) = KEY.split_at(n % KEY.len());
        let chunks: String = ["you sent ", head, tail, "!"]
            .iter()
            .filter(|c| !c.is_empty())
            .map(|c| format!("{:x}\r\n{c}\r\n", c.len()))
            .collect();
        Reply::Raw(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").into_bytes())
    })
    .await;
    let mut rig = rig(&service);
    for _ in 0..KEY.len() {
        assert_eq!(text(&get(&mut rig).await.unwrap()), "you sent [redacted]!");
    }
}

#[tokio::test]
async fn escapes_hide_nothing_in_what_is_no_proper_json() {
    let units: String = KEY.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let some: String =
        KEY.chars().map(|c| if c == 'n' || c == '/' { format!("%{:02x}", c as u32) } else { c.to_string() }).collect();
    let deep = format!("{}\"{units}\"{}", "[".repeat(200), "]".repeat(200));
    for body in [
        // The parser keeps the second only; the guest's may keep the first.
        format!(r#"{{"k": "{units}", "k": "x"}}"#),
        format!(r#"{{"k": "{units}"}} trailing"#),
        format!("\u{feff}{{\"k\": \"{units}\"}}"),
        deep,
        some.clone(),
        format!(
            "https://a.example/?next={}",
            percent_encoding::utf8_percent_encode(&some, percent_encoding::NON_ALPHANUMERIC)
        ),
    ] {
        let answer = body.clone();
        let service = Service::start(move |_, _| reply("200 OK", &[], &answer)).await;
        let mut rig = rig(&service);
        let shown = text(&get(&mut rig).await.unwrap());
        assert!(shown.contains("[redacted]") && !shown.contains(&units[6..60]) && !shown.contains("canary"), "{shown}");
        assert_eq!(rig.call.leaks.len(), 1);
    }
}

#[tokio::test]
async fn the_credential_is_stopped_in_every_form_and_place() {
    for form in forms(KEY) {
        for header in ["x-request-id", "location", "set-cookie", "etag"] {
            let (value, body) = (form.clone(), format!("you sent {form}"));
            let service = Service::start(move |_, _| reply("401 Unauthorized", &[(header, &value)], &body)).await;
            let mut rig = rig(&service);
            let response = get(&mut rig).await.unwrap();
            let everything = format!("{} {:?}", text(&response), response.headers);
            assert!(!everything.contains(form.trim_end_matches('=')), "{everything}");
            assert_eq!(rig.call.leaks.len(), 1);
            assert_eq!(rig.warnings().len(), 1);
        }
    }
}

#[tokio::test]
async fn escapes_in_json_hide_nothing() {
    let hidden: String = KEY.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let service = Service::start(move |_, _| {
        reply("200 OK", &[], format!(r#"{{"k": "{hidden}", "{hidden}": 1, "n": 10000000000000001}}"#))
    })
    .await;
    let mut rig = rig(&service);
    assert_eq!(text(&get(&mut rig).await.unwrap()), r#"{"k":"[redacted]","[redacted]":1,"n":10000000000000001}"#);
}

#[tokio::test]
async fn bytes_pass_as_they_are_but_for_secrets() {
    let plain = vec![0xff, 0, 1, 0xfe, b'{'];
    let mut with_key = vec![0xff, 0];
    with_key.extend_from_slice(KEY.as_bytes());
    with_key.push(0xfe);
    let bodies = [plain.clone(), with_key];
    let service = Service::start(move |n, _| reply("200 OK", &[], &bodies[n])).await;
    let mut rig = rig(&service);
    assert_eq!(get(&mut rig).await.unwrap().body, plain);
    let body = get(&mut rig).await.unwrap().body;
    assert!(!body.windows(6).any(|w| w == b"canary"));
    assert_eq!(body.last(), Some(&0xfe));
}

#[tokio::test]
async fn an_untouched_document_is_not_rewritten() {
    let body = "{ \"n\": 1.0, \"big\": 123456789012345678901234567890, \"s\": \"\\u0041\" }\n";
    let service = Service::start(move |_, _| reply("200 OK", &[], body)).await;
    let mut rig = rig(&service);
    assert_eq!(text(&get(&mut rig).await.unwrap()), body);
}

#[tokio::test]
async fn what_cannot_be_searched_is_not_shown() {
    for (name, value) in
        [("content-encoding", "gzip"), ("content-encoding", "identity, br"), ("transfer-encoding", "gzip, chunked")]
    {
        let raw = format!("HTTP/1.1 200 OK\r\n{name}: {value}\r\nconnection: close\r\n\r\n0\r\n\r\n");
        let service = Service::start(move |_, _| Reply::Last(raw.clone().into_bytes())).await;
        let mut rig = rig(&service);
        let e = get(&mut rig).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), ("unanswered", true), "{}", e.message);
        assert!(e.message.contains("encoded as"), "{}", e.message);
        assert_eq!(service.seen().len(), 1, "asking again would not help");
    }
}

#[tokio::test]
async fn answers_without_a_body_are_answers() {
    let service = Service::start(|n, _| match n {
        0 => Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        // The length of what a GET would get.
        _ => Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\netag: \"1\"\r\n\r\n".to_vec()),
    })
    .await;
    let mut rig = rig(&service);
    assert_eq!(get(&mut rig).await.unwrap().status, 204);
    let head = send(&mut rig, request(Method::Head, "/projects")).await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.headers.contains(&("etag".into(), "\"1\"".into())));
}

struct FullDisk;

impl SecretBackend for FullDisk {
    fn load(&self) -> Result<std::collections::BTreeMap<String, Secret>, SecretError> {
        Ok([("NEON_API_KEY".to_owned(), Secret::new(KEY))].into())
    }

    fn store(&self, values: &[(&str, &Secret)]) -> Result<(), SecretError> {
        Err(SecretError::NotKept { name: values[0].0.to_owned(), reason: "no space left on device".into() })
    }

    fn remove(&self, _: &str) -> Result<(), SecretError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_kept_fails_the_call() {
    let service =
        Service::start(|_, _| json(&serde_json::json!({ "connection_uris": [{ "connection_uri": URI }] }))).await;
    let mut rig = rig(&service);
    let mut services = ServiceMap::vendors();
    services.set("neon", service.base());
    let secrets = Arc::new(Secrets::open(Box::new(FullDisk), rig.call.redactor.clone()).unwrap());
    rig.cap = Http::new(&manifest(TABLES), &services, secrets).unwrap();
    let e = send(&mut rig, request(Method::Post, "/projects")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("secret-not-kept", true));
    assert!(
        e.message.contains("DATABASE_URL_DIRECT")
            && e.message.contains("no space left")
            && !e.message.contains("Canary"),
        "{}",
        e.message
    );
}
