//! Components that hang, eat, crash and lie. What counts is that each ends, and with the right code; that what it used is told;
//! and that the runtime serves the next one.
use std::time::Duration;

use super::fixtures::{Bench, Guest, LONG, SHORT, installed, with_modules};
use crate::runtime::{CallError, CallOutcome, Failure, Phase, Report, RuntimeError, RuntimeOptions};

async fn apply(bench: &Bench, guest: &Guest, deadline: Duration) -> CallOutcome<Result<Report, Failure>> {
    let loaded = bench.load(guest).await;
    let (caps, call) = bench.call(&loaded, deadline);
    bench.runtime.apply(&loaded, caps, call).await
}

/// After whatever happened, another component works.
async fn still_serves(bench: &Bench) {
    apply(bench, &Guest::default(), LONG).await.result.unwrap().unwrap();
}

async fn error(guest: &Guest, deadline: Duration) -> CallError {
    let bench = Bench::new();
    let error = apply(&bench, guest, deadline).await.result.unwrap_err();
    still_serves(&bench).await;
    error
}

#[tokio::test]
async fn a_loop_ends_at_the_deadline() {
    let bench = Bench::new();
    let outcome = apply(&bench, &Guest::apply("(loop br 0) unreachable"), SHORT).await;
    assert!(matches!(outcome.result, Err(CallError::Deadline { phase: Phase::Run, .. })), "{:?}", outcome.result);
    assert!(outcome.usage.ms >= 100);
    assert_eq!(outcome.usage.memory_peak, 64 << 10);
    still_serves(&bench).await;
    let coded = outcome.result.unwrap_err().into_coded("tester");
    assert_eq!((coded.code.as_str(), coded.retryable), ("component.deadline", true));
}

#[tokio::test]
async fn a_loop_in_a_start_function_ends_at_the_deadline() {
    let guest = Guest { module: "(func $start (loop br 0)) (start $start)".into(), ..Guest::default() };
    assert!(matches!(error(&guest, SHORT).await, CallError::Deadline { phase: Phase::Start, .. }));
}

#[tokio::test]
async fn bulk_operations_and_large_arguments_end_at_the_deadline() {
    let fill = Guest {
        pages: 512,
        ..Guest::apply("(loop (memory.fill (i32.const 65536) (i32.const 1) (i32.const 33488896)) br 0) unreachable")
    };
    assert!(matches!(error(&fill, SHORT).await, CallError::Deadline { .. }));
}

#[tokio::test]
async fn a_host_call_that_never_ends_ends_at_the_deadline() {
    for imports in [
        // context.sleep-ms, for 49 days
        "(import \"psn:plugin/context@0.1.0\" \"sleep-ms\" (func $wait (param i32)))",
    ] {
        let guest = Guest { imports: imports.into(), ..Guest::apply("(call $wait (i32.const -1)) i32.const 2048") };
        assert!(matches!(error(&guest, SHORT).await, CallError::Deadline { phase: Phase::Run, .. }));
    }
    let facts = Guest {
        asks: "[hub]\nfacts = [\"tasks\"]\n",
        imports: "(import \"psn:plugin/hub@0.1.0\" \"facts\" (func $facts (param i32 i32 i32)))".into(),
        module: "(data (i32.const 1024) \"tasks\")".into(),
        ..Guest::apply("(call $facts (i32.const 1024) (i32.const 5) (i32.const 2048)) unreachable")
    };
    assert!(matches!(error(&facts, SHORT).await, CallError::Deadline { phase: Phase::Run, .. }));
}

#[tokio::test]
async fn a_deadline_that_has_passed_starts_nothing() {
    // Starting it would trap.
    let guest = Guest { module: "(func $start unreachable) (start $start)".into(), ..Guest::default() };
    assert!(matches!(error(&guest, Duration::ZERO).await, CallError::Deadline { phase: Phase::Start, .. }));
}

#[tokio::test]
async fn memories_are_counted_together() {
    let bench = Bench::new();
    // 512 pages are 32 MiB; 64 MiB are allowed.
    let with = |times| installed(with_modules(Guest::default().component(), "(module (memory 512))", times));
    for (times, fits) in [(1, true), (2, false), (7, false)] {
        let loaded = bench.runtime.load(&with(times)).await.unwrap();
        let (caps, call) = bench.call(&loaded, LONG);
        let outcome = bench.runtime.apply(&loaded, caps, call).await;
        if fits {
            outcome.result.unwrap().unwrap();
            assert_eq!(outcome.usage.memory_peak, (32 << 20) + (64 << 10));
        } else {
            assert!(
                matches!(outcome.result, Err(CallError::Limit { what: "memory", limit }) if limit == 64 << 20),
                "{times}: {:?}",
                outcome.result
            );
            assert!(outcome.usage.memory_peak <= 64 << 20);
        }
    }
    still_serves(&bench).await;
}

