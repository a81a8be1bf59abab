//! Which component runs, with which digest, and what it was granted.
pub mod manifest;
