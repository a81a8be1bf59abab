//! Routes as an operator writes them: `GET /projects/{project}`, `* /admin/**`.
use serde::Deserialize;

/// A method, or `*` for any; a path whose `{name}` stands for one segment, and whose last segment `**` for any number of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct RoutePattern {
    text: String,
    method: Option<String>,
    pieces: Vec<Piece>,
    /// Whether more segments may follow.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Any,
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Path segments of a manifest's route, or of a pattern.
fn pieces(path: &str) -> Option<Vec<Piece>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/')
        .map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => (!name.is_empty()).then_some(Piece::Any),
            None => (!segment.is_empty() && !segment.contains(['{', '}', '*', '?', '#', '%']))
                .then(|| Piece::Literal(segment.to_owned())),
        })
        .collect()
}

impl TryFrom<String> for RoutePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no route: `GET /projects/{{project}}`, `* /admin/**`");
        let (method, path) = text.split_once(' ').ok_or_else(wrong)?;
        let method = match method {
            "*" => None,
            method if METHODS.contains(&method) => Some(method.to_owned()),
            _ => return Err(wrong()),
        };
        let (path, open) = match path.strip_suffix("/**") {
            Some("") => ("/", true),
            Some(before) => (before, true),
            None => (path, false),
        };
        let pieces = pieces(path).ok_or_else(wrong)?;
        Ok(Self { method, pieces, open, text })
    }
}

impl RoutePattern {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it allows every call that the manifest's route does. One that it cannot read is not covered.
    pub(super) fn covers(&self, route: &str) -> bool {
        self.compare(route, |pattern, wanted| match (pattern, wanted) {
            (Piece::Any, _) => true,
            (Piece::Literal(a), Piece::Literal(b)) => a == b,
            (Piece::Literal(_), Piece::Any) => false,
        })
        .unwrap_or(false)
    }

    /// Whether there is a call that both are for. One that it cannot read is touched.
    pub(super) fn touches(&self, route: &str) -> bool {
        self.compare(route, |pattern, wanted| match (pattern, wanted) {
            (Piece::Literal(a), Piece::Literal(b)) => a == b,
            _ => true,
        })
        .unwrap_or(true)
    }

    fn compare(&self, route: &str, fits: impl Fn(&Piece, &Piece) -> bool) -> Option<bool> {
        let (method, path) = route.split_once(' ')?;
        // A capture's route may say what its query has to be.
        let wanted = pieces(path.split_once('?').map_or(path, |(path, _)| path))?;
        let long_enough = if self.open { wanted.len() >= self.pieces.len() } else { wanted.len() == self.pieces.len() };
        Some(
            self.method.as_deref().is_none_or(|m| m == method)
                && long_enough
                && self.pieces.iter().zip(&wanted).all(|(pattern, wanted)| fits(pattern, wanted)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> RoutePattern {
        RoutePattern::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn what_is_covered_and_what_is_touched() {
        for (text, route, covers, touches) in [
            ("GET /projects", "GET /projects", true, true),
            ("GET /projects", "POST /projects", false, false),
            ("* /projects", "POST /projects", true, true),
            ("GET /projects/{x}", "GET /projects/{project}", true, true),
            ("GET /projects/{x}", "GET /projects/calm-sun", true, true),
            ("GET /projects/calm-sun", "GET /projects/{project}", false, true),
            ("GET /projects/calm-sun", "GET /projects/other", false, false),
            ("GET /projects/{x}", "GET /projects/{p}/roles", false, false),
            ("GET /projects/**", "GET /projects/{p}/roles", true, true),
            ("GET /projects/**", "GET /projects", true, true),
            ("* /**", "DELETE /anything/{at}/all", true, true),
            ("* /**", "GET /", true, true),
            ("GET /", "GET /", true, true),
            ("GET /uri", "GET /uri?pooled=true", true, true),
            // Not understood: neither allowed nor let through.
            ("GET /a", "nonsense", false, true),
            ("GET /a", "GET /{", false, true),
        ] {
            assert_eq!(pattern(text).covers(route), covers, "{text} covers {route}");
            assert_eq!(pattern(text).touches(route), touches, "{text} touches {route}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "GET",
            "GET projects",
            "FETCH /a",
            "GET /a//b",
            "GET /a/*",
            "GET /a/**/b",
            "GET /{}",
            "GET /a?b=c",
            "get /a",
            "GET /%61",
        ] {
            assert!(RoutePattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
