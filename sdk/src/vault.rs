//! Encrypts tokens at rest with the hub's key, which stays with the host.

use std::fmt;

use crate::sys;

#[derive(Debug, Clone)]
pub struct Error {
    message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The vault refused: {}", self.message)
    }
}

impl std::error::Error for Error {}

/// `context` is bound to the result: opening it under another one fails.
pub fn seal(plaintext: &[u8], context: &str) -> Result<String, Error> {
    sys::vault_seal(plaintext, context).map_err(|message| Error { message })
}

pub fn open(sealed: &str, context: &str) -> Result<Vec<u8>, Error> {
    sys::vault_open(sealed, context).map_err(|message| Error { message })
}
