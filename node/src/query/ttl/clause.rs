//! USING TTL as it is written: `USING TTL n [SECONDS | MINUTES | HOURS | DAYS] ON COLUMN c [BATCH_SIZE n] [MAX_FREQUENCY n]`.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::TtlPlan;
use crate::error::SqlError;
use crate::metadata::command::{MAX_TTL_BATCH_SIZE, MAX_TTL_FREQUENCY, MAX_TTL_MICROS};
use crate::query::ddl::{name_of, table_name};
use crate::query::syntax::{character, syntax_error, word};

/// Rows of a step, unless BATCH_SIZE says otherwise.
const DEFAULT_BATCH_SIZE: u32 = 1_000;
/// Steps of a partition a second, unless MAX_FREQUENCY says otherwise: enough for 10,000 rows.
const DEFAULT_FREQUENCY: u32 = 10;

const SECOND: i64 = 1_000_000;

/// What a clause says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::query) struct TtlClause {
    pub(super) lifetime_micros: i64,
    pub(super) column: String,
    pub(super) batch_size: u32,
    pub(super) max_frequency: u32,
}

impl TtlClause {
    /// Reads a clause that begins at this place, and moves behind it.
    pub(in crate::query) fn take(sql: &str, tokens: &[TokenWithSpan], at: &mut usize) -> Result<Self, SqlError> {
        let mut words = Words { sql, tokens, at: *at };
        let clause = words.clause()?;
        *at = words.at;
        Ok(clause)
    }
}

impl TtlPlan {
    /// An ALTER TABLE that is about a TTL; None: it is about something else.
    pub(in crate::query) fn parse(sql: &str, tokens: &[TokenWithSpan]) -> Result<Option<Self>, SqlError> {
        let mut words = Words { sql, tokens, at: 2 };
        let if_exists = words.takes(&["IF", "EXISTS"]);
        words.takes(&["ONLY"]);
        let Some(table) = words.table() else { return Ok(None) };
        let ttl = if words.are(&["USING", "TTL"]) {
            Some(words.clause()?)
        } else if words.takes(&["DROP", "TTL"]) {
            None
        } else {
            return Ok(None);
        };
        if !words.is_at_end() {
            return Err(words.unexpected());
        }
        let table = table_name(&table)?;
        Ok(Some(Self { table, if_exists, ttl }))
    }
}

/// A walk over a statement's tokens.
struct Words<'t> {
    sql: &'t str,
    tokens: &'t [TokenWithSpan],
    at: usize,
}

impl Words<'_> {
    fn clause(&mut self) -> Result<TtlClause, SqlError> {
        self.expect(&["USING", "TTL"])?;
        let (place, number) = (self.at, self.number()?);
        let unit = self.unit();
        self.expect(&["ON", "COLUMN"])?;
        let mut clause = TtlClause {
            lifetime_micros: number.saturating_mul(unit),
            column: self.name()?,
            batch_size: DEFAULT_BATCH_SIZE,
            max_frequency: DEFAULT_FREQUENCY,
        };
        if !(SECOND..=MAX_TTL_MICROS).contains(&clause.lifetime_micros) {
            let days = MAX_TTL_MICROS / SECOND / 86_400;
            let message = format!("TTL must be between 1 second and {days} days");
            return Err(self.located(SqlError::new("22023", message), place));
        }
        let (mut has_batch_size, mut has_frequency) = (false, false);
        loop {
            if !has_batch_size && self.takes(&["BATCH_SIZE"]) {
                clause.batch_size = self.bounded("BATCH_SIZE", MAX_TTL_BATCH_SIZE)?;
                has_batch_size = true;
            } else if !has_frequency && self.takes(&["MAX_FREQUENCY"]) {
                clause.max_frequency = self.bounded("MAX_FREQUENCY", MAX_TTL_FREQUENCY)?;
                has_frequency = true;
            } else {
                return Ok(clause);
            }
        }
    }

    /// Microseconds of the unit that is named; of a second, if none is.
    fn unit(&mut self) -> i64 {
        let seconds = match self.word().as_str() {
            "SECOND" | "SECONDS" => 1,
            "MINUTE" | "MINUTES" => 60,
            "HOUR" | "HOURS" => 3_600,
            "DAY" | "DAYS" => 86_400,
            _ => return SECOND,
        };
        self.at += 1;
        seconds * SECOND
    }

    fn bounded(&mut self, what: &str, most: u32) -> Result<u32, SqlError> {
        let (place, number) = (self.at, self.number()?);
        let bounded = u32::try_from(number).ok().filter(|number| (1..=most).contains(number));
        bounded.ok_or_else(|| {
            let message = format!("{what} must be between 1 and {most}");
            self.located(SqlError::new("22023", message), place)
        })
    }

    /// A whole number; one that is too great for any bound is the greatest.
    fn number(&mut self) -> Result<i64, SqlError> {
        let digits = match self.tokens.get(self.at).map(|token| &token.token) {
            Some(Token::Number(digits, _)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits,
            _ => return Err(self.unexpected()),
        };
        let number = digits.parse().unwrap_or(i64::MAX);
        self.at += 1;
        Ok(number)
    }

    fn ident(&self) -> Option<Ident> {
        match &self.tokens.get(self.at)?.token {
            Token::Word(word) => Some(match word.quote_style {
                Some(quote) => Ident::with_quote(quote, word.value.clone()),
                None => Ident::new(word.value.clone()),
            }),
            _ => None,
        }
    }

    fn name(&mut self) -> Result<String, SqlError> {
        let ident = self.ident().ok_or_else(|| self.unexpected())?;
        self.at += 1;
        Ok(name_of(&ident))
    }

    /// A name with its schema, or without.
    fn table(&mut self) -> Option<ObjectName> {
        let mut parts = vec![self.ident()?];
        self.at += 1;
        while self.takes(&["."]) {
            parts.push(self.ident()?);
            self.at += 1;
        }
        Some(ObjectName::from(parts))
    }

    fn word(&self) -> String {
        self.tokens.get(self.at).map(word).unwrap_or_default()
    }

    fn are(&self, expected: &[&str]) -> bool {
        let tokens = self.tokens.get(self.at..self.at + expected.len());
        tokens.is_some_and(|tokens| tokens.iter().map(word).eq(expected.iter().copied()))
    }

    fn takes(&mut self, expected: &[&str]) -> bool {
        let are = self.are(expected);
        self.at += if are { expected.len() } else { 0 };
        are
    }

    fn expect(&mut self, expected: &[&str]) -> Result<(), SqlError> {
        for word in expected {
            if !self.takes(&[word]) {
                return Err(self.unexpected());
            }
        }
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        self.word().is_empty()
    }

    fn unexpected(&self) -> SqlError {
        match self.tokens.get(self.at) {
            Some(token) => syntax_error(self.sql, token),
            None => {
                let position = self.sql.chars().count() as u32 + 1;
                SqlError::new("42601", "syntax error at end of input").at(position)
            }
        }
    }

    fn located(&self, error: SqlError, place: usize) -> SqlError {
        match self.tokens.get(place) {
            Some(token) => error.at(character(self.sql, token.span.start)),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests;
