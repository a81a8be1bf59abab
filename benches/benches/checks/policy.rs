//! The decision of one HTTP call: service, path, route, URL, headers, capture rule.
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use psn::capabilities::http::{Http, ServiceMap};
use psn::plugins::manifest::Manifest;
use psn::redact::Redactor;
use psn::secret::{MemoryBackend, Secrets};
use psn_bindings::imports::psn::plugin::http::{Method, Request};

pub(crate) fn secrets() -> Arc<Secrets> {
    let backend = MemoryBackend(Mutex::default());
    Arc::new(Secrets::open(Box::new(backend), Arc::new(Redactor::new())).expect("no secrets yet"))
}

pub(crate) fn bench() {
    const BATCH: u32 = 2_000;
    let manifest = include_bytes!("../../../plugins/neon-provision/plugin.toml");
    let manifest = Manifest::parse(manifest).expect("a first-party manifest");
    let http = Http::new(&manifest, &ServiceMap::vendors(), secrets()).expect("its services");
    let request = |path: &str, headers: &[(&str, &str)]| Request {
        service: "neon".to_owned(),
        method: Method::Get,
        path: path.to_owned(),
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: None,
        idempotent: false,
    };
    let headers = [("accept", "application/json"), ("x-request-id", "01J0000000000000000000000")];
    for (what, request, allowed) in [
        ("GET /projects", request("/projects", &[]), true),
        (
            "a capture rule by query, 2 headers",
            request("/projects/calm-sun-1/connection_uri?pooled=true&role_name=o", &headers),
            true,
        ),
        ("a denial, with the line that would allow it", request("/projects/calm-sun-1/jwks", &[]), false),
    ] {
        assert_eq!(http.decide(&request).is_ok(), allowed, "{what}");
        let batches = (0..51).map(|_| {
            let begin = Instant::now();
            for _ in 0..BATCH {
                let _ = black_box(http.decide(black_box(&request)));
            }
            begin.elapsed() / BATCH
        });
        let one = crate::median(batches.collect());
        let goal = if allowed { "< 2 us" } else { "-" };
        crate::show(&format!("policy decision: {what}"), &format!("{:.2} us", one.as_secs_f64() * 1e6), goal);
    }
}
