//! What stands between a tested psn and its services: it sees every call, and can spoil one or kill psn in the middle of one.
pub mod fault;
pub mod http;
pub mod sql;
mod wire;

pub use fault::Fault;
pub use http::{Call, HttpEdge};
pub use sql::{SqlEdge, SqlFault};
pub use wire::{Reply, request};

use std::sync::atomic::{AtomicI32, Ordering};

/// The psn at work. Killed from a thread of the edge, at a moment that the edge knows exactly.
#[derive(Debug, Default)]
pub struct Victim(AtomicI32);

impl Victim {
    pub fn is(&self, child: &std::process::Child) {
        self.0.store(rustix::process::Pid::from_child(child).as_raw_nonzero().get(), Ordering::SeqCst);
    }

    /// SIGKILL, once.
    fn kill(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.swap(0, Ordering::SeqCst)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
