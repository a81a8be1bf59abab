//! Text that crosses the border between a guest and the rest of the world: without live secrets, without what steers a terminal,
//! and no longer than its place allows.
use std::borrow::Cow;

use super::Call;
use crate::events::Level;

/// How many places where a secret was stopped are told apart in one call. Beyond that the picture does not change.
const MAX_LEAKS: usize = 16;

/// What stands where a text was cut.
const CUT: &str = "…";

impl Call {
    /// Replaces live secrets in `text`, and says so once for each `place`.
    pub(crate) fn redact<'t>(&mut self, place: &str, text: &'t str) -> Cow<'t, str> {
        let redactor = self.redactor.clone();
        let clean = redactor.redact(text);
        if matches!(clean, Cow::Owned(_)) {
            self.leaked(place);
        }
        clean
    }

    /// Notes that a secret was stopped at `place`.
    pub(crate) fn leaked(&mut self, place: &str) {
        if self.leaks.len() < MAX_LEAKS && !self.leaks.iter().any(|p| p == place) {
            self.leaks.push(place.to_owned());
            self.events.log(Level::Warn, &self.plugin, format!("a secret was replaced in: {place}"));
        }
    }

    /// A word of the host's about this plugin.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.events.log(Level::Warn, &self.plugin, message);
    }

    /// What a guest says to people: without control characters and live secrets, at most `max` bytes.
    pub(crate) fn spoken(&mut self, place: &str, text: &str, max: usize) -> String {
        // Control characters go first: they could be what keeps a secret from being found.
        let text = printable(text);
        cut(&self.redact(place, &text), max).into_owned()
    }
}

/// Without escape sequences and control characters, except line ends and tabs, and without the characters that reorder text.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // A control sequence ends with its first byte in this range.
                Some('[') => {
                    chars.find(|c| ('\u{40}'..='\u{7e}').contains(c));
                }
                // An operating system command (titles, links) and its like end with BEL or ESC \.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || c == '\u{9c}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\r' => {
                // A lone carriage return would let a later part of the line overwrite it.
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            c if is_unprintable(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// At most `max` bytes, cut between characters.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max.saturating_sub(CUT.len()));
    Cow::Owned(format!("{}{CUT}", &text[..end]))
}

/// A guest's text inside an error message: quoted, escaped, short.
pub(crate) fn quoted(text: &str) -> String {
    /// Bytes. Enough to recognise what was meant.
    const MAX: usize = 200;
    // Nor does it end the quotes.
    format!("`{}`", cut(&text.escape_debug().to_string().replace('`', "\\u{60}"), MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        for (text, clean) in [
            ("plain", "plain"),
            ("two\nlines\twith tab", "two\nlines\twith tab"),
            ("\u{1b}[2J\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x\u{1b}]8;;http://e\u{1b}\\y", "xy"),
            ("overwrite\rme\r\n", "overwrite\nme\n"),
            ("a\u{0}b\u{8}c\u{7f}d\u{9b}2Je", "abcd2Je"),
            ("rtl \u{202e}txet", "rtl txet"),
            ("never ends \u{1b}[", "never ends "),
            ("never ends \u{1b}]8;;x", "never ends "),
        ] {
            assert_eq!(printable(text), clean, "{text:?}");
        }
    }

    #[test]
    fn a_quoted_text_cannot_end_its_quotes() {
        assert_eq!(quoted("a` is fine; run `rm"), "`a\\u{60} is fine; run \\u{60}rm`");
        assert_eq!(quoted("\u{202e}\n"), "`\\u{202e}\\n`");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "lo…");
        assert_eq!(cut("äöü", 5), "ä…");
        assert_eq!(cut("abc", 0), "…");
    }
}
