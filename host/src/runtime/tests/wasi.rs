//! Guests of other languages bring WASI along: they get one with nothing in it.
use super::fixtures::{Bench, Guest, LONG};
use crate::events::{Event, Level};
use crate::runtime::CallError;

const WIT: &[(&str, &str)] = &[
    (
        "io.wit",
        "package wasi:io@0.2.6;
         interface error { resource error; }
         interface streams {
           use error.{error};
           variant stream-error { last-operation-failed(error), closed }
           resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
         }",
    ),
    (
        "cli.wit",
        "package wasi:cli@0.2.6;
         interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
         interface environment { get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; }
         interface exit { exit: func(status: result); }",
    ),
];

fn guest(body: &str) -> Guest {
    Guest {
        wit: WIT,
        world_imports: "import wasi:cli/stdout@0.2.6; import wasi:cli/environment@0.2.6; import wasi:cli/exit@0.2.6;",
        imports: r#"(import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
            (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
            (import "wasi:cli/environment@0.2.6" "get-environment" (func $environment (param i32)))
            (import "wasi:cli/environment@0.2.6" "get-arguments" (func $arguments (param i32)))
            (import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))"#
            .into(),
        module: "(data (i32.const 1024) \"hello\\1b[2J\\n{\\\"type\\\":\\\"summary\\\"}\\n\") (global $out (mut i32) (i32.const 0))".into(),
        ..Guest::apply(body)
    }
}

fn logged(bench: &Bench) -> Vec<(Level, String)> {
    let log = |e| match e {
        Event::Log { level, source, message, .. } if source == "tester" => Some((level, message)),
        _ => None,
    };
    bench.recorder.events().into_iter().filter_map(log).collect()
}

#[tokio::test]
async fn what_is_printed_becomes_events() {
    let bench = Bench::new();
    let guest = guest("(call $write (call $stdout) (i32.const 1024) (i32.const 28) (i32.const 3000)) i32.const 2048");
    assert!(guest.installed().wasi);
    let loaded = bench.load(&guest).await;
    let (caps, call) = bench.call(&loaded, LONG);
    let outcome = bench.runtime.apply(&loaded, caps, call).await;
    outcome.result.unwrap().unwrap();
    assert_eq!(logged(&bench), [(Level::Info, "hello".into()), (Level::Info, "{\"type\":\"summary\"}".into())]);
    assert!(outcome.usage.log_bytes > 0);
}

#[tokio::test]
async fn printing_without_end_stops_nobody_and_keeps_little() {
    let bench = Bench::new();
    // 10,000 times 28 bytes.
    let guest = guest(
        "(local $n i32)
         (global.set $out (call $stdout))
         (loop
           (call $write (global.get $out) (i32.const 1024) (i32.const 28) (i32.const 3000))
           (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $n) (i32.const 10000))))
         i32.const 2048",
    );
    let loaded = bench.load(&guest).await;
    let (caps, call) = bench.call(&loaded, LONG);
    bench.runtime.apply(&loaded, caps, call).await.result.unwrap().unwrap();
    let lines = logged(&bench);
    assert!(lines.len() <= 201, "{}", lines.len());
    assert!(lines.last().unwrap().1.contains("were left out"), "{:?}", lines.last());
}

#[tokio::test]
async fn there_are_no_arguments_and_no_environment() {
    // Both lists' lengths, added up, make the answer's discriminant: 0 is a success.
    let guest = guest(
        "(call $environment (i32.const 3000)) (call $arguments (i32.const 3008))
         (i32.store8 (i32.const 2048) (i32.add (i32.load (i32.const 3004)) (i32.load (i32.const 3012))))
         i32.const 2048",
    );
    let bench = Bench::new();
    let loaded = bench.load(&guest).await;
    let (caps, call) = bench.call(&loaded, LONG);
    bench.runtime.apply(&loaded, caps, call).await.result.unwrap().unwrap();
}

#[tokio::test]
async fn handles_without_end_are_refused_at_their_limit() {
    let bench = Bench::new();
    let loaded = bench.load(&guest("(loop (drop (call $stdout)) br 0) unreachable")).await;
    let (caps, call) = bench.call(&loaded, LONG);
    let outcome = bench.runtime.apply(&loaded, caps, call).await;
    assert!(matches!(outcome.result, Err(CallError::Trapped { .. })), "{:?}", outcome.result);
    let (caps, call) = bench.call(&loaded, LONG);
    assert!(bench.runtime.inspect(&loaded, caps, call).await.result.is_ok(), "the next call has handles again");
}

#[tokio::test]
async fn exit_ends_the_guest_and_not_psn() {
    let bench = Bench::new();
    let loaded = bench.load(&guest("(call $exit (i32.const 1)) unreachable")).await;
    let (caps, call) = bench.call(&loaded, LONG);
    assert!(matches!(bench.runtime.apply(&loaded, caps, call).await.result, Err(CallError::Exited(1))));
}