#[tokio::test]
async fn more_memories_or_tables_than_anyone_needs_are_refused_when_loading() {
    let bench = Bench::new();
    for (module, what) in [("(module (memory 0))", "memories"), ("(module (table 0 funcref))", "tables")] {
        let refused = bench.runtime.load(&installed(with_modules(Guest::default().component(), module, 40))).await;
        assert!(matches!(refused, Err(RuntimeError::TooMany { what: w, .. }) if w == what), "{refused:?}");
    }
}

#[tokio::test]
async fn growth_is_denied_at_the_limit_and_a_guest_can_live_with_it() {
    let grow = "(block (loop (br_if 1 (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br 0)))";
    let bench = Bench::new();
    let small = "[limits]\nmemory = \"2MiB\"\n";
    let lives = apply(&bench, &Guest { asks: small, ..Guest::apply(format!("{grow} i32.const 2048")) }, LONG).await;
    lives.result.unwrap().unwrap();
    assert_eq!(lives.usage.memory_peak, (64 << 10) + (1 << 20));
    let dies = apply(&bench, &Guest { asks: small, ..Guest::apply(format!("{grow} unreachable")) }, LONG).await;
    assert!(
        matches!(dies.result, Err(CallError::Limit { what: "memory", limit }) if limit == 2 << 20),
        "{:?}",
        dies.result
    );
}

#[tokio::test]
async fn table_bombs_are_refused() {
    let at_start = Guest { module: "(table 10000000 funcref)".into(), ..Guest::default() };
    assert!(matches!(error(&at_start, LONG).await, CallError::Limit { what: "table elements", .. }));
    let grown = Guest {
        module: "(table $t 1 funcref)".into(),
        ..Guest::apply(
            "(if (i32.eq (table.grow $t (ref.null func) (i32.const 9000000)) (i32.const -1)) (then unreachable)) i32.const 2048",
        )
    };
    assert!(matches!(error(&grown, LONG).await, CallError::Limit { what: "table elements", .. }));
}

#[tokio::test]
async fn crashes_name_their_reason_and_place() {
    let recursion = Guest {
        module: "(func $deeper (result i32) (i32.add (call $deeper) (i32.const 1)))".into(),
        ..Guest::apply("call $deeper")
    };
    let CallError::Trapped { reason, backtrace } = error(&recursion, LONG).await else { panic!("no trap") };
    assert!(reason.contains("stack"), "{reason}");
    assert_eq!(backtrace.first().map(String::as_str), Some("deeper"));

    let unreachable =
        Guest { module: "(func $oh_no unreachable)".into(), ..Guest::apply("call $oh_no i32.const 2048") };
    let CallError::Trapped { reason, backtrace } = error(&unreachable, LONG).await else { panic!("no trap") };
    assert!(reason.contains("unreachable"), "{reason}");
    assert_eq!(backtrace, ["oh_no", "apply"]);

    let start = Guest { module: "(func $start unreachable) (start $start)".into(), ..Guest::default() };
    let stopped = error(&start, LONG).await;
    assert!(matches!(&stopped, CallError::StartFailed { backtrace, .. } if backtrace == &["start"]), "{stopped:?}");
    assert_eq!(stopped.into_coded("tester").code, "component.start-failed");
}

