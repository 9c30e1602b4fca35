//! CHECK constraints: each row that a program wants to put must not make one of them false.

use super::Run;
use crate::catalog::Column;
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
                    detail: format!("Failing row contains ({}).", shown(row, &self.program.columns)),
                });
            }
        }
        Ok(())
    }
}

/// What there is of a row; what lies in dropped columns is not shown.
fn shown(row: RowRef<'_>, columns: &[Column]) -> String {
    let is_there = |place: usize| columns.get(place).is_none_or(|column| !column.is_dropped);
    let values = row.values().enumerate().filter(|(place, _)| is_there(*place));
    let texts: Vec<String> = values.map(|(_, value)| shown_value(value)).collect();
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
