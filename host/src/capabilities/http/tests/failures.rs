//! What happens when a service does not answer, or answers too much, or too slowly.
use super::super::connect::MAX_RESPONSE_BODY;
use super::*;
use crate::capabilities::{Deadline, Meter, MeterLimits};

fn status(status: &str) -> Reply {
    reply(status, &[("retry-after", "0")], "{}")
}

#[tokio::test]
async fn the_host_asks_again_where_that_is_safe() {
    let idempotent = |idempotent, method, path| Request { idempotent, ..request(method, path) };
    for (request, answers, status_seen, requests) in [
        (request(Method::Get, "/projects"), ["503 Unavailable", "429 Too Many", "200 OK"].as_slice(), 200, 3),
        (request(Method::Get, "/projects"), &["502 Bad", "504 Late", "524 Late", "200 OK"], 200, 4),
        (request(Method::Get, "/projects"), &["503 Unavailable"; 9], 503, 4),
        (request(Method::Get, "/projects"), &["500 Internal", "200 OK"], 500, 1),
        (request(Method::Get, "/projects"), &["423 Locked", "200 OK"], 423, 1),
        (request(Method::Head, "/projects"), &["503 Unavailable", "200 OK"], 200, 2),
        (idempotent(false, Method::Put, "/projects/p"), &["503 Unavailable", "200 OK"], 503, 1),
        (idempotent(true, Method::Put, "/projects/p"), &["503 Unavailable", "200 OK"], 200, 2),
    ] {
        let service = Service::start(move |n, seen| match status(answers[n]) {
            // A HEAD has no body.
            Reply::Raw(bytes) if seen.line().starts_with("HEAD") => Reply::Raw(bytes[..bytes.len() - 2].to_vec()),
            reply => reply,
        })
        .await;
        let mut rig = rig(&service);
        let line = format!("{:?} {}: {answers:?}", request.method, request.path);
        let response = send(&mut rig, request).await.unwrap();
        assert_eq!((response.status, service.seen().len()), (status_seen, requests), "{line}");
        assert_eq!(rig.call.meter.usage().http_calls, requests as u64, "every try is counted");
    }
}

#[tokio::test]
async fn a_long_wait_is_the_plugins_to_make() {
    let service = Service::start(|_, _| reply("429 Too Many", &[("retry-after", "3600")], "")).await;
    let mut rig = rig(&service);
    let response = get(&mut rig).await.unwrap();
    assert_eq!((response.status, service.seen().len()), (429, 1));
    assert!(response.headers.contains(&("retry-after".into(), "3600".into())));

    // Nor is there a wait that the call's deadline would cut off.
    let service = Service::start(|_, _| reply("429 Too Many", &[("retry-after", "20")], "")).await;
    let mut rig = super::rig(&service);
    rig.call.deadline = Deadline::after(Duration::from_secs(10));
    assert_eq!(get(&mut rig).await.unwrap().status, 429);
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_sent_again_only_if_that_is_safe() {
    let silent = || Service::start(|_, _| Reply::Last(vec![]));
    let service = silent().await;
    let e = send(&mut rig(&service), request(Method::Post, "/projects")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent, service.seen().len()), ("unanswered", true, 1), "{}", e.message);

    let service = silent().await;
    let e = get(&mut rig(&service)).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent, service.seen().len()), ("unanswered", true, 4), "{}", e.message);

    let half = Service::start(|_, _| Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec())).await;
    let e = send(&mut rig(&half), request(Method::Post, "/projects")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent, half.seen().len()), ("unanswered", true, 1), "{}", e.message);

    for nonsense in [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    ] {
        let service = Service::start(move |_, _| Reply::Last(nonsense.as_bytes().to_vec())).await;
        let e = send(&mut rig(&service), request(Method::Post, "/projects")).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), ("unanswered", true), "{nonsense:?}: {}", e.message);
    }
}

#[tokio::test]
async fn nobody_there() {
    let service = Service::start(|_, _| status("200 OK")).await;
    let mut rig = rig(&service);
    drop(service);
    tokio::task::yield_now().await;
    let e = send(&mut rig, request(Method::Post, "/projects")).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("unreachable", false), "{}", e.message);
    assert_eq!(rig.call.meter.usage().http_calls, 1);
    assert!(e.message.contains("POST http://127.0.0.1:"), "{}", e.message);
    let e = get(&mut rig).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("unreachable", false));
    assert_eq!(rig.call.meter.usage().http_calls, 5, "a GET is tried four times");
}

