//! What comes back from components that answer.
use super::fixtures::{Bench, Guest, LONG};
use crate::runtime::{CallError, Failure, Report, StepState};

fn nothing() -> Report {
    Report { message: String::new(), data: serde_json::json!({}), checks: vec![] }
}

#[tokio::test]
async fn a_step_answers_all_four_questions() {
    let bench = Bench::new();
    let loaded = bench.load(&Guest::default()).await;
    let (caps, call) = bench.call(&loaded, LONG);
    let inspected = bench.runtime.inspect(&loaded, caps, call).await;
    assert_eq!(inspected.result.unwrap().unwrap(), StepState::Ready(nothing()));
    assert_eq!(inspected.usage.memory_peak, 64 << 10);
    let (caps, call) = bench.call(&loaded, LONG);
    assert_eq!(bench.runtime.apply(&loaded, caps, call).await.result.unwrap().unwrap(), nothing());
    let (caps, call) = bench.call(&loaded, LONG);
    assert_eq!(bench.runtime.verify(&loaded, caps, call).await.result.unwrap().unwrap(), nothing());
    let (caps, call) = bench.call(&loaded, LONG);
    assert_eq!(bench.runtime.destroy(&loaded, caps, call).await.result.unwrap().unwrap(), nothing());
}

#[tokio::test]
async fn each_call_has_a_fresh_instance() {
    // Answers a failure from the second call of the same instance on.
    let guest = Guest {
        module: "(global $called (mut i32) (i32.const 0))".into(),
        ..Guest::apply(
            "(i32.store8 (i32.const 2048) (global.get $called)) (global.set $called (i32.const 1)) i32.const 2048",
        )
    };
    for bench in [Bench::new(), Bench::pooled(1)] {
        let loaded = bench.load(&guest).await;
        for _ in 0..3 {
            let (caps, call) = bench.call(&loaded, LONG);
            assert_eq!(bench.runtime.apply(&loaded, caps, call).await.result.unwrap(), Ok(nothing()));
        }
    }
}

#[tokio::test]
async fn a_failure_keeps_its_words() {
    // result<report, failure>: discriminant at 0; code at 8, message at 16, fix at 24, retry-after-ms at 32 (value at 40).
    let guest = Guest {
        module: r#"(data (i32.const 1024) "key-rejected") (data (i32.const 1040) "no\1b[2J good") (data (i32.const 1060) "psn keys")
                   (data (i32.const 1080) "\24\04\00\00\08\00\00\00")"#
            .into(),
        ..Guest::apply(
            "(i32.store8 (i32.const 2048) (i32.const 1))
             (i32.store (i32.const 2056) (i32.const 1024)) (i32.store (i32.const 2060) (i32.const 12))
             (i32.store (i32.const 2064) (i32.const 1040)) (i32.store (i32.const 2068) (i32.const 11))
             (i32.store (i32.const 2072) (i32.const 1080)) (i32.store (i32.const 2076) (i32.const 1))
             (i32.store8 (i32.const 2080) (i32.const 1)) (i64.store (i32.const 2088) (i64.const 1500))
             i32.const 2048",
        )
    };
    let bench = Bench::new();
    let loaded = bench.load(&guest).await;
    let (caps, call) = bench.call(&loaded, LONG);
    let failure = bench.runtime.apply(&loaded, caps, call).await.result.unwrap().unwrap_err();
    let expected = Failure {
        code: "key-rejected".into(),
        message: "no good".into(),
        fix: vec!["psn keys".into()],
        retry_after_ms: Some(1500),
    };
    assert_eq!(failure, expected);
    let coded = failure.into_coded("keys");
    assert_eq!((coded.code.as_str(), coded.retryable, coded.retry_after_ms), ("keys.key-rejected", true, Some(1500)));
}

#[tokio::test]
async fn a_task_is_handed_its_payload_and_answers_json() {
    // Answers the payload that it was given: (pointer, length) of it are its first two parameters.
    let guest = Guest {
        world: "task",
        ..Guest::apply(
            "(i32.store (i32.const 2056) (local.get 0)) (i32.store (i32.const 2060) (local.get 1)) i32.const 2048",
        )
    };
    let bench = Bench::new();
    let loaded = bench.load(&guest).await;
    let (caps, call) = bench.call(&loaded, LONG);
    let payload = serde_json::json!({ "post_id": "7", "words": "ä \u{1F600}" });
    let outcome = bench.runtime.run_task(&loaded, caps, call, payload.to_string(), Some(1)).await;
    assert_eq!(outcome.result.unwrap().unwrap(), payload);
    let (caps, call) = bench.call(&loaded, LONG);
    let outcome = bench.runtime.run_task(&loaded, caps, call, "[1]".into(), None).await;
    assert!(matches!(outcome.result, Err(CallError::Output(_))));
}

#[tokio::test]
async fn a_step_is_no_task() {
    let bench = Bench::new();
    let step = bench.load(&Guest::default()).await;
    let task = bench.load(&Guest { world: "task", ..Guest::default() }).await;
    let (caps, call) = bench.call(&step, LONG);
    let error = bench.runtime.run_task(&step, caps, call, "{}".into(), None).await.result.unwrap_err();
    assert_eq!(error.into_coded("x").code, "component.wrong-world");
    let (caps, call) = bench.call(&task, LONG);
    let error = bench.runtime.inspect(&task, caps, call).await.result.unwrap_err();
    assert_eq!(error.into_coded("x").code, "component.wrong-world");
}
