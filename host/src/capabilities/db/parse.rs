//! From text to one statement, with work and depth that are bounded before the parser begins: nothing ends it once it runs.
use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::fault::Fault;

/// How deep a statement may nest: the walk over it must fit the stack.
const MAX_DEPTH: usize = 50;
/// Words and operators of one statement, of which each may make it one deeper without brackets: `1 + 1 + 1`. Values, parameters and
/// commas are not counted. The longest first-party statement has about 90.
const MAX_WORDS: usize = 500;
/// `position(` of one statement: the parser reads what is in it twice, once as `position(a IN b)` and once as a call, and so each one
/// within another doubles its work. `strpos(b, a)` is the same without.
const MAX_POSITIONS: usize = 3;

pub(super) fn parse(sql: &str) -> Result<Statement, Fault> {
    let unreadable = |e: ParserError| Fault::Denied(format!("the statement cannot be read: {e}"));
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|e| unreadable(e.into()))?;
    if tokens.iter().filter(|t| deepens(&t.token)).count() > MAX_WORDS {
        return Err(Fault::Denied(format!(
            "a statement has at most {MAX_WORDS} words and operators: give lists as one array parameter"
        )));
    }
    if positions(&tokens) > MAX_POSITIONS {
        return Err(Fault::Denied(format!("a statement has `position(` at most {MAX_POSITIONS} times: write strpos")));
    }
    let parsed =
        Parser::new(&dialect).with_recursion_limit(MAX_DEPTH).with_tokens_with_locations(tokens).parse_statements();
    let mut statements = parsed.map_err(unreadable)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(Fault::Denied("one statement at a time: for several, use a transaction".to_owned())),
    }
}

/// How often `position` is followed by a bracket. Elsewhere it is a name like others.
fn positions(tokens: &[TokenWithSpan]) -> usize {
    let mut solid = tokens.iter().map(|t| &t.token).filter(|t| !matches!(t, Token::Whitespace(_))).peekable();
    let mut count = 0;
    while let Some(token) = solid.next() {
        let is_position = matches!(token, Token::Word(word) if word.keyword == Keyword::POSITION);
        count += usize::from(is_position && matches!(solid.peek(), Some(Token::LParen)));
    }
    count
}

/// Brackets are counted as the parser goes, with [`MAX_DEPTH`].
fn deepens(token: &Token) -> bool {
    !matches!(
        token,
        Token::Whitespace(_)
            | Token::Comma
            | Token::LParen
            | Token::RParen
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
    )
}
