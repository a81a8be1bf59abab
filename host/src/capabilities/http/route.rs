//! Routes as manifests write them: `GET /projects/{project}`, and for captures `GET /projects/{project}/connection_uri?pooled=true`.
use std::fmt;

use hyper::Method;

use super::path::GuestPath;

/// A method and a path template. Two routes are the same when their texts are.
#[derive(Clone, Debug)]
pub(super) struct Route {
    method: Method,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// Stands for exactly one segment.
    Parameter(String),
}

impl Route {
    /// The text, or why it is no route.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (method, template) =
            text.split_once(' ').ok_or("a route is a method and a path: `GET /projects/{project}`")?;
        let method = match method {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            other => return Err(format!("`{other}` is none of the methods GET HEAD POST PUT PATCH DELETE")),
        };
        let path = template.strip_prefix('/').ok_or("its path begins with `/`")?;
        let pieces =
            if path.is_empty() { Vec::new() } else { path.split('/').map(Piece::parse).collect::<Result<_, _>>()? };
        Ok(Self { method, pieces })
    }

    pub(super) fn matches(&self, method: &Method, path: &GuestPath<'_>) -> bool {
        self.method == *method
            && self.pieces.len() == path.segments().len()
            && self.pieces.iter().zip(path.segments()).all(|(piece, segment)| match piece {
                Piece::Literal(literal) => literal == segment,
                Piece::Parameter(_) => true,
            })
    }

    /// Greater for the route that says more: the first literal where the other has a parameter decides.
    pub(super) fn specificity(&self) -> impl Ord + use<> {
        self.pieces.iter().map(|p| matches!(p, Piece::Literal(_))).collect::<Vec<_>>()
    }

    /// Whether both match the same requests.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.method == other.method
            && self.pieces.len() == other.pieces.len()
            && self.pieces.iter().zip(&other.pieces).all(|(a, b)| match (a, b) {
                (Piece::Literal(a), Piece::Literal(b)) => a == b,
                (Piece::Parameter(_), Piece::Parameter(_)) => true,
                _ => false,
            })
    }

    /// The route that would allow a call: segments that look like identifiers become parameters, named as the routes nearby or the
    /// segment before name them.
    pub(super) fn suggest(method: &Method, path: &GuestPath<'_>, granted: &[Route]) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        for (i, segment) in path.segments().iter().enumerate() {
            let known = granted.iter().find_map(|r| match r.pieces.get(i) {
                Some(Piece::Parameter(name)) if r.pieces[..i] == pieces[..] => Some(name.clone()),
                _ => None,
            });
            let piece = if looks_like_an_id(segment) {
                Piece::Parameter(known.unwrap_or_else(|| match pieces.last() {
                    Some(Piece::Literal(before)) if before.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
                        before.strip_suffix('s').filter(|b| !b.is_empty()).unwrap_or(before).to_owned()
                    }
                    _ => "id".to_owned(),
                }))
            } else {
                Piece::Literal(segment.clone().into_owned())
            };
            pieces.push(piece);
        }
        Self { method: method.clone(), pieces }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method)?;
        if self.pieces.is_empty() {
            return f.write_str("/");
        }
        self.pieces.iter().try_for_each(|piece| match piece {
            // As it is written in a manifest, where an apostrophe stands for itself.
            Piece::Literal(literal) => {
                f.write_str("/")?;
                let plain = |c: char| if c == '\'' { write!(f, "{c}") } else { write!(f, "{}", c.escape_debug()) };
                literal.chars().try_for_each(plain)
            }
            Piece::Parameter(name) => write!(f, "/{{{name}}}"),
        })
    }
}

impl Piece {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!("`{text}` is no parameter: letters, digits and _ between braces"));
            }
            return Ok(Piece::Parameter(name.to_owned()));
        }
        if text.is_empty() {
            return Err("a segment is empty".into());
        }
        if text.bytes().all(|b| b == b'.') {
            return Err(format!("a segment `{text}` means another path than it says"));
        }
        // What a guest's path can hold unescaped.
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"-._~!$&'()*+,=:@".contains(*c)) {
            return Err(format!(
                "`{}` cannot stand in a segment; a parameter is a whole segment: {{name}}",
                c.escape_debug()
            ));
        }
        Ok(Piece::Literal(text.to_owned()))
    }
}

