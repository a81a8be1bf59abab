//! The services that psn itself is about, by where they are: whatever a manifest calls one, the operator's rules for it hold.
use url::Url;

use super::manifest::HttpService;

struct Vendor {
    service: &'static str,
    base: &'static str,
    /// The credential of calls that are this service's, where two are at one place.
    secret: &'static str,
}

const VENDORS: [Vendor; 3] = [
    Vendor { service: "neon", base: "https://console.neon.tech/api/v2", secret: "NEON_API_KEY" },
    Vendor { service: "trigger", base: "https://api.trigger.dev", secret: "TRIGGER_ACCESS_TOKEN" },
    Vendor { service: "trigger-env", base: "https://api.trigger.dev", secret: "TRIGGER_SECRET_KEY" },
];

/// A vendor's service, as which a service of a manifest counts too.
pub(super) struct CountsAs {
    pub(super) service: &'static str,
    /// Segments of the vendor's base.
    base: Vec<String>,
}

/// Where the vendor has the service of this name.
pub(super) fn vendor_base(service: &str) -> Option<&'static str> {
    VENDORS.iter().find(|v| v.service == service).map(|v| v.base)
}

/// Whether both lead to the same place.
pub(super) fn same_base(a: &str, b: &str) -> bool {
    let place = |text: &str| {
        let url = Url::parse(text).ok()?;
        Some((url.origin(), segments(&url)))
    };
    place(a).is_some() && place(a) == place(b)
}

/// By its host, and by its credential where its name is that of another service there. One whose base cannot be read counts as none,
/// and is refused where it is opened.
pub(super) fn counts_as(service: &HttpService) -> Vec<CountsAs> {
    let host = |text: &str| Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned));
    let Some(at) = host(&service.base) else { return Vec::new() };
    let named = VENDORS.iter().any(|v| v.service == service.service && host(v.base).as_ref() == Some(&at));
    let signed = |secret: &str| service.auth.as_ref().is_some_and(|auth| auth.secret() == secret);
    VENDORS
        .iter()
        .filter(|v| host(v.base).as_ref() == Some(&at))
        .filter(|v| !named || v.service == service.service || signed(v.secret))
        .map(|v| CountsAs { service: v.service, base: Url::parse(v.base).map(|u| segments(&u)).unwrap_or_default() })
        .collect()
}

/// The route from the host's root on: base path and route.
pub(super) fn from_root(base: &str, route: &str) -> Option<String> {
    let (method, path) = route.split_once(' ')?;
    let url = Url::parse(base).ok()?;
    let before = segments(&url);
    Some(if before.is_empty() { route.to_owned() } else { format!("{method} /{}{path}", before.join("/")) })
}

impl CountsAs {
    /// The route below the vendor's base; as it is where it may lead beside it. A parameter may stand for any segment of the base.
    pub(super) fn route(&self, from_root: &str) -> String {
        let Some((method, path)) = from_root.split_once(" /") else { return from_root.to_owned() };
        let segments: Vec<&str> = path.split('/').collect();
        let below = segments.len() >= self.base.len()
            && self.base.iter().zip(&segments).all(|(base, segment)| base == segment || segment.starts_with('{'));
        if below { format!("{method} /{}", segments[self.base.len()..].join("/")) } else { from_root.to_owned() }
    }
}

fn segments(url: &Url) -> Vec<String> {
    url.path().split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_seen_from_the_vendor_s_base() {
        let neon = CountsAs { service: "neon", base: vec!["api".into(), "v2".into()] };
        for (base, route, seen) in [
            ("https://h", "DELETE /api/v2/projects/{p}", "DELETE /projects/{p}"),
            ("https://h/", "GET /api/v2", "GET /"),
            ("https://h/api", "GET /v2/projects", "GET /projects"),
            ("https://h/api/v2/", "GET /projects?x=1", "GET /projects?x=1"),
            ("https://h/api/v2/projects", "GET /{p}", "GET /projects/{p}"),
            ("https://h", "GET /{a}/{b}/projects", "GET /projects"),
            ("https://h", "GET /api/v1/projects", "GET /api/v1/projects"),
            ("https://h", "GET /", "GET /"),
        ] {
            assert_eq!(neon.route(&from_root(base, route).unwrap()), seen, "{base} {route}");
        }
    }
}
