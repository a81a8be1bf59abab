//! Env files: a reader that accepts what dotenv, node, bun and a shell accept and expands nothing, and a writer whose values all of
//! those read back byte for byte. What psn does not own (foreign lines, comments, order) stays as it is.
use std::ops::Range;

use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    /// Never with the text of the line: it may hold a secret.
    #[error("line {line}: {reason}")]
    Line { line: usize, reason: &'static str },
    #[error("not UTF-8 (byte {0})")]
    NotUtf8(usize),
    #[error("{0}")]
    Unwritable(&'static str),
}

/// The text of an env file, and where its assignments are.
pub struct EnvFile {
    text: Zeroizing<String>,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    value: Zeroizing<String>,
    /// Of the value in the text, quotes included.
    span: Range<usize>,
}

impl EnvFile {
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvError> {
        let text = std::str::from_utf8(bytes).map_err(|e| EnvError::NotUtf8(e.valid_up_to()))?;
        let text = Zeroizing::new(text.to_owned());
        let entries = parse(&text)?;
        Ok(Self { text, entries })
    }

    /// The last assignment counts, as in every reader.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().rfind(|e| e.name == name).map(|e| e.value.as_str())
    }

    /// Each name once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let last = |i: usize, name: &str| !self.entries[i + 1..].iter().any(|e| e.name == name);
        self.entries
            .iter()
            .enumerate()
            .filter(move |(i, e)| last(*i, &e.name))
            .map(|(_, e)| (e.name.as_str(), e.value.as_str()))
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Changes the value in place, or appends a line.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), EnvError> {
        let rendered = Zeroizing::new(render(value)?);
        match self.entries.iter().rfind(|e| e.name == name) {
            Some(entry) => self.text.replace_range(entry.span.clone(), &rendered),
            None => {
                let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
                if !(self.text.is_empty() || self.text.ends_with('\n')) {
                    self.text.push_str(newline);
                }
                self.text.push_str(name);
                self.text.push('=');
                self.text.push_str(&rendered);
                self.text.push_str(newline);
            }
        }
        self.entries = parse(&self.text)?;
        Ok(())
    }
}

impl EnvFile {
    /// Takes out every line that assigns the name.
    pub fn remove(&mut self, name: &str) -> Result<(), EnvError> {
        while let Some(entry) = self.entries.iter().rfind(|e| e.name == name) {
            let start = self.text[..entry.span.start].rfind('\n').map_or(0, |at| at + 1);
            let end = self.text[entry.span.end..].find('\n').map_or(self.text.len(), |at| entry.span.end + at + 1);
            self.text.replace_range(start..end, "");
            self.entries = parse(&self.text)?;
        }
        Ok(())
    }
}

/// The value as it stands after `NAME=`, such that dotenv, dotenvx, node, bun and a shell all read the same bytes back; or why there
/// is no such form.
pub fn render(value: &str) -> Result<String, EnvError> {
    if value.contains(['\0', '\r']) {
        return Err(EnvError::Unwritable("it holds a NUL or a carriage return, which env file readers drop"));
    }
    if value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.,:/@%+-".contains(&b)) {
        return Ok(value.to_owned());
    }
    // bun expands $NAME, ${NAME} and $1 even inside single quotes, and takes the backslash of `\$` away.
    let starts_name = |c: char| c == '{' || c == '_' || c.is_ascii_alphanumeric();
    if value.match_indices('$').any(|(i, _)| value[i + 1..].starts_with(starts_name) || value[..i].ends_with('\\')) {
        return Err(EnvError::Unwritable(
            "it holds `$` before a letter or digit, or after a backslash, which some env file readers replace",
        ));
    }
    // bun reads `\'` as a quote that does not close, and goes on into the next line.
    if value.ends_with('\\') {
        return Err(EnvError::Unwritable(
            "it ends with a backslash, which some env file readers take for part of the quote",
        ));
    }
    if !value.contains('\'') {
        return Ok(format!("'{value}'"));
    }
    if !value.contains(['"', '\\', '$', '`', '\n']) {
        return Ok(format!("\"{value}\""));
    }
    Err(EnvError::Unwritable(
        "it holds a single quote next to one of \" \\ $ ` or a line break, which no form of quoting carries to every reader",
    ))
}

