//! From text to statements: PostgreSQL's dialect by sqlparser, and the few clauses that are ours.
//!
//! `CREATE TABLE ... [PARTITION BY (column) | REPLICATED] [WITH REPLICATION = n [MODE sync]] [USING TTL n SECONDS ON COLUMN c]`,
//! `ALTER TABLE ... USING TTL`, `CREATE REPLICATION LINK ...`, `RECOVER NODE n`, `DRAIN NODE n`, `PROMOTE`.

use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use volt_engine::NodeId;

use super::complexity::{check_depth, check_relations};
use super::links::LinkPlan;
use super::recover::{self, RecoverNode};
use super::sequence::Overriding;
use super::ttl::{TtlClause, TtlPlan};
use crate::error::SqlError;
use crate::metadata::map::ReplicationMode;

/// Backups of a table that names no REPLICATION.
pub(super) const DEFAULT_REPLICATION: u32 = 1;

/// Backups of a table, at most: each number that is asked for makes partitions of its own.
pub(super) const MAX_REPLICATION: u32 = 8;

/// A statement, parsed.
pub(super) enum Parsed {
    /// Nothing but blanks and comments.
    Empty,
    /// PostgreSQL's own.
    Sql(Box<Statement>),
    /// CREATE TABLE with our clauses taken out of it.
    CreateTable(Box<Statement>, TableClauses),
    /// ALTER TABLE ... USING TTL, or DROP TTL.
    Ttl(TtlPlan),
    /// An INSERT with OVERRIDING, which is taken out of it.
    Overriding(Box<Statement>, Overriding),
    /// CREATE or ALTER SEQUENCE: read by `sequence`.
    Sequence,
    /// CREATE, ALTER or DROP PROCEDURE: read by `procedure`.
    Procedure,
    /// CREATE, ALTER or DROP REPLICATION LINK.
    Link(LinkPlan),
    /// APPLY REPLICATION CHANGES.
    ApplyChanges,
    /// RECOVER NODE.
    RecoverNode(RecoverNode),
    /// DRAIN NODE.
    DrainNode(NodeId),
    /// PROMOTE [IMMEDIATE].
    Promote { is_immediate: bool },
}

/// Our clauses of CREATE TABLE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableClauses {
    /// REPLICATION, if given.
    pub(super) replication: Option<u32>,
    /// MODE, if given.
    pub(super) mode: Option<ReplicationMode>,
    /// PARTITION BY, if given.
    pub(super) partition_by: Option<String>,
    /// REPLICATED: whole in every partition.
    pub(super) replicated: bool,
    /// USING TTL, if given.
    pub(super) ttl: Option<TtlClause>,
    /// Of each AS IDENTITY, in their order: its options as they are written, which may come in any order.
    pub(super) identities: Vec<String>,
}

/// Splits at top-level semicolons: (text, characters before it).
pub(super) fn split(sql: &str) -> Result<Vec<(String, u32)>, SqlError> {
    let tokens = tokenize(sql)?;
    let (mut statements, mut start) = (Vec::new(), 0);
    let mut add = |from: usize, to: usize| {
        let text = &sql[from..to];
        let blank = tokenize(text).is_ok_and(|tokens| tokens.iter().all(is_blank));
        if !blank {
            statements.push((text.to_owned(), sql[..from].chars().count() as u32));
        }
    };
    let mut blocks = Blocks::default();
    for token in &tokens {
        if token.token == Token::SemiColon && !blocks.are_open() {
            blocks = Blocks::default();
            add(start, offset(sql, token.span.start));
            start = offset(sql, token.span.end);
        } else if !is_blank(token) {
            blocks.read(&word(token));
        }
    }
    add(start, sql.len());
    Ok(statements)
}

/// The blocks of an unquoted procedure's body, whose semicolons end nothing outside.
#[derive(Default)]
struct Blocks {
    /// The statement's first words, until they say what it is.
    first: Vec<String>,
    depth: usize,
    /// Between DECLARE and its BEGIN.
    declaring: bool,
    /// The word before was END, which may have said what it ends.
    after_end: bool,
}

impl Blocks {
    fn are_open(&self) -> bool {
        self.depth > 0
    }

