//! How much a guest may say at once.

/// Bytes of one log message. Longer texts belong in a report.
pub(super) const MAX_MESSAGE: usize = 8 * 1024;

/// Fields of one log message; the rest is dropped.
pub(super) const MAX_FIELDS: usize = 32;

/// Bytes of a field's name.
pub(super) const MAX_FIELD_NAME: usize = 64;

/// Bytes of a field's value.
pub(super) const MAX_FIELD: usize = 2 * 1024;

/// Bytes of a progress message: one line of a terminal, generously.
pub(super) const MAX_PROGRESS: usize = 512;

/// What an event costs of the log budget besides its text, in bytes, so that a flood of empty ones ends too.
const OVERHEAD: usize = 64;

/// What a message and its fields cost.
pub(super) fn cost(message: &str, fields: &[(String, String)]) -> u64 {
    let text: usize = fields.iter().map(|(k, v)| k.len() + v.len()).sum();
    (OVERHEAD + message.len() + text) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_free() {
        assert_eq!(cost("", &[]), 64);
        assert_eq!(cost("four", &[("k".into(), "vv".into())]), 71);
    }
}
