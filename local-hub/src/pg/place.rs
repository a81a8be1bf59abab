//! The folder of one cluster and what is in it.
//!
//! ```text
//! <pg>/<id>/            of psn's own account, so that the server's account cannot plant anything where psn writes
//!   postgresql.conf     written anew at each start; says where the data is
//!   pg_hba.conf, pg_ident.conf
//!   cluster.json        the port
//!   postgres.log
//!   data/  s/           of the server's account: the data and the private socket
//! ```
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::account::Account;
use super::process::Mark;
use super::{PgError, port};
use crate::files;

/// A socket's path must fit into `sockaddr_un`, the NUL included.
const SOCKET_PATH_MAX: usize = if cfg!(target_os = "linux") { 108 } else { 104 };
const LONGEST_SOCKET_NAME: &str = "/.s.PGSQL.65535";
/// A label of a host name, in case a service shows it in one.
const ID_MAX: usize = 63;

/// What is recorded of a cluster.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) port: u16,
    /// Of the pooler; kept where there is none, so that connection strings stay true when one is there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pooler_port: Option<u16>,
}

impl Record {
    pub(crate) fn ports(self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.pooler_port)
    }
}

#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    /// `cluster_name`: makes the titles of its processes this cluster's alone on the machine.
    pub(crate) name: String,
    pub(crate) mark: Mark,
}

impl Place {
    /// `pg_dir` is canonical: the same cluster must look the same to every psn.
    pub(crate) fn new(pg_dir: &Path, id: &str) -> Result<Place, PgError> {
        let dir = pg_dir.join(id);
        let unusable = |reason| PgError::UnusablePath { path: dir.clone(), reason };
        let text = dir.to_str().ok_or_else(|| unusable("its name is not UTF-8"))?;
        if text.chars().any(char::is_control) {
            return Err(unusable("its name has control characters"));
        }
        let name = format!("psn-{}", &hex::encode(Sha256::digest(text))[..16]);
        let mark = Mark::new(text, &name);
        Ok(Place { id: id.to_owned(), dir, name, mark })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub(crate) fn major(&self) -> Result<Option<u32>, PgError> {
        let file = self.data().join("PG_VERSION");
        let text = files::read_optional(&file).map_err(PgError::io("could not read", &file))?;
        match text.map(|t| t.trim().parse()) {
            None if self.data().exists() => Err(PgError::NotACluster { path: self.data() }),
            None => Ok(None),
            Some(Ok(major)) => Ok(Some(major)),
            Some(Err(_)) => Err(PgError::NotACluster { path: self.data() }),
        }
    }

    fn record_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    pub(crate) fn record(&self) -> Result<Option<Record>, PgError> {
        let file = self.record_file();
        let text = files::read_optional(&file).map_err(PgError::io("could not read", &file))?;
        Ok(text.and_then(|t| serde_json::from_str(&t).ok()))
    }

    pub(crate) fn write_record(&self, record: Record) -> Result<(), PgError> {
        let file = self.record_file();
        let text = serde_json::to_vec(&record).expect("a number is JSON");
        files::write_atomic(&file, &text, 0o600).map_err(PgError::io("could not write", &file))
    }

    /// Inside the cluster's folder where the path is short enough, else a private folder of a short name.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        let inside = self.dir.join("s");
        if inside.as_os_str().len() + LONGEST_SOCKET_NAME.len() < SOCKET_PATH_MAX {
            return inside;
        }
        PathBuf::from(format!("/tmp/{}", self.name))
    }

    /// A folder in /tmp may have been made by anybody: it is used only if it is the servers' account's alone.
    pub(crate) fn make_socket_dir(&self, account: Option<Account>) -> Result<PathBuf, PgError> {
        let dir = self.socket_dir();
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => hand_over(&dir, account)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(PgError::io("could not make", &dir)(e)),
        }
        let uid = account.map_or_else(|| rustix::process::geteuid().as_raw(), |a| a.uid);
        let meta = fs::symlink_metadata(&dir).map_err(PgError::io("could not look at", &dir))?;
        if meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0 {
            return Ok(dir);
        }
        // Ours, from a crash between making it and handing it over.
        if meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0 {
            hand_over(&dir, account)?;
            return Ok(dir);
        }
        Err(PgError::SocketDir { path: dir, uid })
    }

    /// What is not inside the cluster's folder.
    pub(crate) fn remove_outside(&self) -> Result<(), PgError> {
        let dir = self.socket_dir();
        if dir.starts_with(&self.dir) {
            return Ok(());
        }
        files::remove_dir(&dir).map_err(PgError::io("could not delete", &dir))
    }
}

