//! What a guest says while it works: log lines and progress. Everything becomes an event; nothing is printed as it comes.
mod host;
mod policy;

/// The right to speak. Every plugin has it; what it says is bounded and cleaned.
#[derive(Default)]
pub struct Events {}

impl Events {
    pub fn new() -> Self {
        Self::default()
    }
}
