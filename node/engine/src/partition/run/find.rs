//! Walks over the rows that a program looks at, forwards or backwards, and how far.

use super::super::view::{Seen, View};
use super::{More, Run};
use crate::catalog::IndexShape;
use crate::error::StatementError;
use crate::key::Key;
use crate::plan::cast::as_key;
use crate::plan::{Expr, IndexRange, KeyBound, KeyRange};
use crate::row::RowRef;
use crate::span::{Span, after_prefix};
use crate::table::{push_value, values_of};
use crate::value::{DataType, ValueRef};

/// A program that reads looks at no more entries than this: nobody else can use the partition meanwhile. It is a few
/// milliseconds.
pub const MAX_ENTRIES_READ: usize = 65_536;

/// One that writes, which nobody can do in pieces, at no more than this: a second or so.
pub const MAX_ENTRIES_TO_WRITE: usize = 4 << 20;

impl<'a, V: View<'a>> Run<'a, V> {
    /// The keys of a range; None: it finds nothing.
    pub(super) fn span(&self, range: &'a KeyRange) -> Result<Option<Span>, StatementError> {
        let columns = &self.program.primary_key;
        self.span_of(range, |place| {
            let place = columns.get(place)?;
            Some((*place, false))
        })
    }

    /// The values of a range of an index, which may sort its columns down; None: it finds nothing.
    fn index_span(&self, index: &'a IndexRange) -> Result<Option<Span>, StatementError> {
        let columns = &index.shape.columns;
        self.span_of(&index.range, |place| {
            let column = columns.get(place)?;
            Some((column.place, column.descending))
        })
    }

    /// `columns` gives the columns of a key, each with whether it sorts down.
    fn span_of(
        &self,
        range: &'a KeyRange,
        columns: impl Fn(usize) -> Option<(usize, bool)>,
    ) -> Result<Option<Span>, StatementError> {
        let mut prefix = Vec::new();
        for (place, value) in range.prefix.iter().enumerate() {
            let (column, descending) = columns(place).ok_or_else(beyond)?;
            let data_type = self.column(column)?.data_type;
            let Some(value) = as_key(value.evaluate(&self.scope)?, data_type)? else {
                return Ok(None);
            };
            push_value(&mut prefix, value.as_ref(), descending);
        }
        let mut span = Span::of_prefix(Key::new(&prefix));
        if range.from.is_none() && range.to.is_none() {
            return Ok(Some(span));
        }
        let (column, descending) = columns(range.prefix.len()).ok_or_else(beyond)?;
        let data_type = self.column(column)?.data_type;
        let at = |bound: &'a KeyBound| self.bound(&prefix, bound, (data_type, descending));
        // NULL is the greatest, and none of these.
        let mut null = prefix.clone();
        push_value(&mut null, ValueRef::Null, descending);
        let (mut from, mut to) = (range.from.as_ref(), range.to.as_ref());
        if descending {
            (from, to) = (to, from);
            span.from = match after_prefix(&null) {
                Some(after) => after,
                None => return Ok(None),
            };
        } else {
            span.to = Some(Key::new(&null));
        }
        if let Some(bound) = from {
            match at(bound)? {
                Bound::Nothing => return Ok(None),
                Bound::Open => {}
                Bound::At(key) if bound.inclusive => span.from = key,
                Bound::At(key) => match after_prefix(key.as_bytes()) {
                    Some(after) => span.from = after,
                    None => return Ok(None),
                },
            }
        }
        if let Some(bound) = to {
            match at(bound)? {
                Bound::Nothing => return Ok(None),
                Bound::Open => {}
                Bound::At(key) if bound.inclusive => span.to = after_prefix(key.as_bytes()),
                Bound::At(key) => span.to = Some(key),
            }
        }
        Ok(Some(span))
    }

    fn bound(
        &self,
        prefix: &[u8],
        bound: &'a KeyBound,
        (column, descending): (DataType, bool),
    ) -> Result<Bound, StatementError> {
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
        let mut key = prefix.to_vec();
        push_value(&mut key, value.as_ref(), descending);
        Ok(Bound::At(Key::new(&key)))
    }

    /// Gives each row of an index's range that `filter` keeps to `take`, in the index's order.
    pub(super) fn each_by_index(
        &mut self,
        index: &'a IndexRange,
        filter: Option<&'a Expr>,
        take: impl FnMut(&Self, &Key, RowRef<'a>) -> More,
    ) -> Result<(), StatementError> {
        let Some(span) = self.index_span(index)?.filter(|span| !span.is_empty()) else {
            return Ok(());
        };
        let backward = index.range.backward;
        let Some(found) = self.view.by_index(index.shape.id, &span, backward) else {
            return self.each_without_index(&index.shape, &span, backward, filter, take);
        };
        let mut last = None;
        let entries = found.map(|(values, key, seen)| {
            last = Some(values);
            (key, seen)
        });
        let (stopped, result) = self.walk(entries, |_| true, filter, take);
        self.view.looked_at_index(
            index.shape.id,
            match (stopped, last) {
                (Some(_), Some(last)) => span.up_to(&last, backward),
                _ => span,
            },
        );
        result
    }

    /// The same where the index can't be read by: all rows are looked at, and those of the range sorted.
    fn each_without_index(
        &mut self,
        shape: &IndexShape,
        span: &Span,
        backward: bool,
        filter: Option<&'a Expr>,
        mut take: impl FnMut(&Self, &Key, RowRef<'a>) -> More,
    ) -> Result<(), StatementError> {
        let limit = self.most_entries();
        self.view.looked_at(Span::all());
        let mut found = Vec::new();
        if let Some(entries) = self.view.range(&Key::least()) {
            for (place, (key, seen)) in entries.enumerate() {
                if place >= limit {
                    return Err(StatementError::TooManyEntries { limit });
                }
                self.observed = self.observed.max(seen.lsn);
                let values = seen.row.and_then(|row| values_of(shape, row));
                if let Some(values) = values.filter(|values| span.contains(values)) {
                    found.push((values, key, seen));
                }
            }
        }
        found.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        if backward {
            found.reverse();
        }
        for (_, key, seen) in found {
            if !self.one(&key, seen, filter, &mut take)? {
                break;
            }
        }
        Ok(())
    }

    fn most_entries(&self) -> usize {
        if self.program.is_read_only() {
            MAX_ENTRIES_READ
        } else {
            MAX_ENTRIES_TO_WRITE
        }
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
        let limit = self.most_entries();
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

fn beyond() -> StatementError {
    StatementError::TypeMismatch("a range beyond the key".to_owned())
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
