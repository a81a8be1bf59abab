//! What the host adds to a request on its way out: the service's credential, and secrets that a JSON body refers to.
use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderName, HeaderValue, USER_AGENT};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Position;
use zeroize::Zeroizing;

use super::policy::Authorised;
use super::resolve::Origin;
use crate::capabilities::clean::{cut, quoted};
use crate::secret::{Secrets, is_secret_name};

/// What begins a reference to a secret: `{{secret:NAME}}`.
const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";

/// Bytes of a JSON pointer in an error. Its keys are the guest's; those of a real interface are shorter.
const MAX_POINTER: usize = 200;

/// Whether a place of the body, keys and indices from its root, may hold that secret.
type Granted<'a> = &'a dyn Fn(&[String], &str) -> Result<(), InjectError>;

/// A request with its secrets. Made of an [`Authorised`] only.
pub(super) struct Outgoing<'a> {
    authorised: &'a Authorised,
    credential: Option<(HeaderName, HeaderValue)>,
    body: Bytes,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InjectError {
    #[error("a reference {OPEN}…{CLOSE} stands in {0}; it is replaced in the string values of a JSON body only")]
    Elsewhere(&'static str),
    #[error("{} is no reference to a secret; one looks like {{{{secret:DATABASE_URL}}}}", quoted(.0))]
    Malformed(String),
    #[error(
        "the service `{service}` may not receive the secret {name} at {} of {route}; the manifest line inject = {{ \"{route}\" = {{ \"{}\" = [\"{name}\"] }} }} under service = \"{service}\" would allow it",
        quoted(.at), cut(&.at.escape_debug().to_string(), MAX_POINTER)
    )]
    NotGranted { service: String, route: String, at: String, name: String },
    #[error(
        "the secret {name} is not set; `psn keys set {name}` sets one that you have, and `psn run setup` makes the others"
    )]
    Missing { name: String },
    #[error("the secret {name} holds characters that no header can carry; set it again without line ends")]
    NotAHeader { name: String },
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(
        authorised: &'a Authorised,
        body: Option<Vec<u8>>,
        secrets: &Secrets,
    ) -> Result<Self, InjectError> {
        no_references_elsewhere(authorised)?;
        let service = authorised.service();
        let credential = match &service.auth {
            Some(auth) => {
                let secret =
                    secrets.get(&auth.secret).ok_or_else(|| InjectError::Missing { name: auth.secret.clone() })?;
                let value = Zeroizing::new(if auth.bearer {
                    format!("Bearer {}", secret.expose())
                } else {
                    secret.expose().to_owned()
                });
                let mut value =
                    HeaderValue::from_str(&value).map_err(|_| InjectError::NotAHeader { name: auth.secret.clone() })?;
                value.set_sensitive(true);
                Some((auth.header.clone(), value))
            }
            None => None,
        };
        let body = match body {
            Some(body) => {
                let granted = |at: &[String], name: &str| {
                    if authorised.may_carry(at, name) {
                        return Ok(());
                    }
                    let (service, route) = (service.name.clone(), authorised.route().to_string());
                    Err(InjectError::NotGranted { service, route, at: pointer(at), name: name.to_owned() })
                };
                with_secrets(body, &granted, |name| {
                    let secret = secrets.get(name).ok_or_else(|| InjectError::Missing { name: name.to_owned() })?;
                    // As it stands inside a JSON string.
                    let quoted = Zeroizing::new(Value::from(secret.expose()).to_string());
                    Ok(Zeroizing::new(quoted[1..quoted.len() - 1].to_owned()))
                })?
            }
            None => Bytes::new(),
        };
        Ok(Self { authorised, credential, body })
    }

    /// Bytes that go out, besides what the host adds to every request.
    pub(super) fn size(&self) -> u64 {
        let headers: usize = self.authorised.headers().iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
        (self.authorised.url().as_str().len() + headers + self.body.len()) as u64
    }

    /// Where it may be sent to, and nowhere else.
    pub(super) fn origin(&self) -> Option<Origin> {
        Origin::of(self.authorised.url())
    }

    /// As it goes over a connection.
    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        static AGENT: OnceLock<HeaderValue> = OnceLock::new();
        let url = self.authorised.url();
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.authorised.method().clone();
        *request.uri_mut() = url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .expect("the policy lets only ASCII without spaces through");
        let headers = request.headers_mut();
        *headers = self.authorised.headers().clone();
        headers.insert(HOST, url[Position::BeforeHost..Position::AfterPort].parse().expect("a URL's host is ASCII"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let agent = AGENT.get_or_init(|| HeaderValue::from_static(concat!("psn/", env!("CARGO_PKG_VERSION"))));
        headers.entry(USER_AGENT).or_insert_with(|| agent.clone());
        if let Some((name, value)) = &self.credential {
            headers.insert(name, value.clone());
        }
        request
    }
}

