//! Walks over the rows that a program looks at, forwards or backwards, and how far.

use super::super::view::{Seen, View};
use super::{More, Run};
use crate::error::StatementError;
use crate::key::{Key, KeyBuffer};
use crate::plan::cast::as_key;
use crate::plan::{Expr, KeyBound, KeyRange};
use crate::row::RowRef;
use crate::span::{Span, after_prefix};
use crate::value::{DataType, ValueRef};

/// A program that reads looks at no more entries than this: nobody else can use the partition meanwhile. It is a few
/// milliseconds.
pub const MAX_ENTRIES_READ: usize = 65_536;

/// One that writes, which nobody can do in pieces, at no more than this: a second or so.
pub const MAX_ENTRIES_TO_WRITE: usize = 4 << 20;

impl<'a, V: View<'a>> Run<'a, V> {
    /// The keys of a range; None: it finds nothing.
    pub(super) fn span(&self, range: &'a KeyRange) -> Result<Option<Span>, StatementError> {
        let Some(prefix) = self.key(&range.prefix)? else {
            return Ok(None);
        };
        let mut span = Span::of_prefix(prefix.to_key());
        if range.from.is_none() && range.to.is_none() {
            return Ok(Some(span));
        }
        let next = self.program.primary_key.get(range.prefix.len());
        let missing = || StatementError::TypeMismatch("a range beyond the key".to_owned());
        let data_type = self.column(*next.ok_or_else(missing)?)?.data_type;
        if let Some(bound) = &range.from {
            match self.bound(&prefix, bound, data_type)? {
                Bound::Nothing => return Ok(None),
                Bound::Open => {}
                Bound::At(key) if bound.inclusive => span.from = key,
                Bound::At(key) => match after_prefix(key.as_bytes()) {
                    Some(after) => span.from = after,
                    None => return Ok(None),
                },
            }
        }
        if let Some(bound) = &range.to {
            match self.bound(&prefix, bound, data_type)? {
                Bound::Nothing => return Ok(None),
                Bound::Open => {}
                Bound::At(key) if bound.inclusive => span.to = after_prefix(key.as_bytes()),
                Bound::At(key) => span.to = Some(key),
            }
        }
        Ok(Some(span))
    }

    fn bound(&self, prefix: &KeyBuffer, bound: &'a KeyBound, column: DataType) -> Result<Bound, StatementError> {
        let value = bound.value.evaluate(&self.scope)?;
        if value.is_null() {
            return Ok(Bound::Nothing);
        }
        if !has_its_place(value.as_ref(), column) {
            return Ok(Bound::Open);
        }
        let Some(value) = as_key(value, column)? else {
            return Ok(Bound::Open);
        };
        let mut key = prefix.clone();
        key.push_value(value.as_ref());
        Ok(Bound::At(key.to_key()))
    }

    /// Gives each row of a span that `filter` keeps to `take`, until that says stop, and notes how far it looked.
    pub(super) fn each_of(
        &mut self,
        span: Span,
        backward: bool,
        filter: Option<&'a Expr>,
        take: impl FnMut(&Self, &Key, RowRef<'a>) -> More,
    ) -> Result<(), StatementError> {
        if span.is_empty() {
            return Ok(());
        }
        let (stopped, result) = if backward {
            match self.view.range_back(span.to.as_ref()) {
                Some(entries) => self.walk(entries, |key| *key >= span.from, filter, take),
                None => (None, Ok(())),
            }
        } else {
            let within = |key: &Key| span.to.as_ref().is_none_or(|to| key < to);
            match self.view.range(&span.from) {
                Some(entries) => self.walk(entries, within, filter, take),
                None => (None, Ok(())),
            }
        };
        self.view.looked_at(match stopped {
            Some(last) => span.up_to(&last, backward),
            None => span,
        });
        result
    }

    /// The last key, if it stopped before the end, and what came of it.
    #[inline]
    fn walk(
        &mut self,
        entries: impl Iterator<Item = (Key, Seen<'a>)>,
        within: impl Fn(&Key) -> bool,
        filter: Option<&'a Expr>,
        mut take: impl FnMut(&Self, &Key, RowRef<'a>) -> More,
    ) -> (Option<Key>, Result<(), StatementError>) {
        let limit = if self.program.is_read_only() {
            MAX_ENTRIES_READ
        } else {
            MAX_ENTRIES_TO_WRITE
        };
        let mut left = limit;
        for (key, seen) in entries {
            if !within(&key) {
                break;
            }
            if left == 0 {
                return (Some(key), Err(StatementError::TooManyEntries { limit }));
            }
            left -= 1;
            match self.one(&key, seen, filter, &mut take) {
                Ok(true) => {}
                Ok(false) => return (Some(key), Ok(())),
                Err(error) => return (Some(key), Err(error)),
            }
        }
        (None, Ok(()))
    }
}

/// An end of a span.
enum Bound {
    /// Nothing compares with it.
    Nothing,
    /// It says nothing of keys.
    Open,
    /// Keys that begin so are at it.
    At(Key),
}

/// The value as a key of the column compares with the column's as the value does: nothing is rounded.
fn has_its_place(value: ValueRef<'_>, column: DataType) -> bool {
    matches!(
        (value, column),
        (
            ValueRef::Int(_) | ValueRef::BigInt(_),
            DataType::Int | DataType::BigInt | DataType::Numeric { .. }
        ) | (ValueRef::Text(_), DataType::Text | DataType::Varchar(_))
            | (ValueRef::Numeric(_), DataType::Numeric { .. })
            | (ValueRef::Double(_), DataType::Double)
            | (ValueRef::Boolean(_), DataType::Boolean)
            | (ValueRef::Timestamp(_), DataType::Timestamp)
            | (ValueRef::Bytea(_), DataType::Bytea)
    )
}