fn parse(text: &str) -> Result<Vec<Entry>, EnvError> {
    let mut entries = Vec::new();
    let mut at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    while at < text.len() {
        let end = line_end(text, at);
        match assignment(&text[at..end]) {
            Some((name, offset)) => {
                let (entry, next) = value(text, name, at + offset, end)?;
                entries.push(entry);
                at = next;
            }
            // Comments, blank lines and what is no assignment: not ours, and no reader makes anything of them.
            None => at = end,
        }
        at += text[at..].find('\n').map_or(text.len() - at, |n| n + 1);
    }
    Ok(entries)
}

/// The name, and where the value begins.
fn assignment(line: &str) -> Option<(&str, usize)> {
    let body = line.trim_start_matches([' ', '\t']);
    let body = match body.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start_matches([' ', '\t']),
        _ => body,
    };
    let (name, rest) = body.split_once('=')?;
    let name = name.trim_end_matches([' ', '\t']);
    let is_name = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let rest = rest.trim_start_matches([' ', '\t']);
    is_name.then(|| (name, line.len() - rest.len()))
}

/// Reads the value that begins at `at` on the line that ends at `end`; answers where reading goes on.
fn value(text: &str, name: &str, at: usize, end: usize) -> Result<(Entry, usize), EnvError> {
    let entry =
        |value: &str, span| Entry { name: name.to_owned(), value: Zeroizing::new(value.replace("\r\n", "\n")), span };
    let line = || text[..at].matches('\n').count() + 1;
    let Some(quote) = text[at..end].chars().next().filter(|c| matches!(c, '\'' | '"' | '`')) else {
        let raw = &text[at..end];
        let raw = raw.split_once('#').map_or(raw, |(before, _)| before).trim_end();
        return Ok((entry(raw, at..at + raw.len()), end));
    };
    let inner = at + 1;
    let Some(length) = closing(&text[inner..], quote) else {
        return Err(EnvError::Line { line: line(), reason: "the quote is not closed" });
    };
    let close = inner + length;
    let rest_end = line_end(text, close + 1);
    let rest = text[close + 1..rest_end].trim();
    if !(rest.is_empty() || rest.starts_with('#')) {
        return Err(EnvError::Line { line: line(), reason: "there is text after the closing quote" });
    }
    Ok((entry(&text[inner..close], at..close + 1), rest_end))
}

/// In double quotes a backslash keeps a quote from closing, though no reader takes the backslash away.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(i, c)| {
        let closes = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        closes.then_some(i)
    })
}