fn no_references_elsewhere(authorised: &Authorised) -> Result<(), InjectError> {
    let url = percent_encoding::percent_decode_str(authorised.url().as_str()).decode_utf8_lossy();
    if url.contains(OPEN) {
        return Err(InjectError::Elsewhere("the path or query"));
    }
    if authorised.headers().values().any(|v| String::from_utf8_lossy(v.as_bytes()).contains(OPEN)) {
        return Err(InjectError::Elsewhere("a header"));
    }
    Ok(())
}

/// The body with its references replaced. It stays as it was written otherwise, to the byte.
fn with_secrets(
    body: Vec<u8>,
    granted: Granted<'_>,
    secret: impl Fn(&str) -> Result<Zeroizing<String>, InjectError>,
) -> Result<Bytes, InjectError> {
    let written = body.windows(OPEN.len()).filter(|w| *w == OPEN.as_bytes()).count();
    let text = match std::str::from_utf8(&body) {
        Ok(text) => text,
        Err(_) if written == 0 => return Ok(body.into()),
        Err(_) => return Err(InjectError::Elsewhere("a body that is not JSON")),
    };
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return if written == 0 { Ok(body.into()) } else { Err(InjectError::Elsewhere("a body that is not JSON")) };
    };
    let (mut in_values, mut in_keys) = (0, 0);
    count(&json, &mut in_values, &mut in_keys);
    if in_keys > 0 {
        return Err(InjectError::Elsewhere("a key of the body"));
    }
    // One that is written with escapes, or stands under a key that stands twice, is not seen the same way by every reader. The
    // counts alone would let one make up for the other.
    if in_values != written || (written > 0 && serde_json::from_str::<DistinctKeys>(text).is_err()) {
        return Err(InjectError::Elsewhere("an escaped string, or under a key that stands twice"));
    }
    if written == 0 {
        return Ok(body.into());
    }
    // Each reference that is written stands in exactly one of these values, so that no other place can be meant below.
    places(&json, &mut Vec::new(), granted)?;
    // In valid JSON, `{{` stands in a string or nowhere.
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() * 2));
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let malformed = || InjectError::Malformed(format!("{OPEN}{}", after.chars().take(60).collect::<String>()));
        let (name, after) = after.split_once(CLOSE).ok_or_else(malformed)?;
        if !is_secret_name(name) {
            return Err(malformed());
        }
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(secret(name)?.as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(Bytes::from_owner(out))
}

/// The same for an invariant's sake: references may stand under one key of the root. `None`: refused.
#[cfg(feature = "full")]
pub(super) fn probe(body: Vec<u8>, open: &str, secret: &dyn Fn(&str) -> Option<Zeroizing<String>>) -> Option<Bytes> {
    let missing = |name: &str| InjectError::Missing { name: name.to_owned() };
    let granted = |at: &[String], name: &str| {
        if at.first().is_some_and(|key| key == open) { Ok(()) } else { Err(missing(name)) }
    };
    with_secrets(body, &granted, |name| secret(name).ok_or_else(|| missing(name))).ok()
}

/// JSON in which no object has a key twice.
struct DistinctKeys;

impl<'de> Deserialize<'de> for DistinctKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for DistinctKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON in which no key stands twice")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((key, _)) = entries.next_entry::<String, Self>()? {
            if !seen.insert(key) {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(self)
    }
}

