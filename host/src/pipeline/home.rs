//! PSN_HOME: what belongs to the machine or the account and not to one project: the local hub, compiled code, components.
use std::path::PathBuf;

/// The environment variable that moves everything elsewhere.
pub const VARIABLE: &str = "PSN_HOME";

/// Where root keeps it: Postgres runs as another account then, which cannot enter root's own home.
const ROOTS_HOME: &str = "/var/lib/psn";

/// `$PSN_HOME`, else /var/lib/psn for root, else `$XDG_DATA_HOME/psn`, else `~/.local/share/psn`.
pub fn psn_home() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = set(VARIABLE).unwrap_or_else(|| {
        if rustix::process::geteuid().is_root() {
            return ROOTS_HOME.into();
        }
        set("XDG_DATA_HOME")
            .or_else(|| set("HOME").map(|h| h.join(".local/share")))
            .unwrap_or_else(std::env::temp_dir)
            .join("psn")
    });
    // Fails only for an empty path, which was excluded, or when the current folder is gone: then the first use says so.
    std::path::absolute(&path).unwrap_or(path)
}

/// Where the local hub lives.
pub fn local_hub() -> psn_local_hub::lifecycle::Home {
    psn_local_hub::lifecycle::Home::new(psn_home().join("local-hub"))
}

/// psn's version, and which build it is: a daemon of another build is restarted.
pub fn build_version() -> String {
    use sha2::{Digest, Sha256};
    use std::os::unix::fs::MetadataExt;
    let build = std::env::current_exe().and_then(std::fs::metadata).map(|m| {
        let mut hash = Sha256::new();
        for n in [m.len(), m.ino(), m.mtime().unsigned_abs(), m.mtime_nsec().unsigned_abs()] {
            hash.update(n.to_le_bytes());
        }
        hex::encode(&hash.finalize()[..4])
    });
    match build {
        Ok(build) => format!("{}+{build}", env!("CARGO_PKG_VERSION")),
        Err(_) => env!("CARGO_PKG_VERSION").to_owned(),
    }
}
