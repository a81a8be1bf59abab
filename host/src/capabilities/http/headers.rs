//! Which headers a guest may send, and which it gets to see.
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers in a guest's request.
pub(super) const MAX_HEADERS: usize = 32;

/// Bytes of all their names and values.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderRefused {
    #[error("its name is no header name")]
    Name,
    #[error("its value holds a control character or one beyond ASCII")]
    Value,
    #[error("the host frames requests and connections itself")]
    Framing,
    #[error("the host says where a request goes and where it comes from")]
    Routing,
    #[error("credentials are added by the host")]
    Credential,
    #[error("it would turn an allowed method or path into another one")]
    Override,
    #[error("it stands there twice; join the values with a comma")]
    Twice,
    #[error("a request has at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes")]
    TooMany,
}

/// The headers that go out, without the host's own. `bound` is the header that carries the service's credential.
pub(super) fn from_guest(
    headers: &[(String, String)],
    bound: Option<&HeaderName>,
) -> Result<HeaderMap, (String, HeaderRefused)> {
    let refuse = |name: &str, why| Err((name.to_owned(), why));
    let bytes: usize = headers.iter().map(|(n, v)| n.len() + v.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return refuse("", HeaderRefused::TooMany);
    }
    let mut map = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else { return refuse(name, HeaderRefused::Name) };
        if let Some(why) = reserved(parsed.as_str(), bound) {
            return refuse(name, why);
        }
        if !value.bytes().all(|b| b == b' ' || b == b'\t' || b.is_ascii_graphic()) {
            return refuse(name, HeaderRefused::Value);
        }
        let Ok(value) = HeaderValue::from_str(value) else { return refuse(name, HeaderRefused::Value) };
        if map.insert(parsed, value).is_some() {
            return refuse(name, HeaderRefused::Twice);
        }
    }
    Ok(map)
}

/// Whether a service's credential may go in this header: in none that frames, leads or turns a request, as a guest's own may not. Nor
/// in a cookie, where one value can be several.
pub(super) fn may_carry_credential(name: &HeaderName) -> bool {
    let why = reserved(name.as_str(), None);
    let moves = matches!(why, Some(HeaderRefused::Framing | HeaderRefused::Routing | HeaderRefused::Override));
    let plain = name.as_str().replace('_', "-");
    !(moves || plain.contains("cookie") || plain.starts_with("proxy-") || plain == "content-type")
}

fn reserved(name: &str, bound: Option<&HeaderName>) -> Option<HeaderRefused> {
    // Servers behind a gateway often read `_` as `-`.
    let name = name.replace('_', "-");
    if bound.is_some_and(|b| b.as_str().replace('_', "-") == name) {
        return Some(HeaderRefused::Credential);
    }
    Some(match name.as_str() {
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "content-length"
        | "content-encoding" | "expect" | "http2-settings" | "accept-encoding" | "accept-charset" | "range"
        | "if-range" | "max-forwards" | "early-data" | "alt-used" => HeaderRefused::Framing,
        "host" | "forwarded" | "via" | "origin" | "referer" | "cdn-loop" | "client-ip" | "true-client-ip"
        | "front-end-https" | "from" => HeaderRefused::Routing,
        // A CGI program reads it as HTTP_PROXY, where it sends its own requests.
        "proxy" => HeaderRefused::Routing,
        "cookie2" | "api-key" | "apikey" | "dpop" | "token" | "x-auth" => HeaderRefused::Credential,
        "x-middleware-subrequest" => HeaderRefused::Override,
        name if name.starts_with("proxy-") || CREDENTIALS.iter().any(|c| name.contains(c)) => HeaderRefused::Credential,
        name if name.starts_with("sec-") => HeaderRefused::Framing,
        name if OVERRIDES.iter().any(|o| name.contains(o)) => HeaderRefused::Override,
        name if ROUTING.iter().any(|r| name.contains(r)) => HeaderRefused::Routing,
        _ => return None,
    })
}

/// What names of credentials have in them, whoever made them up: `x-vault-token`, `ocp-apim-subscription-key`, `x-authorization`.
const CREDENTIALS: &[&str] = &[
    "authoriz",
    "authentic",
    "x-auth-",
    "cookie",
    "-token",
    "secret",
    "password",
    "credential",
    "api-key",
    "apikey",
    "access-key",
    "subscription-key",
    "functions-key",
    "-jwt",
    "signature",
];

/// What names have in them that make a gateway or a framework see another method or URL.
const OVERRIDES: &[&str] =
    &["method-override", "http-method", "original-ur", "rewrite-ur", "override-ur", "original-method"];

/// What names have in them that say where a request comes from or goes to.
const ROUTING: &[&str] = &[
    "forwarded",
    "forward-for",
    "real-ip",
    "client-ip",
    "connecting-ip",
    "remote-ip",
    "remote-addr",
    "originating-ip",
    "proxyuser",
    "x-host",
    "-host-override",
    "original-host",
    "backend-host",
    "x-envoy-",
    "x-scheme",
    "url-scheme",
    "x-appengine-",
];

