//! Text as its reader would decode it, with the way back to where each byte came from. An escape can be written in many ways
//! (`%2f`, `%2F`, `\/`, `\u002f`, `&#47;`, and any character may have one that needs none), so secrets are searched for in what the
//! text means and not in a list of its spellings.
use std::borrow::Cow;
use std::ops::Range;

/// How often a text is decoded: a secret that is escaped twice is found, and the work stays within a fixed multiple of the text.
const DEPTH: usize = 2;

#[derive(Clone, Copy)]
enum Decoder {
    /// `%41`
    Percent,
    /// As in JSON and most languages' strings: `\u0041`, `\x41`, `\/`, `\n`
    Backslash,
    /// `&#65;`, `&#x41;`, `&amp;`
    Entity,
}

const DECODERS: [Decoder; 3] = [Decoder::Percent, Decoder::Backslash, Decoder::Entity];

impl Decoder {
    /// What each of its escapes begins with.
    const fn mark(self) -> u8 {
        match self {
            Self::Percent => b'%',
            Self::Backslash => b'\\',
            Self::Entity => b'&',
        }
    }
}

/// Whether there may be an escape at all: a text without one has no other view.
pub(super) fn has_marks(text: &[u8]) -> bool {
    let [a, b, c] = DECODERS.map(Decoder::mark);
    memchr::memchr3(a, b, c, text).is_some()
}

/// From here on, decoded bytes are the source's own, or those of one escape.
struct Run {
    decoded: usize,
    source: usize,
    escape: bool,
}

pub(super) struct View<'t> {
    pub(super) bytes: Cow<'t, [u8]>,
    /// One list per decoding, the outermost first.
    runs: Vec<std::rc::Rc<[Run]>>,
}

impl<'t> View<'t> {
    pub(super) fn plain(text: &'t [u8]) -> Self {
        Self { bytes: Cow::Borrowed(text), runs: Vec::new() }
    }

    /// Where a range of this view's bytes stands in the text; an escape counts as a whole.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        self.runs.iter().rev().fold(range, |range, runs| {
            let at = |position: usize| &runs[runs.partition_point(|r| r.decoded <= position) - 1];
            let first = at(range.start);
            let start = if first.escape { first.source } else { first.source + range.start - first.decoded };
            let next = runs.partition_point(|r| r.decoded < range.end);
            let last = &runs[next - 1];
            let end = if last.escape { runs[next].source } else { last.source + range.end - last.decoded };
            start..end
        })
    }

    fn decoded(&self, decoder: Decoder) -> Option<View<'static>> {
        let (bytes, runs) = decode(&self.bytes, decoder)?;
        let runs = self.runs.iter().cloned().chain([runs.into()]).collect();
        Some(View { bytes: Cow::Owned(bytes), runs })
    }
}

/// Every way to decode the text, until `stop` has seen enough. Ways that change nothing are left out.
pub(super) fn each<'t>(view: &View<'t>, visit: &mut dyn FnMut(&View<'_>) -> bool) -> bool {
    descend(view, DEPTH, visit)
}

fn descend(view: &View<'_>, depth: usize, visit: &mut dyn FnMut(&View<'_>) -> bool) -> bool {
    depth > 0
        && DECODERS
            .iter()
            .filter_map(|decoder| view.decoded(*decoder))
            .any(|decoded| visit(&decoded) || descend(&decoded, depth - 1, visit))
}

fn decode(text: &[u8], decoder: Decoder) -> Option<(Vec<u8>, Vec<Run>)> {
    let mark = decoder.mark();
    let mut out = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(next) = memchr::memchr(mark, &text[at..]) {
        let here = at + next;
        let escape = match decoder {
            Decoder::Percent => percent(&text[here..]),
            Decoder::Backslash => backslash(&text[here..]),
            Decoder::Entity => entity(&text[here..]),
        };
        let Some((length, meaning)) = escape else {
            at = here + 1;
            continue;
        };
        if here > kept {
            runs.push(Run { decoded: out.len(), source: kept, escape: false });
            out.extend_from_slice(&text[kept..here]);
        }
        runs.push(Run { decoded: out.len(), source: here, escape: true });
        let mut buffer = [0; 4];
        match meaning {
            Meaning::Byte(byte) => out.push(byte),
            Meaning::Char(c) => out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
        }
        kept = here + length;
        at = kept;
    }
    if runs.is_empty() {
        return None;
    }
    runs.push(Run { decoded: out.len(), source: kept, escape: false });
    out.extend_from_slice(&text[kept..]);
    Some((out, runs))
}

enum Meaning {
    Byte(u8),
    Char(char),
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, d| n.checked_mul(16)?.checked_add((*d as char).to_digit(16)?))
}

