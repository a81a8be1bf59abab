//! What must hold for any path that a guest writes, held against another reader of URLs, and for any body with references to secrets,
//! held against a reader that sees all of it.
use std::fmt;

use hyper::Method;
use psn_bindings::imports::psn::plugin::http::{Method as GuestMethod, Request};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use url::Url;
use zeroize::Zeroizing;

use super::inject;
use super::path::GuestPath;
use super::policy::Policy;
use super::route::Route;
use super::services::ServiceMap;
use crate::plugins::manifest::Manifest;

const BASE: &str = "https://api.example.com/v2";

/// A route on the first line, a path on the second.
pub(crate) fn route(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((template, written)) = text.split_once('\n') else { return };
    let (Ok(route), Ok(path)) = (Route::parse(template), GuestPath::parse(written)) else { return };
    let again = Route::parse(&route.to_string()).expect("a route can be read as it is written");
    assert!(again.same_as(&route));

    // The reference takes the path apart by itself.
    let reference = Url::parse(&format!("{BASE}{written}")).expect("an accepted path makes a URL");
    assert_eq!((reference.scheme(), reference.host_str(), reference.port()), ("https", Some("api.example.com"), None));
    assert!(reference.username().is_empty() && reference.password().is_none() && reference.fragment().is_none());
    let segments: Vec<String> = reference
        .path_segments()
        .expect("it has a path")
        .skip(1)
        .filter(|s| !s.is_empty())
        .map(|s| percent_encoding::percent_decode_str(s).decode_utf8().expect("UTF-8").into_owned())
        .collect();
    assert_eq!(path.segments(), segments, "{written}");
    assert_eq!(path.query(), reference.query());

    let template_path = template.split_once(' ').map_or("", |(_, p)| p).trim_matches('/');
    let wanted: Vec<&str> = if template_path.is_empty() { Vec::new() } else { template_path.split('/').collect() };
    let fits = wanted.len() == segments.len()
        && wanted.iter().zip(&segments).all(|(w, s)| w.starts_with('{') && w.ends_with('}') || w == s);
    for (method, guest) in [(Method::GET, GuestMethod::Get), (Method::DELETE, GuestMethod::Delete)] {
        let expected = fits && template.starts_with(method.as_str());
        assert_eq!(route.matches(&method, &path), expected, "{template} against {method} {written}");
        let request = Request {
            service: "x".to_owned(),
            method: guest,
            path: written.to_owned(),
            headers: Vec::new(),
            body: None,
            idempotent: false,
        };
        match policy(template).decide(&request) {
            Ok(authorised) => {
                assert!(expected, "{template} let {method} {written} through");
                let url = authorised.url();
                assert!(url.as_str().starts_with(BASE), "{url}");
                assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(url));
            }
            Err(refused) => assert!(!expected, "{template} against {method} {written}: {refused}"),
        }
    }
}

fn policy(route: &str) -> Policy {
    let route = toml::Value::from(route);
    let text = format!(
        "[plugin]\nname = \"x\"\nversion = \"0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"\"\n[[http]]\nservice = \"x\"\nbase = \"{BASE}\"\nroutes = [{route}]\n"
    );
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest with this route");
    Policy::new(&manifest, &ServiceMap::vendors()).expect("a service with this route")
}

/// The key of the body under which the secret may stand, and nowhere else.
const OPEN_PLACE: &str = "open";
const REFERENCE: &str = "{{secret:A}}";
/// What stands for it; nothing that is fuzzed writes this.
const VALUE: &str = "~the-secret-itself~";

/// A body as a guest may write it.
pub(crate) fn inject(data: &[u8]) {
    if data.windows(VALUE.len()).any(|w| w == VALUE.as_bytes()) {
        return;
    }
    let Some(sent) =
        inject::probe(data.to_vec(), OPEN_PLACE, &|name| (name == "A").then(|| Zeroizing::new(VALUE.to_owned())))
    else {
        return;
    };
    let Ok(text) = std::str::from_utf8(&sent) else {
        return assert_eq!(sent, data, "what is no text is left as it is");
    };
    assert_eq!(text.replace(VALUE, REFERENCE).as_bytes(), data, "nothing else is changed");
    if !text.contains(VALUE) {
        return;
    }
    // However a reader resolves keys that stand twice: none of what it can see has the secret elsewhere.
    let all: Everything = serde_json::from_str(text).expect("references are replaced in JSON only, which it still is");
    let mut seen = 0;
    for (at, words) in &all.0 {
        let here = words.matches(VALUE).count();
        assert!(here == 0 || at.first().is_some_and(|key| key == OPEN_PLACE), "the secret stands at {at:?} of {text}");
        assert!(at.iter().all(|key| !key.contains(VALUE)), "the secret is a key of {text}");
        seen += here;
    }
    assert_eq!(seen, text.matches(VALUE).count(), "each is in a string that was looked at: {text}");
}

/// Every string of a JSON text with the keys that lead to it, those under keys that stand twice, too.
struct Everything(Vec<(Vec<String>, String)>);

impl<'de> Deserialize<'de> for Everything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self(Vec::new()))
    }
}

impl Everything {
    fn below(&mut self, key: &str, Self(found): Self) {
        // A value without strings still has its keys.
        self.0.push((vec![key.to_owned()], String::new()));
        self.0.extend(found.into_iter().map(|(mut at, words)| {
            at.insert(0, key.to_owned());
            (at, words)
        }));
    }
}

impl<'de> Visitor<'de> for Everything {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(mut self, words: &str) -> Result<Self, E> {
        self.0.push((Vec::new(), words.to_owned()));
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self, A::Error> {
        while let Some(item) = items.next_element::<Self>()? {
            self.below("-", item);
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Self, A::Error> {
        while let Some((key, value)) = entries.next_entry::<String, Self>()? {
            self.below(&key, value);
        }
        Ok(self)
    }
}
