//! Making a data folder: initdb once per Home and major, copies of that afterwards. Whole or absent after a crash.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::account::Account;
use super::binaries::Binaries;
use super::place::hand_over;
use super::{PgError, SUPERUSER};
use crate::files::{self, FileLock};

const UNFINISHED: &str = "data.init-";
/// An initdb whose psn was killed goes on for a moment and writes into what is being deleted.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);
/// initdb takes about a second; slow disks a minute.
const TEMPLATE_PATIENCE: Duration = Duration::from_secs(300);
/// MB. A fresh cluster is then 30 MB instead of 42; servers that write much recycle more of them.
const WAL_SEGMENT: &str = "--wal-segsize=4";

pub(crate) struct Init<'a> {
    pub(crate) pg_dir: &'a Path,
    pub(crate) locks: &'a Path,
    pub(crate) binaries: &'a Binaries,
    pub(crate) account: Option<Account>,
    pub(crate) password: &'a str,
}

impl Init<'_> {
    /// Fills `dir/data`. The caller holds the cluster's lock. A copy shares the template's system identifier, which
    /// matters to replication only, and no two of these are ever replicas of one another.
    pub(crate) async fn make(&self, dir: &Path) -> Result<(), PgError> {
        let template = self.template().await?;
        let unfinished = self.begin(dir).await?;
        let mut copy = Command::new("cp");
        copy.args(["-R", "-p"]).arg(template.join(".")).arg(&unfinished).current_dir("/");
        if let Some(a) = self.account {
            copy.uid(a.uid).gid(a.gid);
        }
        run("cp", copy).await?;
        self.finish(dir, unfinished).await
    }

    /// The folder that all clusters of this major are copied from.
    async fn template(&self) -> Result<PathBuf, PgError> {
        let dir = template_dir(self.pg_dir, self.binaries.major);
        let data = dir.join("data");
        let lock_file = self.locks.join(format!("template-{}.lock", self.binaries.major));
        let _lock = FileLock::acquire(&lock_file, TEMPLATE_PATIENCE)
            .await
            .map_err(PgError::io("could not lock", &lock_file))?
            .ok_or(PgError::Busy { path: lock_file, seconds: TEMPLATE_PATIENCE.as_secs() })?;
        if data.join("PG_VERSION").is_file() {
            return Ok(data);
        }
        files::make_dir(&dir, 0o711).map_err(PgError::io("could not make", &dir))?;
        let unfinished = self.begin(&dir).await?;
        self.initdb(&unfinished).await?;
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            // The ones in force are in the cluster's own folder: a second set would only mislead.
            let file = unfinished.join(name);
            files::remove_file(&file).map_err(PgError::io("could not delete", &file))?;
        }
        self.finish(&dir, unfinished).await?;
        tracing::info!(version = %self.binaries.version, bin = %self.binaries.dir.display(), "made the template cluster");
        Ok(data)
    }

    async fn initdb(&self, data: &Path) -> Result<(), PgError> {
        let secret = SecretFile::write(&self.pg_dir.join(format!(".password-{}", std::process::id())), self)?;
        let mut initdb = self.binaries.command("initdb");
        initdb
            .arg("-D")
            .arg(data)
            .args(["-U", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .args(["--data-checksums", "--no-sync", "--no-instructions", WAL_SEGMENT])
            .arg("--pwfile")
            .arg(&secret.0);
        if self.binaries.major >= 17 {
            // The same order on every machine and after every upgrade of it, yet upper and lower case beyond ASCII.
            initdb.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
        }
        run("initdb", initdb).await
    }

    /// An empty folder of the servers' account beside `data`; what earlier attempts left is deleted.
    async fn begin(&self, dir: &Path) -> Result<PathBuf, PgError> {
        let entries = fs::read_dir(dir).map_err(PgError::io("could not read", dir))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                delete_patiently(&entry.path()).await?;
            }
        }
        let unfinished = dir.join(format!("{UNFINISHED}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(PgError::io("could not make", &unfinished))?;
        hand_over(&unfinished, self.account)?;
        Ok(unfinished)
    }

    /// The data is on disk before it gets its name: the guarantee of initdb's own thousand fsyncs, at the price of one.
    async fn finish(&self, dir: &Path, unfinished: PathBuf) -> Result<(), PgError> {
        let dir = dir.to_owned();
        blocking(move || {
            sync(&unfinished).map_err(PgError::io("could not flush", &unfinished))?;
            let data = dir.join("data");
            fs::rename(&unfinished, &data).map_err(PgError::io("could not name", &data))?;
            File::open(&dir).and_then(|d| d.sync_all()).map_err(PgError::io("could not flush", &dir))
        })
        .await
    }
}

pub(crate) fn template_dir(pg_dir: &Path, major: u32) -> PathBuf {
    pg_dir.join(format!("_template-{major}"))
}

/// The template holds the superuser's password, so a new password needs new templates.
pub(crate) fn forget_templates(pg_dir: &Path) -> Result<(), PgError> {
    for entry in fs::read_dir(pg_dir).map_err(PgError::io("could not read", pg_dir))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("_template-") {
            files::remove_dir(&entry.path()).map_err(PgError::io("could not delete", &entry.path()))?;
        }
    }
    Ok(())
}

/// A file that only the servers' account can read, for as long as initdb needs it.
struct SecretFile(PathBuf);

impl SecretFile {
    fn write(path: &Path, init: &Init<'_>) -> Result<SecretFile, PgError> {
        files::remove_file(path).map_err(PgError::io("could not delete", path))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(PgError::io("could not make", path))?;
        let secret = SecretFile(path.to_owned());
        file.write_all(init.password.as_bytes()).map_err(PgError::io("could not write", path))?;
        hand_over(path, init.account)?;
        Ok(secret)
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = files::remove_file(&self.0);
    }
}

async fn delete_patiently(path: &Path) -> Result<(), PgError> {
    let start = Instant::now();
    loop {
        let target = path.to_owned();
        match blocking(move || Ok(files::remove_dir(&target))).await? {
            Ok(()) => return Ok(()),
            Err(e) if start.elapsed() > ORPHAN_PATIENCE => {
                return Err(PgError::io("could not delete", path)(e));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn run(tool: &'static str, mut command: Command) -> Result<(), PgError> {
    command.stdin(Stdio::null());
    let program = PathBuf::from(command.get_program());
    let out: Output = tokio::process::Command::from(command)
        // A caller that goes away must not leave it writing.
        .kill_on_drop(true)
        .output()
        .await
        .map_err(PgError::io("could not run", &program))?;
    if out.status.success() {
        return Ok(());
    }
    let said = [out.stdout, out.stderr].concat();
    Err(PgError::Tool {
        tool,
        status: out.status.to_string(),
        output: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PgError> + Send + 'static,
) -> Result<T, PgError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Aborted only when the runtime shuts down; then nobody waits for this either.
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

#[cfg(target_os = "linux")]
fn sync(dir: &Path) -> std::io::Result<()> {
    rustix::fs::syncfs(File::open(dir)?)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn sync(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}