/// Asks for each reference whether it may stand where it stands. One that is malformed is refused where it is replaced.
fn places(json: &Value, at: &mut Vec<String>, granted: Granted<'_>) -> Result<(), InjectError> {
    let mut below = |key: String, value: &Value| {
        at.push(key);
        let result = places(value, at, granted);
        at.pop();
        result
    };
    match json {
        Value::String(text) => {
            let names = text.split(OPEN).skip(1).filter_map(|rest| rest.split_once(CLOSE));
            names.filter(|(name, _)| is_secret_name(name)).try_for_each(|(name, _)| granted(at, name))
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, value)| below(i.to_string(), value)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| below(key.clone(), value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// RFC 6901.
fn pointer(at: &[String]) -> String {
    at.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect()
}

fn count(json: &Value, in_values: &mut usize, in_keys: &mut usize) {
    match json {
        Value::String(s) => *in_values += s.matches(OPEN).count(),
        Value::Array(items) => items.iter().for_each(|v| count(v, in_values, in_keys)),
        Value::Object(map) => map.iter().for_each(|(k, v)| {
            *in_keys += k.matches(OPEN).count();
            count(v, in_values, in_keys);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(at: &str, name: &str) -> InjectError {
        InjectError::NotGranted { service: "s".into(), route: "POST /x".into(), at: at.into(), name: name.into() }
    }

    fn replaced(body: &str) -> Result<String, InjectError> {
        let granted = |at: &[String], name: &str| {
            if at.first().is_none_or(|key| key != "closed") && ["A", "B"].contains(&name) {
                Ok(())
            } else {
                Err(refused(&pointer(at), name))
            }
        };
        let secret = |name: &str| match name {
            "A" => Ok(Zeroizing::new("a\\\"1".to_owned())),
            _ => Err(InjectError::Missing { name: name.to_owned() }),
        };
        with_secrets(body.as_bytes().to_vec(), &granted, secret).map(|b| String::from_utf8(b.to_vec()).unwrap())
    }

    #[test]
    fn references_in_string_values_are_replaced() {
        for (body, out) in [
            (r#"{"v": "{{secret:A}}"}"#, r#"{"v": "a\"1"}"#),
            (
                r#"{"v":["x {{secret:A}} y {{secret:A}}"], "n": 12345678901234567890123}"#,
                r#"{"v":["x a\"1 y a\"1"], "n": 12345678901234567890123}"#,
            ),
            (r#""{{secret:A}}""#, r#""a\"1""#),
            (r#"{"v": "no reference {{x}}"}"#, r#"{"v": "no reference {{x}}"}"#),
            ("plain text", "plain text"),
            ("", ""),
        ] {
            assert_eq!(replaced(body).unwrap(), out);
        }
        assert_eq!(
            with_secrets(vec![0xff, 0xfe], &|_, _| unreachable!(), |_| unreachable!()).unwrap(),
            &[0xff, 0xfe][..]
        );
    }

    #[test]
    fn references_elsewhere_are_refused() {
        use InjectError::*;
        for (body, why) in [
            (r#"{"{{secret:A}}": 1}"#, Elsewhere("a key of the body")),
            ("text {{secret:A}}", Elsewhere("a body that is not JSON")),
            (r#"{"a": {{secret:A}}}"#, Elsewhere("a body that is not JSON")),
            ("a={{secret:A}}&b=c", Elsewhere("a body that is not JSON")),
            (r#"{"a": "\u007b{secret:A}}"}"#, Elsewhere("an escaped string, or under a key that stands twice")),
            (r#"{"a": "{{secret:A}}", "a": "x"}"#, Elsewhere("an escaped string, or under a key that stands twice")),
            // The one that is written is dropped by readers that take the last; an escaped one stands where it may.
            (
                r#"{"closed": "{{secret:A}}", "closed": "x", "a": "\u007b{secret:A}}"}"#,
                Elsewhere("an escaped string, or under a key that stands twice"),
            ),
            (r#"{"a": "{{secret:a}}"}"#, Malformed(r#"{{secret:a}}"}"#.into())),
            (r#"{"a": "{{secret:}}"}"#, Malformed(r#"{{secret:}}"}"#.into())),
            (r#"{"a": "{{secret:A"}"#, Malformed(r#"{{secret:A"}"#.into())),
            (r#"{"a": "{{secret:{{secret:A}}}}"}"#, Malformed(r#"{{secret:{{secret:A}}}}"}"#.into())),
            (r#"{"a": "{{secret:B}}"}"#, Missing { name: "B".into() }),
            (r#"{"a": "{{secret:C}}"}"#, refused("/a", "C")),
            // The same secret, in a place that is not its own.
            (r#"{"a": "{{secret:A}}", "closed": {"x/y": ["", "{{secret:A}}"]}}"#, refused("/closed/x~1y/1", "A")),
            (r#"{"closed": "{{secret:a}} {{secret:A}}"}"#, refused("/closed", "A")),
        ] {
            assert_eq!(replaced(body), Err(why), "{body}");
        }
        let mut binary = vec![0xff];
        binary.extend_from_slice(b"{{secret:A}}");
        assert!(with_secrets(binary, &|_, _| unreachable!(), |_| unreachable!()).is_err());
    }

    #[test]
    fn a_refusal_names_the_line_that_would_allow_it() {
        let message = replaced(r#"["{{secret:C}}"]"#).unwrap_err().to_string();
        let line = r#"inject = { "POST /x" = { "/0" = ["C"] } } under service = "s""#;
        assert!(message.contains(line), "{message}");
        assert!(InjectError::Malformed("x".into()).to_string().contains("{{secret:DATABASE_URL}}"));
    }
}
