//! The folder that holds a hub's `config/`: what is in it, where psn keeps its own notes, and what a first run lays out.
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::atomic_file::{self, FileError, Lock};
use super::git::{self, GitError};

/// What setup made. In config/, ignored by git.
pub const HUB_ENV: &str = "config/hub.env";
/// What a person brought. In config/, ignored by git.
pub const KEYS_ENV: &str = "config/keys.env";
pub const PSN_TOML: &str = "config/psn.toml";
pub const SERVICES_TOML: &str = "config/services.toml";
const CONNECTIONS: &str = "config/connections";
const PRIVATE: &str = ".psn";

/// Files of a first run, with what they hold. The same files as in psn's own repository.
const STARTERS: [(&str, &str); 5] = [
    ("config/strategy.yaml", include_str!("../../../config/strategy.yaml")),
    (PSN_TOML, include_str!("../../../config/psn.toml")),
    ("config/voice-profiles/README.md", include_str!("../../../config/voice-profiles/README.md")),
    ("config/series/README.md", include_str!("../../../config/series/README.md")),
    ("config/company/README.md", include_str!("../../../config/company/README.md")),
];

/// Folders, and who may look into them.
const FOLDERS: [(&str, u32); 6] = [
    ("config", 0o755),
    ("config/voice-profiles", 0o755),
    ("config/series", 0o755),
    ("config/company", 0o755),
    (CONNECTIONS, 0o700),
    (PRIVATE, 0o700),
];

/// What git must never keep. The last line covers a secret file that is being written.
const IGNORED: [&str; 5] = [HUB_ENV, KEYS_ENV, "config/connections/", ".psn/", "config/.*.psn-tmp"];

/// The tree as people know it; what `validate` looks for.
const TREE: [(&str, Kind); 7] = [
    ("config/strategy.yaml", Kind::File),
    (HUB_ENV, Kind::File),
    (KEYS_ENV, Kind::File),
    ("config/voice-profiles/", Kind::Folder),
    ("config/series/", Kind::Folder),
    (CONNECTIONS, Kind::Folder),
    ("config/company/", Kind::Folder),
];

#[derive(Clone, Copy)]
enum Kind {
    File,
    Folder,
}

