//! The vendors' own clients against the local hub: the real `neon` CLI, `@neondatabase/serverless` and `@trigger.dev/sdk`, pinned in tests/clients.
use std::process::Command;

use psn_tests::Machine;
use psn_tests::clients::{folder, installed};
use serde_json::Value;

/// Runs a script; answers how many of its checks passed.
#[track_caller]
fn node(script: &str, env: &[(&str, String)]) -> usize {
    let output = Command::new("node")
        .arg(script)
        .current_dir(folder())
        .envs(env.iter().map(|(k, v)| (k, v)))
        .output()
        .expect("node starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}:\n{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    stdout.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count()
}

#[test]
fn the_vendors_own_clients_work_against_the_local_hub() {
    if !installed() {
        return;
    }
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    m.psn(&["run", "setup"]).exits(0);
    let endpoints = m.psn(&["local", "up"]).exits(0).result()["endpoints"].clone();
    let text = |name: &str| endpoints[name].as_str().expect("an address").trim_end_matches('/').to_owned();

    let checks = node(
        "neon.mjs",
        &[
            ("NEON_API_HOST", text("neon")),
            ("NEON_API_KEY", m.secret("NEON_API_KEY").expect("a key")),
            ("PSN_CA_PEM", text("ca_pem")),
        ],
    );
    assert!(checks >= 10, "{checks} checks of the neon CLI");

    let api = text("neon");
    let checks = node(
        "serverless.mjs",
        &[
            ("SQL_URL", format!("{}/sql", api.strip_suffix("/api/v2").expect("the API's base"))),
            ("DATABASE_URL", m.secret("DATABASE_URL_DIRECT").expect("a connection string")),
        ],
    );
    assert!(checks >= 10, "{checks} checks of the serverless driver");

    let checks = node(
        "trigger.mjs",
        &[
            ("TRIGGER_API_URL", text("trigger")),
            ("TRIGGER_SECRET_KEY", m.secret("TRIGGER_SECRET_KEY").expect("a key")),
            ("PSN_TASK_ID", "watchdog".to_owned()),
        ],
    );
    assert!(checks >= 8, "{checks} checks of the Trigger.dev SDK");
}
