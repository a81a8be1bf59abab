//! The services of one plugin, as its manifest and the operator's map of services say.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderName;
use url::{Host, Url};

use super::address::is_global;
use super::headers::may_carry_credential;
use super::route::Route;
use crate::capabilities::clean::quoted;
use crate::error::CodedError;
use crate::plugins::manifest::{Auth, HttpService, WITHHELD, covers};
use crate::secret::is_secret_name;

/// Where services are, if not where a manifest says: `config/services.toml`, or the local hub.
#[derive(Clone, Debug, Default)]
pub struct ServiceMap {
    overrides: BTreeMap<String, Url>,
}

impl ServiceMap {
    /// Every service where its manifest says.
    pub fn vendors() -> Self {
        Self::default()
    }

    /// The services of the local hub.
    pub fn local(neon: Url, trigger: Url) -> Self {
        let mut map = Self::default();
        map.set("neon", neon);
        map.set("trigger", trigger.clone());
        map.set("trigger-env", trigger);
        map
    }

    /// Where a service is, if not where a manifest says.
    pub fn get(&self, service: &str) -> Option<&Url> {
        self.overrides.get(service)
    }

    /// A loopback address with its port is allowed here, and nowhere else.
    pub fn set(&mut self, service: &str, base: Url) {
        self.overrides.insert(service.to_owned(), base);
    }

    /// Where psn itself reaches a service, under the same rules as a plugin's calls: the entry of the map, else the vendor's base.
    pub fn base(&self, service: &str, vendor: &str) -> Result<Url, PolicyError> {
        let checked = match self.overrides.get(service) {
            Some(base) => override_base(base).map(|_| base.clone()).map_err(|reason| (shown(base), reason)),
            None => manifest_base(vendor).map_err(|reason| (vendor.to_owned(), reason)),
        };
        checked.map_err(|(base, reason)| PolicyError::Override { service: service.to_owned(), base, reason })
    }
}

/// What is wrong with the services that a manifest or the map of services names.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("http service `{service}`: the base {} in the manifest is not usable: {reason}", quoted(.base))]
    Base { service: String, base: String, reason: &'static str },
    #[error("http service `{service}`: the base {} in config/services.toml is not usable: {reason}", quoted(.base))]
    Override { service: String, base: String, reason: &'static str },
    #[error("http service `{service}`: {} is no route: {reason}", quoted(.route))]
    Route { service: String, route: String, reason: String },
    #[error("http service `{service}`: the capture rule {} is not usable: {reason}", quoted(.rule))]
    Capture { service: String, rule: String, reason: String },
    #[error("http service `{service}`: {field} is not usable: {reason}")]
    Secret { service: String, field: &'static str, reason: String },
}

impl From<PolicyError> for CodedError {
    fn from(e: PolicyError) -> Self {
        let (code, fix) = match &e {
            PolicyError::Base { service, .. } => (
                "http.bad-base",
                format!("ask the plugin's author to correct `base` of the service `{service}` in plugin.toml"),
            ),
            PolicyError::Override { service, .. } => {
                ("http.bad-service", format!("correct or remove the entry `{service}` in config/services.toml"))
            }
            PolicyError::Route { service, .. } => (
                "http.bad-route",
                format!("ask the plugin's author to correct `routes` of the service `{service}` in plugin.toml"),
            ),
            PolicyError::Capture { service, .. } => (
                "http.bad-capture",
                format!("ask the plugin's author to correct `capture` of the service `{service}` in plugin.toml"),
            ),
            PolicyError::Secret { service, .. } => (
                "http.bad-secret-name",
                format!("ask the plugin's author to correct the service `{service}` in plugin.toml"),
            ),
        };
        CodedError::new(code, e.to_string(), [fix])
    }
}

/// A service with everything about it read and checked.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    /// Without query, fragment or credentials.
    pub(super) base: Url,
    /// The one address that may be dialled although it is not public.
    pub(super) exception: Option<SocketAddr>,
    pub(super) auth: Option<Credential>,
    pub(super) routes: Vec<Route>,
    pub(super) captures: Vec<Capture>,
    pub(super) injections: Vec<Injection>,
}

#[derive(Debug)]
pub(super) struct Credential {
    pub(super) header: HeaderName,
    pub(super) bearer: bool,
    pub(super) secret: String,
}

/// Which secrets may stand where in which request's body.
#[derive(Debug)]
pub(super) struct Injection {
    pub(super) route: Route,
    at: Pointer,
    /// A trailing `*` is a prefix.
    names: Vec<String>,
}

/// A JSON pointer (RFC 6901), in which `*` is any one key or index.
#[derive(Debug)]
struct Pointer(Vec<String>);

/// Which values of which response are secrets.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) route: Route,
    /// Query parameters that must be there with these values.
    pub(super) query: Vec<(String, String)>,
    /// JSON pointer → name of the secret.
    pub(super) values: Vec<(String, String)>,
}

