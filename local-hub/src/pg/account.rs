//! Which account runs Postgres. Postgres refuses root, so psn as root hands its servers to an ordinary one.
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::PgError;

/// `psn` is the one a person makes for it; the others exist nearly everywhere.
const ACCOUNTS: [&str; 3] = ["psn", "postgres", "nobody"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// `None` when this process is not root: then the servers run as it does. The owner of clusters that exist wins,
    /// so that an account added later does not lock them out.
    pub(crate) fn for_servers(pg_dir: &Path) -> Result<Option<Account>, PgError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let account = owner_of_clusters(pg_dir)
            .or_else(|| ACCOUNTS.iter().find_map(|name| look_up(name)))
            .ok_or_else(|| PgError::NoAccount { tried: ACCOUNTS.map(str::to_owned).to_vec() })?;
        account.can_enter(pg_dir)?;
        Ok(Some(account))
    }

    /// Every parent must let the account through; /root, for one, does not.
    fn can_enter(&self, path: &Path) -> Result<(), PgError> {
        for folder in path.ancestors() {
            let meta = fs::metadata(folder).map_err(PgError::io("could not look at", folder))?;
            let mode = meta.mode() & 0o777;
            let bit = if meta.uid() == self.uid {
                0o100
            } else if meta.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if mode & bit == 0 {
                return Err(PgError::NotEnterable { path: folder.to_owned(), mode, uid: self.uid });
            }
        }
        Ok(())
    }
}

fn owner_of_clusters(pg_dir: &Path) -> Option<Account> {
    let clusters = fs::read_dir(pg_dir).into_iter().flatten().flatten();
    clusters
        .filter_map(|entry| fs::symlink_metadata(entry.path().join("data")).ok())
        .find(|meta| meta.is_dir() && meta.uid() != 0)
        .map(|meta| Account { uid: meta.uid(), gid: meta.gid() })
}

/// Through `id`, which asks every source of accounts that the system has.
fn look_up(name: &str) -> Option<Account> {
    let number = |flag: &str| -> Option<u32> {
        let out = Command::new("id").args([flag, name]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        String::from_utf8(out.stdout).ok()?.trim().parse().ok()
    };
    let account = Account { uid: number("-u")?, gid: number("-g")? };
    (account.uid != 0).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_that_the_account_cannot_enter_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000 };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let Err(PgError::NotEnterable { path, mode, .. }) = stranger.can_enter(&inner) else {
            panic!("a 0700 folder of another account was entered");
        };
        assert_eq!((path.as_path(), mode), (dir.path(), 0o700));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o711)).unwrap();
        stranger.can_enter(&inner).unwrap();
        // The owner's own bit decides for the owner, even where everybody else may enter.
        let meta = fs::metadata(&inner).unwrap();
        let owner = Account { uid: meta.uid(), gid: meta.gid() };
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o611)).unwrap();
        assert!(owner.can_enter(&inner).is_err());
    }

    #[test]
    fn root_is_no_account_to_drop_to_and_an_unknown_name_is_none() {
        assert_eq!(look_up("root"), None);
        assert_eq!(look_up("no-such-account-here"), None);
    }
}
