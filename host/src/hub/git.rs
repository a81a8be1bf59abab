//! Whether git keeps, or would keep, a file that holds secrets.
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git would keep {file}: no line in .gitignore covers it")]
    NotIgnored { file: String },
    #[error("git keeps {file}: it is in the index")]
    Tracked { file: String },
    #[error("git keeps {file}: an earlier commit holds it, so whoever has the repository has what was in it")]
    InHistory { file: String },
    /// There is a repository, and git cannot say what it keeps.
    #[error("git cannot say whether it keeps {file}: {said}")]
    Unknown { file: String, said: String, repository: PathBuf },
}

impl GitError {
    pub fn fix(&self) -> Vec<String> {
        match self {
            GitError::NotIgnored { file } => vec![format!("echo '{file}' >> .gitignore")],
            GitError::Tracked { file } => {
                vec![format!("git rm --cached {file}"), format!("echo '{file}' >> .gitignore")]
            }
            GitError::InHistory { file } => vec![
                format!("Replace every key that {file} ever held, at the service it is for"),
                format!("git filter-repo --invert-paths --path {file}"),
            ],
            GitError::Unknown { repository, .. } => {
                vec![
                    format!("git config --global --add safe.directory {}", repository.display()),
                    "git status".to_owned(),
                ]
            }
        }
    }
}

/// What git has to do with one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub ignored: bool,
    pub tracked: bool,
    pub in_history: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Git {
    /// No repository here: nothing can be committed.
    NoRepository,
    /// A repository, but no git on this machine to ask; whoever commits will have one.
    NoGit {
        repository: PathBuf,
    },
    Repository {
        repository: PathBuf,
    },
}

/// Looks for a repository upwards of `folder`.
pub fn find(folder: &Path) -> Git {
    let Some(repository) = folder.ancestors().find(|a| a.join(".git").symlink_metadata().is_ok()).map(Path::to_owned)
    else {
        return Git::NoRepository;
    };
    match git(folder, &["--version"]) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Git::NoGit { repository },
        _ => Git::Repository { repository },
    }
}

/// Asks git about `file`, a path relative to `folder`.
pub fn kept(folder: &Path, repository: &Path, file: &str) -> Result<Kept, GitError> {
    let unknown = |said: String| GitError::Unknown { file: file.to_owned(), said, repository: repository.to_owned() };
    let ask = |args: &[&str], no: i32| -> Result<(bool, Output), GitError> {
        let out = git(folder, args).map_err(|e| unknown(e.to_string()))?;
        match out.status.code() {
            Some(0) => Ok((true, out)),
            Some(code) if code == no => Ok((false, out)),
            _ => Err(unknown(
                String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or("no reason given").to_owned(),
            )),
        }
    };
    let (ignored, _) = ask(&["check-ignore", "-q", "--no-index", "--", file], 1)?;
    let (tracked, _) = ask(&["ls-files", "--error-unmatch", "--", file], 1)?;
    // An exit code of its own for "no" does not exist here; what counts is whether a commit is named.
    let (_, log) = ask(&["log", "--all", "-1", "--format=%H", "--", file], 0)?;
    Ok(Kept { ignored, tracked, in_history: !log.stdout.trim_ascii().is_empty() })
}

/// Refuses where a secret written to `file` (relative to `folder`) is or would be in git.
pub fn guard(folder: &Path, file: &str) -> Result<(), GitError> {
    // Without git to ask, .gitignore is what psn lays down itself; see `project`.
    let Git::Repository { repository } = find(folder) else { return Ok(()) };
    let kept = kept(folder, &repository, file)?;
    let file = file.to_owned();
    match kept {
        Kept { tracked: true, .. } => Err(GitError::Tracked { file }),
        Kept { ignored: false, .. } => Err(GitError::NotIgnored { file }),
        Kept { in_history: true, .. } => Err(GitError::InHistory { file }),
        Kept { .. } => Ok(()),
    }
}

