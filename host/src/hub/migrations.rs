//! Which migrations a hub has: psn's own, embedded in the program, and those of the person, in the project's `migrations/`.
use std::borrow::Cow;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::atomic_file::{self, FileError};
use super::project::ProjectDir;
use crate::error::CodedError;

static EMBEDDED: Migrator = sqlx::migrate!("../migrations");

/// Relative to the project.
pub const FOLDER: &str = "migrations";
/// Numbers below are psn's own, now and later. A person's migrations are numbered by the time that they were made at, so that they come
/// after all of psn's and two people do not take the same.
pub const FIRST_OF_PROJECT: i64 = 1_000_000;
/// The longest name of a migration, in bytes: `<name>_user_id_id_key` must fit into the 63 that Postgres keeps of a name.
pub const MAX_NAME: usize = 40;

#[derive(Debug, thiserror::Error)]
pub enum MigrationsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} {reason}")]
    BadFile { file: String, reason: String },
    #[error("`{name}` cannot be a migration's name: {reason}")]
    BadName { name: String, reason: &'static str },
    #[error("{file} is there already")]
    Exists { file: String },
}

impl MigrationsError {
    pub fn coded(&self) -> CodedError {
        match self {
            MigrationsError::File(e) => e.coded(),
            MigrationsError::BadFile { file, .. } => CodedError::new(
                "migrate.bad-file",
                self.to_string(),
                [
                    format!("mv {file} {file}.aside"),
                    "Make the migration with psn db new NAME, and move its statements there".to_owned(),
                ],
            ),
            MigrationsError::BadName { .. } => {
                CodedError::new("usage.migration-name", self.to_string(), ["psn db new notes"])
            }
            MigrationsError::Exists { file } => CodedError::new(
                "migrate.exists",
                self.to_string(),
                [format!("${{EDITOR:-vi}} {file}"), "psn db status".to_owned()],
            ),
        }
    }
}

/// All of them, in the order in which they apply.
#[derive(Clone, Debug)]
pub struct Migrations {
    all: Vec<Migration>,
    /// The files of the project's, by version.
    files: Vec<(i64, String)>,
}

impl Migrations {
    /// psn's own.
    pub fn embedded() -> Self {
        Self { all: EMBEDDED.iter().cloned().collect(), files: Vec::new() }
    }

    /// psn's own and the project's.
    pub fn load(project: &ProjectDir) -> Result<Self, MigrationsError> {
        let mut migrations = Self::embedded();
        for (file, name) in files(&project.path().join(FOLDER))? {
            let shown = format!("{FOLDER}/{name}");
            let bad = |reason: &str| MigrationsError::BadFile { file: shown.clone(), reason: reason.to_owned() };
            let bytes = atomic_file::read(&file)?.unwrap_or_default();
            let sql = String::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))?;
            let migration = parse(&name, sql).map_err(bad)?;
            if migration.version < FIRST_OF_PROJECT {
                // In psn's own repository the folder holds what the program has embedded.
                let own = EMBEDDED.iter().find(|own| own.version == migration.version);
                if own.is_some_and(|own| own.checksum == migration.checksum) {
                    continue;
                }
                return Err(bad("has a number that is psn's own, and is not what this psn carries under it"));
            }
            if migrations.all.iter().any(|m| m.version == migration.version) {
                return Err(bad("has the number of another migration"));
            }
            migrations.files.push((migration.version, shown));
            migrations.all.push(migration);
        }
        migrations.all.sort_by_key(|m| m.version);
        Ok(migrations)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Migration> {
        self.all.iter()
    }

    pub fn to_vec(&self) -> Vec<Migration> {
        self.all.clone()
    }

    pub fn has(&self, version: i64) -> bool {
        self.all.iter().any(|m| m.version == version)
    }

    /// The project's file of this version.
    pub fn file(&self, version: i64) -> Option<&str> {
        self.files.iter().find(|(v, _)| *v == version).map(|(_, file)| file.as_str())
    }
}

/// Files that end in `.sql`, by name.
fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>, MigrationsError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(FileError::read(folder)(e).into()),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::read(folder))?;
        if let Ok(name) = entry.file_name().into_string()
            && name.ends_with(".sql")
        {
            files.push((entry.path(), name));
        }
    }
    files.sort();
    Ok(files)
}

/// `20270101120000_notes.sql`
fn parse(file: &str, sql: String) -> Result<Migration, &'static str> {
    let stem = file.strip_suffix(".sql").unwrap_or(file);
    let (number, name) = stem.split_once('_').ok_or("does not begin with a number and `_`")?;
    if number.is_empty() || name.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err("does not begin with a number and `_`");
    }
    let version: i64 = number.parse().map_err(|_| "has too long a number")?;
    // sqlx's own mark for statements that no transaction may hold.
    let no_tx = sql.starts_with("-- no-transaction");
    let description = Cow::Owned(name.replace('_', " "));
    Ok(Migration::new(version, description, MigrationType::Simple, AssertSqlSafe(sql).into_sql_str(), no_tx))
}