/// Whether a guest may see a header of a response: what it needs to understand the body, to page, and to wait. Not the rest, which
/// may be a cookie or a token of a later version of the service.
pub(super) fn shown_to_guest(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "content-type"
            | "content-language"
            | "date"
            | "etag"
            | "last-modified"
            | "link"
            | "location"
            | "retry-after"
            | "x-request-id"
            | "request-id"
            | "x-neon-ret-request-id"
    ) || name.starts_with("x-ratelimit-")
        || name.starts_with("ratelimit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(headers: &[(&str, &str)]) -> Result<HeaderMap, HeaderRefused> {
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        from_guest(&headers, Some(&HeaderName::from_static("x-service-key"))).map_err(|(_, why)| why)
    }

    #[test]
    fn ordinary_headers_go_out() {
        let map = decide(&[
            ("Content-Type", "application/json"),
            ("accept", "*/*"),
            ("x-trigger-api-version", "2025-07-16"),
            ("idempotency-key", "a, b"),
            ("If-Match", "\"e\""),
            ("Prefer", "return=minimal"),
            ("LinkedIn-Version", "202609"),
            ("X-Restli-Protocol-Version", "2.0.0"),
            ("X-GitHub-Api-Version", "2022-11-28"),
            ("x-request-id", "r-1"),
        ])
        .unwrap();
        assert_eq!(map.len(), 10);
        assert_eq!(map["content-type"], "application/json");
    }

    #[test]
    fn what_is_the_hosts_is_refused() {
        use HeaderRefused::*;
        for (name, why) in [
            ("Host", Routing),
            ("Connection", Framing),
            ("Keep-Alive", Framing),
            ("TE", Framing),
            ("Trailer", Framing),
            ("Transfer-Encoding", Framing),
            ("transfer_encoding", Framing),
            ("Upgrade", Framing),
            ("Content-Length", Framing),
            ("Expect", Framing),
            ("Accept-Encoding", Framing),
            ("Accept-Charset", Framing),
            ("HTTP2-Settings", Framing),
            ("Sec-WebSocket-Key", Framing),
            ("Forwarded", Routing),
            ("X-Forwarded-For", Routing),
            ("x_forwarded_for", Routing),
            ("X-Forwarded-Host", Routing),
            ("Via", Routing),
            ("X-Real-IP", Routing),
            ("Authorization", Credential),
            ("AUTHORIZATION", Credential),
            ("Proxy-Authorization", Credential),
            ("Proxy-Connection", Credential),
            ("Cookie", Credential),
            ("X-Api-Key", Credential),
            ("X-Service-Key", Credential),
            ("x_service_key", Credential),
            ("X-HTTP-Method-Override", Override),
            ("X-Original-URL", Override),
            ("X-Rewrite-URL", Override),
            ("X-HTTP-Method", Override),
            ("X_HTTP_Method_Override", Override),
            ("X-Middleware-Subrequest", Override),
            ("Proxy", Routing),
            ("X-Host", Routing),
            ("X-Original-Host", Routing),
            ("X-Forwarded-Prefix", Routing),
            ("Client-IP", Routing),
            ("Fastly-Client-IP", Routing),
            ("CF-Connecting-IPv6", Routing),
            ("X-Originating-IP", Routing),
            ("X-Envoy-Original-Path", Routing),
            ("CDN-Loop", Routing),
            ("X-Authorization", Credential),
            ("X-Vault-Token", Credential),
            ("PRIVATE-TOKEN", Credential),
            ("X-CSRF-Token", Credential),
            ("X-Goog-Api-Key", Credential),
            ("x_goog_api_key", Credential),
            ("apikey", Credential),
            ("Ocp-Apim-Subscription-Key", Credential),
            ("X-Amz-Security-Token", Credential),
            ("DPoP", Credential),
            ("Authentication-Info", Credential),
            ("Range", Framing),
            ("If-Range", Framing),
            ("Early-Data", Framing),
            (":authority", Name),
            (":path", Name),
            ("", Name),
            ("a b", Name),
            ("a\r\nb", Name),
            ("a:b", Name),
            ("ä", Name),
        ] {
            assert_eq!(decide(&[(name, "x")]).err(), Some(why), "{name:?}");
        }
        for value in ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "\u{7f}", "ä"] {
            assert_eq!(decide(&[("x-note", value)]).err(), Some(Value), "{value:?}");
        }
        assert_eq!(decide(&[("x-note", "a"), ("X-Note", "b")]).err(), Some(Twice));
        assert_eq!(decide(&[("x-note", &"a".repeat(MAX_HEADER_BYTES))]).err(), Some(TooMany));
        let many: Vec<(String, String)> = (0..=MAX_HEADERS).map(|i| (format!("x-{i}"), String::new())).collect();
        assert_eq!(from_guest(&many, None).err().map(|(_, why)| why), Some(TooMany));
    }

    #[test]
    fn credentials_go_where_nothing_else_is_decided() {
        for (name, may) in [
            ("authorization", true),
            ("x-api-key", true),
            ("x-other-key", true),
            ("private-token", true),
            ("x-http-method-override", false),
            ("x_http_method_override", false),
            ("x-original-url", false),
            ("x-rewrite-url", false),
            ("x-forwarded-for", false),
            ("x-forwarded-host", false),
            ("x-host", false),
            ("cookie", false),
            ("range", false),
            ("content-encoding", false),
            ("content-length", false),
            ("content-type", false),
            ("transfer-encoding", false),
            ("proxy-authorization", false),
            ("proxy-connection", false),
            ("host", false),
            ("x-middleware-subrequest", false),
        ] {
            assert_eq!(may_carry_credential(&HeaderName::from_static(name)), may, "{name}");
        }
    }

    #[test]
    fn a_guest_sees_what_it_needs() {
        for (name, shown) in [
            ("content-type", true),
            ("retry-after", true),
            ("x-ratelimit-remaining", true),
            ("x-neon-ret-request-id", true),
            ("location", true),
            ("set-cookie", false),
            ("www-authenticate", false),
            ("x-trigger-jwt", false),
            ("authorization", false),
            ("server", false),
        ] {
            assert_eq!(shown_to_guest(&HeaderName::from_static(name)), shown, "{name}");
        }
    }
}
