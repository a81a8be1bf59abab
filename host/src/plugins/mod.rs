//! Which component runs, with which digest, and what it was granted.
pub mod component;
pub mod consent;
pub mod lock;
pub mod manifest;
mod names;
mod origin;
pub mod policy;
pub mod registry;
mod registry_error;
mod rights;
mod scan;
mod vendors;
pub mod withheld;

pub use component::{ComponentError, Described, describe};
pub use consent::{ConsentNeeded, asks, withheld};
pub use lock::{LOCK_FILE, LockDifference, LockEntry, LockError, LockFile, Source};
pub use policy::{OperatorPolicy, PolicyError};
pub use registry::{AddError, Added, Diff, FirstParty, Installed, Origin, Registry, RegistryError};
pub use rights::rights;
pub use withheld::{Wish, Withheld};
