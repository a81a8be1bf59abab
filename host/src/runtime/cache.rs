//! Compiled code, kept from run to run: compiling takes 50 to 80 ms for a small component, mapping it a fraction of one.
//!
//! The folder is outside of everything a plugin can write, and belongs to this account alone. An entry that is missing, damaged,
//! sealed with another key or for another engine is no error: the component is compiled again.
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use super::sealed::{self, Code, KEY_BYTES, Key};
use crate::atomic;

const KEY_FILE: &str = "key";
const SUFFIX: &str = "cwasm";

/// The most components that are kept, each for each version of the engine. The oldest go first.
const MAX_ENTRIES: usize = 64;

/// The longest entry that is read, in bytes. A component of 18 MiB compiles to about 100 MiB.
const MAX_ENTRY_BYTES: u64 = 512 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("{} cannot be used: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} belongs to another account", .path.display())]
    Owner { path: PathBuf },
    #[error("{} can be read or written by others (mode {mode:o})", .path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{} is not {expected}", .path.display())]
    Kind { path: PathBuf, expected: &'static str },
}

pub(super) struct Cache {
    dir: PathBuf,
    key: Key,
    /// Names what the engine was configured for.
    engine: String,
}

/// Where compiled code is kept unless someone says otherwise: below `$XDG_CACHE_HOME`, else `~/.cache`. None without a home.
pub fn default_cache_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("psn/compiled"))
}

impl Cache {
    /// Makes the folder and its key where they are missing.
    pub(super) fn open(dir: &Path, engine: &Engine) -> Result<Self, CacheError> {
        let io = |source| CacheError::Io { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        // Not followed: a link could lead to a folder that changes hands.
        check(dir, &fs::symlink_metadata(dir).map_err(io)?, "a folder", fs::Metadata::is_dir)?;
        atomic::sweep(dir).map_err(io)?;
        Ok(Self { dir: dir.to_owned(), key: key(dir)?, engine: engine_id(engine) })
    }

    /// The component with this digest, if it was compiled before.
    pub(super) fn get(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let path = self.path(sha256);
        let file = open_own(&path).ok()?;
        // Of the open file, so that what was checked is what is read. The seal says that the bytes are ours; this, that nobody
        // else can have put them there.
        let found = file.metadata().ok()?;
        check(&path, &found, "a file", fs::Metadata::is_file).ok()?;
        let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(MAX_ENTRY_BYTES)).ok()?);
        file.take(MAX_ENTRY_BYTES).read_to_end(&mut bytes).ok()?;
        sealed::open(engine, &self.key, &self.subject(sha256), &bytes)
    }

    pub(super) fn put(&self, sha256: &str, code: &Code<'_>) -> io::Result<()> {
        let sealed = sealed::seal(&self.key, &self.subject(sha256), code);
        atomic::write(&self.path(sha256), &sealed, 0o600)?;
        self.prune();
        Ok(())
    }

    fn subject(&self, sha256: &str) -> String {
        format!("{sha256} {}", self.engine)
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}-{}.{SUFFIX}", &self.engine[..16]))
    }

    /// Another process may be at it too: whatever is gone is gone.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut entries: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == SUFFIX))
            .filter_map(|p| Some((fs::metadata(&p).and_then(|m| m.modified()).ok()?, p)))
            .collect();
        entries.sort();
        let excess = entries.len().saturating_sub(MAX_ENTRIES);
        for (_, path) in &entries[..excess] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Links are not followed: an entry or a key is a file of this folder, or nothing.
