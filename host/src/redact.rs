//! The filter that every byte passes on its way to a guest or an output: it knows each live secret in its plain and derived forms.
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::RwLock;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Values shorter than this are not searched for: they would blot out ordinary text. Bytes. Every secret that psn makes or
/// accepts as a key is longer.
pub const MIN_REDACTED_LEN: usize = 8;

/// All live secrets, in every form in which they may appear.
#[derive(Default)]
pub struct Redactor {
    inner: RwLock<Forms>,
}

#[derive(Default)]
struct Forms {
    /// Not wiped on drop: the automaton holds the same bytes, and both live as long as the process.
    patterns: BTreeSet<Vec<u8>>,
    automaton: Option<AhoCorasick>,
}

impl Redactor {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the value is replaced wherever it appears: plain, percent-encoded, base64 (three offsets), JSON-escaped, hex,
    /// and, where it is a URL, its password and `user:password` part.
    pub fn register(&self, secret: &Secret) {
        let mut forms = BTreeSet::new();
        add_forms(secret.expose(), &mut forms);
        if let Ok(url) = url::Url::parse(secret.expose())
            && let Some(password) = url.password()
        {
            add_forms(password, &mut forms);
            add_forms(&format!("{}:{password}", url.username()), &mut forms);
            if let Ok(decoded) = percent_encoding::percent_decode_str(password).decode_utf8() {
                add_forms(&decoded, &mut forms);
            }
        }
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = inner.patterns.len();
        inner.patterns.extend(forms);
        if inner.patterns.len() == before {
            return;
        }
        // Longest first, so that a whole URL is replaced as one and not around its password.
        inner.automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&inner.patterns).ok();
    }

    /// Whether any form of a live secret is in there.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.read().automaton.as_ref().is_some_and(|a| a.is_match(bytes))
    }

    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.read().automaton {
            Some(a) if a.is_match(text) => {
                let mut out = String::with_capacity(text.len());
                a.replace_all_with(text, &mut out, |_, _, dst| {
                    dst.push_str(REDACTED);
                    true
                });
                Cow::Owned(out)
            }
            _ => Cow::Borrowed(text),
        }
    }

    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.read().automaton {
            Some(a) if a.is_match(bytes) => {
                let mut out = Vec::with_capacity(bytes.len());
                a.replace_all_with_bytes(bytes, &mut out, |_, _, dst| {
                    dst.extend_from_slice(REDACTED.as_bytes());
                    true
                });
                Cow::Owned(out)
            }
            _ => Cow::Borrowed(bytes),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Forms> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn add_forms(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let bytes = value.as_bytes();
    if bytes.len() < MIN_REDACTED_LEN {
        return;
    }
    let mut add = |form: String| {
        forms.insert(form.into_bytes());
    };
    add(value.to_owned());
    let percent = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    add(percent.to_lowercase());
    add(percent);
    add(url::form_urlencoded::byte_serialize(bytes).collect());
    add(hex::encode(bytes));
    add(hex::encode_upper(bytes));
    let json = serde_json::Value::from(value).to_string();
    add(json[1..json.len() - 1].to_owned());
    for engine in [&base64::engine::general_purpose::STANDARD_NO_PAD, &base64::engine::general_purpose::URL_SAFE_NO_PAD]
    {
        for offset in 0..3usize {
            // At offset n, the first characters also carry bits of n unknown bytes, and the last may carry bits of what
            // follows: only the characters in between are the secret's own.
            let mut padded = Zeroizing::new(vec![0u8; offset]);
            padded.extend_from_slice(bytes);
            let encoded = Zeroizing::new(engine.encode(padded.as_slice()));
            let first = (offset * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            if last > first && last - first >= MIN_REDACTED_LEN {
                add(encoded[first..last].to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(value: &str) -> Redactor {
        let r = Redactor::new();
        r.register(&Secret::new(value));
        r
    }

    #[test]
    fn every_form_is_found() {
        let value = "napi_k3y/with \"quotes\"+and=more";
        let r = redactor(value);
        let percent = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
        let std64 = base64::engine::general_purpose::STANDARD;
        for text in [
            value.to_owned(),
            percent.clone(),
            percent.to_lowercase(),
            hex::encode(value),
            serde_json::json!({ "k": value }).to_string(),
            std64.encode(value),
            std64.encode(format!("a{value}z")),
            std64.encode(format!("ab{value}zz")),
            std64.encode(format!("abc{value}zzz")),
            base64::engine::general_purpose::URL_SAFE.encode(format!("abcd{value}")),
        ] {
            let redacted = r.redact(&text);
            assert!(redacted.contains(REDACTED), "{text} came through");
        }
    }

    #[test]
    fn a_url_is_replaced_as_one_and_its_password_alone_too() {
        let r = redactor("postgresql://owner:npg_s3cretpart@127.0.0.1:5432/hub");
        assert_eq!(r.redact("at postgresql://owner:npg_s3cretpart@127.0.0.1:5432/hub now"), "at [redacted] now");
        assert_eq!(r.redact("password npg_s3cretpart!"), "password [redacted]!");
    }

    #[test]
    fn ordinary_text_and_short_values_are_left_alone() {
        let r = redactor("short");
        assert_eq!(r.redact("a short text"), "a short text");
        assert!(!r.finds(b"a short text"));
    }
}
