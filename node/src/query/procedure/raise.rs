//! RAISE: its message's places, and the names of its conditions.

use volt_engine::plan::Expr;
use volt_engine::procedure::Piece;

use super::tokens::Tokens;
use crate::error::SqlError;

/// The conditions that procedures raise by name, of PostgreSQL's Appendix A.
const CONDITIONS: &[(&str, &str)] = &[
    ("raise_exception", "P0001"),
    ("no_data_found", "P0002"),
    ("too_many_rows", "P0003"),
    ("assert_failure", "P0004"),
    ("unique_violation", "23505"),
    ("check_violation", "23514"),
    ("foreign_key_violation", "23503"),
    ("not_null_violation", "23502"),
    ("integrity_constraint_violation", "23000"),
    ("data_exception", "22000"),
    ("division_by_zero", "22012"),
    ("numeric_value_out_of_range", "22003"),
    ("null_value_not_allowed", "22004"),
    ("invalid_parameter_value", "22023"),
    ("invalid_text_representation", "22P02"),
    ("string_data_right_truncation", "22001"),
    ("serialization_failure", "40001"),
    ("insufficient_privilege", "42501"),
    ("undefined_object", "42704"),
    ("duplicate_object", "42710"),
    ("feature_not_supported", "0A000"),
    ("insufficient_resources", "53000"),
    ("program_limit_exceeded", "54000"),
    ("object_not_in_prerequisite_state", "55000"),
    ("lock_not_available", "55P03"),
    ("query_canceled", "57014"),
];

/// The SQLSTATE that a name, or itself, means.
pub(super) fn sqlstate(condition: &str) -> Result<String, SqlError> {
    let lower = condition.to_ascii_lowercase();
    if let Some((_, code)) = CONDITIONS.iter().find(|(name, _)| *name == lower) {
        return Ok((*code).to_owned());
    }
    let is_code = condition.len() == 5
        && condition
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    // 00 and what the protocol says of it would be a success.
    if is_code && !condition.starts_with("00") {
        return Ok(condition.to_owned());
    }
    let message = format!("unrecognized exception condition \"{condition}\"");
    Err(SqlError::new("42704", message))
}

/// The text of a quoted constant.
pub(super) fn quoted(sql: &str) -> Result<String, SqlError> {
    let mut tokens = Tokens::of(sql)?;
    match tokens.string() {
        Some(text) if tokens.is_at_end() => Ok(text),
        _ => Err(SqlError::unsupported("an ERRCODE that is no constant")),
    }
}

/// A format's text and values: `%` is the next value, `%%` a percent sign.
pub(super) fn pieces(format: &str, values: Vec<Expr>) -> Result<Vec<Piece>, SqlError> {
    let mut values = values.into_iter();
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
        } else if characters.next_if_eq(&'%').is_some() {
            text.push('%');
        } else {
            let value = values.next();
            let value = value.ok_or_else(|| SqlError::new("42601", "too few parameters specified for RAISE"))?;
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Value(value));
        }
    }
    pieces.push(Piece::Text(text));
    if values.next().is_some() {
        return Err(SqlError::new("42601", "too many parameters specified for RAISE"));
    }
    Ok(pieces)
}
