//! What the host tells about this run.

use crate::{Timestamp, sys};

/// Which hub psn works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubKind {
    /// The services on this machine.
    Local,
    /// Neon and Trigger.dev.
    Cloud,
}

pub fn hub_kind() -> HubKind {
    match setting("hub.kind").as_deref() {
        Some("local") => HubKind::Local,
        _ => HubKind::Cloud,
    }
}

/// Eight hex digits that tell this hub from every other one.
pub fn hub_id() -> String {
    sys::hub_id()
}

pub fn run_id() -> String {
    sys::run_id()
}

/// Counted from 1.
pub fn attempt() -> u32 {
    sys::attempt()
}

/// A setting of config/psn.toml by dotted name. An empty one counts as not set.
pub fn setting(name: &str) -> Option<String> {
    sys::setting(name).filter(|value| !value.is_empty())
}

pub fn setting_or(name: &str, default: &str) -> String {
    setting(name).unwrap_or_else(|| default.to_owned())
}

/// By the host's clock.
pub fn now() -> Timestamp {
    Timestamp::from_micros(sys::now())
}

/// Waits; the run's deadline goes on.
pub fn sleep_ms(ms: u32) {
    sys::sleep_ms(ms);
}

pub fn random_bytes(len: u32) -> Vec<u8> {
    sys::random_bytes(len)
}
