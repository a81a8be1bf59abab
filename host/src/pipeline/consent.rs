//! How psn asks for consent: one event with everything that a person needs to judge, and the commands that go on from there.
use std::path::Path;

use serde_json::json;

use crate::events::{Need, NextCommand, StepEvent, StepStatus};
use crate::plugins::ConsentNeeded;

/// What is asked for, and the one command that grants exactly this. `file` holds the component, `project` is the folder as the command
/// line named it.
pub fn needs_consent(consent: &ConsentNeeded, file: &Path, project: Option<&Path>) -> StepEvent {
    let project = project.map(|dir| format!(" --project {}", word(dir))).unwrap_or_default();
    let agree = format!("psn plugin add {} --grant {}{project}", word(file), consent.grant);
    let mut next = vec![NextCommand { command: agree, when: "a person agrees to all of it".to_owned() }];
    let message = match &consent.difference {
        None => format!("{} asks for: {}", consent.name, consent.asks.join("; ")),
        Some(difference) => {
            let look = format!("psn plugin diff {}{project}", word(file));
            next.push(NextCommand { command: look, when: "to see what is different".to_owned() });
            let back = format!("psn plugin remove {}{project}", consent.name);
            next.push(NextCommand { command: back, when: "to do without it".to_owned() });
            format!("{} is not what was granted: {}", consent.name, difference.lines().join("; "))
        }
    };
    StepEvent {
        step: consent.name.clone(),
        index: None,
        total: None,
        status: StepStatus::NeedsConsent,
        message,
        data: Some(json!({
            "asks": consent.asks,
            "withheld": consent.withheld,
            "grant": consent.grant,
            "sha256": consent.sha256,
            "capabilities": consent.capabilities_hash,
            "difference": consent.difference.as_ref().map(|d| d.lines()),
        })),
        needs: vec![Need {
            name: consent.grant.clone(),
            secret: false,
            origin: "a person who has read what the plugin asks for".to_owned(),
            choices: Vec::new(),
            next,
        }],
        changes: Vec::new(),
        error: None,
        usage: None,
    }
}

/// As a shell reads it: quoted where it has to be.
pub fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+=:@,%".contains(&b);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain) {
        return text;
    }
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        for path in ["a.wasm", "/tmp/x y.wasm", "it's.wasm", "$(id).wasm", "a;b", "-rf", ""] {
            let words = word(Path::new(path));
            let out = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {words}")).output().unwrap();
            let said = String::from_utf8(out.stdout).unwrap();
            assert_eq!(said.strip_prefix("./").unwrap_or(&said), path, "{words}");
        }
    }
}
