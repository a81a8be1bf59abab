//! What must hold for any statement that a guest writes: what passes is read once more, by a reader that knows Postgres's lexical
//! rules and nothing of the parser.
use super::allowed::FUNCTIONS;
use super::policy::Policy;
use crate::plugins::manifest::Manifest;

const MANIFEST: &str = "[plugin]\nname = \"x\"\nversion = \"0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"\"\n[db]\n\
    \"posts\" = { select = [\"id\", \"content\"], update = [\"content\"] }\n\
    \"notes\" = { select = [\"id\"], insert = [\"id\"], update = [\"id\"], delete = true }\n\
    \"psn.touch(int)\" = { execute = true }\n";

/// Words that a `(` can follow without a function being called.
const BEFORE_BRACKETS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "by",
    "case",
    "cast",
    "conflict",
    "cube",
    "decimal",
    "distinct",
    "else",
    "except",
    "exists",
    "extract",
    "filter",
    "float",
    "from",
    "having",
    "ilike",
    "in",
    "intersect",
    "interval",
    "is",
    "join",
    "lateral",
    "like",
    "limit",
    "materialized",
    "not",
    "numeric",
    "offset",
    "on",
    "or",
    "over",
    "overlaps",
    "returning",
    "rollup",
    "select",
    "set",
    "sets",
    "some",
    "then",
    "time",
    "timestamp",
    "union",
    "update",
    "using",
    "values",
    "varchar",
    "varying",
    "when",
    "where",
    "with",
    "within",
    "zone",
    "ceil",
    "floor",
    "position",
    "substring",
    "trim",
    "both",
    "leading",
    "trailing",
    "for",
    "of",
    "key",
    "share",
    "nothing",
    "do",
    "group",
    "order",
    "partition",
    "window",
    "then",
];

#[derive(Debug, PartialEq)]
enum Lexeme {
    /// Folded where it is not quoted.
    Word {
        text: String,
        quoted: bool,
    },
    String,
    Number,
    Mark(char),
}

/// As Postgres does with `standard_conforming_strings`; None where it would see a comment, a statement's end or an escape.
fn lex(sql: &str) -> Option<Vec<Lexeme>> {
    let mut lexemes = Vec::new();
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\n' | '\t' | '\r' => {}
            '\'' | '"' => {
                let mut text = String::new();
                loop {
                    match chars.next()? {
                        q if q == c && chars.peek() == Some(&c) => {
                            chars.next();
                            text.push(c);
                        }
                        q if q == c => break,
                        other => text.push(other),
                    }
                }
                lexemes.push(if c == '"' { Lexeme::Word { text, quoted: true } } else { Lexeme::String });
            }
            '$' => {
                let mut digits = 0;
                while chars.next_if(char::is_ascii_digit).is_some() {
                    digits += 1;
                }
                // A parameter, or the beginning of a string in dollars.
                (digits > 0).then_some(())?;
                lexemes.push(Lexeme::Number);
            }
            '0'..='9' => {
                while chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {}
                lexemes.push(Lexeme::Number);
            }
            c if c == '_' || c.is_ascii_alphabetic() || !c.is_ascii() => {
                let mut text = c.to_string();
                while let Some(c) =
                    chars.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii())
                {
                    text.push(c);
                }
                // E'…', B'…', X'…', N'…', U&'…': strings with rules of their own.
                if chars.peek() == Some(&'\'') || (text.eq_ignore_ascii_case("u") && chars.peek() == Some(&'&')) {
                    return None;
                }
                text.make_ascii_lowercase();
                lexemes.push(Lexeme::Word { text, quoted: false });
            }
            '-' if chars.peek() == Some(&'-') => return None,
            '/' if chars.peek() == Some(&'*') => return None,
            ';' | '\\' => return None,
            other => lexemes.push(Lexeme::Mark(other)),
        }
    }
    Some(lexemes)
}

pub(crate) fn sql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let manifest = Manifest::parse(MANIFEST.as_bytes()).expect("this manifest is one");
    let mut policy = Policy::new(&manifest.db);
    let Ok(sent) = policy.check(text) else { return };
    assert_eq!(Policy::new(&manifest.db).check(&sent).ok().as_deref(), Some(sent.as_str()), "it means what it meant");
    assert_eq!(policy.check(text).ok().as_deref(), Some(sent.as_str()), "asked twice");
    let lexemes = lex(&sent).unwrap_or_else(|| panic!("Postgres would read it otherwise: {sent}"));

    let begins = lexemes.iter().find(|l| **l != Lexeme::Mark('('));
    let begins =
        begins.and_then(|l| if let Lexeme::Word { text, quoted: false } = l { Some(text.as_str()) } else { None });
    assert!(matches!(begins, Some("select" | "insert" | "update" | "delete" | "with" | "values")), "{sent}");

    for (i, lexeme) in lexemes.iter().enumerate() {
        let Lexeme::Word { text, quoted } = lexeme else { continue };
        assert!(!text.to_ascii_lowercase().starts_with("pg_"), "{sent}");
        let before = i.checked_sub(1).map(|b| &lexemes[b]);
        let called = lexemes.get(i + 1) == Some(&Lexeme::Mark('('));
        if !called || (!quoted && (BEFORE_BRACKETS.contains(&text.as_str()) || FUNCTIONS.contains(&text.as_str()))) {
            continue;
        }
        // What remains is a table with a list of columns (INSERT INTO notes (…)), an alias with one (AS x (…)), a WITH, or granted.
        let own = matches!(text.as_str(), "posts" | "notes");
        let touch = text == "touch" && before == Some(&Lexeme::Mark('.'));
        let alias = match before {
            Some(Lexeme::Word { text, quoted }) => {
                *quoted || text == "as" || text == "with" || !BEFORE_BRACKETS.contains(&text.as_str())
            }
            Some(Lexeme::Mark(')')) => true,
            // The second name of a WITH, or of a WINDOW.
            Some(Lexeme::Mark(',')) => {
                sent.to_ascii_lowercase().contains("with ") || sent.to_ascii_lowercase().contains("window ")
            }
            _ => false,
        };
        assert!(own || touch || alias, "{text} is called in: {sent}");
    }
}