    fn read(&mut self, word: &str) {
        if self.first.len() < 4 {
            self.first.push(word.to_owned());
        }
        let first: Vec<&str> = self.first.iter().map(String::as_str).collect();
        let is_procedure = matches!(
            first.as_slice(),
            ["CREATE", "PROCEDURE", ..] | ["CREATE", "OR", "REPLACE", "PROCEDURE"]
        );
        if !is_procedure {
            return;
        }
        let ends = std::mem::take(&mut self.after_end);
        match word {
            "DECLARE" => {
                self.depth += 1;
                self.declaring = true;
            }
            "BEGIN" if self.declaring => self.declaring = false,
            "BEGIN" => self.depth += 1,
            "IF" | "LOOP" | "CASE" if !ends && self.are_open() => self.depth += 1,
            "END" => {
                self.depth = self.depth.saturating_sub(1);
                self.after_end = true;
            }
            _ => {}
        }
    }
}

pub(super) fn is_blank(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF | Token::SemiColon)
}

pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, SqlError> {
    let dialect = PostgreSqlDialect {};
    Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|error| {
        let position = character(sql, error.location);
        SqlError::new("42601", error.message).at(position)
    })
}

/// Bytes before a location.
fn offset(sql: &str, location: Location) -> usize {
    let mut line_start = 0;
    for _ in 1..location.line {
        line_start += sql[line_start..].find('\n').map_or(0, |at| at + 1);
    }
    let column = (location.column as usize).saturating_sub(1);
    sql[line_start..]
        .char_indices()
        .nth(column)
        .map_or(sql.len(), |(at, _)| line_start + at)
}

/// The place of a location, in characters from 1.
pub(super) fn character(sql: &str, location: Location) -> u32 {
    sql[..offset(sql, location)].chars().count() as u32 + 1
}

/// Where a name stands in the text, in characters from 1.
pub(super) fn position_of(sql: &str, name: &str) -> Option<u32> {
    let name = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
    let tokens = tokenize(sql).ok()?;
    let found = tokens.iter().find(|token| match &token.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        _ => false,
    })?;
    Some(character(sql, found.span.start))
}

/// Where a constant stands in the text, in characters from 1.
pub(super) fn position_of_literal(sql: &str, text: &str) -> Option<u32> {
    let tokens = tokenize(sql).ok()?;
    let found = tokens.iter().find(|token| match &token.token {
        Token::SingleQuotedString(found) | Token::EscapedStringLiteral(found) => found == text,
        _ => false,
    })?;
    Some(character(sql, found.span.start))
}

/// Parses one statement.
pub(super) fn parse(sql: &str) -> Result<Parsed, SqlError> {
    let mut tokens = tokenize(sql)?;
    tokens.retain(|token| !is_blank(token) || token.token == Token::EOF);
    let words: Vec<String> = tokens.iter().map(word).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | [""] => return Ok(Parsed::Empty),
        ["RECOVER", "NODE", _, ..] => return Ok(Parsed::RecoverNode(recover::recover_node(sql, &tokens)?)),
        ["CREATE" | "ALTER" | "DROP", "REPLICATION", "LINK", ..] => {
            return Ok(Parsed::Link(LinkPlan::parse(sql, &tokens)?));
        }
        ["APPLY", "REPLICATION", "CHANGES", "$1"] | ["APPLY", "REPLICATION", "CHANGES", "$1", ""] => {
            return Ok(Parsed::ApplyChanges);
        }
        ["DRAIN", "NODE", _, ..] => return Ok(Parsed::DrainNode(recover::only_node(sql, &tokens)?)),
        ["PROMOTE"] | ["PROMOTE", ""] => return Ok(Parsed::Promote { is_immediate: false }),
        ["PROMOTE", "IMMEDIATE"] | ["PROMOTE", "IMMEDIATE", ""] => return Ok(Parsed::Promote { is_immediate: true }),
        ["CREATE", "PROCEDURE", ..] | ["CREATE", "OR", "REPLACE", "PROCEDURE", ..] => return Ok(Parsed::Procedure),
        ["CREATE" | "ALTER", "SEQUENCE", ..] => return Ok(Parsed::Sequence),
        ["INSERT", ..] => {
            if let Some(overriding) = take_overriding(&mut tokens) {
                return Ok(Parsed::Overriding(Box::new(parse_tokens(sql, tokens)?), overriding));
            }
        }
        ["ALTER", "TABLE", ..] => {
            if let Some(plan) = TtlPlan::parse(sql, &tokens)? {
                return Ok(Parsed::Ttl(plan));
            }
        }
        ["ALTER" | "DROP", "PROCEDURE", ..] => return Ok(Parsed::Procedure),
        ["ABORT", ..] => tokens[0].token = Token::make_keyword("ROLLBACK"),
        _ => {}
    }
    let creates =
        words.first().is_some_and(|word| word == "CREATE") && words.get(1).is_some_and(|word| word == "TABLE");
    if !creates {
        return Ok(Parsed::Sql(Box::new(parse_tokens(sql, tokens)?)));
    }
    let mut clauses = take_clauses(sql, &mut tokens)?;
    clauses.identities = take_identities(&mut tokens);
    Ok(Parsed::CreateTable(Box::new(parse_tokens(sql, tokens)?), clauses))
}

