//! Whether a statement uses a column, told by its text: views and procedures are kept as they were written.
//!
//! It may say that a statement does which doesn't (the name may be another table's column, or an alias), never the other
//! way round.

use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::syntax::{is_blank, tokenize};
use crate::error::SqlError;

/// Words behind a table's name, before a parenthesis, that are no alias of it.
const NO_ALIASES: [&str; 9] = ["USING", "ON", "WHERE", "VALUES", "SET", "AND", "OR", "NOT", "IN"];

/// Whether a statement which reads or writes the table may need one of its columns.
pub(super) fn mentions(sql: &str, table: &str, column: &str) -> Result<bool, SqlError> {
    let tokens = tokenize(sql)?;
    let tokens = tokens.iter().filter(|token| !is_blank(token));
    let tokens: Vec<&Token> = tokens.map(|placed| &placed.token).collect();
    let is = |at: usize, name: &str| word_at(&tokens, at).is_some_and(|word| is_named(word, name));
    // What it reads of a view is the view's.
    if !(0..tokens.len()).any(|at| is(at, table)) {
        return Ok(false);
    }
    Ok((0..tokens.len()).any(|at| {
        is(at, column)
            || is_star(&tokens, at)
            || is_keyword(&tokens, at, &["NATURAL", "TABLE"])
            || is(at, table) && is_by_place(&tokens, at)
    }))
}

fn is_named(word: &Word, name: &str) -> bool {
    match word.quote_style {
        Some(_) => word.value == name,
        None => word.value.to_lowercase() == name,
    }
}

fn word_at<'t>(tokens: &[&'t Token], at: usize) -> Option<&'t Word> {
    match tokens.get(at)? {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn is_keyword(tokens: &[&Token], at: usize, keywords: &[&str]) -> bool {
    let unquoted = word_at(tokens, at).filter(|word| word.quote_style.is_none());
    unquoted.is_some_and(|word| keywords.iter().any(|keyword| word.value.eq_ignore_ascii_case(keyword)))
}

/// `*` that stands for columns: not that of `count(*)`, nor of a product.
fn is_star(tokens: &[&Token], at: usize) -> bool {
    if *tokens[at] != Token::Mul {
        return false;
    }
    let Some(before) = at.checked_sub(1) else {
        return true;
    };
    match tokens[before] {
        Token::Comma | Token::Period => true,
        // DISTINCT ON (...) *
        Token::RParen => is_keyword(tokens, at + 1, &["FROM"]) || tokens.get(at + 1) == Some(&&Token::Comma),
        _ => is_keyword(tokens, before, &["SELECT", "DISTINCT", "ALL", "RETURNING"]),
    }
}

/// The table's columns are used in their order, by nothing but their places.
fn is_by_place(tokens: &[&Token], table: usize) -> bool {
    let has_schema = table > 0 && *tokens[table - 1] == Token::Period;
    let before = table.checked_sub(if has_schema { 3 } else { 1 });
    let has_as = is_keyword(tokens, table + 1, &["AS"]);
    // `INSERT INTO table [AS alias]`, without names.
    if before.is_some_and(|before| is_keyword(tokens, before, &["INTO"])) {
        let names = table + if has_as { 3 } else { 1 };
        return tokens.get(names) != Some(&&Token::LParen);
    }
    // `table [AS] alias (names)`.
    let alias = table + if has_as { 2 } else { 1 };
    word_at(tokens, alias).is_some()
        && !is_keyword(tokens, alias, &NO_ALIASES)
        && tokens.get(alias + 1) == Some(&&Token::LParen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(sql: &str) -> bool {
        mentions(sql, "t", "c").expect("a text")
    }

    #[test]
    fn a_name_or_a_star_is_a_use() {
        for sql in [
            "SELECT c FROM t",
            "SELECT x.C FROM t x",
            "SELECT \"c\" FROM t",
            "SELECT a FROM t WHERE c > 1",
            "SELECT * FROM t",
            "SELECT a, t.* FROM t",
            "SELECT 1, * FROM t",
            "SELECT DISTINCT ON (a) * FROM t",
            "SELECT a FROM t JOIN u USING (c)",
            "SELECT a FROM t NATURAL JOIN u",
            "SELECT x FROM t AS y (x, z)",
            "SELECT x FROM t y (x, z)",
            "TABLE t",
            "INSERT INTO t VALUES (1, 2)",
            "INSERT INTO public.t VALUES (1, 2)",
            "INSERT INTO t AS n VALUES (1, 2)",
            "INSERT INTO t (a, c) VALUES (1, 2)",
            "UPDATE t SET c = 1",
            "DELETE FROM t WHERE a = 1 RETURNING *",
        ] {
            assert!(uses(sql), "{sql}");
        }
    }

    #[test]
    fn what_names_neither_is_none() {
        for sql in [
            "SELECT a FROM t",
            "SELECT count(*) FROM t",
            "SELECT a * b, (a) * 2 FROM t",
            "SELECT * FROM other_view",
            "SELECT 'c' FROM t -- c",
            "SELECT a FROM t JOIN u USING (a)",
            "SELECT a FROM u JOIN t ON (t.a = u.a)",
            "INSERT INTO t (a) VALUES (1)",
            "INSERT INTO t AS n (a) VALUES (1)",
            "UPDATE t SET a = 1",
            "SELECT \"C\" FROM t",
        ] {
            assert!(!uses(sql), "{sql}");
        }
    }
}
