//! What a folder of the cloud's needs in a test, whose Trigger.dev is a local hub.
use std::path::Path;

use crate::Answer;

/// A linux-x64 program for the tasks to bundle: small, and nobody runs it here.
pub fn bundle_small_program(folder: &Path, psn: impl Fn(&[&str]) -> Answer) {
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(64, 0);
    program[18] = 62;
    std::fs::write(folder.join("psn-linux-x64"), &program).expect("a file");
    psn(&["config", "set", "trigger.psn_file", "psn-linux-x64"]).exits(0);
    let said = psn(&["task", "export", "out"]).exits(1).error()["message"].as_str().expect("words").to_owned();
    let digest = said.split("its digest is ").nth(1).expect("a digest").trim_end_matches(')').to_owned();
    psn(&["config", "set", "trigger.psn_sha256", &digest]).exits(0);
}
