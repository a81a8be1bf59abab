//! SCRAM-SHA-256 verifiers as Postgres stores them: a password set through one never reaches the server or its log.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What Postgres itself uses before 16 and by default after (RFC 7677's minimum).
const ITERATIONS: u32 = 4096;
/// Bytes, as Postgres makes them.
const SALT_LEN: usize = 16;

/// `SCRAM-SHA-256$4096:salt$stored:server`, for `CREATE ROLE … PASSWORD '…'`.
pub fn scram_verifier(password: &str) -> String {
    let mut salt = [0u8; SALT_LEN];
    getrandom::fill(&mut salt).expect("the operating system gives random bytes");
    let keys = Keys::derive(password, &salt, ITERATIONS);
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(keys.stored),
        STANDARD.encode(keys.server)
    )
}

struct Keys {
    stored: [u8; 32],
    server: [u8; 32],
}

impl Keys {
    fn derive(password: &str, salt: &[u8], iterations: u32) -> Keys {
        // Postgres and libpq fall back to the raw bytes when a password is no valid SASLprep input.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations);
        Keys { stored: Sha256::digest(hmac(&salted, b"Client Key")).into(), server: hmac(&salted, b"Server Key") }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange printed in RFC 7677 §3: user "user", password "pencil".
    const AUTH_MESSAGE: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
        r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
        c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    #[test]
    fn the_keys_are_those_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::derive("pencil", &salt, 4096);
        let signature = hmac(&keys.server, AUTH_MESSAGE.as_bytes());
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        // The proof is ClientKey xor ClientSignature; what is left after undoing the xor must hash to StoredKey.
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let client_signature = hmac(&keys.stored, AUTH_MESSAGE.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(client_signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(<[u8; 32]>::from(Sha256::digest(client_key)), keys.stored);
    }

    #[test]
    fn a_password_is_normalised_as_libpq_does_it() {
        // RFC 4013: a soft hyphen maps to nothing, the roman numeral nine to "IX".
        let keys = |p| Keys::derive(p, b"salt", 1).stored;
        assert_eq!(keys("I\u{ad}X"), keys("IX"));
        assert_eq!(keys("\u{2168}"), keys("IX"));
        assert_ne!(keys("ix"), keys("IX"));
    }

    #[test]
    fn two_verifiers_of_one_password_differ() {
        let (a, b) = (scram_verifier("x"), scram_verifier("x"));
        assert_ne!(a, b);
        assert!(a.starts_with("SCRAM-SHA-256$4096:"));
        assert_eq!(a.len(), "SCRAM-SHA-256$4096:".len() + 24 + 1 + 44 + 1 + 44);
    }
}
