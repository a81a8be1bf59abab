//! What every line of output costs: the redactor's search, and an event's way to standard output.
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use psn::events::{Event, EventSink, Level, Output};
use psn::redact::Redactor;
use psn::secret::Secret;

/// As many secrets as a hub with three plugins has, of the lengths they have.
fn redactor() -> Arc<Redactor> {
    let redactor = Redactor::new();
    for n in 0..10 {
        redactor.register(&Secret::new(format!("napi_{n}{}", "k3yk3yk3".repeat(7))));
        redactor.register(&Secret::new(format!(
            "postgresql://psn_plugin_{n}:{}@ep-cool-{n}.example.test/hub?sslmode=require",
            "pa55wo4d".repeat(4)
        )));
    }
    Arc::new(redactor)
}

fn events(c: &mut Criterion) {
    let redactor = redactor();
    let text = "Adopted project psn-hub-7f3a1b2c in aws-eu-central-1. ".repeat(20);
    let mut group = c.benchmark_group("redactor");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("1 KiB without a secret", |b| b.iter(|| redactor.redact(black_box(&text)).len()));
    let leaking = format!("{text}{}", "napi_3k3yk3yk3".to_owned() + &"k3yk3yk3".repeat(6));
    group.bench_function("1 KiB with a secret", |b| b.iter(|| redactor.redact(black_box(&leaking)).len()));
    group.finish();

    let sink = EventSink::new(Output::new(Box::new(std::io::sink()), None, Arc::clone(&redactor)));
    let event = Event::Log { level: Level::Info, source: "keys".into(), message: text, fields: serde_json::Map::new() };
    c.bench_function("emit a 1 KiB event", |b| b.iter(|| sink.emit(black_box(&event))));
}

criterion_group!(benches, events);
criterion_main!(benches);
