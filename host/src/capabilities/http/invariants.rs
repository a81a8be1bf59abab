//! What must hold for any path that a guest writes: held against another reader of URLs.
use hyper::Method;
use psn_bindings::imports::psn::plugin::http::{Method as GuestMethod, Request};
use url::Url;

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
