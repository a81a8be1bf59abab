//! The folder: the config tree is complete, only its owner reads the secrets, and git never saw them.

use psn_plugin::prelude::*;
use serde::Deserialize;

use crate::{bad, good, unknown, went_wrong};

/// The only entry without which nothing works.
const INDISPENSABLE: &str = "config/hub.env";
/// Bits of a file's mode that let others than its owner in.
const OTHERS: u32 = 0o077;

pub(crate) fn check() -> Vec<Check> {
    let mut checks = config_tree();
    checks.extend(git());
    checks
}

#[derive(Deserialize)]
struct Tree {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    kind: String,
    present: bool,
    mode: Option<String>,
}

impl Entry {
    fn holds_secrets(&self) -> bool {
        self.path.ends_with(".env")
    }

    fn is_open_to_others(&self) -> bool {
        let mode = self.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        mode.is_some_and(|mode| mode & OTHERS != 0)
    }
}

fn config_tree() -> Vec<Check> {
    let Tree { entries } = match hub::facts("config-tree") {
        Ok(tree) => tree,
        Err(error) => return vec![went_wrong("config-tree", error)],
    };
    let problems: Vec<_> = entries.iter().filter_map(problem_of_entry).collect();
    if problems.is_empty() {
        vec![good("config-tree", format!("All {} entries of config/ are there", entries.len()))]
    } else {
        problems
    }
}

fn problem_of_entry(entry: &Entry) -> Option<Check> {
    let Entry { path, .. } = entry;
    let name = format!("config-tree.{path}");
    if !entry.present {
        let fix = if entry.kind == "dir" { format!("mkdir -p {path}") } else { "psn run setup".into() };
        let check = bad(name, format!("{path} is not there")).fix(fix);
        return Some(if path == INDISPENSABLE { check } else { check.optional() });
    }
    (entry.holds_secrets() && entry.is_open_to_others()).then(|| {
        bad(name, format!("{path} holds secrets, and others than its owner may read it"))
            .fix(format!("chmod 600 {path}"))
    })
}

#[derive(Deserialize)]
struct Git {
    repository: bool,
    #[serde(default)]
    files: Vec<GitFile>,
}

#[derive(Deserialize)]
struct GitFile {
    path: String,
    ignored: bool,
    tracked: bool,
    in_history: bool,
}

fn git() -> Vec<Check> {
    let Git { repository, files } = match hub::facts("git") {
        Ok(git) => git,
        Err(error) => return vec![went_wrong("git", error)],
    };
    if !repository {
        return vec![unknown("git", "This folder is in no git repository")];
    }
    let problems: Vec<_> = files.iter().filter_map(problem_of_file).collect();
    if problems.is_empty() { vec![good("git", "git ignores every file that holds secrets")] } else { problems }
}

/// The worst first: what has been committed is known to whoever has the repository.
fn problem_of_file(file: &GitFile) -> Option<Check> {
    let GitFile { path, .. } = file;
    let name = format!("git.{path}");
    if file.tracked {
        return Some(
            bad(name, format!("git tracks {path}"))
                .fix(format!("git rm --cached {path}"))
                .fix("Make new keys for those it holds: they are known to whoever has the repository"),
        );
    }
    if file.in_history {
        return Some(
            bad(name, format!("git's history holds {path}"))
                .fix("Make new keys for those it held: they are known to whoever has the repository")
                .fix(format!("git filter-repo --invert-paths --path {path}")),
        );
    }
    (!file.ignored)
        .then(|| bad(name, format!("git does not ignore {path}")).fix(format!("printf '%s\\n' {path} >> .gitignore")))
}
