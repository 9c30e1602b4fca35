//! The head of CREATE PROCEDURE: name, parameters, what it returns, where it runs; and ALTER and DROP PROCEDURE.

use std::ops::Range;

use super::tokens::Tokens;
use crate::error::SqlError;

/// Parameters, at most: PostgreSQL's bound.
const MAX_PARAMETERS: usize = 100;

/// `CREATE [OR REPLACE] PROCEDURE ...`, its body still text.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) replace: bool,
    pub(super) name: String,
    pub(super) parameters: Vec<HeaderParameter>,
    /// RETURNS TABLE: (name, type as written).
    pub(super) returns_table: Option<Vec<(String, String)>>,
    pub(super) partition: Option<HeaderPartition>,
    /// LANGUAGE, if it is given.
    pub(super) language: Option<String>,
    pub(super) body: String,
    /// Where the body begins in the text, in characters; None: it was quoted, and places in it can't be told.
    pub(super) body_at: Option<u32>,
    /// Where a quoted body is in the text, in bytes.
    pub(super) quoted: Range<usize>,
}

#[derive(Debug)]
pub(super) struct HeaderParameter {
    /// Empty: it has none.
    pub(super) name: String,
    /// As written.
    pub(super) data_type: String,
    pub(super) is_input: bool,
    pub(super) is_output: bool,
}

/// `PARTITION ON TABLE table COLUMN column [PARAMETER n]`.
#[derive(Debug)]
pub(super) struct HeaderPartition {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) parameter: usize,
}

/// Parses the head of CREATE PROCEDURE.
pub(super) fn parse_create(sql: &str) -> Result<Header, SqlError> {
    let mut tokens = Tokens::of(sql)?;
    tokens.expect(&["CREATE"])?;
    let replace = tokens.take(&["OR", "REPLACE"]);
    tokens.expect(&["PROCEDURE"])?;
    let mut header = Header {
        replace,
        name: name(&mut tokens)?,
        parameters: parameters(&mut tokens)?,
        returns_table: None,
        partition: None,
        language: None,
        body: String::new(),
        body_at: None,
        quoted: 0..0,
    };
    while !tokens.take(&["AS"]) {
        if tokens.is(&["BEGIN"]) || tokens.is(&["DECLARE"]) {
            break;
        }
        clause(&mut tokens, &mut header)?;
    }
    let begin = tokens.begin();
    match tokens.string() {
        Some(body) => {
            header.body = body;
            header.quoted = begin..tokens.end_of_last();
            while !tokens.is_at_end() && !tokens.is(&[";"]) {
                clause(&mut tokens, &mut header)?;
            }
        }
        None => {
            header.body = sql[begin..].trim_end().trim_end_matches(';').to_owned();
            header.body_at = Some(sql[..begin].chars().count() as u32);
            if header.body.is_empty() {
                return Err(tokens.unexpected());
            }
        }
    }
    Ok(header)
}

fn clause(tokens: &mut Tokens<'_>, header: &mut Header) -> Result<(), SqlError> {
    if tokens.take(&["LANGUAGE"]) {
        let language = match tokens.string() {
            Some(language) => language.to_lowercase(),
            None => tokens.name()?,
        };
        header.language = Some(language);
    } else if tokens.take(&["RETURNS", "TABLE"]) {
        header.returns_table = Some(columns(tokens)?);
    } else if tokens.take(&["PARTITION", "ON", "TABLE"]) {
        let table = name(tokens)?;
        tokens.expect(&["COLUMN"])?;
        let column = tokens.name()?;
        let parameter = if tokens.take(&["PARAMETER"]) {
            tokens.number()?
        } else {
            0
        };
        header.partition = Some(HeaderPartition {
            table,
            column,
            parameter,
        });
    } else {
        return Err(tokens.unexpected());
    }
    Ok(())
}

/// A name in the schema `public`.
pub(super) fn name(tokens: &mut Tokens<'_>) -> Result<String, SqlError> {
    let name = tokens.name()?;
    if !tokens.take(&["."]) {
        return Ok(name);
    }
    if name != "public" {
        return Err(SqlError::new("3F000", format!("schema \"{name}\" does not exist")));
    }
    tokens.name()
}