/// Writes the migration of a new table of people's rows. Answers its path, relative to the project.
pub fn scaffold(project: &ProjectDir, name: &str, now: DateTime<Utc>) -> Result<String, MigrationsError> {
    let bad = |reason| MigrationsError::BadName { name: name.to_owned(), reason };
    if !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    {
        return Err(bad("small letters, digits and `_`, beginning with a letter, as the table it makes"));
    }
    if name.len() > MAX_NAME {
        return Err(bad("it is longer than 40 letters"));
    }
    let folder = project.path().join(FOLDER);
    let known = files(&folder)?;
    let same = |file: &str| file.strip_suffix(".sql").and_then(|s| s.split_once('_')).is_some_and(|(_, n)| n == name);
    if let Some((_, file)) = known.iter().find(|(_, file)| same(file)) {
        return Err(MigrationsError::Exists { file: format!("{FOLDER}/{file}") });
    }
    let number = |file: &str| file.split('_').next().and_then(|n| n.parse::<i64>().ok());
    let last = known.iter().filter_map(|(_, file)| number(file)).max().unwrap_or(0);
    let time: i64 = now.format("%Y%m%d%H%M%S").to_string().parse().unwrap_or(FIRST_OF_PROJECT);
    // Two within a second, or a clock that was set back: still after all others.
    let version = time.max(last + 1);
    std::fs::create_dir_all(&folder).map_err(FileError::io(&folder))?;
    let file = format!("{version}_{name}.sql");
    atomic_file::replace(&folder.join(&file), TABLE.replace("{table}", name).as_bytes(), 0o644)?;
    Ok(format!("{FOLDER}/{file}"))
}

const TABLE: &str = include_str!("table.sql");

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, ProjectDir) {
        let dir = tempfile::tempdir().unwrap();
        let project = ProjectDir::at(dir.path()).unwrap();
        (dir, project)
    }

    fn put(project: &ProjectDir, file: &str, sql: &str) {
        let folder = project.path().join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), sql).unwrap();
    }

    #[test]
    fn a_persons_migrations_come_after_psns_whatever_psn_adds_later() {
        let (_dir, project) = project();
        let own = Migrations::load(&project).unwrap();
        assert!(own.iter().count() >= 4 && own.iter().all(|m| m.version < FIRST_OF_PROJECT));
        let now = "2027-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(scaffold(&project, "notes", now).unwrap(), "migrations/20270102030405_notes.sql");
        assert_eq!(scaffold(&project, "ideas", now).unwrap(), "migrations/20270102030406_ideas.sql");
        let all = Migrations::load(&project).unwrap();
        let versions: Vec<i64> = all.iter().map(|m| m.version).collect();
        assert_eq!(versions[versions.len() - 2..], [20_270_102_030_405, 20_270_102_030_406]);
        assert_eq!(all.file(20_270_102_030_405), Some("migrations/20270102030405_notes.sql"));
        assert_eq!(all.file(1), None);
        let text = std::fs::read_to_string(project.path().join("migrations/20270102030405_notes.sql")).unwrap();
        assert!(text.contains("CREATE TABLE public.notes (") && !text.contains("{table}"), "{text}");
    }

    #[test]
    fn names_and_files_that_are_refused() {
        let (_dir, project) = project();
        let now = Utc::now();
        for name in ["", "Notes", "1st", "a-b", "a b", "a;drop", "_x", &"a".repeat(41)] {
            let error = scaffold(&project, name, now).unwrap_err();
            assert_eq!(error.coded().code, "usage.migration-name", "{name}");
        }
        assert!(!project.path().join(FOLDER).exists(), "nothing is made for a refused name");
        scaffold(&project, "notes", now).unwrap();
        assert_eq!(scaffold(&project, "notes", now).unwrap_err().coded().code, "migrate.exists");

        for (file, sql) in [("0002_mine.sql", "SELECT 1"), ("0999_mine.sql", "SELECT 1"), ("mine.sql", "")] {
            let (_dir, project) = self::project();
            put(&project, file, sql);
            let error = Migrations::load(&project).unwrap_err();
            assert_eq!(error.coded().code, "migrate.bad-file", "{file}");
            assert!(error.to_string().starts_with(&format!("migrations/{file} ")), "{error}");
        }
        let (_dir, project) = self::project();
        put(&project, "20270101000000_a.sql", "SELECT 1");
        put(&project, "20270101000000_b.sql", "SELECT 2");
        assert!(matches!(Migrations::load(&project), Err(MigrationsError::BadFile { .. })));
    }

    #[test]
    fn psns_own_repository_holds_what_is_embedded() {
        let repository = ProjectDir::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        let loaded = Migrations::load(&repository).unwrap();
        assert_eq!(loaded.iter().count(), Migrations::embedded().iter().count());
    }
}
