//! Keys that the local services issue. They look like the vendors' own, are random, and are kept only as digests.
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `prefix` followed by `len` random letters and digits (5.95 bits each).
pub fn generate(prefix: &str, len: usize) -> String {
    let mut token = String::with_capacity(prefix.len() + len);
    token.push_str(prefix);
    let mut buf = [0u8; 64];
    while token.len() < prefix.len() + len {
        getrandom::fill(&mut buf).expect("the operating system gives random bytes");
        // Rejection sampling: 248 = 4 × 62 keeps every character equally likely.
        for b in buf.iter().filter(|b| **b < 248) {
            if token.len() == prefix.len() + len {
                break;
            }
            token.push(ALPHABET[usize::from(*b) % 62] as char);
        }
    }
    token
}

/// What is stored of a token. The tokens are long and random, so a plain hash is enough: there is nothing to guess.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_prefix_the_length_and_differ() {
        let (a, b) = (generate("napi_", 64), generate("napi_", 64));
        assert!(a.starts_with("napi_") && a.len() == 69);
        assert!(a[5..].bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(a, b);
        assert_ne!(digest(&a), digest(&b));
    }
}
