//! What Postgres keeps of a password (RFC 5803 as Postgres writes it): computed here, so that the password itself is in no statement
//! and no server log.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The least that RFC 7677 allows. Passwords here are 192 random bits: more rounds would protect nothing.
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;
/// 192 bits.
const PASSWORD_BYTES: usize = 24;

/// A new password: letters and digits only, so that it means the same in a URL, a shell and SASLprep.
pub(super) fn random_password() -> Result<Secret, getrandom::Error> {
    let mut bytes = Zeroizing::new([0u8; PASSWORD_BYTES]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(Secret::new(hex::encode(bytes.as_slice())))
}

/// `SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>`. The password must be ASCII, as [`random_password`]'s are: SASLprep
/// leaves those as they are.
pub(super) fn verifier(password: &Secret) -> Result<String, getrandom::Error> {
    let mut salt = [0u8; SALT_BYTES];
    getrandom::fill(&mut salt)?;
    Ok(verifier_with(password.expose(), &salt, ITERATIONS))
}

fn verifier_with(password: &str, salt: &[u8], iterations: u32) -> String {
    let salted = Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, iterations));
    let stored = Sha256::digest(mac(salted.as_slice(), b"Client Key").as_slice());
    let server = mac(salted.as_slice(), b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored),
        STANDARD.encode(server.as_slice())
    )
}

fn mac(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_is_the_one_of_the_rfc() {
        // RFC 7677 §3: user, pencil. The server signature of the printed exchange follows from the server key.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let text = verifier_with("pencil", &salt, 4096);
        let server = STANDARD.decode(text.rsplit(':').next().unwrap()).unwrap();
        let exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(
            STANDARD.encode(mac(&server, exchange.as_bytes()).as_slice()),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        assert!(
            text.starts_with(
                "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
            ),
            "{text}"
        );
    }

    #[test]
    fn passwords_are_long_plain_and_different() {
        let (a, b) = (random_password().unwrap(), random_password().unwrap());
        assert_ne!(a.expose(), b.expose());
        assert!(a.expose().len() == 48 && a.expose().bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(verifier(&a).unwrap(), verifier(&a).unwrap(), "the salt is random");
    }
}
