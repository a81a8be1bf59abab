//! Says quickly of nearly every text that no secret is in it, without reading all of it.
//!
//! A form of at least `stride + GRAM - 1` bytes, wherever it stands, covers a whole group of [`GRAM`] bytes that begins at a multiple of
//! `stride`, and that group is among the first `stride` ones of the form. So only every `stride`-th group of a text is looked up.

/// Bytes of a group: as many as fit a machine word's multiplication.
const GRAM: usize = 4;
/// Groups of each form; more would let one look-up stand for more of a text, and pass more texts that hold no secret.
const MAX_STRIDE: usize = 8;
/// As a power of two: 65,536 bits are 8 KiB, a fraction of a core's nearest cache. The forms of ten secrets set about 1 in 100.
const BITS: u32 = 16;

pub(super) struct Sieve {
    bits: Vec<u64>,
    /// `None` where a form is too short: then everything passes.
    stride: Option<usize>,
}

impl Sieve {
    pub(super) fn new<F: AsRef<[u8]>>(forms: impl Iterator<Item = F> + Clone) -> Self {
        let shortest = forms.clone().map(|f| f.as_ref().len()).min().unwrap_or(usize::MAX);
        let stride = shortest.checked_sub(GRAM - 1).filter(|s| *s > 0).map(|s| s.min(MAX_STRIDE));
        let mut sieve = Self { bits: vec![0; 1 << (BITS - u64::BITS.trailing_zeros())], stride };
        for form in forms {
            for gram in form.as_ref().windows(GRAM).take(stride.unwrap_or(0)) {
                let (word, bit) = place(gram);
                sieve.bits[word] |= bit;
            }
        }
        sieve
    }

    /// False: no form is in there, in either case. True: one may be.
    pub(super) fn passes(&self, text: &[u8]) -> bool {
        let Some(stride) = self.stride else { return true };
        let mut rest = text;
        while let Some(gram) = rest.first_chunk::<GRAM>() {
            let (word, bit) = place(gram);
            if self.bits[word] & bit != 0 {
                return true;
            }
            rest = rest.get(stride..).unwrap_or_default();
        }
        false
    }
}

/// Letters of either case have one place: hex is found in both.
fn place(gram: &[u8]) -> (usize, u64) {
    let folded = gram.iter().fold(0u32, |word, byte| word << 8 | u32::from(byte | 0x20));
    // Fibonacci hashing: the upper bits of a product with 2^32 divided by the golden ratio.
    let hash = folded.wrapping_mul(0x9E37_79B9) >> (u32::BITS - BITS);
    ((hash / u64::BITS) as usize, 1 << (hash % u64::BITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_holds_a_form_passes(
            forms in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..20),
            which in any::<prop::sample::Index>(),
            before in prop::collection::vec(any::<u8>(), 0..40),
            after in prop::collection::vec(any::<u8>(), 0..40),
            upper in any::<bool>(),
        ) {
            let form = which.get(&forms);
            let form = if upper { form.to_ascii_uppercase() } else { form.clone() };
            prop_assert!(Sieve::new(forms.iter()).passes(&[before, form, after].concat()));
        }
    }

    #[test]
    fn ordinary_text_does_not_pass() {
        let forms: Vec<String> =
            (0..100u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        let sieve = Sieve::new(forms.iter());
        assert_eq!(sieve.stride, Some(MAX_STRIDE));
        let texts: Vec<String> = (0..1_000).map(|n| format!("a note of some length, number {n}")).collect();
        let passed = texts.iter().filter(|t| sieve.passes(t.as_bytes())).count();
        assert!(passed < 200, "{passed} of 1,000");
        assert!(!sieve.passes(b""));
    }

    #[test]
    fn a_form_that_is_too_short_lets_everything_pass() {
        assert!(Sieve::new(["abc", "abcdefgh"].iter()).passes(b"x"));
        assert!(!Sieve::new(std::iter::empty::<&str>()).passes(b"whatever stands here"));
    }
}
