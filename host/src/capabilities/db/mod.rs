//! The hub's database, as the plugin's own role.
mod host;

use crate::hub::TlsRoots;
use crate::plugins::manifest::Manifest;
use crate::secret::Secret;

/// How the plugin's role is reached, if it is there yet.
pub struct DbAccess {
    url: Option<Secret>,
    tls: TlsRoots,
}

impl DbAccess {
    pub fn new(url: Option<Secret>, tls: TlsRoots) -> Self {
        Self { url, tls }
    }
}

/// One call's access to the database. Connects when first used; what is open closes with it.
pub struct Db {
    access: DbAccess,
}

impl Db {
    pub fn new(manifest: &Manifest, access: DbAccess) -> Self {
        let _ = manifest;
        let _ = (&access.url, &access.tls);
        Self { access }
    }
}
