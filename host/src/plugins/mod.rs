//! Which component runs, with which digest, and what it was granted.
pub mod component;
pub mod consent;
pub mod lock;
pub mod manifest;
pub mod registry;

pub use component::{ComponentError, Described, describe};
pub use consent::{ConsentNeeded, asks};
pub use lock::{LOCK_FILE, LockDifference, LockEntry, LockError, LockFile, Source};
pub use registry::{AddError, Added, FirstParty, Installed, Origin, Registry, RegistryError};
