//! Where psn touches what outlives it: requests, files, programs, its own output. Each kind has one seam, and the seam says when it
//! is passed, so that a test can stop the process at any of them. In psn itself nobody listens, and a seam costs one load.
use std::sync::OnceLock;

/// What is touched. SQL travels over a socket of its own, where a test can stand in between without psn's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Http,
    File,
    Tool,
    Event,
}

/// How far a touch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing has left the process.
    Before,
    /// A file was begun under a temporary name.
    Begun,
    /// A file is written and on disk, still under its temporary name.
    Written,
    /// It is done, and psn has not acted on it.
    After,
}

/// Told of each touch, in the thread that makes it.
pub trait Observer: Send + Sync {
    fn at(&self, kind: Kind, phase: Phase, what: &str);
}

static OBSERVER: OnceLock<Box<dyn Observer>> = OnceLock::new();

/// For the program of psn's tests, before anything else is done. The first one stays.
pub fn observe(observer: Box<dyn Observer>) {
    let _ = OBSERVER.set(observer);
}

#[inline]
pub(crate) fn passed(kind: Kind, phase: Phase, what: impl FnOnce() -> String) {
    if let Some(observer) = OBSERVER.get() {
        observer.at(kind, phase, &what());
    }
}
