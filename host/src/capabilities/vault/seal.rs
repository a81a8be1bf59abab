//! AES-256-GCM, in two formats, both base64: what Node's `createCipheriv` users write, `iv 12 · tag 16 · ciphertext`, which is only
//! read; and psn's own, `1 · iv 12 · tag 16 · ciphertext`, which binds the value to its context by associated data.
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The version byte of the format with associated data.
const BOUND: u8 = 1;
/// Bytes, as GCM recommends.
const IV: usize = 12;
const TAG: usize = 16;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SealError {
    #[error("the hub's key is not 64 hex digits")]
    Key,
    #[error("there are no random bytes to be had")]
    Random,
    /// No more is said: whoever tries values learns nothing from it.
    #[error("the value was not sealed with this hub's key for this context, or was changed")]
    Open,
}

fn cipher(key: &str) -> Result<Aes256Gcm, SealError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(key, bytes.as_mut_slice()).map_err(|_| SealError::Key)?;
    Aes256Gcm::new_from_slice(bytes.as_slice()).map_err(|_| SealError::Key)
}

/// A fresh IV for each value: 96 random bits, good for 2^32 values under one key.
pub(super) fn seal(key: &str, plaintext: &[u8], context: &str) -> Result<String, SealError> {
    let mut iv = [0u8; IV];
    getrandom::fill(&mut iv).map_err(|_| SealError::Random)?;
    let payload = Payload { msg: plaintext, aad: context.as_bytes() };
    let sealed = cipher(key)?.encrypt(&Nonce::from(iv), payload).map_err(|_| SealError::Key)?;
    let (ciphertext, tag) = sealed.split_at(sealed.len() - TAG);
    Ok(STANDARD.encode([&[BOUND], iv.as_slice(), tag, ciphertext].concat()))
}

pub(super) fn open(key: &str, sealed: &str, context: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let bytes = STANDARD.decode(sealed).map_err(|_| SealError::Open)?;
    let cipher = cipher(key)?;
    let try_open = |bytes: &[u8], aad: &[u8]| -> Option<Zeroizing<Vec<u8>>> {
        let (iv, rest) = bytes.split_at_checked(IV)?;
        let (tag, ciphertext) = rest.split_at_checked(TAG)?;
        let iv: [u8; IV] = iv.try_into().ok()?;
        let joined = [ciphertext, tag].concat();
        cipher.decrypt(&Nonce::from(iv), Payload { msg: &joined, aad }).ok().map(Zeroizing::new)
    };
    // An older value may begin with the version byte by chance. The tag tells the two apart: a value of one format never opens as
    // one of the other, so a bound value cannot be passed off as one without a context.
    let bound = bytes.split_first().filter(|(version, _)| **version == BOUND);
    bound
        .and_then(|(_, rest)| try_open(rest, context.as_bytes()))
        .or_else(|| try_open(&bytes, b""))
        .ok_or(SealError::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn what_was_sealed_opens_with_this_key_for_this_context_only() {
        let sealed = seal(HUB, b"token", "oauth:x:user-1").unwrap();
        assert_ne!(sealed, seal(HUB, b"token", "oauth:x:user-1").unwrap(), "a fresh IV each time");
        assert_eq!(open(HUB, &sealed, "oauth:x:user-1").unwrap().as_slice(), b"token");
        assert_eq!(open(HUB, &sealed, "oauth:x:user-2"), Err(SealError::Open));
        assert_eq!(open(HUB, &sealed, ""), Err(SealError::Open));
        assert_eq!(open(OTHER, &sealed, "oauth:x:user-1"), Err(SealError::Open));
        assert_eq!(open("short", &sealed, "oauth:x:user-1"), Err(SealError::Key));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let sealed = STANDARD.decode(seal(HUB, b"token", "c").unwrap()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(HUB, &STANDARD.encode(changed), "c"), Err(SealError::Open), "byte {at}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(open(HUB, &STANDARD.encode(&sealed[..cut]), "c"), Err(SealError::Open));
        }
    }

    /// Made with Node 20: createCipheriv('aes-256-gcm', Buffer.from(HUB, 'hex'), Buffer.alloc(12, 7)), over "hello from node";
    /// base64 of iv, tag and ciphertext joined.
    #[test]
    fn a_value_that_node_sealed_opens() {
        let sealed = include_str!("node.b64").trim();
        assert_eq!(open(HUB, sealed, "any").unwrap().as_slice(), b"hello from node");
    }
}
