//! Every error code that psn can print is documented, with the same name.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where error codes are written down in the source.
const SOURCES: [&str; 2] = ["host/src", "local-hub/src"];

/// Areas that error codes begin with.
const AREAS: [&str; 22] = [
    "component",
    "config",
    "db",
    "doctor",
    "hub",
    "http",
    "keys",
    "local",
    "migrate",
    "neon",
    "plan",
    "plugin",
    "posts",
    "run",
    "runtime",
    "secrets",
    "state",
    "task",
    "teardown",
    "tool",
    "usage",
    "vault",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// String literals of the form `area.some-reason` in the code above a file's tests.
fn codes(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let is_code = |s: &str| {
        s.split_once('.').is_some_and(|(area, reason)| {
            AREAS.contains(&area) && !reason.is_empty() && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        })
    };
    let strip = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    strip.split('"').skip(1).step_by(2).filter(|s| is_code(s)).map(str::to_owned).collect()
}

#[test]
fn every_code_has_its_section() {
    let mut files = Vec::new();
    for dir in SOURCES {
        sources(&workspace().join(dir), &mut files);
    }
    let docs = std::fs::read_to_string(workspace().join("docs/errors.md")).unwrap();
    let documented: BTreeSet<&str> =
        docs.lines().filter_map(|l| l.strip_prefix("### `")).filter_map(|l| l.strip_suffix('`')).collect();
    // Settings have dotted names too, and so have files.
    let not_codes = [
        "run.lock",
        "hub.env",
        "hub.kind",
        "hub.id",
        "keys.env",
        "hub.log",
        "hub.json",
        "hub.project",
        "neon.region",
        "plugin.toml",
        "plugin.name",
        "plugin.version",
        "plugin.world",
        "policy.toml",
        "http.timeout",
        // Fields of a manifest, in the words of its own error.
        "task.id",
        "task.max-duration",
        "tool.capture",
        "tool.env",
    ];
    let mut missing: Vec<String> = Vec::new();
    for file in &files {
        for code in codes(&std::fs::read_to_string(file).unwrap()) {
            if !documented.contains(code.as_str()) && !not_codes.contains(&code.as_str()) {
                missing.push(format!("{code} ({})", file.strip_prefix(workspace()).unwrap().display()));
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/errors.md:\n{}", missing.join("\n"));
    assert!(documented.len() > 20);
}

#[test]
fn codes_are_found_where_they_stand() {
    let text = "// \"run.comment\"\nCodedError::new(\"run.locked\", \"x.y z\", [])\n#[cfg(test)]\n\"run.test\"";
    assert_eq!(codes(text), BTreeSet::from(["run.locked".to_owned()]));
}
