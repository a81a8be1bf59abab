//! The path that a guest wrote, taken apart, and found to say exactly what it means: no reading of it, by any server, leads
//! elsewhere.
use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use unicode_normalization::is_nfkc;

/// Bytes of path and query together. Servers refuse about as much.
pub(super) const MAX_PATH: usize = 8 * 1024;

/// A path below a service's base, and a query.
#[derive(Debug)]
pub(super) struct GuestPath<'a> {
    /// As it was written.
    text: &'a str,
    segments: Vec<Cow<'a, str>>,
    query: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathRefused {
    #[error("a path begins with `/`; the host alone knows the address")]
    NotAPath,
    #[error("a path has at most {MAX_PATH} bytes")]
    TooLong,
    #[error("spaces, control characters and characters beyond ASCII stand percent-encoded in a path")]
    NotAscii,
    #[error("a fragment (`#`) never leaves a client")]
    Fragment,
    #[error("`{0}` stands percent-encoded in a path or query")]
    Character(char),
    #[error("a segment is empty")]
    EmptySegment,
    #[error("a segment of dots means another path than it says")]
    Dots,
    #[error("`%` is followed by two hex digits")]
    BadEscape,
    #[error(
        "an escape stands for `/`, `\\`, `%`, `?`, `#`, a control character or a character that needs none: servers read it in different ways"
    )]
    Ambiguous,
    #[error("the escapes of a segment are not UTF-8")]
    NotUtf8,
    #[error("the characters of a segment become others where a server normalises Unicode")]
    NotNormal,
}

impl<'a> GuestPath<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, PathRefused> {
        if text.len() > MAX_PATH {
            return Err(PathRefused::TooLong);
        }
        let Some(rest) = text.strip_prefix('/') else { return Err(PathRefused::NotAPath) };
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PathRefused::NotAscii);
        }
        if text.contains('#') {
            return Err(PathRefused::Fragment);
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let segments =
            if path.is_empty() { Vec::new() } else { path.split('/').map(segment).collect::<Result<_, _>>()? };
        if let Some(query) = query {
            check_query(query)?;
        }
        Ok(Self { text, segments, query })
    }

    /// What the segments mean.
    pub(super) fn segments(&self) -> &[Cow<'a, str>] {
        &self.segments
    }

    /// The query as it was written.
    pub(super) fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The path without the query, as it was written.
    pub(super) fn path(&self) -> &'a str {
        self.text.split_once('?').map_or(self.text, |(path, _)| path)
    }

    /// The query's parameters, decoded.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        url::form_urlencoded::parse(self.query.unwrap_or_default().as_bytes())
    }
}

fn segment(raw: &str) -> Result<Cow<'_, str>, PathRefused> {
    if raw.is_empty() {
        return Err(PathRefused::EmptySegment);
    }
    // `;` begins parameters that some servers cut off before they look at the path: `/a/..;/b`.
    if let Some(c) = raw.chars().find(|&c| !is_unreserved(c) && !"!$&'()*+,=:%".contains(c)) {
        return Err(PathRefused::Character(c));
    }
    check_escapes(raw)?;
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| PathRefused::NotUtf8)?;
    if let Cow::Owned(decoded) = &decoded
        && (decoded.contains(|c: char| c.is_control() || matches!(c, '/' | '\\' | '%' | ';' | '?' | '#'))
            || raw_escapes_of_unreserved(raw))
    {
        return Err(PathRefused::Ambiguous);
    }
    if decoded.bytes().all(|b| b == b'.') {
        return Err(PathRefused::Dots);
    }
    // A full-width solidus becomes a slash, a two-dot leader two dots.
    if !decoded.is_ascii() && !is_nfkc(&decoded) {
        return Err(PathRefused::NotNormal);
    }
    Ok(decoded)
}

fn check_query(query: &str) -> Result<(), PathRefused> {
    match query.chars().find(|&c| !is_unreserved(c) && !"!$&()*+,=:%/?@;[]".contains(c)) {
        Some(c) => Err(PathRefused::Character(c)),
        None => check_escapes(query),
    }
}

fn check_escapes(raw: &str) -> Result<(), PathRefused> {
    let mut bytes = raw.bytes();
    while let Some(b) = bytes.next() {
        let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
        if b == b'%' && !(hex(bytes.next()) && hex(bytes.next())) {
            return Err(PathRefused::BadEscape);
        }
    }
    Ok(())
}

