//! Hints: a comment at the beginning of a statement's text that sets something for this statement alone,
//! `/* volt.idempotency_key = 'abc' */`.

use volt_engine::idempotency::IdempotencyKey;

use crate::error::SqlError;

/// What begins a hint, and the name of every setting of ours.
pub(super) const PREFIX: &str = "volt.";
/// The one setting that a hint may name.
pub(super) const IDEMPOTENCY_KEY: &str = "volt.idempotency_key";

/// A statement's text with blanks where its hint was, so that all else keeps its place and texts that differ in nothing but
/// their keys are one; and the hint's key. None: there is no hint.
pub(super) fn take(sql: &str) -> Result<Option<(String, IdempotencyKey)>, SqlError> {
    let mut from = 0;
    while let Some((begin, end)) = comment(sql, from) {
        let said = sql[begin + 2..end - 2].trim();
        if said
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        {
            let at = sql[..begin].chars().count() as u32 + 1;
            let key = key(said).map_err(|error| error.at(at))?;
            let blanks = " ".repeat(sql[begin..end].chars().count());
            return Ok(Some(([&sql[..begin], &blanks, &sql[end..]].concat(), key)));
        }
        from = end;
    }
    Ok(None)
}

/// A statement's text without blanks and comments before it, which may say who asks and when.
pub(super) fn bare(sql: &str) -> &str {
    let mut from = 0;
    while let Some((_, end)) = comment(sql, from) {
        from = end;
    }
    sql[from..].trim()
}

/// Where the next comment begins and ends, if nothing but blanks is before it. Comments may be nested.
fn comment(sql: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &sql[from..];
    let begin = from + rest.len() - rest.trim_start().len();
    if !sql[begin..].starts_with("/*") {
        return None;
    }
    let (bytes, mut at, mut depth) = (sql.as_bytes(), begin + 2, 1);
    while depth > 0 {
        match bytes.get(at..at + 2)? {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    Some((begin, at))
}

/// `name = 'value'`.
fn key(said: &str) -> Result<IdempotencyKey, SqlError> {
    let malformed = || {
        SqlError::new("42601", "a hint is a name, \"=\" and a text in single quotes")
            .hint(format!("Write /* {IDEMPOTENCY_KEY} = '...' */."))
    };
    let (name, value) = said.split_once('=').ok_or_else(malformed)?;
    let name = name.trim().to_lowercase();
    if name != IDEMPOTENCY_KEY {
        return Err(unknown(&name));
    }
    let quoted = value.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let text = quoted.ok_or_else(malformed)?.replace("''", "\u{0}");
    if text.contains('\'') {
        return Err(malformed());
    }
    Ok(IdempotencyKey::try_from(text.replace('\u{0}', "'"))?)
}

/// A setting of ours that there is not.
pub(super) fn unknown(name: &str) -> SqlError {
    SqlError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sql: &str) -> Result<Option<(String, String)>, String> {
        let taken = take(sql).map_err(|error| format!("{} {}", error.sqlstate, error.message))?;
        Ok(taken.map(|(rest, key)| (rest, key.as_str().to_owned())))
    }

    #[test]
    fn the_rest_keeps_its_place() {
        let hint = "/* volt.idempotency_key = 'it''s é' */";
        let text = format!(" /* app */ {hint} DELETE /* x */");
        let (rest, key) = taken(&text).unwrap().unwrap();
        assert_eq!(key, "it's é");
        assert_eq!(rest, text.replace(hint, &" ".repeat(hint.chars().count())));
    }

    #[test]
    fn what_stands_before_a_statement_is_no_part_of_it() {
        assert_eq!(bare(" /* a */ /* b */\n DELETE /* c */ "), "DELETE /* c */");
        assert_eq!(bare("/* open"), "/* open");
    }

    #[test]
    fn other_comments_are_none() {
        for sql in [
            "",
            "SELECT 1",
            "/* a */ SELECT 1",
            "SELECT /* volt.idempotency_key = 'a' */ 1",
            "/* volt",
            "/*/",
            "--",
        ] {
            assert_eq!(taken(sql), Ok(None), "{sql}");
        }
        assert_eq!(taken("/* /* volt.idempotency_key = 'a' */ */ SELECT 1"), Ok(None));
    }

    #[test]
    fn what_is_meant_as_one_and_is_none_is_an_error() {
        let error = |hint: &str| taken(&format!("/*{hint}*/ SELECT 1")).unwrap_err();
        assert!(error("volt.idempotency_key").starts_with("42601"));
        assert!(error("volt.idempotency_key = a").starts_with("42601"));
        assert!(error("volt.idempotency_key = 'a'b'").starts_with("42601"));
        assert!(error("VOLT.other = 'a'").starts_with("42704"));
        assert!(error("volt.idempotency_key = ''").starts_with("22023"));
        assert!(error(&format!("volt.idempotency_key = '{}'", "k".repeat(256))).starts_with("22023"));
    }
}