impl Service {
    pub(super) fn read(wanted: &HttpService, services: &ServiceMap) -> Result<Self, PolicyError> {
        let name = wanted.service.clone();
        let stated = manifest_base(&wanted.base).map_err(|reason| PolicyError::Base {
            service: name.clone(),
            base: wanted.base.clone(),
            reason,
        })?;
        let (base, exception) = match services.overrides.get(&name) {
            Some(base) => {
                let exception = override_base(base).map_err(|reason| PolicyError::Override {
                    service: name.clone(),
                    base: shown(base),
                    reason,
                })?;
                (base.clone(), exception)
            }
            None => (stated, None),
        };
        let routes: Vec<Route> = wanted
            .routes
            .iter()
            .map(|text| {
                Route::parse(text).map_err(|reason| PolicyError::Route {
                    service: name.clone(),
                    route: text.clone(),
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        let captures = wanted
            .capture
            .iter()
            .map(|(rule, values)| {
                Capture::read(rule, values, &routes).map_err(|reason| PolicyError::Capture {
                    service: name.clone(),
                    rule: rule.clone(),
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        let bad = |field, reason| PolicyError::Secret { service: name.clone(), field, reason };
        let auth = wanted.auth.as_ref().map(Credential::read).transpose().map_err(|reason| bad("auth", reason))?;
        let mut injections = Vec::new();
        for (route, places) in &wanted.inject {
            let read = Injection::read(route, places, &routes).map_err(|reason| bad("inject", reason))?;
            injections.extend(read);
        }
        Ok(Self { name, base, exception, auth, routes, captures, injections })
    }
}

impl Credential {
    fn read(auth: &Auth) -> Result<Self, String> {
        let (header, bearer) = match auth {
            Auth::Bearer(_) => (hyper::header::AUTHORIZATION, true),
            Auth::Header { name, .. } => {
                (HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?, false)
            }
        };
        if !may_carry_credential(&header) {
            return Err(format!("`{header}` carries no credential"));
        }
        if !is_secret_name(auth.secret()) {
            return Err(format!("`{}` is no secret's name", auth.secret()));
        }
        Ok(Self { header, bearer, secret: auth.secret().to_owned() })
    }
}

impl Injection {
    fn read(route: &str, places: &BTreeMap<String, Vec<String>>, routes: &[Route]) -> Result<Vec<Self>, String> {
        let parsed = Route::parse(route)?;
        if !routes.iter().any(|r| r.same_as(&parsed)) {
            return Err(format!("`{route}` is not among the routes"));
        }
        if places.is_empty() {
            return Err(format!("`{route}` names no place in its body, such as /variables/*"));
        }
        let read = |(pointer, names): (&String, &Vec<String>)| {
            if let Some(name) = names.iter().find(|name| !is_secret_name(name.strip_suffix('*').unwrap_or(name))) {
                return Err(format!("`{name}` is no secret's name"));
            }
            Ok(Self { route: parsed.clone(), at: Pointer::parse(pointer)?, names: names.clone() })
        };
        places.iter().map(read).collect()
    }

    /// `at`: keys and indices from the body's root.
    pub(super) fn allows(&self, at: &[String], name: &str) -> bool {
        self.at.matches(at) && covers(&self.names, name)
    }
}

impl Pointer {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let segments = text.strip_prefix('/').ok_or(format!("`{text}` is no JSON pointer such as /variables/*"))?;
        Ok(Self(segments.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect()))
    }

    fn matches(&self, at: &[String]) -> bool {
        self.0.len() == at.len() && self.0.iter().zip(at).all(|(wanted, given)| wanted == "*" || wanted == given)
    }
}

impl Capture {
    fn read(rule: &str, values: &BTreeMap<String, String>, routes: &[Route]) -> Result<Self, String> {
        let (route, query) = rule.split_once('?').unwrap_or((rule, ""));
        let route = Route::parse(route)?;
        if !routes.iter().any(|r| r.same_as(&route)) {
            return Err(format!("`{route}` is not among the routes"));
        }
        if values.is_empty() {
            return Err("it names no value".into());
        }
        for (pointer, secret) in values {
            if !pointer.starts_with('/') {
                return Err(format!("`{pointer}` is no JSON pointer such as /connection_uris/0/connection_uri"));
            }
            if secret != WITHHELD && !is_secret_name(secret) {
                return Err(format!("`{secret}` is no secret's name"));
            }
        }
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self { route, query, values: values.iter().map(|(p, s)| (p.clone(), s.clone())).collect() })
    }
}

fn manifest_base(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is no absolute URL")?;
    common(&url)?;
    if url.scheme() != "https" {
        return Err("it does not begin with https://");
    }
    if url.port().is_some() {
        return Err("services are called on port 443; another port can only be set in config/services.toml");
    }
    match url.host() {
        Some(Host::Domain(_)) => Ok(url),
        Some(_) => Err("a manifest names a host, not an address"),
        None => Err("it names no host"),
    }
}

/// The loopback address, if it is one.
fn override_base(url: &Url) -> Result<Option<SocketAddr>, &'static str> {
    common(url)?;
    let address = match url.host() {
        Some(Host::Ipv4(a)) => Some(IpAddr::V4(a)),
        Some(Host::Ipv6(a)) => Some(IpAddr::V6(a)),
        Some(Host::Domain(_)) => None,
        None => return Err("it names no host"),
    };
    match (url.scheme(), address) {
        ("https" | "http", Some(address)) if address.is_loopback() => match url.port() {
            Some(port) if port != 0 => Ok(Some(SocketAddr::new(address, port))),
            _ => Err("a loopback address needs its port"),
        },
        ("https", Some(address)) if !is_global(address) => Err("the address is neither public nor loopback"),
        ("https", _) if url.port() == Some(0) => Err("there is no port 0"),
        ("https", _) => Ok(None),
        _ => Err("it does not begin with https://; http:// is for 127.0.0.1 and a port"),
    }
}

fn common(url: &Url) -> Result<(), &'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a base has no query and no fragment");
    }
    if url.host_str().is_some_and(|h| h.ends_with('.')) {
        return Err("the host ends with a dot");
    }
    if url.path().contains('%') || url.path().contains("//") {
        return Err("its path holds escapes or empty segments");
    }
    Ok(())
}

/// A URL in a message, without what it should not have had.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only where a URL can have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::manifest;

    fn read(tables: &str, services: &ServiceMap) -> Result<Service, PolicyError> {
        Service::read(&manifest(&format!("[[http]]\nservice = \"neon\"\n{tables}")).http[0], services)
    }

    #[test]
    fn bases_are_https_hosts_on_their_usual_port() {
        for (base, fine) in [
            ("https://console.neon.tech/api/v2", true),
            ("https://api.trigger.dev", true),
            ("https://bücher.example/", true),
            ("http://console.neon.tech/api/v2", false),
            ("https://console.neon.tech:5432/", false),
            ("https://console.neon.tech:25/", false),
            ("https://user:pw@console.neon.tech/", false),
            ("https://ok@evil.example/", false),
            ("https://console.neon.tech./", false),
            ("https://console.neon.tech/?x", false),
            ("https://console.neon.tech/#x", false),
            ("https://console.neon.tech//x", false),
            ("https://console.neon.tech/a%2fb", false),
            ("https://127.0.0.1/", false),
            ("https://0x7f.1/", false),
            ("https://2130706433/", false),
            ("https://[::1]/", false),
            ("https://[fe80::1%25eth0]/", false),
            ("https://8.8.8.8/", false),
            ("file:///etc/passwd", false),
            ("console.neon.tech", false),
        ] {
            let result = read(&format!("base = {base:?}\nroutes = []\n"), &ServiceMap::vendors());
            assert_eq!(result.is_ok(), fine, "{base}: {result:?}");
        }
    }

    #[test]
    fn an_override_may_be_loopback_with_a_port() {
        for (base, exception) in [
            ("http://127.0.0.1:8030/api/v2", Ok(Some("127.0.0.1:8030"))),
            ("https://127.0.0.1:8030", Ok(Some("127.0.0.1:8030"))),
            ("http://0x7f.1:8030", Ok(Some("127.0.0.1:8030"))),
            ("http://[::1]:8030", Ok(Some("[::1]:8030"))),
            ("https://trigger.example.com:8443/", Ok(None)),
            ("https://9.9.9.9/", Ok(None)),
            ("http://127.0.0.1/", Err(())),
            ("http://127.0.0.1:0/", Err(())),
            ("http://localhost:8030/", Err(())),
            ("http://trigger.example.com/", Err(())),
            ("http://10.0.0.1:8030/", Err(())),
            ("https://10.0.0.1:8030/", Err(())),
            ("https://169.254.169.254/", Err(())),
            ("https://[::ffff:10.0.0.1]/", Err(())),
            ("https://user:secret@127.0.0.1:1/", Err(())),
        ] {
            let mut services = ServiceMap::vendors();
            services.set("neon", Url::parse(base).unwrap());
            let result = read("base = \"https://console.neon.tech/api/v2\"\nroutes = []\n", &services);
            if let Err(e) = &result {
                assert!(!e.to_string().contains("secret@"), "{e}");
                assert!(e.to_string().contains("config/services.toml"), "{e}");
            }
            let expected = exception.map(|a| a.map(|a: &str| a.parse().unwrap()));
            assert_eq!(result.map(|s| s.exception).map_err(|_| ()), expected, "{base}");
        }
    }

    #[test]
    fn a_place_is_a_pointer_with_any_key_where_it_says_so() {
        for (pointer, at, fits) in [
            ("", &[][..], true),
            ("", &["a"], false),
            ("/a", &["a"], true),
            ("/a", &[], false),
            ("/a", &["a", "b"], false),
            ("/a", &["b"], false),
            ("/a/*", &["a", "b"], true),
            ("/a/*", &["a", "0"], true),
            ("/a/*", &["a"], false),
            ("/a/*", &["a", "b", "c"], false),
            ("/*/v", &["0", "v"], true),
            ("/*/v", &["0", "w"], false),
            ("/a~1b/~01", &["a/b", "~1"], true),
            ("/", &[""], true),
        ] {
            let at: Vec<String> = at.iter().map(|s: &&str| (*s).to_owned()).collect();
            assert_eq!(Pointer::parse(pointer).unwrap().matches(&at), fits, "{pointer} {at:?}");
        }
    }

    #[test]
    fn rules_that_could_not_work_are_refused() {
        let base = "base = \"https://console.neon.tech\"\n";
        for (tables, says) in [
            ("routes = [\"projects\"]", "no route"),
            ("routes = [\"GET /a\"]\ncapture = { \"GET /b\" = { \"/x\" = \"A\" } }", "not among the routes"),
            ("routes = [\"GET /a\"]\ncapture = { \"GET /a\" = { \"x\" = \"A\" } }", "no JSON pointer"),
            ("routes = [\"GET /a\"]\ncapture = { \"GET /a\" = { \"/x\" = \"a b\" } }", "no secret's name"),
            ("routes = [\"GET /a\"]\ncapture = { \"GET /a\" = {} }", "names no value"),
            ("routes = []\nauth = { bearer = \"no name\" }", "no secret's name"),
            ("routes = []\nauth = { header = { name = \"a b\", secret = \"A\" } }", "no header name"),
            ("routes = []\nauth = { header = { name = \"Host\", secret = \"A\" } }", "carries no credential"),
            ("routes = []\nauth = { header = { name = \"X-HTTP-Method-Override\", secret = \"A\" } }", "no credential"),
            ("routes = []\nauth = { header = { name = \"x_original_url\", secret = \"A\" } }", "no credential"),
            ("routes = []\nauth = { header = { name = \"X-Forwarded-Host\", secret = \"A\" } }", "no credential"),
            ("routes = [\"PUT /a\"]\ninject = { \"PUT /a\" = { \"/x\" = [\"*\"] } }", "no secret's name"),
            ("routes = [\"PUT /a\"]\ninject = { \"PUT /a\" = { \"x\" = [\"A\"] } }", "no JSON pointer"),
            ("routes = [\"PUT /a\"]\ninject = { \"PUT /b\" = { \"/x\" = [\"A\"] } }", "not among the routes"),
            ("routes = [\"PUT /a\"]\ninject = { \"PUT /a\" = {} }", "names no place"),
        ] {
            let e = read(&format!("{base}{tables}\n"), &ServiceMap::vendors()).unwrap_err();
            assert!(e.to_string().contains(says), "{e}");
            let coded = CodedError::from(e);
            assert!(coded.code.starts_with("http.bad-") && !coded.fix.is_empty());
        }
    }

    #[test]
    fn parameters_may_have_other_names_in_a_capture_rule() {
        let service = read("base = \"https://console.neon.tech\"\nroutes = [\"GET /p/{a}/uri\"]\ncapture = { \"GET /p/{b}/uri?pooled=true&x=a%20b\" = { \"/uri\" = \"DATABASE_URL\" } }\n", &ServiceMap::vendors()).unwrap();
        assert_eq!(service.captures[0].query, [("pooled".into(), "true".into()), ("x".into(), "a b".into())]);
    }
}
