//! RETURNING: what a program that writes gives of each of its rows.

use super::{Run, View};
use crate::Lsn;
use crate::error::StatementError;
use crate::plan::Expr;
use crate::plan::eval::{Datum, Datums, Scope, ValueRefs};
use crate::row::RowRef;
use crate::value::ValueRef;

/// Bytes that a program may return of the rows that it changes: it runs in one go, so all of them lie in memory, and
/// travel at once.
pub const MAX_RETURNED_BYTES: usize = 8 << 20;
/// What a value counts for, besides the bytes of a text or BYTEA.
const VALUE_BYTES: usize = 9;

/// Takes the rows of a result, one at a time.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&[ValueRef<'_>]);

/// The rows that a program returns of those that it changes.
pub(super) struct Returned<'a, 's> {
    /// None: it returns nothing.
    exprs: Option<&'a [Expr]>,
    scope: Scope<'a>,
    sink: Sink<'s>,
    bytes: usize,
}

impl<'a, V: View<'a>> Run<'a, V> {
    pub(super) fn returned<'s>(&self, sink: Sink<'s>) -> Returned<'a, 's> {
        Returned {
            exprs: self.program.returning.as_deref(),
            scope: self.scope,
            sink,
            bytes: 0,
        }
    }
}

impl Returned<'_, '_> {
    /// What is returned of this row, which this LSN wrote; 0: the program itself does.
    #[inline]
    pub(super) fn give(&mut self, row: RowRef<'_>, lsn: Lsn) -> Result<(), StatementError> {
        match self.exprs {
            None => Ok(()),
            Some(exprs) => self.give_exprs(exprs, row, lsn),
        }
    }

    fn give_exprs(&mut self, exprs: &[Expr], row: RowRef<'_>, lsn: Lsn) -> Result<(), StatementError> {
        let scope = Scope {
            row: Some(row),
            lsn,
            ..self.scope
        };
        // Columns in ascending order, as most are, in one walk over the row.
        let mut walk = row.walk();
        let mut values = Datums::with_capacity(exprs.len());
        for expr in exprs {
            values.push(match expr {
                Expr::Column(column) => Datum::Ref(walk.get(*column)),
                expr => expr.evaluate(&scope)?,
            });
        }
        let values: ValueRefs<'_> = values.iter().map(Datum::as_ref).collect();
        self.bytes += values.iter().map(size_of_value).sum::<usize>();
        if self.bytes > MAX_RETURNED_BYTES {
            return Err(StatementError::TooMuchReturned);
        }
        (self.sink)(&values);
        Ok(())
    }
}

fn size_of_value(value: &ValueRef<'_>) -> usize {
    VALUE_BYTES
        + match value {
            ValueRef::Text(text) => text.len(),
            ValueRef::Bytea(bytes) => bytes.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests;
