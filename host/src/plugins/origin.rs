//! Whether a component is psn's own, and what that decides.
use super::component::{ComponentError, Described};
use super::manifest::Manifest;
use super::registry::FirstParty;
use crate::secret::Keeper;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    FirstParty,
    ThirdParty,
}

/// By the digest: what a name, a lock file or the component says about it counts for nothing.
pub(super) fn origin_of(found: &Described, own: &[FirstParty]) -> Origin {
    if own.iter().any(|own| own.sha256 == found.sha256) { Origin::FirstParty } else { Origin::ThirdParty }
}

/// What psn's own plugins alone may ask for is refused to others.
pub(super) fn foreign(asked: &Manifest) -> Result<(), ComponentError> {
    if asked.own { Ok(()) } else { Ok(asked.foreign()?) }
}

impl Manifest {
    /// For whom its secrets are kept.
    pub fn keeper(&self) -> Keeper {
        if self.own { Keeper::Psn } else { Keeper::Plugin(self.plugin.name.as_str().into()) }
    }
}