/// Takes the options of each AS IDENTITY from behind it.
fn take_identities(tokens: &mut Vec<TokenWithSpan>) -> Vec<String> {
    let mut identities = Vec::new();
    let mut at = 0;
    while at + 1 < tokens.len() {
        if word(&tokens[at]) == "AS" && word(&tokens[at + 1]) == "IDENTITY" {
            let (begin, is_open) = (
                at + 2,
                tokens.get(at + 2).is_some_and(|token| token.token == Token::LParen),
            );
            let length = tokens[begin..].iter().position(|token| token.token == Token::RParen);
            let taken = length
                .filter(|_| is_open)
                .map(|length| tokens.drain(begin..=begin + length));
            let taken: Vec<TokenWithSpan> = taken.into_iter().flatten().collect();
            let inside = taken.get(1..taken.len().saturating_sub(1)).unwrap_or_default();
            let written: Vec<String> = inside.iter().map(|token| token.token.to_string()).collect();
            identities.push(written.join(" "));
        }
        at += 1;
    }
    identities
}

/// Takes OVERRIDING SYSTEM VALUE, or USER VALUE, out of an INSERT.
fn take_overriding(tokens: &mut Vec<TokenWithSpan>) -> Option<Overriding> {
    let words: Vec<String> = tokens.iter().map(word).collect();
    let is_clause = |words: &[String]| {
        words[0] == "OVERRIDING" && matches!(words[1].as_str(), "SYSTEM" | "USER") && words[2] == "VALUE"
    };
    let at = words.windows(3).position(is_clause)?;
    tokens.drain(at..at + 3);
    Some(match words[at + 1].as_str() {
        "SYSTEM" => Overriding::System,
        _ => Overriding::User,
    })
}

pub(super) fn word(token: &TokenWithSpan) -> String {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        Token::EOF => String::new(),
        other => other.to_string(),
    }
}

pub(super) fn syntax_error(sql: &str, token: &TokenWithSpan) -> SqlError {
    if token.token == Token::EOF {
        return SqlError::new("42601", "syntax error at end of input").at(sql.chars().count() as u32 + 1);
    }
    let near = token.token.to_string();
    SqlError::new("42601", format!("syntax error at or near \"{near}\"")).at(character(sql, token.span.start))
}

/// Takes our clauses from behind the column list.
fn take_clauses(sql: &str, tokens: &mut Vec<TokenWithSpan>) -> Result<TableClauses, SqlError> {
    let mut clauses = TableClauses::default();
    let (mut depth, mut end) = (0_u32, None);
    for (place, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    end = Some(place + 1);
                    break;
                }
            }
            _ => {}
        }
    }
    let Some(end) = end else { return Ok(clauses) };
    let rest: Vec<TokenWithSpan> = tokens.split_off(end);
    let mut at = 0;
    let words: Vec<String> = rest.iter().map(word).collect();
    let is = |place: usize, expected: &str| words.get(place).is_some_and(|word| word == expected);
    while rest.get(at).is_some_and(|token| token.token != Token::EOF) {
        if is(at, "PARTITION") && is(at + 1, "BY") && is(at + 2, "(") && is(at + 4, ")") {
            clauses.partition_by = match &rest[at + 3].token {
                Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
                Token::Word(word) => Some(word.value.to_lowercase()),
                _ => return Err(syntax_error(sql, &rest[at + 3])),
            };
            at += 5;
        } else if is(at, "WITH") {
            at = take_with(sql, &rest, &words, at + 1, &mut clauses)?;
        } else if clauses.ttl.is_none() && is(at, "USING") && is(at + 1, "TTL") {
            clauses.ttl = Some(TtlClause::take(sql, &rest, &mut at)?);
        } else if is(at, "REPLICATED") {
            clauses.replicated = true;
            at += 1;
        } else {
            return Err(syntax_error(sql, &rest[at]));
        }
    }
    tokens.extend(rest.into_iter().filter(|token| token.token == Token::EOF));
    if clauses.replicated && clauses.partition_by.is_some() {
        return Err(SqlError::new(
            "42P16",
            "a table is either REPLICATED or partitioned by a column",
        ));
    }
    Ok(clauses)
}