#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("no folder with a `config/` here or above: {0}")]
    NotFound(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Git(#[from] GitError),
}

impl ProjectError {
    pub fn coded(&self) -> crate::error::CodedError {
        use crate::error::CodedError;
        match self {
            ProjectError::NotFound(from) => CodedError::new(
                "config.not-found",
                self.to_string(),
                [
                    format!("psn run setup --project {}", crate::shell::path(from)),
                    "cd to the folder of your hub, or name it with --project DIR".to_owned(),
                ],
            ),
            ProjectError::File(e) => e.coded(),
            ProjectError::Git(e) => git_error(e),
        }
    }
}

pub(crate) fn git_error(e: &GitError) -> crate::error::CodedError {
    crate::error::CodedError::new("config.git", e.to_string(), e.fix())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder that holds `config/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectDir(PathBuf);

impl ProjectDir {
    /// The nearest folder upwards of `start` that holds a `config/`.
    pub fn discover(start: &Path) -> Result<Self, ProjectError> {
        let start = std::path::absolute(start).map_err(FileError::read(start))?;
        start
            .ancestors()
            .find(|a| a.join("config").is_dir())
            .map(|a| Self(a.to_owned()))
            .ok_or(ProjectError::NotFound(start))
    }

    /// This folder, whether it holds a `config/` already or [`ProjectDir::lay_out`] is to make one.
    pub fn at(path: &Path) -> Result<Self, ProjectError> {
        Ok(Self(std::path::absolute(path).map_err(FileError::read(path))?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn hub_env(&self) -> PathBuf {
        self.0.join(HUB_ENV)
    }

    pub fn keys_env(&self) -> PathBuf {
        self.0.join(KEYS_ENV)
    }

    /// Where plugins keep their notes about one hub.
    pub fn state_dir(&self, hub_id: &str) -> PathBuf {
        self.0.join(PRIVATE).join("state").join(hub_id)
    }

    /// Held by the run that changes this hub.
    pub fn run_lock(&self) -> PathBuf {
        self.0.join(PRIVATE).join("run.lock")
    }

    /// The Trigger.dev project that is deployed: trigger-provision's manifest names this folder.
    pub fn cloud_project_dir(&self) -> PathBuf {
        self.0.join(PRIVATE).join("trigger")
    }

    /// Where plugins that a person added lie.
    pub fn plugins_dir(&self) -> PathBuf {
        self.0.join(PRIVATE).join("plugins")
    }

    pub(crate) fn env_lock(&self) -> PathBuf {
        self.0.join(PRIVATE).join("env.lock")
    }

    /// Makes what is missing of the tree and leaves what is there. Answers the paths it made, relative to the folder.
    pub fn lay_out(&self) -> Result<Vec<String>, ProjectError> {
        let mut made = Vec::new();
        for (folder, mode) in FOLDERS {
            if make_folder(&self.0.join(folder), mode)? {
                made.push(format!("{folder}/"));
            }
        }
        self.tighten(PRIVATE)?;
        self.tighten(CONNECTIONS)?;
        let _lock = Lock::exclusive(&self.env_lock())?;
        atomic_file::sweep(&self.hub_env())?;
        atomic_file::sweep(&self.keys_env())?;
        for (file, text) in STARTERS {
            let path = self.0.join(file);
            if path.symlink_metadata().is_err() {
                atomic_file::replace(&path, text.as_bytes(), 0o644)?;
                made.push(file.to_owned());
            }
        }
        if self.ignore()? {
            made.push(".gitignore".to_owned());
        }
        Ok(made)
    }

    /// Appends to .gitignore what it lacks.
    fn ignore(&self) -> Result<bool, ProjectError> {
        let path = self.0.join(".gitignore");
        let old = atomic_file::read(&path)?.unwrap_or_default();
        let has = |line: &str| old.split(|b| *b == b'\n').any(|l| l.trim_ascii() == line.as_bytes());
        let missing: Vec<&str> = IGNORED.into_iter().filter(|line| !has(line)).collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let mut text = old.clone();
        if !(text.is_empty() || text.ends_with(b"\n")) {
            text.push(b'\n');
        }
        for line in missing {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        let mode = fs::metadata(&path).map_or(0o644, |m| m.permissions().mode() & 0o777);
        atomic_file::replace(&path, &text, mode)?;
        Ok(true)
    }

    /// Takes the rights of others away from a folder that was made by hand.
    fn tighten(&self, folder: &str) -> Result<(), ProjectError> {
        let path = self.0.join(folder);
        let mode = fs::metadata(&path).map_err(FileError::io(&path))?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(FileError::io(&path))?;
        }
        Ok(())
    }

    /// The `config-tree` topic of the hub's facts.
    pub fn tree_facts(&self) -> Value {
        let entries: Vec<Value> = TREE
            .iter()
            .map(|(path, kind)| {
                let meta = self.0.join(path).metadata().ok();
                let right = |m: &fs::Metadata| match kind {
                    Kind::File => m.is_file(),
                    Kind::Folder => m.is_dir(),
                };
                json!({
                    "path": path,
                    "kind": match kind { Kind::File => "file", Kind::Folder => "dir" },
                    "present": meta.as_ref().is_some_and(right),
                    "mode": meta.as_ref().map(|m| format!("{:04o}", m.permissions().mode() & 0o7777)),
                })
            })
            .collect();
        json!({ "entries": entries })
    }

    /// The `git` topic of the hub's facts.
    pub fn git_facts(&self) -> Value {
        git::facts(&self.0, &[HUB_ENV, KEYS_ENV, "config/connections/any.json", ".psn/any"])
    }
}

/// True where it was not there.
fn make_folder(path: &Path, mode: u32) -> Result<bool, FileError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(FileError::NotAFile(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // The project folder itself was named and is not there yet.
            fs::DirBuilder::new().recursive(true).create(parent(path)).map_err(FileError::io(parent(path)))?;
            fs::DirBuilder::new().mode(mode).create(path).map_err(FileError::io(path))?;
            Ok(true)
        }
        Err(e) => Err(FileError::io(path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_run_lays_the_tree_out_and_a_second_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let project = ProjectDir::at(&dir.path().join("hub")).unwrap();
        let made = project.lay_out().unwrap();
        for path in [
            "config/strategy.yaml",
            "config/psn.toml",
            "config/voice-profiles/",
            "config/series/",
            "config/connections/",
            "config/company/",
        ] {
            assert!(made.iter().any(|m| m == path), "{path} in {made:?}");
        }
        assert!(!project.hub_env().exists() && !project.keys_env().exists(), "made only when something is written");
        let mode = |p: &str| fs::metadata(project.path().join(p)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(".psn"), mode("config/connections")), (0o700, 0o700));
        assert_eq!(project.lay_out().unwrap(), Vec::<String>::new());

        fs::write(project.path().join("config/strategy.yaml"), "mine: true\n").unwrap();
        fs::remove_dir_all(project.path().join("config/series")).unwrap();
        assert_eq!(project.lay_out().unwrap(), ["config/series/", "config/series/README.md"]);
        assert_eq!(fs::read_to_string(project.path().join("config/strategy.yaml")).unwrap(), "mine: true\n");
    }

    #[test]
    fn gitignore_keeps_what_it_has_and_covers_every_secret() {
        let dir = tempfile::tempdir().unwrap();
        std::process::Command::new("git").args(["init", "-q"]).current_dir(dir.path()).status().unwrap();
        fs::write(dir.path().join(".gitignore"), "node_modules/\nconfig/hub.env").unwrap();
        let project = ProjectDir::at(dir.path()).unwrap();
        project.lay_out().unwrap();
        let text = fs::read_to_string(dir.path().join(".gitignore")).unwrap();
        assert!(text.starts_with("node_modules/\nconfig/hub.env\nconfig/keys.env\n"), "{text}");
        for file in [HUB_ENV, KEYS_ENV, "config/connections/x.json", ".psn/state/x", "config/.hub.env.psn-tmp"] {
            git::guard(dir.path(), file).unwrap();
        }
        assert!(project.git_facts()["files"].as_array().unwrap().iter().all(|f| f["ignored"] == true));
    }

    #[test]
    fn the_nearest_folder_upwards_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let project = ProjectDir::at(dir.path()).unwrap();
        project.lay_out().unwrap();
        let deep = dir.path().join("config/series");
        assert_eq!(ProjectDir::discover(&deep).unwrap(), project);
        let error = ProjectDir::discover(Path::new("/")).unwrap_err();
        assert_eq!(error.coded().code, "config.not-found");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config"), "").unwrap();
        let error = ProjectDir::at(dir.path()).unwrap().lay_out().unwrap_err();
        assert_eq!(error.coded().code, "config.not-a-file");
        assert!(error.to_string().contains("config"));
    }

    #[test]
    fn facts_tell_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let project = ProjectDir::at(dir.path()).unwrap();
        project.lay_out().unwrap();
        let facts = project.tree_facts();
        let entry =
            |path: &str| facts["entries"].as_array().unwrap().iter().find(|e| e["path"] == path).unwrap().clone();
        assert_eq!(entry("config/strategy.yaml")["present"], true);
        assert_eq!(entry(HUB_ENV)["present"], false);
        assert_eq!(entry(HUB_ENV)["mode"], Value::Null);
        assert_eq!(entry(CONNECTIONS)["mode"], "0700");
    }
}