/// `calm-sun-12345678`, `proj_abc`, a UUID; but not `v2`, `connection_uri`, `reveal_password`.
fn looks_like_an_id(segment: &str) -> bool {
    let version = segment.strip_prefix('v').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    !version && (segment.contains(|c: char| !c.is_ascii_lowercase() && c != '_' && c != '-') || segment.len() > 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(route: &str, method: Method, path: &str) -> bool {
        Route::parse(route).unwrap().matches(&method, &GuestPath::parse(path).unwrap())
    }

    #[test]
    fn a_parameter_is_exactly_one_segment() {
        for (route, method, path, yes) in [
            ("GET /", Method::GET, "/", true),
            ("GET /", Method::GET, "/x", false),
            ("GET /projects", Method::GET, "/projects", true),
            ("GET /projects", Method::GET, "/projects?limit=1", true),
            ("GET /projects", Method::POST, "/projects", false),
            ("GET /projects", Method::HEAD, "/projects", false),
            ("GET /projects", Method::GET, "/Projects", false),
            ("GET /projects", Method::GET, "/projects2", false),
            ("GET /projects/{p}", Method::GET, "/projects/p1", true),
            ("GET /projects/{p}", Method::GET, "/projects/a%20b", true),
            ("GET /projects/{p}", Method::GET, "/projects", false),
            ("GET /projects/{p}", Method::GET, "/projects/p1/roles", false),
            ("GET /projects/{p}/roles", Method::GET, "/projects/p1/roles", true),
            ("GET /projects/{p}/roles", Method::GET, "/projects/p1/databases", false),
            ("GET /{a}/{b}", Method::GET, "/x/y", true),
        ] {
            assert_eq!(matches(route, method.clone(), path), yes, "{route} against {method} {path}");
        }
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for text in [
            "",
            "GET",
            "GET projects",
            "get /x",
            "TRACE /x",
            "CONNECT /x",
            "* /x",
            "GET /a//b",
            "GET /a/",
            "GET /a/..",
            "GET /a/./b",
            "GET /a-{b}",
            "GET /{}",
            "GET /{a/b}",
            "GET /{a b}",
            "GET /a%2fb",
            "GET /a?b",
            "GET /a#b",
            "GET /a\\b",
            "GET  /a",
            "GET /a b",
            "GET /ä",
            "GET /*",
            "GET /**",
        ] {
            // A star is a literal star and no wildcard: the one sub-delimiter that reads like more than it is.
            if text.contains('*') && text.starts_with("GET") {
                assert!(!matches(text, Method::GET, "/anything"), "{text}");
                continue;
            }
            assert!(Route::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn literals_say_more_than_parameters() {
        let of = |text| Route::parse(text).unwrap().specificity();
        assert!(of("GET /projects/shared") > of("GET /projects/{p}"));
        assert!(of("GET /a/{x}/c") > of("GET /a/{x}/{y}"));
        assert!(of("GET /a/{x}") > of("GET /{y}/b"));
    }

    #[test]
    fn a_suggestion_reads_as_an_author_would_write_it() {
        let granted = [
            Route::parse("GET /projects/{project}").unwrap(),
            Route::parse("GET /projects/{project}/branches/{br}/roles").unwrap(),
        ];
        for (path, suggestion) in [
            ("/users/me", "DELETE /users/me"),
            ("/projects/calm-sun-12345678/connection_uri?x=y", "DELETE /projects/{project}/connection_uri"),
            ("/projects/p1/branches/br-2/databases", "DELETE /projects/{project}/branches/{br}/databases"),
            ("/api/v1/runs/run_12", "DELETE /api/v1/runs/{run}"),
            ("/x/1/2", "DELETE /x/{x}/{id}"),
            ("/", "DELETE /"),
        ] {
            let suggested = Route::suggest(&Method::DELETE, &GuestPath::parse(path).unwrap(), &granted);
            assert_eq!(suggested.to_string(), suggestion);
            assert!(suggested.matches(&Method::DELETE, &GuestPath::parse(path).unwrap()));
            assert!(Route::parse(&suggested.to_string()).is_ok(), "it can be pasted");
        }
    }
}
