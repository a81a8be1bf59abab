//! The forms that are searched for as they stand. Those that are spelled with escapes are found by decoding.
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::MIN_REDACTED_LEN;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Zeroize, ZeroizeOnDrop)]
pub(super) struct Form(Vec<u8>);

impl AsRef<[u8]> for Form {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Forms of all live secrets. Wiped on drop; the automata that are built of them hold the same bytes, and live as long as the process.
#[derive(Clone, Default)]
pub(super) struct Forms {
    pub(super) exact: BTreeSet<Form>,
    /// Hex: digits may be of either case.
    pub(super) any_case: BTreeSet<Form>,
}

impl Forms {
    /// All of the others.
    pub(super) fn has(&self, others: &Self) -> bool {
        others.exact.is_subset(&self.exact) && others.any_case.is_subset(&self.any_case)
    }

    pub(super) fn join(&mut self, mut others: Self) {
        self.exact.append(&mut others.exact);
        self.any_case.append(&mut others.any_case);
    }

    /// The value, what it decodes to, and where it is a URL, its password and its `user:password` part.
    pub(super) fn add(&mut self, value: &str) {
        self.add_one(value);
        self.add_decoded(value);
        let Ok(url) = url::Url::parse(value) else { return };
        let Some(password) = url.password() else { return };
        let pair = Zeroizing::new(format!("{}:{password}", url.username()));
        for part in [password, pair.as_str()] {
            self.add_one(part);
            self.add_decoded(part);
        }
    }

    fn add_decoded(&mut self, value: &str) {
        if let Ok(std::borrow::Cow::Owned(decoded)) = percent_encoding::percent_decode_str(value).decode_utf8() {
            self.add_one(&Zeroizing::new(decoded));
        }
    }

    fn add_one(&mut self, value: &str) {
        let bytes = value.as_bytes();
        if bytes.len() < MIN_REDACTED_LEN {
            return;
        }
        let mut add = |form: &[u8]| {
            self.exact.insert(Form(form.to_vec()));
        };
        add(bytes);
        if value.contains(' ') {
            // As in an HTML form.
            add(Zeroizing::new(value.replace(' ', "+")).as_bytes());
        }
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            for offset in 0..3usize {
                // At offset n, the first characters also carry bits of n unknown bytes, and the last may carry bits of what
                // follows: only the characters in between are the secret's own.
                let mut shifted = Zeroizing::new(vec![0u8; offset]);
                shifted.extend_from_slice(bytes);
                let encoded = Zeroizing::new(engine.encode(shifted.as_slice()));
                let (first, last) = ((offset * 8).div_ceil(6), shifted.len() * 8 / 6);
                add(&encoded.as_bytes()[first..last]);
            }
        }
        self.any_case.insert(Form(hex::encode(bytes).into_bytes()));
    }
}
