//! What a plugin may send, decided on values alone: no call gets any further without an [`Authorised`], and only this file makes one.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use hyper::Method;
use hyper::header::HeaderMap;
use psn_bindings::imports::psn::plugin::http::{Method as GuestMethod, Request};
use url::Url;

use super::headers::{self, HeaderRefused};
use super::path::{GuestPath, PathRefused};
use super::route::Route;
use super::services::{Capture, PolicyError, Service, ServiceMap};
use crate::capabilities::clean::quoted;
use crate::plugins::manifest::Manifest;
use crate::plugins::withheld::{POLICY_TOML, Wish, Withheld};

/// Bytes of one request body. A deployment's metadata, the largest thing a plugin sends, is some tens of KiB.
pub(super) const MAX_REQUEST_BODY: usize = 1 << 20;

/// A call that the manifest allows, with the URL that was decided on, which is the one that is dialled.
#[derive(Debug)]
pub(super) struct Authorised {
    service: Arc<Service>,
    /// Which of the service's.
    route: usize,
    method: Method,
    url: Url,
    headers: HeaderMap,
    idempotent: bool,
    capture: Option<usize>,
}

impl Authorised {
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    pub(super) fn route(&self) -> &Route {
        &self.service.routes[self.route]
    }

    /// Whether that place of the body, keys and indices from its root, may hold that secret.
    pub(super) fn may_carry(&self, at: &[String], secret: &str) -> bool {
        let mut injections = self.service.injections.iter().filter(|i| i.route.same_as(self.route()));
        injections.any(|injection| injection.allows(at, secret))
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Below the service's base, canonical.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The guest's own.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether sending it twice is the same as sending it once.
    pub(super) fn repeatable(&self) -> bool {
        self.idempotent || self.method.is_safe()
    }

    /// What of the response is secret.
    pub(super) fn capture(&self) -> Option<&Capture> {
        self.capture.map(|i| &self.service.captures[i])
    }
}

/// Why a call is not made. Nothing has left the host.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the service {} is not granted; this would allow the call:\n{allow}", quoted(.service))]
    Service { service: String, allow: String },
    #[error("{method} {} is not among the routes of the service `{service}`; the manifest line {allow} would allow it", quoted(.path))]
    Route { service: String, method: Method, path: String, allow: String },
    #[error("{wish} is not allowed by the operator's policy; in {POLICY_TOML}, {line} would allow it")]
    Policy { wish: String, line: String },
    #[error("the path {} is refused: {why}", quoted(.path))]
    Path { path: String, why: PathRefused },
    #[error("the path {} is refused: as a URL it means another path than it says", quoted(.0))]
    NotCanonical(String),
    #[error("the header {} is refused: {why}", quoted(.name))]
    Header { name: String, why: HeaderRefused },
    #[error("a {0} has no body")]
    Body(Method),
    #[error(
        "the response of {route} holds secrets, and none of its capture rules in the manifest is for this query: {rules}"
    )]
    Uncaptured { route: String, rules: String },
    #[error("the body has {0} bytes; at most {MAX_REQUEST_BODY} are sent")]
    TooLarge(usize),
}

/// The services that a plugin may call, by name.
#[derive(Debug)]
pub(super) struct Policy {
    services: BTreeMap<String, Arc<Service>>,
    /// What the operator's policy took away: a denial then names its line.
    withheld: Vec<Withheld>,
}

impl Policy {
    pub(super) fn new(manifest: &Manifest, map: &ServiceMap) -> Result<Self, PolicyError> {
        let read = |wanted| Service::read(wanted, map).map(|s| (s.name.clone(), Arc::new(s)));
        Ok(Self {
            services: manifest.http.iter().map(read).collect::<Result<_, _>>()?,
            withheld: manifest.withheld.clone(),
        })
    }

    /// The denial of a call that the manifest asks for and the operator's policy does not allow.
    fn by_policy(&self, service: &str, method: &Method, path: &GuestPath<'_>) -> Option<Refused> {
        let withheld = self.withheld.iter().find(|w| match &w.wish {
            Wish::Service(s) => s == service,
            Wish::Route { service: s, route } => {
                s == service && Route::parse(route).is_ok_and(|route| route.matches(method, path))
            }
            _ => false,
        })?;
        Some(Refused::Policy { wish: withheld.wish.to_string(), line: withheld.line.clone() })
    }