fn percent(text: &[u8]) -> Option<(usize, Meaning)> {
    let byte = hex(text.get(1..3)?)?;
    Some((3, Meaning::Byte(u8::try_from(byte).ok()?)))
}

fn backslash(text: &[u8]) -> Option<(usize, Meaning)> {
    let byte = |b| Some((2, Meaning::Byte(b)));
    match text.get(1)? {
        b'n' => byte(b'\n'),
        b't' => byte(b'\t'),
        b'r' => byte(b'\r'),
        b'b' => byte(8),
        b'f' => byte(12),
        b'x' => Some((4, Meaning::Byte(u8::try_from(hex(text.get(2..4)?)?).ok()?))),
        b'u' => {
            let first = hex(text.get(2..6)?)?;
            if let Some(c) = char::from_u32(first) {
                return Some((6, Meaning::Char(c)));
            }
            // The first half of a pair.
            let second = text.get(6..12).filter(|t| t.starts_with(b"\\u")).and_then(|t| hex(&t[2..]))?;
            let pair = [u16::try_from(first).ok()?, u16::try_from(second).ok()?];
            char::decode_utf16(pair).next()?.ok().map(|c| (12, Meaning::Char(c)))
        }
        other if other.is_ascii_punctuation() => byte(*other),
        _ => None,
    }
}

fn entity(text: &[u8]) -> Option<(usize, Meaning)> {
    /// Digits of the largest code point, with some zeros before.
    const LONGEST: usize = 12;
    let end = text.iter().take(LONGEST).position(|b| *b == b';')?;
    let name = &text[1..end];
    let c = match name {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        [b'#', b'x' | b'X', digits @ ..] if !digits.is_empty() => char::from_u32(hex(digits)?)?,
        [b'#', digits @ ..] => char::from_u32(std::str::from_utf8(digits).ok()?.parse().ok()?)?,
        _ => return None,
    };
    Some((end + 1, Meaning::Char(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str, decoder: Decoder) -> Option<String> {
        decode(text.as_bytes(), decoder).map(|(bytes, _)| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn escapes_are_read_and_what_is_none_is_left() {
        for (text, decoder, meaning) in [
            ("a%2Fb%2fc", Decoder::Percent, Some("a/b/c")),
            ("%41%c3%A4%", Decoder::Percent, Some("Aä%")),
            ("100% %zz %2", Decoder::Percent, None),
            (r#"\u0041\x42\/\"\\\n"#, Decoder::Backslash, Some("AB/\"\\\n")),
            (r"\ud83d\ude00 \u00e4", Decoder::Backslash, Some("\u{1f600} ä")),
            (r"\ud83d \u12 \q \", Decoder::Backslash, None),
            ("&#65;&#x42;&amp;&lt;", Decoder::Entity, Some("AB&<")),
            ("a & b &nbsp; &#; &#xzz;", Decoder::Entity, None),
        ] {
            assert_eq!(decoded(text, decoder).as_deref(), meaning, "{text}");
        }
    }

    #[test]
    fn ranges_find_their_way_back() {
        let text = r"ab%41cd\u0042%25\u003434ef";
        let mut seen = Vec::new();
        each(&View::plain(text.as_bytes()), &mut |view| {
            let decoded = String::from_utf8(view.bytes.to_vec()).unwrap();
            for literal in ["ab", "cd", "ef"] {
                let at = decoded.find(literal).unwrap();
                assert_eq!(&text[view.origin(at..at + 2)], literal, "{decoded}");
            }
            assert_eq!(view.origin(0..decoded.len()), 0..text.len());
            seen.push(decoded);
            false
        });
        assert!(seen.contains(&"abAcdB%434ef".to_owned()), "{seen:?}");
        // Twice decoded: the second escape is made of parts of the first ones.
        let text = r"x\u00254\u0031y";
        let once = View::plain(text.as_bytes()).decoded(Decoder::Backslash).unwrap();
        let twice = once.decoded(Decoder::Percent).unwrap();
        assert_eq!(twice.bytes.as_ref(), b"xAy");
        assert_eq!(twice.origin(1..2), 1..text.len() - 1);
        let view = View::plain(b"x%41y").decoded(Decoder::Percent).unwrap();
        assert_eq!((view.origin(1..2), view.origin(0..3), view.origin(2..3)), (1..4, 0..5, 4..5));
        // Half of an escape's bytes is the whole escape.
        let view = View::plain(r"\u00e4!".as_bytes()).decoded(Decoder::Backslash).unwrap();
        assert_eq!((view.origin(0..1), view.origin(1..2), view.origin(2..3)), (0..6, 0..6, 6..7));
    }
}
