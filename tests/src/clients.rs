//! The vendors' own clients, pinned in tests/clients.
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

pub fn folder() -> PathBuf {
    workspace().join("tests/clients")
}

/// Installs what package-lock.json pins. False where this machine has no Node.js that runs it: the two commands of the README need
/// only Rust and Postgres. `PSN_REQUIRE_CLIENTS=1` makes that a failure.
pub fn installed() -> bool {
    let output = Command::new(workspace().join("scripts/clients.sh")).output().expect("scripts/clients.sh starts");
    match output.status.code() {
        Some(0) => true,
        Some(3) if std::env::var_os("PSN_REQUIRE_CLIENTS").is_none() => {
            eprintln!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        code => panic!("scripts/clients.sh ended with {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}
