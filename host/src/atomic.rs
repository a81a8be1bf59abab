//! Files that are either the old ones or the new ones, whatever happens in between.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file beside its place, has it on disk, then moves it there, and has that on disk too.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path)?;
    let result =
        write_new(&temporary, bytes, mode).and_then(|()| fs::rename(&temporary, path)).and_then(|()| sync_parent(path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Like [`write()`], but leaves a file that is already there alone: of two processes that come here at once, one wins.
/// Says whether it was this one.
pub(crate) fn write_once(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let temporary = beside(path)?;
    // A hard link is the one way to publish a complete file that fails when the name is taken, on every Unix.
    let result = write_new(&temporary, bytes, mode).and_then(|()| match fs::hard_link(&temporary, path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    let _ = fs::remove_file(&temporary);
    result
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file's path"))?;
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), hex::encode(random))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_keeps_modes_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_once(&path, b"three", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write_once(&dir.path().join("g"), b"four", 0o600).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(write(&dir.path().join("no/such/f"), b"x", 0o600).is_err());
    }
}
