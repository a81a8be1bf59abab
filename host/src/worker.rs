//! How psn knows its worker: by a line in the program's bytes, which says its version and build.

/// The version of psn, which the two must share: events, grants and the contract are one.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Hash of what compiled code depends on besides the component, and of which components are psn's own, made by the build: see build.rs.
/// Without a compiler, wasmtime could not say the first.
const BUILD: &str = env!("PSN_BUILD");

/// No other program has this in its bytes by chance; psn itself has it, without what follows.
const HEAD: &str = "\npsn-worker program; version ";
const MIDDLE: &str = " build ";
const TAIL: &str = "\n";

pub const MARKER_LEN: usize = HEAD.len() + VERSION.len() + MIDDLE.len() + BUILD.len() + TAIL.len();

/// What a worker has in its bytes.
pub const fn marker() -> [u8; MARKER_LEN] {
    let mut marker = [0; MARKER_LEN];
    let mut at = 0;
    let parts = [HEAD, VERSION, MIDDLE, BUILD, TAIL];
    let mut part = 0;
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            marker[at] = bytes[i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    marker
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub version: String,
    pub build: String,
}

impl Identity {
    /// That of a worker which this psn can compile for.
    pub fn own() -> Self {
        Self { version: VERSION.to_owned(), build: BUILD.to_owned() }
    }

    /// None where the program is no worker.
    pub fn of(program: &[u8]) -> Option<Self> {
        let heads = memchr::memmem::find_iter(program, HEAD);
        heads.filter_map(|at| Self::parse(&program[at + HEAD.len()..])).next()
    }

    fn parse(rest: &[u8]) -> Option<Self> {
        let line = &rest[..memchr::memchr(TAIL.as_bytes()[0], rest)?];
        let (version, build) = std::str::from_utf8(line).ok()?.split_once(MIDDLE)?;
        let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_graphic());
        let is_hash = build.len() == BUILD.len() && build.bytes().all(|b| b.is_ascii_hexdigit());
        (is_version && is_hash).then(|| Self { version: version.to_owned(), build: build.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(line: &[u8]) -> Vec<u8> {
        [b"\x7fELF\0\xff", line, b"\0\xffmore"].concat()
    }

    #[test]
    fn a_worker_is_known_by_its_marker() {
        assert_eq!(Identity::of(&program(&marker())), Some(Identity::own()));
        // Before it, the line's beginning alone, as psn itself has it.
        let twice = [&program(HEAD.as_bytes())[..], &marker()[..]].concat();
        assert_eq!(Identity::of(&twice), Some(Identity::own()));
        let build = "0".repeat(64);
        let other = program(format!("{HEAD}9.9.9{MIDDLE}{build}{TAIL}").as_bytes());
        assert_eq!(Identity::of(&other), Some(Identity { version: "9.9.9".into(), build }));
    }

    #[test]
    fn whatever_else_has_its_words_is_none() {
        let build = "0".repeat(64);
        for line in [
            String::new(),
            HEAD.to_owned(),
            format!("{HEAD}1.0.0{MIDDLE}{build}"),
            format!("{HEAD}1.0.0{MIDDLE}{}{TAIL}", &build[1..]),
            format!("{HEAD}1.0 0{MIDDLE}{build}{TAIL}"),
            format!("{HEAD}{MIDDLE}{build}{TAIL}"),
        ] {
            assert_eq!(Identity::of(&program(line.as_bytes())), None, "{line:?}");
        }
    }
}