/// The `git` topic of the hub's facts: `{"repository": bool, "git": bool, "files": [{"path", "ignored", "tracked", "in_history"}]}`,
/// with `"unknown"` and its reason where git does not answer.
pub fn facts(folder: &Path, files: &[&str]) -> Value {
    let repository = match find(folder) {
        Git::NoRepository => return json!({ "repository": false, "git": true, "files": [] }),
        Git::NoGit { .. } => return json!({ "repository": true, "git": false, "files": [] }),
        Git::Repository { repository } => repository,
    };
    let files: Vec<Value> = files
        .iter()
        .map(|file| match kept(folder, &repository, file) {
            Ok(k) => json!({ "path": file, "ignored": k.ignored, "tracked": k.tracked, "in_history": k.in_history }),
            Err(e) => json!({ "path": file, "unknown": e.to_string() }),
        })
        .collect();
    json!({ "repository": true, "git": true, "files": files })
}

/// Only questions are asked, and the repository's configuration may not answer them by running a program.
fn git(folder: &Path, args: &[&str]) -> io::Result<Output> {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-pager"])
        .args(args);
    // A git that runs psn (a hook, an alias) sets these; they would make git look at another repository than the one psn is in.
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_COMMON_DIR",
        "GIT_NAMESPACE",
        "GIT_CEILING_DIRECTORIES",
        "GIT_PREFIX",
    ] {
        command.env_remove(name);
    }
    command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C").stdin(Stdio::null()).output()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, args: &[&str]) {
        let out = git(dir, &[&["-c", "user.name=t", "-c", "user.email=t@example.org"], args].concat()).unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &["init", "-q"]);
        std::fs::create_dir(dir.path().join("config")).unwrap();
        dir
    }

    const FILE: &str = "config/hub.env";

    #[test]
    fn a_secret_goes_only_where_git_will_not_take_it() {
        let dir = repository();
        let path = dir.path();
        assert!(
            matches!(guard(path, FILE), Err(GitError::NotIgnored { .. })),
            "not ignored, in a repository without a commit"
        );
        std::fs::write(path.join(".gitignore"), "config/hub.env\n").unwrap();
        guard(path, FILE).unwrap();

        std::fs::write(path.join(FILE), "A=1\n").unwrap();
        run(path, &["add", "-f", FILE]);
        assert!(matches!(guard(path, FILE), Err(GitError::Tracked { .. })));
        run(path, &["commit", "-qm", "oops"]);
        run(path, &["rm", "-q", "--cached", FILE]);
        run(path, &["commit", "-qm", "removed"]);
        assert!(matches!(guard(path, FILE), Err(GitError::InHistory { .. })));
        assert_eq!(
            facts(path, &[FILE])["files"][0],
            json!({ "path": FILE, "ignored": true, "tracked": false, "in_history": true })
        );
    }

    #[test]
    fn history_on_another_branch_counts() {
        let dir = repository();
        let path = dir.path();
        std::fs::write(path.join(".gitignore"), "config/hub.env\n").unwrap();
        run(path, &["add", ".gitignore"]);
        run(path, &["commit", "-qm", "start"]);
        run(path, &["branch", "-q", "home"]);
        std::fs::write(path.join(FILE), "A=1\n").unwrap();
        run(path, &["add", "-f", FILE]);
        run(path, &["commit", "-qm", "oops"]);
        run(path, &["checkout", "-q", "home"]);
        assert!(matches!(guard(path, FILE), Err(GitError::InHistory { .. })));
    }

    #[test]
    fn no_repository_is_fine_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        guard(dir.path(), FILE).unwrap();
        assert_eq!(facts(dir.path(), &[FILE])["repository"], false);
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        let error = guard(dir.path(), FILE).unwrap_err();
        assert!(matches!(error, GitError::Unknown { .. }), "{error}");
        assert!(!error.fix().is_empty());
    }
}
