//! A migration file as statements, each a row of words: enough to recognise what it does, and blind to what stands in comments,
//! strings and function bodies.
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

pub(super) struct Statement {
    /// Counted from 1.
    pub(super) line: u64,
    /// Unquoted words in capitals, quoted ones as they are, punctuation by itself; strings as `'…'`.
    pub(super) words: Vec<String>,
    /// Of `-- psn:allow RULE because …` above it.
    pub(super) allowed: Vec<String>,
}

impl Statement {
    pub(super) fn starts(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(a, b)| a == b)
    }

    pub(super) fn find(&self, words: &[&str]) -> Option<usize> {
        self.words.windows(words.len()).position(|w| w.iter().zip(words).all(|(a, b)| a == b))
    }

    pub(super) fn has(&self, words: &[&str]) -> bool {
        self.find(words).is_some()
    }

    /// The name at a place, without its schema, in small letters; `None` where the schema is not public.
    pub(super) fn table_at(&self, at: usize) -> Option<String> {
        let mut at = at;
        for skipped in ["ONLY", "IF", "NOT", "EXISTS"] {
            at += usize::from(self.words.get(at).is_some_and(|w| w == skipped));
        }
        let first = self.words.get(at)?;
        if self.words.get(at + 1).is_some_and(|w| w == ".") {
            let name = self.words.get(at + 2)?;
            return (first == "PUBLIC").then(|| name.to_lowercase());
        }
        Some(first.to_lowercase())
    }
}

/// `Err`: the line where it stops being SQL.
pub(super) fn statements(sql: &str) -> Result<Vec<Statement>, (u64, String)> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|e| (e.location.line, e.message))?;
    let mut all = Vec::new();
    let mut current = Statement { line: 0, words: Vec::new(), allowed: Vec::new() };
    for token in tokens {
        let word = match token.token {
            Token::SemiColon => {
                if !current.words.is_empty() {
                    all.push(std::mem::replace(
                        &mut current,
                        Statement { line: 0, words: Vec::new(), allowed: Vec::new() },
                    ));
                }
                continue;
            }
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => {
                current.allowed.extend(allowance(&comment));
                continue;
            }
            Token::Whitespace(_) | Token::EOF => continue,
            Token::Word(w) if w.quote_style.is_some() => w.value,
            Token::Word(w) => w.value.to_uppercase(),
            Token::SingleQuotedString(s) => format!("'{s}'"),
            Token::DollarQuotedString(_) => "$$".to_owned(),
            other => other.to_string(),
        };
        if current.words.is_empty() {
            current.line = token.span.start.line;
        }
        current.words.push(word);
    }
    if !current.words.is_empty() {
        all.push(current);
    }
    Ok(all)
}

/// The rule that a comment allows; it must say why.
fn allowance(comment: &str) -> Option<String> {
    let rest = comment.trim().strip_prefix("psn:allow ")?;
    let (rule, reason) = rest.trim().split_once(' ')?;
    (!reason.trim().is_empty()).then(|| rule.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_bodies_are_no_statements() {
        let sql = "-- DROP TABLE a;\nSELECT 'DROP TABLE b;';\nDO $$ BEGIN DROP TABLE c; END $$;\n/* DROP TABLE d; */ create table public.\"Odd\" (a int)";
        let all = statements(sql).unwrap();
        assert_eq!(all.iter().map(|s| s.line).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(!all.iter().any(|s| s.has(&["DROP", "TABLE"])));
        assert_eq!(all[2].table_at(2).as_deref(), Some("odd"));
    }

    #[test]
    fn an_allowance_needs_a_reason() {
        let of = |sql: &str| statements(sql).unwrap()[0].allowed.clone();
        assert_eq!(of("-- psn:allow index-not-concurrent the table is small\nSELECT 1"), ["index-not-concurrent"]);
        assert!(of("-- psn:allow index-not-concurrent\nSELECT 1").is_empty());
    }
}