    pub(super) fn decide(&self, request: &Request) -> Result<Authorised, Refused> {
        let method = method(request.method);
        let path = GuestPath::parse(&request.path).map_err(|why| Refused::Path { path: request.path.clone(), why })?;
        let Some(service) = self.services.get(&request.service) else {
            let by_policy = self.by_policy(&request.service, &method, &path);
            return Err(by_policy.unwrap_or_else(|| unknown_service(&request.service, &method, &path)));
        };
        let routes = service.routes.iter().enumerate().filter(|(_, r)| r.matches(&method, &path));
        let Some((index, route)) = routes.max_by_key(|(_, r)| r.specificity()) else {
            let by_policy = self.by_policy(&request.service, &method, &path);
            return Err(by_policy.unwrap_or_else(|| unknown_route(service, method, &path)));
        };
        let url = below(&service.base, &path).ok_or_else(|| Refused::NotCanonical(request.path.clone()))?;
        let bound = service.auth.as_ref().map(|a| &a.header);
        let headers =
            headers::from_guest(&request.headers, bound).map_err(|(name, why)| Refused::Header { name, why })?;
        if let Some(body) = &request.body {
            if matches!(method, Method::GET | Method::HEAD) {
                return Err(Refused::Body(method));
            }
            if body.len() > MAX_REQUEST_BODY {
                return Err(Refused::TooLarge(body.len()));
            }
        }
        let capture = capture_for(service, route, &path)?;
        let idempotent = request.idempotent;
        Ok(Authorised { service: service.clone(), route: index, method, url, headers, idempotent, capture })
    }
}

fn method(method: GuestMethod) -> Method {
    match method {
        GuestMethod::Get => Method::GET,
        GuestMethod::Head => Method::HEAD,
        GuestMethod::Post => Method::POST,
        GuestMethod::Put => Method::PUT,
        GuestMethod::Patch => Method::PATCH,
        GuestMethod::Delete => Method::DELETE,
    }
}

/// The one URL that is decided on and dialled; none if the parser that dials reads it in any other way than it was decided on.
fn below(base: &Url, path: &GuestPath<'_>) -> Option<Url> {
    let mut text = base.as_str().to_owned();
    if !path.segments().is_empty() {
        text.truncate(text.trim_end_matches('/').len());
        text.push_str(path.path());
    }
    if let Some(query) = path.query() {
        text.push('?');
        text.push_str(query);
    }
    let url = Url::parse(&text).ok()?;
    (url.as_str() == text).then_some(url)
}

/// The capture rule that says most about this call. A route whose responses hold secrets is not called in a way that no rule is for.
fn capture_for(service: &Service, route: &Route, path: &GuestPath<'_>) -> Result<Option<usize>, Refused> {
    let rules = || service.captures.iter().enumerate().filter(|(_, c)| c.route.same_as(route));
    let parameters: Vec<_> = path.parameters().collect();
    let applies = |rule: &Capture| {
        rule.query.iter().all(|(name, value)| {
            let mut values = parameters.iter().filter(|(n, _)| n == name).peekable();
            // Where a parameter stands twice, servers differ in which one they follow: both must be the rule's.
            values.peek().is_some() && values.all(|(_, v)| v == value)
        })
    };
    let best = rules().filter(|(_, c)| applies(c)).max_by_key(|(_, c)| c.query.len());
    match best {
        Some((i, _)) => Ok(Some(i)),
        None if rules().next().is_none() => Ok(None),
        None => {
            let query =
                |c: &Capture| url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&c.query).finish();
            let rules: Vec<_> = rules().map(|(_, c)| format!("`{route}?{}`", query(c))).collect();
            Err(Refused::Uncaptured { route: route.to_string(), rules: rules.join(", ") })
        }
    }
}

fn unknown_service(service: &str, method: &Method, path: &GuestPath<'_>) -> Refused {
    let route = Route::suggest(method, path, &[]);
    let allow =
        format!("[[http]]\nservice = \"{}\"\nbase = \"https://…\"\nroutes = [\"{route}\"]", service.escape_debug());
    Refused::Service { service: service.to_owned(), allow }
}

