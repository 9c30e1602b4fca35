//! CHECK constraints: each row that a program wants to put must not make one of them false.

use super::Run;
use crate::error::StatementError;
use crate::partition::view::View;
use crate::plan::eval::Scope;
use crate::row::RowRef;
use crate::value::ValueRef;

/// A value's text in an error has so many bytes, at most: PostgreSQL's bound.
const MAX_SHOWN_BYTES: usize = 64;

impl<'a, V: View<'a>> Run<'a, V> {
    /// An error if this row, as it would be put, makes a check false. NULL passes.
    pub(super) fn check(&self, encoded: &[u8]) -> Result<(), StatementError> {
        if self.program.checks.is_empty() {
            return Ok(());
        }
        let row = RowRef::new(encoded);
        let scope = Scope {
            row: Some(row),
            lsn: 0,
            parameters: &[],
            context: self.scope.context,
        };
        for check in &self.program.checks {
            if check.condition.is_false(&scope)? {
                return Err(StatementError::CheckViolation {
                    table: self.program.table_name.clone(),
                    constraint: check.name.clone(),
                    detail: format!("Failing row contains ({}).", shown(row)),
                });
            }
        }
        Ok(())
    }
}

fn shown(row: RowRef<'_>) -> String {
    let texts: Vec<String> = row.values().map(shown_value).collect();
    texts.join(", ")
}

fn shown_value(value: ValueRef<'_>) -> String {
    let text = match value {
        ValueRef::Null => return "null".to_owned(),
        ValueRef::Boolean(value) => return (if value { "t" } else { "f" }).to_owned(),
        value => value.to_text(),
    };
    if text.len() <= MAX_SHOWN_BYTES {
        return text;
    }
    format!("{}...", &text[..text.floor_char_boundary(MAX_SHOWN_BYTES)])
}
