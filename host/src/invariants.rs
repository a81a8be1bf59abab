//! What must hold for any input whatever, panicking where it does not. The fuzz targets in `fuzz/` call these, and the tests here run
//! them over the committed corpora, so that they are exercised wherever the tests are.
mod parsers;
mod printers;

/// A name, and what must hold for any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// By name, as in `fuzz/fuzz_targets` and `fuzz/corpus`.
pub const TARGETS: &[Target] = &[
    ("manifest", parsers::manifest),
    ("lock", parsers::lock),
    ("env_file", parsers::env_file),
    ("component", parsers::component),
    ("route", crate::capabilities::http::invariants::route),
    ("inject", crate::capabilities::http::invariants::inject),
    ("sql", crate::capabilities::db::invariants::sql),
    ("redact", printers::redact),
    ("events", printers::events),
];

/// Runs one of them.
///
/// # Panics
/// Where the invariant does not hold, and where there is no such target.
pub fn check(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.unwrap_or_else(|| panic!("there is no target {target}")).1(data);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    fn fuzz() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        entries.map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_target_has_its_fuzzer_and_its_corpus() {
        let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names(&fuzz().join("fuzz_targets")), targets);
        assert_eq!(names(&fuzz().join("corpus")), targets);
    }

    #[test]
    fn the_corpora_hold() {
        for (name, check) in TARGETS {
            let folder = fuzz().join("corpus").join(name);
            let mut inputs = 0;
            for entry in std::fs::read_dir(&folder).unwrap() {
                let data = std::fs::read(entry.unwrap().path()).unwrap();
                check(&data);
                // And what is near to it.
                for cut in [1, data.len() / 3, data.len() / 2, data.len().saturating_sub(1)] {
                    check(&data[..cut.min(data.len())]);
                }
                inputs += 1;
            }
            assert!(inputs >= 3, "{name} has {inputs} inputs");
        }
    }

    /// Pieces of what each reader reads, in any order.
    fn pieces(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![4 => proptest::sample::select(words).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
        proptest::collection::vec(piece, 0..30).prop_map(|p| p.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (_, check) in TARGETS {
                check(&data);
            }
        }

        #[test]
        fn manifests_hold(data in pieces(&[
            "[plugin]\n", "name = \"a-b\"\n", "version = \"0.1.0\"\n", "world = \"psn:plugin/step@0.1.0\"\n", "summary = \"s\"\n", "[[http]]\n",
            "service = \"x\"\n", "base = \"https://x.example\"\n", "routes = [\"GET /a/{b}\"]\n", "auth = { bearer = \"A\" }\n", "[db]\n",
            "\"posts\" = { select = [\"id\"] }\n", "\"f(int)\" = { execute = true }\n", "[limits]\n", "memory = \"1MiB\"\n", "deadline = \"5s\"\n",
            "[secrets]\n", "names = [\"A_*\"]\n", "inject = { \"GET /a\" = { \"/b\" = [\"B\"] } }\n", "[task]\n", "[[tool]]\n", "args = [[\"{}\"]]\n", "\"", "\n", "=", "]",
        ])) {
            parsers::manifest(&[b"[plugin]\nname = \"x\"\nversion = \"0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"\"\n", data.as_slice()].concat());
            parsers::manifest(&data);
        }

        #[test]
        fn locks_hold(data in pieces(&[
            "version = 1\n", "[[plugin]]\n", "name = \"a\"\n", "name = \"b\"\n", "version = \"0.1.0\"\n", "world = \"w\"\n", "sha256 = \"ab\"\n",
            "capabilities = \"cd\"\n", "granted-by = \"ada\"\n", "granted-at = \"2026-11-23T10:00:00Z\"\n", "source = \"first-party\"\n",
            "source = { path = \"x\" }\n", "\"", "\\u0000", "=",
        ])) {
            parsers::lock(&data);
            parsers::lock(&[b"version = 1\n[[plugin]]\nname = \"x\"\nversion = \"0\"\nworld = \"w\"\nsha256 = \"\"\ncapabilities = \"\"\ngranted-by = \"\"\nsource = \"first-party\"\n", data.as_slice()].concat());
        }

        #[test]
        fn env_files_hold(data in pieces(&["A", "B_1", "=", "'", "\"", "`", "\\", "$", "${A}", "#", " ", "\t", "\n", "\r\n", "export ", "\u{feff}", "\0", "x"])) {
            parsers::env_file(&data);
        }

        #[test]
        fn routes_hold(data in pieces(&[
            "GET ", "POST ", "/", "{a}", "b", "\n", "..", ".", "%2e", "%2F", "%5c", "%25", "%41", "%C3%A4", "%EF%BC%8F", "?", "&x=1", "#", "@", ":", "//", "\\", ";", "~", "'",
        ])) {
            crate::capabilities::http::invariants::route(&data);
            crate::capabilities::http::invariants::route(&[b"GET /a/{b}/c\n/a/", data.as_slice()].concat());
        }

        #[test]
        fn bodies_hold(data in pieces(&[
            "{", "}", "[", "]", ", ", ": ", "\"", "\"open\": ", "\"closed\": ", "\"open\"", "{{secret:A}}", "\\u007b{secret:A}}", "{{secret:", "}}", "A", "B", "\\\"", "\\", "1", "null", " ",
        ])) {
            crate::capabilities::http::invariants::inject(&data);
            crate::capabilities::http::invariants::inject(&[b"{\"open\": \"{{secret:A}}\", ", data.as_slice(), b"}"].concat());
            crate::capabilities::http::invariants::inject(&[b"{\"open\": [", data.as_slice(), b"]}"].concat());
        }

        #[test]
        fn statements_hold(data in pieces(&[
            "SELECT ", "INSERT INTO notes ", "UPDATE posts SET ", "DELETE FROM notes ", "WITH a AS (", "FROM posts ", "FROM unnest($1::text[]) AS x ", "WHERE ", "RETURNING ",
            "id ", "content ", "x.ts_stat ", "p.id ", "posts.id ", "set_config", "pg_sleep", "now", "count", "lower", "SET ", "ROLE ", "RESET ", "SHOW ", "COPY ", "DO ", "LISTEN ",
            "(", ")", ", ", "= ", "$1 ", "'a' ", "'it''s' ", "\"q\" ", "E'\\n' ", "$$x$$ ", "-- c\n", "/* c */ ", "; ", "- ", "-", "::text ", "::regclass ", "AS ", "UNION ", "ORDER BY ", "LIMIT ", "1 ", "* ",
            "OVER () ", "FILTER (WHERE true) ", "CASE WHEN ", "THEN ", "END ", "IN ", "ANY", "LATERAL ", "JOIN ", "ON ", "USING ", "VALUES ", "ON CONFLICT DO NOTHING ", ".", "[1] ", "|| ", "@> ", "OPERATOR(",
        ])) {
            crate::capabilities::db::invariants::sql(&data);
            crate::capabilities::db::invariants::sql(&[b"SELECT ", data.as_slice()].concat());
        }

        #[test]
        fn filters_hold(data in pieces(&["s3cret-v", "alue", "%2D", "\\u002d", "\\", "&#45;", "%", "\0", "-", "\n", "[redacted]", "{", "\"", "\u{1b}[2J", "7333637265742d76", "czNjcmV0LXY"])) {
            printers::redact(&[b"\x0fs3cret-value\\%41", data.as_slice()].concat());
            printers::redact(&data);
            printers::events(&data);
        }
    }
}