/// The mode with this name.
pub(super) fn mode_of(word: &str) -> Option<ReplicationMode> {
    let modes = [ReplicationMode::Sync, ReplicationMode::SemiSync, ReplicationMode::Async];
    let word = word.trim_matches('\'');
    modes.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(word))
}

fn take_with(
    sql: &str,
    rest: &[TokenWithSpan],
    words: &[String],
    mut at: usize,
    clauses: &mut TableClauses,
) -> Result<usize, SqlError> {
    let is = |place: usize, expected: &str| words.get(place).is_some_and(|word| word == expected);
    let failed = |place: usize| match rest.get(place).or_else(|| rest.last()) {
        Some(token) => syntax_error(sql, token),
        None => SqlError::new("42601", "syntax error at end of input"),
    };
    let parenthesised = is(at, "(");
    at += usize::from(parenthesised);
    loop {
        if is(at, "REPLICATION") && is(at + 1, "=") {
            let number = words
                .get(at + 2)
                .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            let number = number.filter(|word| !word.is_empty()).ok_or_else(|| failed(at + 2))?;
            let backups = number.parse().ok().filter(|backups| *backups <= MAX_REPLICATION);
            clauses.replication = Some(backups.ok_or_else(|| {
                SqlError::new(
                    "22023",
                    format!("REPLICATION is at most {MAX_REPLICATION} backups, not {number}"),
                )
                .at(character(sql, rest[at + 2].span.start))
            })?);
            at += 3;
        } else if is(at, "MODE") {
            at += 1 + usize::from(is(at + 1, "="));
            clauses.mode = Some(words.get(at).and_then(|word| mode_of(word)).ok_or_else(|| failed(at))?);
            at += 1;
        } else {
            return Err(failed(at));
        }
        if is(at, ",") {
            at += 1;
        } else if !is(at, "MODE") {
            break;
        }
    }
    if parenthesised {
        if !is(at, ")") {
            return Err(failed(at));
        }
        at += 1;
    }
    Ok(at)
}

fn parse_tokens(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Statement, SqlError> {
    check_depth(&tokens)?;
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let parsed = parser.parse_statement();
    let statement = match parsed {
        Ok(statement) => statement,
        Err(ParserError::RecursionLimitExceeded) => return Err(SqlError::new("54001", "statement too complex")),
        Err(ParserError::ParserError(message) | ParserError::TokenizerError(message)) => {
            return Err(from_parser(sql, &message));
        }
    };
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(syntax_error(sql, &next));
    }
    check_relations(&statement)?;
    Ok(statement)
}

/// `Expected: x, found: y at Line: 1, Column: 8`, in PostgreSQL's words.
fn from_parser(sql: &str, message: &str) -> SqlError {
    let place = message.rsplit_once(" at Line: ").and_then(|(before, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        let location = Location {
            line: line.trim().parse().ok()?,
            column: column.trim().parse().ok()?,
        };
        let found = before.rsplit_once("found: ").map(|(_, found)| found);
        Some((location, found))
    });
    match place {
        Some((location, Some(found))) if found != "EOF" => {
            SqlError::new("42601", format!("syntax error at or near \"{found}\"")).at(character(sql, location))
        }
        Some((location, _)) => SqlError::new("42601", message.to_owned()).at(character(sql, location)),
        None if message.contains("EOF") => {
            SqlError::new("42601", "syntax error at end of input").at(sql.chars().count() as u32 + 1)
        }
        None => SqlError::new("42601", message.to_owned()),
    }
}
