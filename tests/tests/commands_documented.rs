//! Every psn command that a document, a slash command or a fix shows exists, with the options that it is shown with.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn documents() -> Vec<PathBuf> {
    let root = workspace();
    let mut found = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("SECURITY.md")];
    for folder in ["docs", ".claude/commands/psn"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder of documents");
        found.extend(entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    found
}

/// Commands in a document: what stands in back-quotes or in a code block, from `psn` to the end of the line or to whatever ends a
/// command in a shell.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let pieces: Vec<&str> = if in_block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            let command = piece.trim().trim_start_matches("cargo ");
            if let Some(rest) = command.strip_prefix("psn ") {
                let end = rest.find(['|', '>', '<', '#', ';', '&', '\'', '"', ',', '(']).unwrap_or(rest.len());
                found.insert(rest[..end].trim().to_owned());
            }
        }
    }
    found
}

/// What `psn WORDS --help` says, once for each.
struct Helps(BTreeMap<Vec<String>, String>);

impl Helps {
    fn of(&mut self, words: &[String]) -> &str {
        self.0.entry(words.to_vec()).or_insert_with(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_psn-tested")).args(words).arg("--help").output().unwrap();
            assert!(output.status.success(), "psn {} --help", words.join(" "));
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// The commands below, as the help lists them.
    fn below(&mut self, words: &[String]) -> BTreeSet<String> {
        let list = self.of(words).split("Commands:\n").nth(1).unwrap_or("");
        let names = list.lines().take_while(|l| l.starts_with("  ")).filter(|l| !l.starts_with("   "));
        names.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
    }

    fn problem(&mut self, command: &str) -> Option<String> {
        let mut path: Vec<String> = Vec::new();
        let mut words = command.split_whitespace();
        loop {
            let below = self.below(&path);
            if below.is_empty() {
                break;
            }
            // `--project DIR` and its like may stand before the command.
            match words.by_ref().find(|w| !w.starts_with("--") && w.chars().any(|c| c.is_ascii_lowercase())) {
                Some(word) if below.contains(word) => path.push(word.to_owned()),
                // Filled in while psn runs.
                Some(word) if word.starts_with('{') => break,
                Some(word) => return Some(format!("psn {command}: there is no `psn {} {word}`", path.join(" "))),
                None => break,
            }
        }
        let help = self.of(&path).to_owned();
        let options = command.split_whitespace().filter_map(|w| w.strip_prefix("--")).filter(|w| !w.is_empty());
        for option in options {
            let name = option.split(['=', ']', '`', '.']).next().unwrap_or(option);
            if !help.contains(&format!("--{name}")) {
                return Some(format!("psn {command}: `psn {}` has no --{name}", path.join(" ")));
            }
        }
        None
    }
}

#[test]
fn what_the_documents_show_exists() {
    let mut helps = Helps(BTreeMap::new());
    let mut problems = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for command in commands(&text) {
            seen += 1;
            // A fragment in running text, such as `psn run …`, is a command up to there.
            let command = command.trim_end_matches('…').trim();
            problems.extend(helps.problem(command).map(|p| format!("{}: {p}", document.display())));
        }
    }
    assert!(seen > 30, "the documents show commands, and this test finds them: {seen}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Words that follow "psn" where it is the subject of a sentence and not a command.
const SENTENCES: &[&str] = &["has", "keeps", "runs", "may", "failed", "does", "could", "compiled", "grant"];

/// A name, not a command: whom the local hub's certificate is made out to.
const CERTIFICATE: &str = "local hub";

/// The string literals of the sources that begin as a command: fixes, and what is suggested next.
fn suggested(text: &str) -> impl Iterator<Item = &str> {
    text.split("\"psn ").skip(1).filter_map(|rest| {
        let literal = &rest[..rest.find(['"', '\\']).unwrap_or(rest.len())];
        let first = literal.split_whitespace().next()?;
        (!SENTENCES.contains(&first) && literal != CERTIFICATE).then(|| literal.split(" '").next().unwrap_or(literal))
    })
}

#[test]
fn what_errors_suggest_exists() {
    let mut helps = Helps(BTreeMap::new());
    let mut problems = Vec::new();
    let mut seen = 0;
    let mut folders: Vec<PathBuf> = ["host/src", "local-hub/src", "plugins"].map(|f| workspace().join(f)).into();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for command in suggested(&text) {
                    seen += 1;
                    problems.extend(helps.problem(command).map(|p| format!("{}: {p}", path.display())));
                }
            }
        }
    }
    assert!(seen > 50, "the sources suggest commands, and this test finds them: {seen}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    let mut helps = Helps(BTreeMap::new());
    let found = commands(
        "Type `cargo psn frobnicate`, then `psn keys set NAME --argv x`.\n```sh\npsn run setup --project DIR  # yes\n```\n",
    );
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        ["frobnicate", "keys set NAME --argv x", "run setup --project DIR"]
    );
    assert!(helps.problem("frobnicate").is_some());
    assert!(helps.problem("keys set NAME --argv x").is_some());
    assert!(helps.problem("run setup --project DIR").is_none());
    assert!(helps.problem("keys steal").is_some());
}