/// `%41` for `A`: harmless to one reader, another path to the next. Well-formed escapes only.
fn raw_escapes_of_unreserved(raw: &str) -> bool {
    raw.match_indices('%')
        .any(|(at, _)| u8::from_str_radix(&raw[at + 1..at + 3], 16).is_ok_and(|b| is_unreserved(b.into())))
}

fn is_unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_say_what_they_mean_are_read() {
        for (text, segments) in [
            ("/", vec![]),
            ("/?a=b", vec![]),
            ("/projects", vec!["projects"]),
            ("/projects/p-1_2~3.4", vec!["projects", "p-1_2~3.4"]),
            ("/projects/a%20b%C3%A4", vec!["projects", "a bä"]),
            ("/x/it's(fine)!$&*+,=:", vec!["x", "it's(fine)!$&*+,=:"]),
            ("/x/user%40example", vec!["x", "user@example"]),
            ("/x/v1.2..3", vec!["x", "v1.2..3"]),
            ("/projects?limit=100&page[size]=1&u=https://x/y?z&e=%2e%2e%2f", vec!["projects"]),
        ] {
            let path = GuestPath::parse(text).unwrap();
            assert_eq!(path.segments(), segments, "{text}");
        }
        let path = GuestPath::parse("/x?a=1&a=2&b=%20+").unwrap();
        let pairs: Vec<_> = path.parameters().collect();
        assert_eq!(pairs, [("a".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "  ".into())]);
        assert_eq!((path.path(), path.query()), ("/x", Some("a=1&a=2&b=%20+")));
    }

    #[test]
    fn paths_that_could_mean_something_else_are_refused() {
        use PathRefused::*;
        for (text, why) in [
            ("", NotAPath),
            ("projects", NotAPath),
            ("https://evil.example/x", NotAPath),
            ("?a=b", NotAPath),
            ("@evil.example/x", NotAPath),
            (".evil.example/x", NotAPath),
            (":8080/x", NotAPath),
            ("//evil.example/x", EmptySegment),
            ("/a//b", EmptySegment),
            ("/a/", EmptySegment),
            ("/a/../b", Dots),
            ("/a/./b", Dots),
            ("/a/..", Dots),
            ("/...", Dots),
            ("/a/%2e%2e/b", Ambiguous),
            ("/a/.%2E/b", Ambiguous),
            ("/a/%2e/b", Ambiguous),
            ("/a%2fb", Ambiguous),
            ("/a%2Fb", Ambiguous),
            ("/a%5cb", Ambiguous),
            ("/a%252e%252e", Ambiguous),
            ("/a%00", Ambiguous),
            ("/a%0d%0aHost:%20x", Ambiguous),
            ("/a%41", Ambiguous),
            ("/a%C2%85", Ambiguous),
            ("/a%3bx=1", Ambiguous),
            ("/a%3Fx=1", Ambiguous),
            ("/a%23x", Ambiguous),
            ("/a%EF%BC%8Fb", NotNormal),
            ("/%EF%BC%8E%EF%BC%8E", NotNormal),
            ("/%E2%80%A5", NotNormal),
            ("/a%EF%BC%BCb", NotNormal),
            ("/a%EF%BC%85b", NotNormal),
            ("/a%CC%88", NotNormal),
            ("/%E2%84%AA", NotNormal),
            ("/a/..;/b", Character(';')),
            ("/a\\b", Character('\\')),
            ("/a\\..\\b", Character('\\')),
            ("/user@evil.example", Character('@')),
            ("/a/{id}", Character('{')),
            ("/a<b", Character('<')),
            ("/a#b", Fragment),
            ("/a?b#c", Fragment),
            ("/a b", NotAscii),
            ("/a\r\nX: y", NotAscii),
            ("/a\tb", NotAscii),
            ("/ä", NotAscii),
            ("/a\u{0}", NotAscii),
            ("/a%", BadEscape),
            ("/a%2", BadEscape),
            ("/a%zz", BadEscape),
            ("/a%ff", NotUtf8),
            ("/a%c0%ae", NotUtf8),
            ("/a?x=%", BadEscape),
            ("/a?x='", Character('\'')),
            ("/a?x={{secret:A}}", Character('{')),
            ("/a?x=\\", Character('\\')),
        ] {
            assert_eq!(GuestPath::parse(text).err(), Some(why), "{text:?}");
        }
        assert_eq!(GuestPath::parse(&format!("/{}", "a".repeat(MAX_PATH))).err(), Some(TooLong));
    }
}