#[tokio::test]
async fn a_response_is_read_up_to_its_limit() {
    let stated = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_RESPONSE_BODY + 1);
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-a: b\r\n".repeat(200));
    let long = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "b".repeat(64 * 1024));
    for (answer, what) in [(stated, "body"), (endless, "body"), (many, "head"), (long, "head")] {
        let service = Service::start(move |_, _| Reply::Last(answer.clone().into_bytes())).await;
        let mut rig = rig(&service);
        let e = get(&mut rig).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), ("too-large", true), "{}", e.message);
        assert!(e.message.contains(what), "{}", e.message);
        assert!(rig.call.meter.usage().http_bytes_in <= MAX_RESPONSE_BODY + (2 << 20));
        assert_eq!(service.seen().len(), 1);
    }
}

#[tokio::test]
async fn what_http_wraps_around_a_body_is_bounded_too() {
    let endless = |head: &'static str, again: &'static str| {
        Service::start(move |_, _| Reply::Flood(head.as_bytes().to_vec(), again.repeat(1_000).into_bytes()))
    };
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (head, again) in [
        // Interim responses, which the parser passes over.
        ("", "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"),
        // Bodies that are nearly all framing.
        (CHUNKED, "1\r\nx\r\n"),
        (CHUNKED, "1;a=b\r\nx\r\n"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n0\r\n",
            "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
        ),
        // A head without an end.
        ("HTTP/1.1 200 OK\r\n", "x-a: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
    ] {
        let service = endless(head, again).await;
        let mut rig = rig(&service);
        rig.call.deadline = Deadline::after(Duration::from_secs(30));
        let e = send(&mut rig, request(Method::Post, "/projects")).await.unwrap_err();
        assert!(matches!(e.code.as_str(), "too-large" | "unanswered") && e.sent, "{again:?}: {} {}", e.code, e.message);
        assert!(rig.call.deadline.remaining() > Duration::from_secs(5), "{again:?}: long before the deadline");
    }
}

#[tokio::test]
async fn trailers_are_not_for_guests() {
    let raw = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-request-id\r\n\r\n2\r\nok\r\n0\r\nx-request-id: napi_canary\r\n\r\n";
    let service = Service::start(move |_, _| Reply::Raw(raw.as_bytes().to_vec())).await;
    let response = get(&mut rig(&service)).await.unwrap();
    assert_eq!((response.body.as_slice(), response.headers.len()), (&b"ok"[..], 0));
}

/// A response that nobody asked for is not taken for the answer to the next request.
#[tokio::test]
async fn a_second_response_is_nobodys() {
    let twice = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    let service = Service::start(move |n, _| match n {
        0 => Reply::Raw(twice.as_bytes().to_vec()),
        _ => reply("200 OK", &[], "second"),
    })
    .await;
    let mut rig = rig(&service);
    assert_eq!(get(&mut rig).await.unwrap().body, b"first");
    assert_eq!(get(&mut rig).await.unwrap().body, b"second");
    assert_eq!(service.connections(), 2);
}

#[tokio::test]
async fn budgets_end_the_guest() {
    let service = Service::start(|_, _| reply("200 OK", &[], "x".repeat(1_000))).await;
    for (limits, what) in [
        (MeterLimits { http_bytes_in: 500, ..MeterLimits::default() }, "http-bytes-in"),
        (MeterLimits { http_bytes_out: 20, ..MeterLimits::default() }, "http-bytes-out"),
        (MeterLimits { http_calls: 0, ..MeterLimits::default() }, "http-calls"),
        (MeterLimits { host_calls: 0, ..MeterLimits::default() }, "host-calls"),
    ] {
        let mut rig = rig(&service);
        rig.call.meter = Meter::new(limits);
        let trap = rig.view().send(request(Method::Get, "/projects")).await.unwrap_err();
        assert!(trap.to_string().contains(what), "{trap}");
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_slow_answer_ends_with_the_deadline() {
    for start in
        ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]
    {
        let service = Service::start(move |_, _| Reply::Drip(start.as_bytes().to_vec())).await;
        let mut rig = rig(&service);
        // Bytes that begin no status line are an answer of a kind, and a sooner one. The others are waited out; on a busy machine
        // a request is on its way within a second.
        let (code, limit) = if start.is_empty() { ("unanswered", 30) } else { ("deadline", 1) };
        rig.call.deadline = Deadline::after(Duration::from_secs(limit));
        let e = get(&mut rig).await.unwrap_err();
        assert_eq!((e.code.as_str(), e.sent), (code, true), "{start:?}: {}", e.message);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut services = ServiceMap::vendors();
    services.set("neon", format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap());
    let mut rig = Rig::with_secrets(|secrets| Http::new(&manifest(TABLES), &services, secrets).unwrap());
    rig.secret("NEON_API_KEY", KEY);
    rig.call.deadline = Deadline::after(Duration::from_millis(150));
    let e = get(&mut rig).await.unwrap_err();
    assert_eq!((e.code.as_str(), e.sent), ("deadline", false), "still in the TLS handshake: {}", e.message);
}
