//! The filter that every byte passes on its way to a guest or an output: it knows each live secret in its plain and derived forms.
mod forms;
mod sieve;
#[cfg(test)]
mod tests;
mod views;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use self::forms::Forms;
use self::sieve::Sieve;
use self::views::View;
use crate::secret::Secret;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Values shorter than this are not searched for: they would blot out ordinary text. Bytes. Psn makes none, captures none, and takes
/// none as a key; one that a person writes into an env file by hand is not protected by this filter.
pub const MIN_REDACTED_LEN: usize = 8;

/// How often what was cleaned is looked at again. A text that still holds a secret then is replaced as a whole.
const ROUNDS: usize = 3;

/// All live secrets, in every form in which they may appear.
#[derive(Default)]
pub struct Redactor {
    known: RwLock<Arc<Known>>,
}

#[derive(Clone, Default)]
struct Known {
    forms: Forms,
    search: Option<Arc<Search>>,
}

struct Search {
    /// Says of most texts, without reading all of them, that neither finds anything.
    sieve: Sieve,
    /// Says quickly that there is nothing: the answer for nearly every text.
    any: AhoCorasick,
    /// Says where, also where secrets overlap.
    all: AhoCorasick,
    hex: AhoCorasick,
}

impl Redactor {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the value is replaced wherever it appears: plain, base64 (three offsets, both alphabets), hex, and, where it is a
    /// URL, its password and `user:password` part; each also with any of its characters percent-encoded, backslash-escaped as in
    /// JSON, or written as an entity, up to twice.
    pub fn register(&self, secret: &Secret) {
        self.register_all([secret]);
    }

    /// The same for several. What finds them is built anew, once for all of them, where one is new.
    pub fn register_all<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) {
        let mut forms = Forms::default();
        secrets.into_iter().for_each(|secret| forms.add(secret.expose()));
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.forms.has(&forms) {
            return;
        }
        let known = Arc::make_mut(&mut known);
        known.forms.join(forms);
        known.search = Some(Arc::new(Search::new(&known.forms)));
    }

    /// A filter that knows what this one knows; what it learns from here on is its own. Costs nothing before it learns something.
    pub fn fork(&self) -> Self {
        Self { known: RwLock::new(Arc::clone(&self.read())) }
    }

    /// Whether any form of a live secret is in there.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        let known = self.read();
        let Some(search) = &known.search else { return false };
        let plain = View::plain(bytes);
        search.finds(bytes) || views::each(&plain, &mut |view| search.finds(&view.bytes))
    }

    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Forms begin and end with whole characters, so what is left does too.
            Cow::Owned(clean) => Cow::Owned(
                String::from_utf8(clean).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
            ),
        }
    }

    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let spans = self.spans(bytes);
        if spans.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut clean = without(bytes, spans);
        // What is left can read otherwise than before: a secret that ended in `\\` had kept what follows from being an escape.
        for _ in 0..ROUNDS {
            let spans = self.spans(&clean);
            if spans.is_empty() {
                return Cow::Owned(clean);
            }
            clean = without(&clean, spans);
        }
        Cow::Owned(REDACTED.as_bytes().to_vec())
    }

    /// Where secrets stand: in order, and apart from each other.
    fn spans(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let known = self.read();
        let Some(search) = &known.search else { return Vec::new() };
        if search.has_nothing(bytes) {
            return Vec::new();
        }
        let mut spans = Vec::new();
        let plain = View::plain(bytes);
        search.locate(&plain, &mut spans);
        views::each(&plain, &mut |view| {
            search.locate(view, &mut spans);
            false
        });
        spans.sort_unstable_by_key(|s| (s.start, s.end));
        let mut apart: Vec<Range<usize>> = Vec::new();
        for span in spans {
            match apart.last_mut() {
                Some(last) if span.start < last.end => last.end = last.end.max(span.end),
                _ => apart.push(span),
            }
        }
        apart
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Arc<Known>> {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn without(bytes: &[u8], spans: Vec<Range<usize>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut kept = 0;
    for span in spans {
        out.extend_from_slice(&bytes[kept..span.start]);
        out.extend_from_slice(REDACTED.as_bytes());
        kept = span.end;
    }
    out.extend_from_slice(&bytes[kept..]);
    out
}

impl Search {
    fn new(forms: &Forms) -> Self {
        // Without the filter nothing may go on. It fits some 100,000 secrets.
        let fits = "the secrets' forms fit an automaton";
        // Not the faster kind that has a table of 256 entries for each byte of a secret: that takes seconds to fill.
        let builder = || {
            let mut builder = AhoCorasick::builder();
            builder.kind(Some(AhoCorasickKind::ContiguousNFA));
            builder
        };
        Self {
            sieve: Sieve::new(forms.exact.iter().chain(&forms.any_case)),
            any: builder().match_kind(MatchKind::LeftmostFirst).build(&forms.exact).expect(fits),
            all: builder().build(&forms.exact).expect(fits),
            hex: builder().ascii_case_insensitive(true).build(&forms.any_case).expect(fits),
        }
    }

    /// Of nearly every text this is all that is asked.
    fn has_nothing(&self, bytes: &[u8]) -> bool {
        !self.sieve.passes(bytes) && !views::has_marks(bytes)
    }

    fn finds(&self, bytes: &[u8]) -> bool {
        self.sieve.passes(bytes) && (self.any.is_match(bytes) || self.hex.is_match(bytes))
    }

    fn locate(&self, view: &View<'_>, spans: &mut Vec<Range<usize>>) {
        if !self.sieve.passes(&view.bytes) {
            return;
        }
        if self.any.is_match(view.bytes.as_ref()) {
            spans.extend(self.all.find_overlapping_iter(view.bytes.as_ref()).map(|m| view.origin(m.range())));
        }
        if self.hex.is_match(view.bytes.as_ref()) {
            spans.extend(self.hex.find_overlapping_iter(view.bytes.as_ref()).map(|m| view.origin(m.range())));
        }
    }
}
