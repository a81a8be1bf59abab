//! How psn asks for consent: one event with everything that a person needs to judge, and the commands that go on from there.
use std::path::Path;

use serde_json::json;

use crate::events::{Need, NextCommand, StepEvent, StepStatus};
use crate::plugins::ConsentNeeded;
use crate::shell;

/// What is asked for, and the one command that grants exactly this. `file` holds the component, `project` is the folder as the command
/// line named it.
pub fn needs_consent(consent: &ConsentNeeded, file: &Path, project: Option<&Path>) -> StepEvent {
    let project = project.map(|dir| format!(" --project {}", shell::path(dir))).unwrap_or_default();
    let agree = format!("psn plugin add {} --grant {}{project}", shell::path(file), consent.grant);
    let mut next = vec![NextCommand { command: agree, when: "a person agrees to all of it".to_owned() }];
    let message = match &consent.difference {
        None => format!("{} asks for: {}", consent.name, consent.asks.join("; ")),
        Some(difference) => {
            let look = format!("psn plugin diff {}{project}", shell::path(file));
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