#[tokio::test]
async fn answers_that_lie_about_themselves_are_refused() {
    // The message's pointer at 2056, its length at 2060; the data's at 2064 and 2068.
    let message = |pointer: i64, length: i64| {
        format!(
            "(i32.store (i32.const 2056) (i32.const {pointer})) (i32.store (i32.const 2060) (i32.const {length})) i32.const 2048"
        )
    };
    let beyond_memory = Guest::apply(message(65000, 60000));
    assert!(matches!(error(&beyond_memory, LONG).await, CallError::Trapped { .. }));
    let no_memory_there = Guest::apply("i32.const -8");
    assert!(matches!(error(&no_memory_there, LONG).await, CallError::Trapped { .. }));
    // 5 MiB: more than may cross the border at once.
    let huge = Guest { pages: 100, ..Guest::apply(message(4096, 5 << 20)) };
    assert!(matches!(error(&huge, LONG).await, CallError::Trapped { .. }));
    // 300 KiB of data: may cross, but is no report.
    let data = Guest {
        pages: 100,
        ..Guest::apply(
            "(i32.store (i32.const 2064) (i32.const 4096)) (i32.store (i32.const 2068) (i32.const 307200)) i32.const 2048",
        )
    };
    let refused = error(&data, LONG).await;
    assert!(matches!(&refused, CallError::Output(why) if why.contains("307200 bytes")), "{refused:?}");
    // A kind of answer that there is none of.
    let kind = Guest::apply("(i32.store8 (i32.const 2048) (i32.const 7)) i32.const 2048");
    assert!(matches!(error(&kind, LONG).await, CallError::Trapped { .. }));
}

#[tokio::test]
async fn a_flood_of_host_calls_ends_at_its_limit_and_is_counted() {
    let guest = Guest {
        asks: "[limits]\nlog-bytes = 100\n",
        imports: "(import \"psn:plugin/events@0.1.0\" \"log\" (func $log (param i32 i32 i32 i32 i32)))".into(),
        module: "(data (i32.const 1024) \"0123456789\")".into(),
        ..Guest::apply(
            "(loop (call $log (i32.const 1) (i32.const 1024) (i32.const 10) (i32.const 0) (i32.const 0)) br 0) unreachable",
        )
    };
    let bench = Bench::new();
    let outcome = apply(&bench, &guest, LONG).await;
    assert!(matches!(outcome.result, Err(CallError::Limit { what: "log-bytes", limit: 100 })), "{:?}", outcome.result);
    assert!(outcome.usage.log_bytes > 0 && outcome.usage.log_bytes <= 100, "{:?}", outcome.usage);
    assert!(outcome.usage.host_calls > 1);
    assert!(!bench.recorder.events().is_empty());
}

#[tokio::test]
async fn a_panic_of_the_host_stops_one_call() {
    let guest = Guest {
        asks: "[hub]\nfacts = [\"git\"]\n",
        imports: "(import \"psn:plugin/hub@0.1.0\" \"facts\" (func $facts (param i32 i32 i32)))".into(),
        module: "(data (i32.const 1024) \"git\")".into(),
        ..Guest::apply("(call $facts (i32.const 1024) (i32.const 3) (i32.const 2048)) unreachable")
    };
    assert!(matches!(error(&guest, LONG).await, CallError::HostPanicked));
}

#[tokio::test]
async fn a_full_pool_says_so() {
    let bench = Bench::pooled(1);
    let sleeper = Guest {
        imports: "(import \"psn:plugin/context@0.1.0\" \"sleep-ms\" (func $sleep (param i32)))".into(),
        ..Guest::apply("(call $sleep (i32.const -1)) i32.const 2048")
    };
    let (first, second) = (bench.load(&sleeper).await, bench.load(&Guest::default()).await);
    let (caps, call) = bench.call(&first, SHORT);
    let (more_caps, more_call) = bench.call(&second, LONG);
    // On one thread, and in this order: the first sleeps in its instance when the second starts.
    let (slept, refused) =
        tokio::join!(bench.runtime.apply(&first, caps, call), bench.runtime.apply(&second, more_caps, more_call));
    assert!(matches!(slept.result, Err(CallError::Deadline { .. })));
    assert!(matches!(refused.result, Err(CallError::Busy)), "{:?}", refused.result);
    still_serves(&bench).await;
}

#[tokio::test]
async fn what_needs_other_limits_works_in_a_pool_too() {
    let bench = Bench::with(RuntimeOptions {
        allocator: crate::runtime::Allocator::Pooling { instances: 2 },
        ..RuntimeOptions::default()
    });
    assert!(matches!(
        apply(&bench, &Guest::apply("(loop br 0) unreachable"), SHORT).await.result,
        Err(CallError::Deadline { .. })
    ));
    let grow =
        Guest::apply("(if (i32.eq (memory.grow (i32.const 2000)) (i32.const -1)) (then unreachable)) i32.const 2048");
    assert!(matches!(apply(&bench, &grow, LONG).await.result, Err(CallError::Limit { what: "memory", .. })));
    still_serves(&bench).await;
}
