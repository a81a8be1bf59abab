//! Names in Neon's formats: `calm-meadow-12345678`, `br-calm-meadow-a1b2c3d4`, `ep-…`, `npg_…`.
use crate::tokens;

const ADJECTIVES: [&str; 64] = [
    "aged",
    "ancient",
    "autumn",
    "billowing",
    "bitter",
    "black",
    "blue",
    "bold",
    "broad",
    "broken",
    "calm",
    "cold",
    "cool",
    "crimson",
    "curly",
    "damp",
    "dark",
    "dawn",
    "delicate",
    "divine",
    "dry",
    "empty",
    "falling",
    "fancy",
    "flat",
    "floral",
    "fragrant",
    "frosty",
    "gentle",
    "green",
    "hidden",
    "holy",
    "icy",
    "jolly",
    "late",
    "little",
    "lively",
    "long",
    "lucky",
    "misty",
    "morning",
    "muddy",
    "nameless",
    "noisy",
    "odd",
    "old",
    "orange",
    "patient",
    "plain",
    "polished",
    "proud",
    "purple",
    "quiet",
    "rapid",
    "raspy",
    "restless",
    "rough",
    "round",
    "royal",
    "shiny",
    "silent",
    "steep",
    "wispy",
    "young",
];

const NOUNS: [&str; 64] = [
    "art",
    "band",
    "bar",
    "base",
    "bird",
    "block",
    "boat",
    "bonus",
    "bread",
    "breeze",
    "brook",
    "bush",
    "butterfly",
    "cake",
    "cell",
    "cherry",
    "cloud",
    "credit",
    "darkness",
    "dawn",
    "dew",
    "disk",
    "dream",
    "dust",
    "feather",
    "field",
    "fire",
    "firefly",
    "flower",
    "fog",
    "forest",
    "frog",
    "frost",
    "glade",
    "glitter",
    "grass",
    "hall",
    "hat",
    "haze",
    "heart",
    "hill",
    "king",
    "lab",
    "lake",
    "leaf",
    "limit",
    "math",
    "meadow",
    "mode",
    "moon",
    "morning",
    "mountain",
    "mouse",
    "mud",
    "night",
    "paper",
    "pine",
    "poetry",
    "pond",
    "queen",
    "rain",
    "resonance",
    "river",
    "smoke",
];

/// Lower-case letters and digits that ids of branches and endpoints end with.
const ID_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Characters after the two words, as on Neon.
const ID_TAIL: usize = 8;
/// Random characters of a password after `npg_`. Neon's have 12 (71 bits); these have 190 bits, because the verifier may be
/// copied with a backup.
const PASSWORD_LEN: usize = 32;

pub(crate) fn project() -> String {
    let [a, b, c, d] = random();
    let number = 10_000_000 + u32::from_be_bytes([a, b, c, d]) % 90_000_000;
    format!("{}-{number}", words())
}

pub(crate) fn branch() -> String {
    format!("br-{}-{}", words(), tail())
}

pub(crate) fn endpoint() -> String {
    format!("ep-{}-{}", words(), tail())
}

pub(crate) fn organization() -> String {
    let [a, b, c, d] = random();
    format!("org-local-{:08}", 10_000_000 + u32::from_be_bytes([a, b, c, d]) % 90_000_000)
}

pub(crate) fn password() -> String {
    tokens::generate("npg_", PASSWORD_LEN)
}

fn words() -> String {
    let [a, n] = random();
    format!("{}-{}", ADJECTIVES[usize::from(a % 64)], NOUNS[usize::from(n % 64)])
}

/// Starts with a letter, as Neon's do.
fn tail() -> String {
    let mut out = String::with_capacity(ID_TAIL);
    out.push('a');
    let bytes: [u8; ID_TAIL - 1] = random();
    out.extend(bytes.iter().map(|b| ID_ALPHABET[usize::from(*b) % ID_ALPHABET.len()] as char));
    out
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_neons_shape() {
        for _ in 0..200 {
            let id = project();
            let parts: Vec<_> = id.split('-').collect();
            assert_eq!(parts.len(), 3, "{id}");
            assert!(parts[2].len() == 8 && parts[2].bytes().all(|b| b.is_ascii_digit()), "{id}");
            for (id, prefix) in [(branch(), "br"), (endpoint(), "ep")] {
                let parts: Vec<_> = id.split('-').collect();
                assert!(parts.len() == 4 && parts[0] == prefix && parts[3].len() == 8, "{id}");
                assert!(
                    id.len() <= 60 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                    "{id}"
                );
            }
        }
        assert_ne!(project(), project());
        assert_ne!(password(), password());
    }

    #[test]
    fn no_word_is_twice_in_its_list() {
        for list in [ADJECTIVES, NOUNS] {
            let unique: std::collections::BTreeSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len());
        }
    }
}