fn parameters(tokens: &mut Tokens<'_>) -> Result<Vec<HeaderParameter>, SqlError> {
    let mut parameters = Vec::new();
    tokens.expect(&["("])?;
    if tokens.take(&[")"]) {
        return Ok(parameters);
    }
    loop {
        let (is_input, is_output) = if tokens.take(&["IN", "OUT"]) || tokens.take(&["INOUT"]) {
            (true, true)
        } else if tokens.take(&["OUT"]) {
            (false, true)
        } else {
            if tokens.is(&["VARIADIC"]) {
                return Err(SqlError::unsupported("VARIADIC"));
            }
            tokens.take(&["IN"]);
            (true, false)
        };
        // One word is a type, more are a name and a type; but for types of two words.
        let two_words = ["PRECISION", "VARYING"].contains(&tokens.peek(1));
        let nameless = [",", ")", "("].contains(&tokens.peek(1)) || two_words;
        let name = if nameless { String::new() } else { tokens.name()? };
        let data_type = tokens.text_until(&[",", ")", "DEFAULT", "="])?.sql;
        if tokens.is(&["DEFAULT"]) || tokens.is(&["="]) {
            return Err(SqlError::unsupported("a parameter's DEFAULT"));
        }
        parameters.push(HeaderParameter {
            name,
            data_type,
            is_input,
            is_output,
        });
        if parameters.len() > MAX_PARAMETERS {
            let message = format!("procedures cannot have more than {MAX_PARAMETERS} arguments");
            return Err(SqlError::new("54023", message));
        }
        if tokens.take(&[")"]) {
            return Ok(parameters);
        }
        tokens.expect(&[","])?;
    }
}

fn columns(tokens: &mut Tokens<'_>) -> Result<Vec<(String, String)>, SqlError> {
    let mut columns = Vec::new();
    tokens.expect(&["("])?;
    loop {
        let name = tokens.name()?;
        columns.push((name, tokens.text_until(&[",", ")"])?.sql));
        if tokens.take(&[")"]) {
            return Ok(columns);
        }
        tokens.expect(&[","])?;
    }
}

/// `DROP PROCEDURE [IF EXISTS] name [(types)], ...`: the names.
pub(super) fn parse_drop(sql: &str) -> Result<(Vec<String>, bool), SqlError> {
    let mut tokens = Tokens::of(sql)?;
    tokens.expect(&["DROP", "PROCEDURE"])?;
    let if_exists = tokens.take(&["IF", "EXISTS"]);
    let mut names = Vec::new();
    loop {
        names.push(name(&mut tokens)?);
        skip_signature(&mut tokens)?;
        if !tokens.take(&[","]) {
            break;
        }
    }
    if !tokens.take(&["RESTRICT"]) {
        tokens.take(&["CASCADE"]);
    }
    end(&mut tokens)?;
    Ok((names, if_exists))
}

/// `ALTER PROCEDURE name [(types)] RENAME TO name`.
pub(super) fn parse_alter(sql: &str) -> Result<(String, String), SqlError> {
    let mut tokens = Tokens::of(sql)?;
    tokens.expect(&["ALTER", "PROCEDURE"])?;
    let old = name(&mut tokens)?;
    skip_signature(&mut tokens)?;
    if !tokens.is(&["RENAME"]) {
        return Err(SqlError::unsupported("ALTER PROCEDURE other than RENAME TO")
            .hint("CREATE OR REPLACE PROCEDURE gives it another body."));
    }
    tokens.expect(&["RENAME", "TO"])?;
    let new = tokens.name()?;
    end(&mut tokens)?;
    Ok((old, new))
}

/// There is one procedure of a name, so that its types say nothing.
fn skip_signature(tokens: &mut Tokens<'_>) -> Result<(), SqlError> {
    if tokens.take(&["("]) && !tokens.take(&[")"]) {
        loop {
            tokens.text_until(&[",", ")"])?;
            if tokens.take(&[")"]) {
                break;
            }
            tokens.expect(&[","])?;
        }
    }
    Ok(())
}

fn end(tokens: &mut Tokens<'_>) -> Result<(), SqlError> {
    tokens.take(&[";"]);
    if tokens.is_at_end() {
        return Ok(());
    }
    Err(tokens.unexpected())
}