/// Without the line's `\n` or `\r\n`.
fn line_end(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n);
    if text[at..end].ends_with('\r') { end - 1 } else { end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        EnvFile::parse(text.as_bytes()).unwrap().iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn reads_what_the_other_readers_read() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("export A=b\n", "b"),
            ("  export\tA = b  \n", "b"),
            ("\u{feff}A=b\r\n", "b"),
            ("A='b c'\n", "b c"),
            ("A=\"b c\" # comment\n", "b c"),
            ("A=`b 'c' \"d\"`", "b 'c' \"d\""),
            ("A=b # comment", "b"),
            ("A=b#comment", "b"),
            ("A='b#c'", "b#c"),
            ("A='one\ntwo'\nB=x", "one\ntwo"),
            ("A='one\r\ntwo'\r\n", "one\ntwo"),
            ("A=\"a\\\"b\"", "a\\\"b"),
            ("A='$HOME ${HOME} $(id) `id`'", "$HOME ${HOME} $(id) `id`"),
            ("A=$HOME", "$HOME"),
            ("A=1\nA=2", "2"),
            ("A=a=b==", "a=b=="),
        ] {
            let got = EnvFile::parse(text.as_bytes()).unwrap();
            assert_eq!(got.get("A"), Some(value), "{text:?}");
        }
        assert_eq!(read("# A=1\nnot an assignment\n1A=x\n\nB = 2\n"), [("B".to_owned(), "2".to_owned())]);
        assert_eq!(read("exported=1"), [("exported".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn says_the_line_and_not_what_it_holds() {
        let error = |text: &str| EnvFile::parse(text.as_bytes()).err().unwrap();
        assert_eq!(error("A=1\nB='napi_secret\n"), EnvError::Line { line: 2, reason: "the quote is not closed" });
        assert!(matches!(error("A='x'y"), EnvError::Line { line: 1, .. }));
        assert_eq!(EnvFile::parse(b"A=\xff").err().unwrap(), EnvError::NotUtf8(2));
    }

    #[test]
    fn writes_in_place_and_touches_nothing_else() {
        let before = "# mine\r\nexport A='old' # note\r\n\r\nmade by hand, no assignment\r\nB=\"x\"\r\nA = older\r\nC='one\r\ntwo'";
        let mut file = EnvFile::parse(before.as_bytes()).unwrap();
        file.set("A", "new value").unwrap();
        file.set("D", "postgresql://u:p@h/d?sslmode=require&x=1").unwrap();
        assert_eq!(
            file.text(),
            "# mine\r\nexport A='old' # note\r\n\r\nmade by hand, no assignment\r\nB=\"x\"\r\nA = 'new value'\r\nC='one\r\ntwo'\r\n\
             D='postgresql://u:p@h/d?sslmode=require&x=1'\r\n"
        );
        assert_eq!(file.get("D"), Some("postgresql://u:p@h/d?sslmode=require&x=1"));
    }

    #[test]
    fn forms_that_every_reader_takes_and_values_that_have_none() {
        for (value, form) in [
            ("", ""),
            ("0a1B_.,:/@%+-", "0a1B_.,:/@%+-"),
            ("a b", "'a b'"),
            ("a#b", "'a#b'"),
            ("a\"b\\c`d", "'a\"b\\c`d'"),
            ("5$ $", "'5$ $'"),
            ("a'b", "\"a'b\""),
            ("one\ntwo", "'one\ntwo'"),
            ("ünï", "'ünï'"),
            ("=", "'='"),
        ] {
            assert_eq!(render(value).as_deref(), Ok(form));
        }
        for value in ["a\0", "a\rb", "$HOME", "x${A}", "$5", "a\\$ b", "ends\\", "a'b\"c", "a'b\nc", "'$", "'\\"] {
            assert!(render(value).is_err(), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in "\\PC*|[ -~\n]{0,40}", before in "([A-Z]{1,3}=[a-z0-9 #'\"]{0,8}\n){0,4}") {
            let Ok(mut file) = EnvFile::parse(before.as_bytes()) else { return Ok(()) };
            let others: Vec<_> = file.iter().filter(|(n, _)| *n != "MY_KEY").map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            if file.set("MY_KEY", &value).is_ok() {
                let again = EnvFile::parse(file.text().as_bytes()).unwrap();
                prop_assert_eq!(again.get("MY_KEY"), Some(value.as_str()));
                for (n, v) in &others {
                    prop_assert_eq!(again.get(n), Some(v.as_str()));
                }
                file.set("MY_KEY", "second").unwrap();
                let again = EnvFile::parse(file.text().as_bytes()).unwrap();
                prop_assert_eq!(again.get("MY_KEY"), Some("second"));
            }
        }

        #[test]
        fn reading_never_panics_and_spans_are_sound(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut file) = EnvFile::parse(&bytes) {
                let names: Vec<String> = file.iter().map(|(n, _)| n.to_owned()).collect();
                for name in names {
                    file.set(&name, "x").unwrap();
                    prop_assert_eq!(file.get(&name), Some("x"));
                }
            }
        }
    }
}
