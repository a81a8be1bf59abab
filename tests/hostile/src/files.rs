//! What lies on the disk, before and after.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Path below the root, and a digest of what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files(BTreeMap<PathBuf, String>);

/// What psn itself writes in a run.
fn is_psns_own(path: &Path, plugin: &str) -> bool {
    let text = path.to_string_lossy();
    text.starts_with("home/")
        || text.starts_with("components/")
        || text.ends_with("/run.lock")
        || text.ends_with("/env.lock")
        || (text.starts_with("project/.psn/state/") && text.ends_with(&format!("/{plugin}.json")))
        || (text.starts_with("project/.psn/") && text.contains("ledger"))
        || (text.starts_with("project/.psn/") && text.ends_with(".lock"))
}

impl Files {
    pub(crate) fn look(root: &Path, plugin: &str) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let below = path.strip_prefix(root).unwrap_or(&path).to_owned();
                match entry.file_type() {
                    Ok(t) if t.is_dir() && below != Path::new("home") => folders.push(path),
                    Ok(t) if t.is_file() && !is_psns_own(&below, plugin) => {
                        let bytes = std::fs::read(&path).unwrap_or_default();
                        match below.extension() {
                            // Each name of an env file counts by itself.
                            Some(env) if env == "env" => {
                                files.extend(String::from_utf8_lossy(&bytes).lines().map(|line| {
                                    let name = line.split('=').next().unwrap_or_default();
                                    (below.join(name), hex::encode(Sha256::digest(line)))
                                }))
                            }
                            _ => drop(files.insert(below, hex::encode(Sha256::digest(bytes)))),
                        }
                    }
                    Ok(t) if t.is_symlink() => {
                        files.insert(below, "a link".to_owned());
                    }
                    _ => {}
                }
            }
        }
        Self(files)
    }

    /// The first path that is there in one only, or differs; without names of env files that are new and that `manifests` speak of.
    pub(crate) fn changed(&self, after: &Self, manifests: &[&str]) -> Option<String> {
        let asked = |path: &Path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            // Beside the value stands whose it is.
            let name = name.strip_prefix("PSN_KEPT_").unwrap_or(name);
            let in_env = path.parent().and_then(Path::extension).is_some_and(|e| e == "env");
            in_env && manifests.iter().any(|m| m.contains(&format!("\"{name}\"")))
        };
        let mut paths = self.0.keys().chain(after.0.keys());
        let changed = paths.find(|p| match (self.0.get(*p), after.0.get(*p)) {
            (None, Some(_)) => !asked(p),
            (before, after) => before != after,
        });
        changed.map(|p| format!("{} was changed", p.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_made_changed_or_removed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let look = || Files::look(dir.path(), "h-x");
        std::fs::create_dir_all(dir.path().join("project/.psn/state/ab")).unwrap();
        let empty = look();
        let file = dir.path().join("project/config.toml");
        std::fs::write(&file, "a").unwrap();
        let made = look();
        assert!(empty.changed(&made, &[]).is_some() && made.changed(&empty, &[]).is_some());
        std::fs::write(&file, "b").unwrap();
        assert!(made.changed(&look(), &[]).unwrap().contains("config.toml"));
        let before = look();
        std::fs::write(dir.path().join("project/.psn/state/ab/h-x.json"), "{}").unwrap();
        assert_eq!(before.changed(&look(), &[]), None);
        std::fs::write(dir.path().join("project/.psn/state/ab/h-y.json"), "{}").unwrap();
        assert!(before.changed(&look(), &[]).is_some(), "another plugin's notes");
    }

    #[test]
    fn names_of_env_files_count_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("hub.env"), text).unwrap();
        write("A=1\n");
        let before = Files::look(dir.path(), "h-x");
        let changed = |text: &str| {
            write(text);
            before.changed(&Files::look(dir.path(), "h-x"), &["capture \"B\" and \"A\""])
        };
        assert_eq!(changed("A=1\nB=2\n"), None, "asked for, and new");
        assert!(changed("A=1\nC=2\n").unwrap().contains("hub.env/C"));
        assert!(changed("A=2\n").unwrap().contains("hub.env/A"), "asked for, and not new");
    }
}
