//! From bytes to something that can be called.
use std::borrow::Cow;
use std::fs;
use std::path::Path;

use super::fixtures::{Bench, Guest, LONG};
use crate::capabilities::Deadline;
use crate::plugins::{Installed, Origin};
use crate::runtime::{CompileError, Runtime, RuntimeError, RuntimeOptions};

fn cached(dir: &Path) -> Bench {
    Bench::with(RuntimeOptions { cache_dir: Some(dir.join("compiled")), ..RuntimeOptions::default() })
}

/// The same plugin, but its bytes can't be compiled: it can be loaded only from what was compiled before.
fn only_from_cache(installed: &Installed) -> Installed {
    Installed { component: Cow::Borrowed(b"nothing to compile"), ..installed.clone() }
}

fn entry(dir: &Path) -> std::path::PathBuf {
    let mut entries = fs::read_dir(dir.join("compiled")).unwrap().map(|e| e.unwrap().path());
    entries.find(|p| p.extension().is_some_and(|e| e == "cwasm")).unwrap()
}

#[tokio::test]
async fn compiled_code_is_kept_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let installed = Guest::default().installed();
    let first = cached(dir.path());
    assert!(matches!(first.runtime.load(&only_from_cache(&installed)).await, Err(RuntimeError::Compile { .. })));
    first.runtime.load(&installed).await.unwrap();
    let second = cached(dir.path());
    let loaded = second.runtime.load(&only_from_cache(&installed)).await.unwrap();
    let (caps, call) = second.call(&loaded, LONG);
    second.runtime.apply(&loaded, caps, call).await.result.unwrap().unwrap();
}

#[tokio::test]
async fn tampered_code_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let installed = Guest::default().installed();
    cached(dir.path()).runtime.load(&installed).await.unwrap();
    let path = entry(dir.path());
    let mut code = fs::read(&path).unwrap();
    let at = code.len() / 2;
    code[at] ^= 0x40;
    fs::write(&path, &code).unwrap();
    assert!(matches!(
        cached(dir.path()).runtime.load(&only_from_cache(&installed)).await,
        Err(RuntimeError::Compile { .. })
    ));
    cached(dir.path()).runtime.load(&installed).await.unwrap();
    assert_ne!(fs::read(&path).unwrap(), code);
    cached(dir.path()).runtime.load(&only_from_cache(&installed)).await.unwrap();
}

#[tokio::test]
async fn with_another_key_everything_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let installed = Guest::default().installed();
    cached(dir.path()).runtime.load(&installed).await.unwrap();
    fs::remove_file(dir.path().join("compiled/key")).unwrap();
    assert!(matches!(
        cached(dir.path()).runtime.load(&only_from_cache(&installed)).await,
        Err(RuntimeError::Compile { .. })
    ));
    cached(dir.path()).runtime.load(&installed).await.unwrap();
}

#[tokio::test]
async fn a_cache_that_cannot_be_used_is_noted_and_done_without() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("compiled"), "a file").unwrap();
    let bench = cached(dir.path());
    assert_eq!(bench.runtime.notes().len(), 1);
    bench.load(&Guest::default()).await;
}

#[tokio::test]
async fn the_same_component_is_made_ready_once() {
    let bench = Bench::new();
    let installed = Guest::default().installed();
    let garbage = only_from_cache(&installed);
    // Both wait for the one that compiles, though the second could not.
    let (a, b) = tokio::join!(bench.runtime.load(&installed), bench.runtime.load(&garbage));
    assert_eq!(a.unwrap().sha256(), b.unwrap().sha256());
}

#[tokio::test]
async fn a_component_from_elsewhere_is_not_compiled_here_unasked() {
    let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
    let installed = Guest::default().installed();
    let refused = runtime.load(&installed).await.unwrap_err();
    assert!(matches!(&refused, RuntimeError::Compile { error: CompileError::NoCompiler, .. }), "{refused:?}");
    runtime.load(&Installed { origin: Origin::FirstParty, ..installed }).await.unwrap();
}

#[tokio::test]
async fn waiting_for_the_compiler_has_a_deadline() {
    let bench = Bench::new();
    let late =
        bench.runtime.load_within(&Guest::default().installed(), Deadline::after(std::time::Duration::ZERO)).await;
    assert!(matches!(late, Err(RuntimeError::CompileDeadline { .. })));
    bench.load(&Guest::default()).await;
}

#[tokio::test]
async fn wishes_above_the_ceilings_are_refused() {
    let bench = Bench::new();
    let greedy = Guest { asks: "[limits]\nmemory = \"8GiB\"\n", ..Guest::default() };
    let refused = bench.runtime.load(&greedy.installed()).await.unwrap_err();
    assert_eq!(crate::error::CodedError::from(refused).code, "component.above-ceiling");
}

#[tokio::test]
async fn another_shape_than_the_contracts_is_said_when_loading() {
    // Exports an empty instance under the right name.
    let manifest = "[plugin]\nname = \"x\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n";
    let text = format!(
        "(component (@custom \"psn:manifest\" {manifest:?}) (instance $e) (export \"psn:plugin/lifecycle@0.1.0\" (instance $e)))"
    );
    let bench = Bench::new();
    let refused = bench.runtime.load(&super::fixtures::installed(wat::parse_str(text).unwrap())).await.unwrap_err();
    assert!(matches!(&refused, RuntimeError::Contract { plugin, .. } if plugin == "x"), "{refused:?}");
    // Imports a function that is not there.
    let text = format!(
        "(component (@custom \"psn:manifest\" {manifest:?})
           (import \"psn:plugin/events@0.1.0\" (instance (export \"shout\" (func))))
           (instance $e) (export \"psn:plugin/lifecycle@0.1.0\" (instance $e)))"
    );
    let refused = bench.runtime.load(&super::fixtures::installed(wat::parse_str(text).unwrap())).await.unwrap_err();
    assert_eq!(crate::error::CodedError::from(refused).code, "component.contract-mismatch");
}
