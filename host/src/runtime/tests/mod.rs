//! The runtime with real components, well-behaved and not.
mod answers;
mod fixtures;
mod hostile;
mod loading;
mod wasi;