fn open_own(path: &Path) -> io::Result<File> {
    // Not blocked by a pipe that somebody left in its place.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Reads the key, or makes one. Of several processes that make one at once, the first wins and the others read its key.
fn key(dir: &Path) -> Result<Key, CacheError> {
    let path = dir.join(KEY_FILE);
    let io = |source| CacheError::Io { path: path.clone(), source };
    for _ in 0..2 {
        match open_own(&path) {
            Ok(mut file) => {
                // Of the open file, so that what was checked is what is read.
                check(&path, &file.metadata().map_err(io)?, "a file", fs::Metadata::is_file)?;
                let mut bytes = Zeroizing::new([0; KEY_BYTES]);
                if file.read_exact(bytes.as_mut_slice()).is_ok() {
                    return Ok(Key::new(bytes));
                }
                // Cut short, by a crash or a full disk. What it sealed is compiled again.
                fs::remove_file(&path).map_err(io)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|e| io(io::Error::other(e)))?;
        if atomic::write_once(&path, bytes.as_slice(), 0o600).map_err(io)? {
            return Ok(Key::new(bytes));
        }
    }
    Err(io(io::Error::other("it changes while it is read")))
}

fn check(
    path: &Path,
    found: &fs::Metadata,
    expected: &'static str,
    is: impl Fn(&fs::Metadata) -> bool,
) -> Result<(), CacheError> {
    let path = path.to_owned();
    if !is(found) {
        return Err(CacheError::Kind { path, expected });
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(CacheError::Owner { path });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CacheError::Mode { path, mode });
    }
    Ok(())
}

/// All that compiled code depends on besides the component: wasmtime's version, target, compiler settings, features.
fn engine_id(engine: &Engine) -> String {
    /// The standard hashers are meant for tables, and give 64 bits that may differ from build to build.
    struct Collect(Sha256);
    impl Hasher for Collect {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Collect(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex::encode(hasher.0.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn code(engine: &Engine) -> Code<'static> {
        let text = "(component (core module (func (export \"f\"))))";
        Code::of(&Component::new(engine, wat::parse_str(text).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn an_entry_that_someone_else_could_have_written_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        let engine = Engine::default();
        let cache = Cache::open(&dir, &engine).unwrap();
        let digest = "ab".repeat(32);
        cache.put(&digest, &code(&engine)).unwrap();
        let path = cache.path(&digest);
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o666, 0o620, 0o602, 0o640, 0o604] {
            set(mode);
            assert!(cache.get(&engine, &digest).is_none(), "{mode:o}");
        }
        set(0o600);
        assert!(cache.get(&engine, &digest).is_some());
        // A link to the very same bytes, elsewhere; a folder; a pipe that nobody writes to.
        let elsewhere = dir.with_file_name("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(cache.get(&engine, &digest).is_none());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(cache.get(&engine, &digest).is_none());
        fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(cache.get(&engine, &digest).is_none());
        fs::remove_file(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
        assert!(cache.get(&engine, &digest).is_some());
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert!(cache.get(&engine, &digest).is_none());
        }
        // Compiling again puts a sound one in its place.
        cache.put(&digest, &code(&engine)).unwrap();
        assert!(cache.get(&engine, &digest).is_some());
    }

    #[test]
    fn what_was_put_comes_back_and_what_was_changed_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        let engine = Engine::default();
        let cache = Cache::open(&dir, &engine).unwrap();
        let digest = "ab".repeat(32);
        assert!(cache.get(&engine, &digest).is_none());
        cache.put(&digest, &code(&engine)).unwrap();
        assert!(cache.get(&engine, &digest).is_some());
        assert_eq!(fs::metadata(cache.path(&digest)).unwrap().permissions().mode() & 0o777, 0o600);
        // Another process with the same folder.
        assert!(Cache::open(&dir, &engine).unwrap().get(&engine, &digest).is_some());
        // Under another digest: one plugin's code in place of another's.
        let other = "cd".repeat(32);
        fs::copy(cache.path(&digest), cache.path(&other)).unwrap();
        assert!(cache.get(&engine, &other).is_none());
        // One bit anywhere, in seal or code; and cut short.
        let whole = fs::read(cache.path(&digest)).unwrap();
        for at in [0, 31, 32, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(cache.path(&digest), changed).unwrap();
            assert!(cache.get(&engine, &digest).is_none(), "byte {at}");
        }
        for len in [0, 31, 32, whole.len() - 1] {
            fs::write(cache.path(&digest), &whole[..len]).unwrap();
            assert!(cache.get(&engine, &digest).is_none(), "{len} bytes");
        }
        fs::write(cache.path(&digest), &whole).unwrap();
        assert!(cache.get(&engine, &digest).is_some());
        // Another key: nothing that the old one sealed is believed.
        fs::remove_file(dir.join(KEY_FILE)).unwrap();
        assert!(Cache::open(&dir, &engine).unwrap().get(&engine, &digest).is_none());
    }

    #[test]
    fn another_engine_has_other_entries() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        let engine = Engine::default();
        let digest = "ab".repeat(32);
        let cache = Cache::open(&dir, &engine).unwrap();
        cache.put(&digest, &code(&engine)).unwrap();
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let cache_of_other = Cache::open(&dir, &other).unwrap();
        assert_ne!(cache.path(&digest), cache_of_other.path(&digest));
        // Even under the other one's name.
        fs::copy(cache.path(&digest), cache_of_other.path(&digest)).unwrap();
        assert!(cache_of_other.get(&other, &digest).is_none());
    }

    #[test]
    fn a_folder_or_key_that_others_can_touch_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        let engine = Engine::default();
        Cache::open(&dir, &engine).unwrap();
        fs::set_permissions(dir.join(KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Cache::open(&dir, &engine), Err(CacheError::Mode { mode: 0o640, .. })));
        fs::set_permissions(dir.join(KEY_FILE), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(Cache::open(&dir, &engine), Err(CacheError::Mode { mode: 0o770, .. })));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let link = dir.with_file_name("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(matches!(Cache::open(&link, &engine), Err(CacheError::Kind { .. })));
        fs::rename(dir.join(KEY_FILE), dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.join("elsewhere"), dir.join(KEY_FILE)).unwrap();
        assert!(matches!(Cache::open(&dir, &engine), Err(CacheError::Io { .. })));
    }

    #[test]
    fn a_key_that_was_cut_short_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        let engine = Engine::default();
        Cache::open(&dir, &engine).unwrap();
        fs::write(dir.join(KEY_FILE), b"short").unwrap();
        Cache::open(&dir, &engine).unwrap();
        assert_eq!(fs::read(dir.join(KEY_FILE)).unwrap().len(), KEY_BYTES);
    }

    #[test]
    fn the_oldest_entries_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("compiled");
        let engine = Engine::default();
        let cache = Cache::open(&dir, &engine).unwrap();
        for i in 0..MAX_ENTRIES + 3 {
            let file = File::create(dir.join(format!("{i:03}.{SUFFIX}"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i as u64)).unwrap();
        }
        cache.put(&"ab".repeat(32), &code(&engine)).unwrap();
        assert!(!dir.join(format!("003.{SUFFIX}")).exists() && dir.join(format!("004.{SUFFIX}")).exists());
        assert!(cache.get(&engine, &"ab".repeat(32)).is_some());
    }
}