pub(crate) fn hand_over(path: &Path, account: Option<Account>) -> Result<(), PgError> {
    match account {
        None => Ok(()),
        Some(a) => lchown(path, Some(a.uid), Some(a.gid)).map_err(PgError::io("could not hand over", path)),
    }
}

pub(crate) fn check_id(id: &str) -> Result<(), PgError> {
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(ok) || id.starts_with('-') {
        return Err(PgError::BadId { id: id.to_owned(), max: ID_MAX });
    }
    Ok(())
}

/// All clusters that have a folder, by name.
pub(crate) fn all(pg_dir: &Path) -> Vec<Place> {
    let entries = fs::read_dir(pg_dir).into_iter().flatten().flatten();
    let mut places: Vec<Place> = entries
        .filter_map(|e| {
            let id = e.file_name().into_string().ok()?;
            let known = id == super::CONTROL || check_id(&id).is_ok();
            (known && e.file_type().ok()?.is_dir() && id != super::LOCKS).then(|| Place::new(pg_dir, &id).ok())?
        })
        .collect();
    places.sort_by(|a, b| a.id.cmp(&b.id));
    places
}

/// A recorded port that a stranger took gets a new number. For clusters that do not run.
pub(crate) fn renew_taken_port(place: &Place, reserved: &std::collections::BTreeSet<u16>) -> Result<(), PgError> {
    let Some(record) = place.record()? else {
        return Ok(());
    };
    if !place.mark.processes().is_empty() || super::pooler::runs(place) {
        return Ok(());
    }
    let mut reserved = reserved.clone();
    let mut renewed = |port: u16| {
        let port = if port::is_free(port) { port } else { port::free(&reserved)? };
        reserved.insert(port);
        Ok::<_, PgError>(port)
    };
    let fresh = Record { port: renewed(record.port)?, pooler_port: record.pooler_port.map(&mut renewed).transpose()? };
    if fresh == record { Ok(()) } else { place.write_record(fresh) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn names_are_labels() {
        for good in ["a", "psn-hub-7f3a", "cool-sound-12345678", "0"] {
            check_id(good).unwrap();
        }
        for bad in ["", "-a", "A", "a_b", "../x", "a/b", "_control", ".", &"x".repeat(64)] {
            assert_eq!(check_id(bad).unwrap_err().code(), "local.cluster-name", "{bad}");
        }
    }

    #[test]
    fn a_long_path_gets_a_short_socket_folder_of_its_own() {
        let short = Place::new(Path::new("/var/lib/psn/local-hub/pg"), "x").unwrap();
        assert_eq!(short.socket_dir(), short.dir.join("s"));
        let deep = PathBuf::from(format!("/{}", "d".repeat(120)));
        let (a, b) = (Place::new(&deep, "a").unwrap(), Place::new(&deep, "b").unwrap());
        assert!(a.socket_dir().starts_with("/tmp"));
        assert_ne!(a.socket_dir(), b.socket_dir());
        assert!(a.socket_dir().as_os_str().len() + LONGEST_SOCKET_NAME.len() < 104);
    }

    #[test]
    fn a_socket_folder_that_others_may_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "x").unwrap();
        fs::create_dir(&place.dir).unwrap();
        place.make_socket_dir(None).unwrap();
        place.make_socket_dir(None).unwrap();
        fs::set_permissions(place.socket_dir(), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(place.make_socket_dir(None).unwrap_err().code(), "local.socket-folder");
        fs::remove_dir(place.socket_dir()).unwrap();
        std::os::unix::fs::symlink(&place.dir, place.socket_dir()).unwrap();
        assert_eq!(place.make_socket_dir(None).unwrap_err().code(), "local.socket-folder");
    }

    #[test]
    fn a_path_that_no_configuration_can_hold_is_refused() {
        let error = Place::new(Path::new("/a\nb"), "x").err().unwrap();
        assert_eq!(error.code(), "local.path-unusable");
    }
}