fn unknown_route(service: &Service, method: Method, path: &GuestPath<'_>) -> Refused {
    let mut allow = "routes = [".to_owned();
    for route in &service.routes {
        // Writing to a string cannot fail.
        let _ = write!(allow, "\"{route}\", ");
    }
    let _ = write!(allow, "\"{}\"]", Route::suggest(&method, path, &service.routes));
    Refused::Route { service: service.name.clone(), method, path: path.path().to_owned(), allow }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capabilities::testing::manifest;

    const NEON: &str = r#"
[[http]]
service = "neon"
base = "https://console.neon.tech/api/v2"
auth = { bearer = "NEON_API_KEY" }
routes = ["GET /", "GET /projects", "POST /projects", "GET /projects/{project}", "DELETE /projects/{project}", "GET /projects/{project}/connection_uri"]
[http.capture]
"POST /projects" = { "/connection_uris/0/connection_uri" = "DATABASE_URL_DIRECT" }
"GET /projects/{project}/connection_uri?pooled=true" = { "/uri" = "DATABASE_URL" }
"GET /projects/{project}/connection_uri?pooled=true&role_name=psn_app" = { "/uri" = "HUB_POOLED_URL" }
[[http]]
service = "root"
base = "https://api.example.com"
routes = ["GET /", "GET /{a}/{b}"]
"#;

    fn policy() -> Policy {
        Policy::new(&manifest(NEON), &ServiceMap::vendors()).unwrap()
    }

    fn request(service: &str, method: GuestMethod, path: &str) -> Request {
        Request { service: service.into(), method, path: path.into(), headers: vec![], body: None, idempotent: false }
    }

    #[test]
    fn granted_calls_have_one_url_below_the_base() {
        for (service, method, path, url) in [
            ("neon", GuestMethod::Get, "/projects", "https://console.neon.tech/api/v2/projects"),
            (
                "neon",
                GuestMethod::Get,
                "/projects?limit=100&org_id=o-1",
                "https://console.neon.tech/api/v2/projects?limit=100&org_id=o-1",
            ),
            ("neon", GuestMethod::Get, "/projects/calm-sun-1", "https://console.neon.tech/api/v2/projects/calm-sun-1"),
            ("neon", GuestMethod::Get, "/", "https://console.neon.tech/api/v2"),
            ("neon", GuestMethod::Get, "/?x=1", "https://console.neon.tech/api/v2?x=1"),
            ("root", GuestMethod::Get, "/", "https://api.example.com/"),
            ("root", GuestMethod::Get, "/?x=[1]", "https://api.example.com/?x=[1]"),
            ("root", GuestMethod::Get, "/x%20y/z:w", "https://api.example.com/x%20y/z:w"),
        ] {
            assert_eq!(policy().decide(&request(service, method, path)).unwrap().url().as_str(), url);
        }
    }

    #[test]
    fn a_denial_names_the_line_that_would_allow_the_call() {
        for (service, method, path, line) in [
            (
                "neon",
                GuestMethod::Patch,
                "/projects/calm-sun-1",
                r#""GET /projects/{project}/connection_uri", "PATCH /projects/{project}"]"#,
            ),
            ("neon", GuestMethod::Get, "/users/me", r#"routes = ["GET /", "#),
            ("neon", GuestMethod::Get, "/users/me", r#""GET /users/me"]"#),
            ("neon", GuestMethod::Get, "/projects/p-1/roles?x=y", r#""GET /projects/{project}/roles"]"#),
            (
                "evil",
                GuestMethod::Post,
                "/steal/123",
                "[[http]]\nservice = \"evil\"\nbase = \"https://…\"\nroutes = [\"POST /steal/{steal}\"]",
            ),
            ("NEON", GuestMethod::Get, "/projects", "[[http]]"),
            ("https://evil.example", GuestMethod::Get, "/", "[[http]]"),
        ] {
            let refused = policy().decide(&request(service, method, path)).unwrap_err().to_string();
            assert!(refused.contains(line), "{refused}");
        }
    }

    #[test]
    fn a_denial_by_policy_names_the_policys_line() {
        let policy = crate::plugins::OperatorPolicy::parse(
            "[plugin.\"*\".deny-routes]\nneon = [\"DELETE /**\"]\n[plugin.\"*\"]\nservices = [\"neon\"]\n",
        )
        .unwrap();
        let policy = Policy::new(&policy.narrow(&manifest(NEON)), &ServiceMap::vendors()).unwrap();
        for (service, method, path, line) in [
            ("neon", GuestMethod::Delete, "/projects/p", r#"[plugin."*".deny-routes] neon without "DELETE /**""#),
            ("root", GuestMethod::Get, "/", r#"[plugin."*"] services = ["neon", "root"]"#),
            // What nobody asked for is the manifest's to add.
            ("neon", GuestMethod::Patch, "/projects/p", "the manifest line"),
        ] {
            let refused = policy.decide(&request(service, method, path)).unwrap_err().to_string();
            assert!(refused.contains(line), "{refused}");
        }
        policy.decide(&request("neon", GuestMethod::Get, "/projects/p")).unwrap();
    }

    #[test]
    fn the_capture_rule_that_says_most_applies() {
        let capture = |path: &str| {
            policy()
                .decide(&request("neon", GuestMethod::Get, path))
                .map(|a| a.capture().map(|c| c.values[0].1.clone()))
        };
        let uri = "/projects/p/connection_uri";
        assert_eq!(capture(&format!("{uri}?pooled=true&database_name=hub")).unwrap().as_deref(), Some("DATABASE_URL"));
        assert_eq!(
            capture(&format!("{uri}?role_name=psn_app&pooled=true")).unwrap().as_deref(),
            Some("HUB_POOLED_URL")
        );
        assert_eq!(capture(&format!("{uri}?%70ooled=tru%65")).unwrap().as_deref(), Some("DATABASE_URL"));
        assert_eq!(capture("/projects").unwrap(), None);
        for evading in [
            "",
            "?pooled=false",
            "?pooled=TRUE",
            "?Pooled=true",
            "?pooled=true&pooled=false",
            "?pooled=false&pooled=true",
        ] {
            let refused = capture(&format!("{uri}{evading}")).unwrap_err().to_string();
            assert!(refused.contains("connection_uri?pooled=true`"), "{refused}");
        }
        let posted = policy().decide(&request("neon", GuestMethod::Post, "/projects")).unwrap();
        assert_eq!(posted.capture().unwrap().values[0].1, "DATABASE_URL_DIRECT");
    }

    #[test]
    fn headers_and_bodies_are_decided_on_too() {
        let mut with_auth = request("neon", GuestMethod::Get, "/projects");
        with_auth.headers = vec![("Authorization".into(), "Bearer mine".into())];
        let refused = policy().decide(&with_auth).unwrap_err().to_string();
        assert!(refused.contains("credentials are added by the host") && !refused.contains("mine"), "{refused}");

        let mut get_with_body = request("neon", GuestMethod::Get, "/projects");
        get_with_body.body = Some(vec![]);
        assert!(matches!(policy().decide(&get_with_body), Err(Refused::Body(_))));

        let mut large = request("neon", GuestMethod::Post, "/projects");
        large.body = Some(vec![0; MAX_REQUEST_BODY + 1]);
        assert!(matches!(policy().decide(&large), Err(Refused::TooLarge(_))));
    }

    #[test]
    fn what_may_be_sent_again() {
        for (method, idempotent, repeatable) in
            [(GuestMethod::Get, false, true), (GuestMethod::Delete, false, false), (GuestMethod::Post, true, true)]
        {
            let path = if method == GuestMethod::Post { "/projects" } else { "/projects/p" };
            let mut r = request("neon", method, path);
            r.idempotent = idempotent;
            assert_eq!(policy().decide(&r).unwrap().repeatable(), repeatable);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Whatever a guest writes: what is accepted stays on the host, below the base, and reads the same to a reference parser.
        #[test]
        fn no_accepted_path_leaves_its_base(
            path in prop_oneof![
                "[/a-z.%2fe5cC0\\\\;:@?#{}\\[\\] \\r\\n\\t]{0,24}",
                "/(\\.|%2e|%2E|\\.\\.|a|/|%2f|\\\\|%5c|;|@|:|%00|%25){0,8}/(b|\\.\\.|%2e%2e|\\.)(\\?[a-z=&%/.#]{0,8})?",
                "/\\PC{0,12}/\\PC{0,12}",
            ],
            root in any::<bool>(),
        ) {
            let policy = policy();
            let (service, base) = if root { ("root", "https://api.example.com/") } else { ("neon", "https://console.neon.tech/api/v2") };
            if let Ok(authorised) = policy.decide(&request(service, GuestMethod::Get, &path)) {
                let url = authorised.url();
                prop_assert_eq!(url.origin(), Url::parse(base).unwrap().origin());
                prop_assert!(url.as_str().starts_with(base));
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
                prop_assert_eq!(&Url::parse(url.as_str()).unwrap(), url);
                let base_depth = if root { 0 } else { 2 };
                let depth = if url.path() == "/" { 0 } else { url.path().split('/').count() - 1 };
                prop_assert!(depth >= base_depth);
                // Read once more by a server that decodes before it looks for dot segments.
                let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
                prop_assert_eq!(decoded.split('/').count() - 1, url.path().split('/').count() - 1);
                prop_assert!(decoded.split('/').all(|s| s != "." && s != ".." && !s.contains('\\')));
            }
        }

        /// A route that is suggested is the one that was missing.
        #[test]
        fn a_suggested_route_allows_what_was_denied(path in "(/[a-z0-9_-]{1,8}){1,4}") {
            let guest_path = GuestPath::parse(&path).unwrap();
            let suggested = Route::suggest(&Method::PUT, &guest_path, &[]);
            prop_assert!(Route::parse(&suggested.to_string()).unwrap().matches(&Method::PUT, &guest_path));
        }
    }
}
