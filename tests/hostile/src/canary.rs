//! Values that must not get anywhere, and the forms in which they could.
use base64::Engine as _;

/// One value that is watched.
pub(crate) struct Canary {
    pub(crate) name: String,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        let mut forms = vec![value.as_bytes().to_vec(), hex::encode(value).into_bytes()];
        // Base64 of a text that begins somewhere before it: three ways, without the characters that depend on the neighbours.
        for offset in 0..3 {
            let padded = [&vec![b'x'; offset][..], value.as_bytes()].concat();
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(padded);
            let skip = [0, 2, 3][offset];
            forms.push(text.as_bytes()[skip..text.len() - 1].to_vec());
        }
        Self { name: name.to_owned(), forms }
    }

    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| contains(bytes, form))
    }
}

pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|b| b == first) {
        let at = from + at;
        if bytes[at..].starts_with(needle) {
            return true;
        }
        from = at + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found() {
        let canary = Canary::new("X", "canary-0123456789");
        for text in ["a canary-0123456789", "63616e6172792d30313233343536373839"] {
            assert!(canary.is_in(text.as_bytes()), "{text}");
        }
        for before in ["", "a", "ab", "abc"] {
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{before}canary-0123456789 and more"));
            assert!(canary.is_in(text.as_bytes()), "{before}: {text}");
        }
        assert!(!canary.is_in(b"canary-012345678"));
    }
}
