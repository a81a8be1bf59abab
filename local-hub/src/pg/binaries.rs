//! Where Postgres comes from, in layers: what the person named, then what the system has.
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PgError;
use super::account::Account;

/// The oldest that still gets fixes, and the first with `recovery_init_sync_method`.
const MIN_MAJOR: u32 = 14;
pub(crate) const ENV: &str = "PSN_PG_BIN";

/// Where binaries were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer {
    /// An option or PSN_PG_BIN. If it is unusable nothing else is tried: the person meant this one.
    Explicit,
    System,
}

#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) dir: PathBuf,
    pub(crate) major: u32,
    pub(crate) version: String,
    pub(crate) layer: Layer,
    account: Option<Account>,
}

impl Binaries {
    /// A command of this Postgres as the account of the servers, with nothing of psn's own environment in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        command(&self.dir, program, self.account)
    }
}

fn command(dir: &Path, program: &str, account: Option<Account>) -> Command {
    let mut command = Command::new(dir.join(program));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(Stdio::null());
    // A relocated tree carries its own libpq, which the loader does not find by itself.
    if let Some(lib) = dir.parent().map(|p| p.join("lib")).filter(|lib| carries_libpq(lib)) {
        command.env("LD_LIBRARY_PATH", lib);
    }
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

fn carries_libpq(lib: &Path) -> bool {
    let mut entries = fs::read_dir(lib).into_iter().flatten().flatten();
    entries.any(|e| e.file_name().to_string_lossy().starts_with("libpq.so"))
}

/// What to look through. A value of its own so that tests can search a tree they made.
pub(crate) struct Search {
    pub(crate) explicit: Option<PathBuf>,
    pub(crate) path: Option<OsString>,
    pub(crate) root: PathBuf,
    pub(crate) account: Option<Account>,
}

impl Search {
    pub(crate) fn new(explicit: Option<PathBuf>, account: Option<Account>) -> Search {
        Search {
            explicit: explicit.or_else(|| std::env::var_os(ENV).filter(|v| !v.is_empty()).map(PathBuf::from)),
            path: std::env::var_os("PATH"),
            root: "/".into(),
            account,
        }
    }

    /// The newest that fits. `need` is the major that made the cluster `what`: a cluster runs on no other.
    pub(crate) fn find(&self, what: &str, need: Option<u32>) -> Result<Binaries, PgError> {
        let fits = |major: u32| need.map_or(major >= MIN_MAJOR, |n| n == major);
        let misfit = |have: Vec<String>, looked: Vec<String>| match need {
            Some(need) => PgError::WrongMajor { what: what.to_owned(), need, have },
            None => PgError::NoPostgres { min: MIN_MAJOR, looked },
        };
        if let Some(dir) = &self.explicit {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
            let (version, text) =
                self.prove(&dir).map_err(|reason| PgError::BinUnusable { dir: dir.clone(), reason })?;
            if need.is_none() && !fits(version.0) {
                let reason = format!("it is version {text}; psn needs {MIN_MAJOR} or later");
                return Err(PgError::BinUnusable { dir, reason });
            }
            if !fits(version.0) {
                return Err(misfit(vec![text], Vec::new()));
            }
            return Ok(self.binaries(dir, version.0, text, Layer::Explicit));
        }
        let candidates = self.candidates();
        let mut best: Option<((u32, u32), String, PathBuf)> = None;
        let mut have = BTreeSet::new();
        for dir in &candidates {
            let Ok((version, text)) = self.prove(dir) else {
                continue;
            };
            if !fits(version.0) {
                have.insert(text);
            } else if best.as_ref().is_none_or(|(v, ..)| version > *v) {
                best = Some((version, text, dir.clone()));
            }
        }
        match best {
            Some((version, text, dir)) => Ok(self.binaries(dir, version.0, text, Layer::System)),
            None => Err(misfit(have.into_iter().collect(), self.looked())),
        }
    }

    fn binaries(&self, dir: PathBuf, major: u32, version: String, layer: Layer) -> Binaries {
        Binaries { dir, major, version, layer, account: self.account }
    }

    /// Runs it, as the account that will: a missing shared library or a folder closed to it shows here.
    fn prove(&self, dir: &Path) -> Result<((u32, u32), String), String> {
        for program in ["postgres", "initdb"] {
            if !dir.join(program).is_file() {
                return Err(format!("there is no {program}"));
            }
        }
        let out = command(dir, "postgres", self.account).arg("--version").output().map_err(|e| match self.account {
            Some(a) => format!("postgres cannot be run as account {}: {e}", a.uid),
            None => format!("postgres cannot be run: {e}"),
        })?;
        let said = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() {
            let stderr = String::from_utf8_lossy(&out.stderr);
            return Err(format!("postgres --version failed ({}): {}", out.status, stderr.trim()));
        }
        parse_version(&said).ok_or_else(|| format!("postgres --version said {:?}", said.trim()))
    }

    fn patterns() -> [(&'static str, &'static str, &'static str); 6] {
        // (folder, its entries that start with, where in them)
        [
            ("usr/lib/postgresql", "", "bin"), // Debian, Ubuntu: not on the PATH there
            ("usr", "pgsql-", "bin"),          // RHEL and the PGDG packages
            ("opt/homebrew/opt", "postgresql", "bin"),
            ("usr/local/opt", "postgresql", "bin"),
            ("home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
            ("Applications/Postgres.app/Contents/Versions", "", "bin"),
        ]
    }

    fn candidates(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        if let Some(path) = &self.path {
            dirs.extend(std::env::split_paths(path));
        }
        for (base, prefix, tail) in Self::patterns() {
            let entries = fs::read_dir(self.root.join(base)).into_iter().flatten().flatten();
            dirs.extend(
                entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path().join(tail)),
            );
        }
        for dir in ["usr/local/pgsql/bin", "usr/libexec/postgresql", "run/current-system/sw/bin"] {
            dirs.push(self.root.join(dir));
        }
        // The PATH often holds links to what is found again below; Postgres finds its files from where the link points.
        let mut seen = BTreeSet::new();
        dirs.into_iter()
            .filter(|d| d.is_absolute())
            .filter_map(|d| fs::canonicalize(d.join("postgres")).ok()?.parent().map(Path::to_owned))
            .filter(|d| seen.insert(d.clone()))
            .collect()
    }

    fn looked(&self) -> Vec<String> {
        let mut looked = vec!["PATH".to_owned()];
        looked.extend(Self::patterns().map(|(base, prefix, tail)| {
            self.root.join(base).join(format!("{prefix}*")).join(tail).display().to_string()
        }));
        looked
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)`; betas say `19beta1`.
fn parse_version(said: &str) -> Option<((u32, u32), String)> {
    let text = said.split_whitespace().nth(2)?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = if text.contains('.') { numbers.next()?.parse().ok()? } else { 0 };
    Some(((major, minor), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn fake(dir: &Path, script: &str) {
        fs::create_dir_all(dir).unwrap();
        for program in ["postgres", "initdb"] {
            let file = dir.join(program);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn version(dir: &Path, version: &str) {
        fake(dir, &format!("echo 'postgres (PostgreSQL) {version}'"));
    }

    fn search(root: &Path) -> Search {
        Search { explicit: None, path: None, root: root.to_owned(), account: None }
    }

    #[test]
    fn versions_are_read() {
        let v = |s| parse_version(s).map(|v| v.0);
        assert_eq!(v("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(v("postgres (PostgreSQL) 19beta1"), Some((19, 0)));
        assert_eq!(v("postgres (PostgreSQL) devel"), None);
        assert_eq!(v(""), None);
    }

    #[test]
    fn the_newest_that_runs_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("usr/lib/postgresql");
        version(&lib.join("15/bin"), "15.18");
        version(&lib.join("16/bin"), "16.4");
        version(&lib.join("9.6/bin"), "9.6.24");
        fake(&lib.join("17/bin"), "echo 'libicu.so: not found' >&2; exit 127");
        version(&root.path().join("usr/pgsql-16/bin"), "16.10");
        let found = search(root.path()).find("x", None).unwrap();
        assert_eq!((found.major, found.version.as_str()), (16, "16.10"));
        assert_eq!(found.layer, Layer::System);
        assert!(found.dir.ends_with("usr/pgsql-16/bin"));
    }

    #[test]
    fn a_cluster_gets_its_own_major_or_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        version(&root.path().join("usr/lib/postgresql/15/bin"), "15.18");
        version(&root.path().join("usr/lib/postgresql/17/bin"), "17.2");
        assert_eq!(search(root.path()).find("x", Some(15)).unwrap().major, 15);
        let error = search(root.path()).find("cluster x", Some(16)).err().unwrap();
        assert_eq!(error.code(), "local.postgres-wrong-major");
        assert!(error.to_string().contains("Postgres 16") && error.to_string().contains("15.18, 17.2"));
        assert!(error.fix()[0].ends_with("16") || error.fix()[0].contains("16-server"));
    }

    #[test]
    fn nothing_found_says_where_it_looked_and_three_ways_on() {
        let root = tempfile::tempdir().unwrap();
        version(&root.path().join("usr/lib/postgresql/13/bin"), "13.22");
        let error = search(root.path()).find("x", None).err().unwrap();
        assert_eq!(error.code(), "local.postgres-missing");
        assert!(error.to_string().contains("usr/lib/postgresql"));
        let fix = error.fix();
        assert_eq!(fix.len(), 3);
        assert!(fix[0].contains("install"));
        assert!(fix[1].contains("PSN_PG_BIN"));
        assert!(fix[2].contains("--hub cloud"));
    }

    #[test]
    fn an_explicit_folder_is_used_or_refused_but_never_passed_over() {
        let root = tempfile::tempdir().unwrap();
        version(&root.path().join("usr/lib/postgresql/17/bin"), "17.2");
        let with = |dir: &Path| Search { explicit: Some(dir.to_owned()), ..search(root.path()) };
        let own = root.path().join("own");
        let reason = |s: Search| match s.find("x", None) {
            Err(PgError::BinUnusable { reason, .. }) => reason,
            other => panic!("{:?}", other.map(|b| b.dir)),
        };
        assert_eq!(reason(with(&own)), "there is no postgres");
        fake(&own, "echo broken >&2; exit 3");
        assert!(reason(with(&own)).contains("broken"));
        version(&own, "13.1");
        assert!(reason(with(&own)).contains("14 or later"));
        version(&own, "16.1");
        let found = with(&own).find("x", None).unwrap();
        assert_eq!((found.major, found.layer), (16, Layer::Explicit));
        let error = with(&own).find("x", Some(17)).err().unwrap();
        assert_eq!(error.code(), "local.postgres-wrong-major");
    }

    #[test]
    fn a_link_on_the_path_is_followed_to_where_it_points() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real/bin");
        version(&real, "16.1");
        let links = root.path().join("links");
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(real.join("postgres"), links.join("postgres")).unwrap();
        let found = Search { path: Some(links.into()), ..search(root.path()) }.find("x", None).unwrap();
        assert_eq!(found.dir, fs::canonicalize(real).unwrap());
    }
}
