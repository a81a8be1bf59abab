//! The secrets of a hub on disk: `config/keys.env` holds what a person brings, `config/hub.env` what setup makes.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::atomic_file::{self, FileError, Lock};
use super::envfile::{EnvError, EnvFile};
use super::git::{self, GitError};
use super::project::{HUB_ENV, KEYS_ENV, ProjectDir};
use crate::error::CodedError;
use crate::secret::{Secret, SecretBackend, SecretError, is_secret_name};

/// What a person brings. Everything else is made by setup, unless it stands in keys.env already.
pub const PERSON_KEYS: [&str; 2] = ["NEON_API_KEY", "TRIGGER_ACCESS_TOKEN"];

/// Only its owner reads a file with secrets.
const MODE: u32 = 0o600;

const HUB_HEADER: &str = "# Made by psn setup: the keys of this hub. Never share or commit this file; psn changes only the lines it wrote.\n";
const KEYS_HEADER: &str = "# Keys you brought. Never share or commit this file.\n";

#[derive(Debug, thiserror::Error)]
pub enum EnvFilesError {
    #[error("{file}: {source}")]
    Text { file: &'static str, source: EnvError },
    #[error("{name} cannot be written to {file}: {source}")]
    Value { name: String, file: &'static str, source: EnvError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Git(#[from] GitError),
}

impl EnvFilesError {
    pub fn coded(&self) -> CodedError {
        match self {
            EnvFilesError::Text { file, source: EnvError::Line { line, .. } } => {
                CodedError::new("config.env-file", self.to_string(), [format!("${{EDITOR:-vi}} +{line} {file}")])
            }
            EnvFilesError::Text { file, .. } => {
                CodedError::new("config.env-file", self.to_string(), [format!("${{EDITOR:-vi}} {file}")])
            }
            EnvFilesError::Value { name, .. } => CodedError::new(
                "config.env-value",
                self.to_string(),
                [format!("Ask for another value of {name}: letters, digits and _ . - are safe")],
            ),
            EnvFilesError::File(e) => e.coded(),
            EnvFilesError::Git(e) => super::project::git_error(e),
        }
    }
}

pub struct EnvFiles {
    folder: PathBuf,
    lock: PathBuf,
    /// Files that git was asked about and will not keep. Asked once a run: a person who commits secrets meanwhile can't be stopped.
    allowed: Mutex<Vec<&'static str>>,
}

impl EnvFiles {
    pub fn new(project: &ProjectDir) -> Self {
        Self { folder: project.path().to_owned(), lock: project.env_lock(), allowed: Mutex::new(Vec::new()) }
    }

    pub fn read_all(&self) -> Result<BTreeMap<String, Secret>, EnvFilesError> {
        let mut all = BTreeMap::new();
        // A name that stands in both files counts where it belongs.
        for file in [KEYS_ENV, HUB_ENV] {
            for (name, value) in self.read(file)?.iter() {
                let belongs = (file == KEYS_ENV) == PERSON_KEYS.contains(&name);
                // An empty line of a template is a secret that is missing, not an empty one.
                if is_secret_name(name) && !value.is_empty() && (belongs || !all.contains_key(name)) {
                    all.insert(name.to_owned(), Secret::new(value));
                }
            }
        }
        Ok(all)
    }

    pub fn write(&self, name: &str, value: &Secret) -> Result<(), EnvFilesError> {
        self.write_all(&[(name, value)])
    }

    /// What goes to one file goes there at once.
    pub fn write_all(&self, values: &[(&str, &Secret)]) -> Result<(), EnvFilesError> {
        self.write_where(values, |name, keys, hub| {
            PERSON_KEYS.contains(&name) || (keys.get(name).is_some() && hub.get(name).is_none())
        })
    }

    /// What a person brings. What stands in hub.env already is replaced there: a name has one place.
    pub fn bring(&self, name: &str, value: &Secret) -> Result<(), EnvFilesError> {
        self.write_where(&[(name, value)], |name, _, hub| PERSON_KEYS.contains(&name) || hub.get(name).is_none())
    }

    fn write_where(
        &self,
        values: &[(&str, &Secret)],
        in_keys: impl Fn(&str, &EnvFile, &EnvFile) -> bool,
    ) -> Result<(), EnvFilesError> {
        // Two psn at once (a run and `psn keys set`) each see what the other wrote.
        let _lock = Lock::exclusive(&self.lock)?;
        let (keys, hub) = (self.read(KEYS_ENV)?, self.read(HUB_ENV)?);
        let (to_keys, to_hub): (Vec<_>, Vec<_>) = values.iter().partition(|(name, _)| in_keys(name, &keys, &hub));
        for (file, header, mut env, values) in
            [(KEYS_ENV, KEYS_HEADER, keys, to_keys), (HUB_ENV, HUB_HEADER, hub, to_hub)]
        {
            if values.is_empty() {
                continue;
            }
            self.guard(file)?;
            if env.text().is_empty() {
                env = EnvFile::parse(header.as_bytes()).map_err(|source| EnvFilesError::Text { file, source })?;
            }
            for (name, value) in values {
                let wrong = |source| EnvFilesError::Value { name: (*name).to_owned(), file, source };
                env.set(name, value.expose()).map_err(wrong)?;
            }
            atomic_file::replace(&self.folder.join(file), env.text().as_bytes(), MODE)?;
        }
        Ok(())
    }

    /// Takes the lines of these names out of hub.env. What a person brought stays.
    pub fn remove_lines(&self, names: &[&str]) -> Result<(), EnvFilesError> {
        let _lock = Lock::exclusive(&self.lock)?;
        self.remove_from(HUB_ENV, names)
    }

    /// Takes the name out of both files.
    pub fn unset(&self, name: &str) -> Result<(), EnvFilesError> {
        let _lock = Lock::exclusive(&self.lock)?;
        [KEYS_ENV, HUB_ENV].into_iter().try_for_each(|file| self.remove_from(file, &[name]))
    }

    fn remove_from(&self, file: &'static str, names: &[&str]) -> Result<(), EnvFilesError> {
        let mut env = self.read(file)?;
        if !names.iter().any(|name| env.get(name).is_some()) {
            return Ok(());
        }
        self.guard(file)?;
        for name in names {
            env.remove(name).map_err(|source| EnvFilesError::Text { file, source })?;
        }
        Ok(atomic_file::replace(&self.folder.join(file), env.text().as_bytes(), MODE)?)
    }

    fn read(&self, file: &'static str) -> Result<EnvFile, EnvFilesError> {
        let bytes = zeroize::Zeroizing::new(atomic_file::read(&self.folder.join(Path::new(file)))?.unwrap_or_default());
        EnvFile::parse(&bytes).map_err(|source| EnvFilesError::Text { file, source })
    }

    fn guard(&self, file: &'static str) -> Result<(), EnvFilesError> {
        let mut allowed = self.allowed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !allowed.contains(&file) {
            git::guard(&self.folder, file)?;
            allowed.push(file);
        }
        Ok(())
    }
}

impl SecretBackend for EnvFiles {
    fn load(&self) -> Result<BTreeMap<String, Secret>, SecretError> {
        self.read_all().map_err(|e| Box::new(e.coded()).into())
    }

    fn store(&self, values: &[(&str, &Secret)]) -> Result<(), SecretError> {
        self.write_all(values).map_err(|e| Box::new(e.coded()).into())
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        self.remove_lines(&[name]).map_err(|e| Box::new(e.coded()).into())
    }

    fn bring(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        EnvFiles::bring(self, name, value).map_err(|e| Box::new(e.coded()).into())
    }

    fn unset(&self, name: &str) -> Result<(), SecretError> {
        EnvFiles::unset(self, name).map_err(|e| Box::new(e.coded()).into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn project() -> (tempfile::TempDir, ProjectDir) {
        let dir = tempfile::tempdir().unwrap();
        let project = ProjectDir::at(dir.path()).unwrap();
        project.lay_out().unwrap();
        (dir, project)
    }

    #[test]
    fn each_name_goes_to_its_file_and_comes_back() {
        let (_dir, project) = project();
        let files = EnvFiles::new(&project);
        files.write("NEON_API_KEY", &Secret::new("napi_1")).unwrap();
        files
            .write("DATABASE_URL", &Secret::new("postgresql://u:p@h/d?sslmode=require&channel_binding=require"))
            .unwrap();
        let keys = fs::read_to_string(project.keys_env()).unwrap();
        let hub = fs::read_to_string(project.hub_env()).unwrap();
        assert!(keys.contains("NEON_API_KEY=napi_1\n") && !hub.contains("NEON_API_KEY"));
        assert!(hub.contains("DATABASE_URL='postgresql://") && !keys.contains("DATABASE_URL"));
        for path in [project.keys_env(), project.hub_env()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let all = files.read_all().unwrap();
        assert_eq!(all["DATABASE_URL"].expose(), "postgresql://u:p@h/d?sslmode=require&channel_binding=require");
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_person_s_own_line_is_changed_where_it_stands() {
        let (_dir, project) = project();
        fs::write(project.keys_env(), "# mine\nOPENAI_API_KEY=old\nTRIGGER_ACCESS_TOKEN=\n").unwrap();
        let files = EnvFiles::new(&project);
        assert!(!files.read_all().unwrap().contains_key("TRIGGER_ACCESS_TOKEN"), "an empty line is no key");
        files.write("OPENAI_API_KEY", &Secret::new("new")).unwrap();
        files.write("TRIGGER_ACCESS_TOKEN", &Secret::new("tr_pat_1")).unwrap();
        assert_eq!(
            fs::read_to_string(project.keys_env()).unwrap(),
            "# mine\nOPENAI_API_KEY=new\nTRIGGER_ACCESS_TOKEN=tr_pat_1\n"
        );
        assert!(!project.hub_env().exists());
    }

    #[test]
    fn what_a_person_brings_stands_with_their_keys_and_in_one_place() {
        let (_dir, project) = project();
        let files = EnvFiles::new(&project);
        files.write("ACME_KEPT", &Secret::new("of-the-plugin")).unwrap();
        for (name, value) in [("ACME_KEY", "brought"), ("ACME_KEPT", "replaced"), ("NEON_API_KEY", "napi_1")] {
            files.bring(name, &Secret::new(value)).unwrap();
        }
        // What setup learns of a name that a person brought goes where that stands.
        files.write("ACME_KEY", &Secret::new("renewed")).unwrap();
        let texts = || [project.keys_env(), project.hub_env()].map(|f| fs::read_to_string(f).unwrap());
        assert_eq!(
            texts(),
            [
                format!("{KEYS_HEADER}ACME_KEY=renewed\nNEON_API_KEY=napi_1\n"),
                format!("{HUB_HEADER}ACME_KEPT=replaced\n")
            ]
        );
        files.remove_lines(&["ACME_KEY"]).unwrap();
        assert!(texts()[0].contains("ACME_KEY=renewed"), "only hub.env is psn's to tidy");
        for name in ["ACME_KEY", "ACME_KEPT", "ACME_NEVER"] {
            files.unset(name).unwrap();
        }
        assert_eq!(texts(), [format!("{KEYS_HEADER}NEON_API_KEY=napi_1\n"), HUB_HEADER.to_owned()]);
    }

    #[test]
    fn nothing_is_written_where_git_would_keep_it() {
        let (dir, project) = project();
        std::process::Command::new("git").args(["init", "-q"]).current_dir(dir.path()).status().unwrap();
        fs::write(dir.path().join(".gitignore"), "").unwrap();
        let files = EnvFiles::new(&project);
        let error = files.write("DATABASE_URL", &Secret::new("x")).unwrap_err();
        assert_eq!(error.coded().code, "config.git");
        assert!(!project.hub_env().exists());
        // The fix, as it is printed.
        let fix = &error.coded().fix[0];
        assert!(std::process::Command::new("sh").args(["-c", fix]).current_dir(dir.path()).status().unwrap().success());
        files.write("DATABASE_URL", &Secret::new("x")).unwrap();
    }

    #[test]
    fn errors_name_file_and_line_and_never_the_value() {
        let (_dir, project) = project();
        fs::write(project.keys_env(), "A=1\nNEON_API_KEY='napi_secret\n").unwrap();
        let error = EnvFiles::new(&project).read_all().err().unwrap();
        assert_eq!(error.to_string(), "config/keys.env: line 2: the quote is not closed");
        fs::remove_file(project.keys_env()).unwrap();
        let error = EnvFiles::new(&project).write("X", &Secret::new("$HOME/secret")).unwrap_err();
        assert!(!error.to_string().contains("secret") || error.to_string().contains("config/hub.env"), "{error}");
        assert_eq!(error.coded().code, "config.env-value");
        assert!(!project.hub_env().exists(), "not even its header");
    }

    #[test]
    fn readers_never_see_half_a_file_and_writers_lose_no_line() {
        let (_dir, project) = project();
        let first = EnvFiles::new(&project);
        first.write("ALWAYS", &Secret::new("here")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|w| {
                    let project = &project;
                    scope.spawn(move || {
                        let files = EnvFiles::new(project);
                        for i in 0..25 {
                            files.write(&format!("W{w}_{i}"), &Secret::new("x".repeat(200))).unwrap();
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                let files = EnvFiles::new(&project);
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let all = files.read_all().unwrap();
                    assert_eq!(all["ALWAYS"].expose(), "here");
                    assert!(all.iter().all(|(n, v)| n == "ALWAYS" || v.expose().len() == 200));
                    reads += 1;
                }
                reads
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
        assert_eq!(first.read_all().unwrap().len(), 101);
        let left: Vec<_> =
            fs::read_dir(project.path().join("config")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|n| n.to_string_lossy().contains("psn-tmp")), "{left:?}");
    }
}
