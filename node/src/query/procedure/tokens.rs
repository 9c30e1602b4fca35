//! The tokens of a text, without blanks and comments, each with its place.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::body::Text;
use crate::error::SqlError;
use crate::query::syntax::{is_blank, tokenize};

/// A token.
#[derive(Clone, Debug)]
struct Placed {
    token: Token,
    /// As a word in upper case, if it is one and unquoted; else as it is written.
    word: String,
    /// Bytes.
    begin: usize,
    end: usize,
    line: usize,
}

/// A text being read, token by token.
pub(in crate::query) struct Tokens<'s> {
    text: &'s str,
    tokens: Vec<Placed>,
    at: usize,
}

impl<'s> Tokens<'s> {
    pub(in crate::query) fn of(text: &'s str) -> Result<Self, SqlError> {
        let line_starts: Vec<usize> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let offset = |line: u64, column: u64| {
            let start = line_starts.get(line as usize - 1).copied().unwrap_or(text.len());
            let skipped = (column as usize).saturating_sub(1);
            let place = text[start..].char_indices().nth(skipped);
            place.map_or(text.len(), |(at, _)| start + at)
        };
        let tokens = tokenize(text)?;
        let tokens = tokens.into_iter().filter(|token| !is_blank_but_semicolon(token));
        let tokens = tokens.map(|token| Placed {
            word: match &token.token {
                Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
                other => other.to_string(),
            },
            begin: offset(token.span.start.line.max(1), token.span.start.column),
            end: offset(token.span.end.line.max(1), token.span.end.column),
            line: token.span.start.line as usize,
            token: token.token,
        });
        Ok(Self {
            text,
            tokens: tokens.collect(),
            at: 0,
        })
    }

    pub(in crate::query) fn is_at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The word `ahead` places ahead, in upper case; empty at the end.
    pub(in crate::query) fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.word.as_str())
    }

    pub(in crate::query) fn is(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.peek(ahead) == *word)
    }

    /// Goes past these words if they are next.
    pub(in crate::query) fn take(&mut self, words: &[&str]) -> bool {
        let found = self.is(words);
        if found {
            self.at += words.len();
        }
        found
    }

    pub(in crate::query) fn expect(&mut self, words: &[&str]) -> Result<(), SqlError> {
        for word in words {
            if !self.take(&[word]) {
                return Err(self.unexpected());
            }
        }
        Ok(())
    }

    pub(in crate::query) fn skip(&mut self) {
        self.at += 1;
    }

    pub(in crate::query) fn place(&self) -> usize {
        self.at
    }

    pub(in crate::query) fn go_back_to(&mut self, place: usize) {
        self.at = place;
    }

    pub(in crate::query) fn line(&self) -> usize {
        let token = self.tokens.get(self.at).or_else(|| self.tokens.last());
        token.map_or(1, |token| token.line)
    }

    /// Bytes before the next token.
    pub(in crate::query) fn begin(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |token| token.begin)
    }

    /// Bytes up to the end of the last token that was taken.
    pub(in crate::query) fn end_of_last(&self) -> usize {
        match self.at {
            0 => 0,
            at => self.tokens.get(at - 1).map_or(self.text.len(), |token| token.end),
        }
    }

    /// A name, as it is stored.
    pub(in crate::query) fn name(&mut self) -> Result<String, SqlError> {
        let name = match self.tokens.get(self.at).map(|token| &token.token) {
            Some(Token::Word(word)) if word.quote_style.is_some() => word.value.clone(),
            Some(Token::Word(word)) => word.value.to_lowercase(),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(name)
    }

    /// A string, whichever way it is quoted.
    pub(in crate::query) fn string(&mut self) -> Option<String> {
        let text = match &self.tokens.get(self.at)?.token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(quoted) => quoted.value.clone(),
            _ => return None,
        };
        self.at += 1;
        Some(text)
    }

    pub(in crate::query) fn number<T: std::str::FromStr>(&mut self) -> Result<T, SqlError> {
        let number = match self.tokens.get(self.at).map(|token| &token.token) {
            Some(Token::Number(digits, false)) => digits.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected())?;
        self.at += 1;
        Ok(number)
    }

    /// The text up to the first of these words that is in no parentheses and in no CASE, which is not taken.
    pub(super) fn text_until(&mut self, ends: &[&str]) -> Result<Text, SqlError> {
        let (first, begin, line) = (self.at, self.begin(), self.line());
        let (mut depth, mut cases) = (0_usize, 0_usize);
        while let Some(token) = self.tokens.get(self.at) {
            let word = token.word.as_str();
            if depth == 0 && cases == 0 && ends.contains(&word) {
                break;
            }
            match word {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "CASE" => cases += 1,
                "END" if cases > 0 => cases -= 1,
                // Nothing that is SQL goes on beyond it.
                ";" => return Err(self.unexpected()),
                _ => {}
            }
            self.at += 1;
        }
        if self.is_at_end() || self.at == first {
            return Err(self.unexpected());
        }
        let end = self.end_of_last();
        Ok(Text {
            sql: self.text[begin..end].to_owned(),
            line,
        })
    }

    pub(in crate::query) fn unexpected(&self) -> SqlError {
        match self.tokens.get(self.at) {
            Some(token) => {
                let near = &self.text[token.begin..token.end.max(token.begin)];
                let position = self.text[..token.begin].chars().count() as u32 + 1;
                SqlError::new("42601", format!("syntax error at or near \"{near}\"")).at(position)
            }
            None => SqlError::new("42601", "syntax error at end of input").at(self.text.chars().count() as u32 + 1),
        }
    }
}

fn is_blank_but_semicolon(token: &TokenWithSpan) -> bool {
    is_blank(token) && token.token != Token::SemiColon
}
