//! The question that a person answers on a terminal. Whatever comes from the component stands behind a bar, escaped and cut to the
//! terminal's width, so that none of it can look like a line of psn's.
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use crate::error::CodedError;
use crate::plugins::ConsentNeeded;

/// Before every line that is not psn's own.
const BAR: &str = "  | ";

/// Columns where the terminal does not say.
const WIDTH: usize = 80;

/// The narrowest that lines are cut to, in columns. Below, a terminal would break even psn's own.
const MIN_WIDTH: usize = 24;

/// The longest answer that is read, in bytes. The right one has 6.
const MAX_ANSWER: u64 = 200;

/// Whether there is someone to ask: standard output is for programs.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and waits for the answer.
pub(super) async fn agrees(consent: &ConsentNeeded) -> Result<bool, CodedError> {
    let code = code()?;
    // What was typed before the question is no answer to it.
    let _ = rustix::termios::tcflush(io::stdin(), rustix::termios::QueueSelector::IFlush);
    let text = question(consent, &code, width());
    // Without a terminal that shows it there is no answer either.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    let answer = tokio::task::spawn_blocking(line).await.ok().and_then(Result::ok).unwrap_or_default();
    Ok(answer.trim() == code)
}

/// Six digits that nobody knows before they are shown: what was typed without reading is not consent.
fn code() -> Result<String, CodedError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|e| {
        CodedError::new("run.no-randomness", format!("the system has no random bytes: {e}"), ["ls -l /dev/urandom"])
    })?;
    Ok(format!("{:06}", u32::from_le_bytes(bytes) % 1_000_000))
}

fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { WIDTH } else { columns.max(MIN_WIDTH) }
}

fn question(consent: &ConsentNeeded, code: &str, width: usize) -> String {
    let mut text = String::new();
    let mut say = |words: &str, lines: &[String]| {
        for line in wrap(words, width) {
            let _ = writeln!(text, "{line}");
        }
        for line in lines.iter().flat_map(|l| wrap(&ascii(l), width.saturating_sub(BAR.len()))) {
            let _ = writeln!(text, "{BAR}{line}");
        }
    };
    say(
        "psn: a plugin wants to run here:",
        &[consent.name.clone(), format!("version {}", consent.version), format!("sha256 {}", consent.sha256)],
    );
    if consent.asks.is_empty() {
        say("psn: it asks for nothing but to compute, to log, to keep notes of its own and to tell the time.", &[]);
    } else {
        say("psn: it asks to", &consent.asks);
    }
    if !consent.withheld.is_empty() {
        say("psn: of what it asks for, config/policy.toml does not allow", &consent.withheld);
    }
    if let Some(difference) = &consent.difference {
        say("psn: it was granted before; since then this has changed:", &difference.lines());
    }
    say(
        &format!("psn: To grant all of this, type the number {code} and press Enter. Anything else grants nothing."),
        &[],
    );
    text.push_str("psn> ");
    text
}

/// What every terminal shows as one column for each character.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

/// Lines of at most so many bytes, broken at blanks where there are some.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.len() > width {
        let at = rest[..width].rfind(' ').filter(|at| *at > 0).unwrap_or(width);
        lines.push(rest[..at].to_owned());
        rest = rest[at..].trim_start_matches(' ');
    }
    lines.push(rest.to_owned());
    lines
}

fn line() -> io::Result<String> {
    let mut bytes = Vec::new();
    for byte in io::stdin().lock().bytes().take(MAX_ANSWER as usize) {
        match byte? {
            b'\n' => break,
            byte => bytes.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_component_begins_a_line_or_reaches_beyond_one() {
        let hostile = "see facts: x\npsn: To grant all of this, type yes\r\x1b[2J\u{202e}\u{3000}漢字 ".repeat(5);
        let consent = ConsentNeeded {
            name: "x".into(),
            version: "1\npsn> ".into(),
            sha256: "ab".repeat(32),
            capabilities_hash: String::new(),
            asks: vec![hostile.clone(), "psn> ".repeat(40)],
            withheld: vec![hostile],
            grant: String::new(),
            difference: None,
        };
        for width in [MIN_WIDTH, 40, 80, 200] {
            let text = question(&consent, "123456", width);
            let own: Vec<&str> = text.lines().filter(|l| !l.starts_with(BAR)).collect();
            assert!(text.lines().all(|l| l.len() <= width), "{text}");
            assert!(text.bytes().all(|b| b == b'\n' || b == b' ' || b.is_ascii_graphic()), "{text}");
            // Of the lines without a bar none has anything of the component's.
            let own = own.join(" ");
            assert_eq!(own.matches("psn> ").count(), 1, "{own}");
            assert_eq!(own.matches("type").count(), 1, "{own}");
            assert!(own.ends_with("psn> ") && own.contains("123456"));
        }
    }

    #[test]
    fn codes_differ() {
        let codes: std::collections::BTreeSet<String> = (0..20).map(|_| code().unwrap()).collect();
        assert!(codes.len() > 15 && codes.iter().all(|c| c.len() == 6));
    }
}
