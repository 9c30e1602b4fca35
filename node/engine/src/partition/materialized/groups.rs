//! What changes of a source's rows do to a view's groups.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rust_decimal::Decimal;

use super::super::indexes::by_index;
use super::super::view::seen_at;
use crate::Lsn;
use crate::catalog::{ViewAggregate, ViewShape};
use crate::key::{Key, encode_key};
use crate::plan::aggregate::mantissa;
use crate::plan::eval::Scope;
use crate::plan::operators::{compare, to_decimal};
use crate::plan::{Expr, StatementContext};
use crate::row::{RowRef, encode_row};
use crate::span::Span;
use crate::table::{Table, push_value};
use crate::transaction::Written;
use crate::value::{Value, ValueRef};

/// What a row has a view count.
#[derive(PartialEq)]
pub(super) struct Contribution {
    group: Vec<Value>,
    /// One an aggregate.
    values: Vec<Value>,
}

impl Contribution {
    /// None: the row is none of the view's.
    pub(super) fn of(shape: &ViewShape, row: &[u8]) -> Option<Self> {
        let row = RowRef::new(row).with_missing(&shape.missing);
        let scope = Scope {
            lsn: 0,
            row: Some(row),
            parameters: &[],
            context: &StatementContext { now_micros: 0 },
        };
        if let Some(filter) = &shape.filter
            && !filter.is_true(&scope).unwrap_or(false)
        {
            return None;
        }
        // They don't fail; if one did, it would do so everywhere.
        let value = |expr: &Expr| expr.eval(&scope).unwrap_or(Value::Null);
        let argument = |aggregate: &ViewAggregate| match aggregate {
            ViewAggregate::Count(argument) | ViewAggregate::Sum { argument, .. } => value(argument),
            ViewAggregate::Extreme { column, .. } => row.get(*column).to_value(),
        };
        Some(Self {
            group: shape.groups.iter().map(value).collect(),
            values: shape.aggregates.iter().map(argument).collect(),
        })
    }
}

/// How a group changes.
struct Change {
    group: Vec<Value>,
    rows: i64,
    parts: Vec<Part>,
}

enum Part {
    Count(i64),
    Sum {
        total: i128,
        count: i64,
    },
    /// The best of the values that come, and of those that go; NULL: none does.
    Extreme {
        comes: Value,
        goes: Value,
    },
}

/// The source, as somebody sees it.
pub(super) struct Source<'a> {
    pub(super) table: Option<&'a Table>,
    /// A transaction's writes in the places of what they change.
    pub(super) writes: Option<&'a BTreeMap<Key, Written>>,
    pub(super) snapshot: Lsn,
    /// The row with this key counts.
    pub(super) counts: &'a dyn Fn(&Key) -> bool,
}

/// The groups that change, by key.
#[derive(Default)]
pub(super) struct Groups(BTreeMap<Key, Change>);

impl Groups {
    /// A row takes another's place.
    pub(super) fn replace(&mut self, shape: &ViewShape, before: Option<Contribution>, after: Option<Contribution>) {
        if before == after {
            return;
        }
        let moves = match (&before, &after) {
            (Some(before), Some(after)) => before.group != after.group,
            _ => true,
        };
        let stays = |place: usize| {
            let value = |contribution: &Option<Contribution>| Some(contribution.as_ref()?.values.get(place)?.clone());
            !moves && value(&before) == value(&after)
        };
        let changes: Vec<bool> = (0..shape.aggregates.len()).map(|place| !stays(place)).collect();
        if let Some(before) = before {
            self.add(shape, before, -1, &changes);
        }
        if let Some(after) = after {
            self.add(shape, after, 1, &changes);
        }
    }

    fn add(&mut self, shape: &ViewShape, row: Contribution, sign: i64, changes: &[bool]) {
        let key = Key::new(&encode_key(row.group.iter().map(Value::as_ref)));
        let change = match self.0.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Change {
                group: row.group,
                rows: 0,
                parts: shape.aggregates.iter().map(Part::nothing).collect(),
            }),
        };
        change.rows += sign;
        let parts = change.parts.iter_mut().zip(&shape.aggregates);
        for (((part, aggregate), value), _) in parts.zip(row.values).zip(changes).filter(|(_, changes)| **changes) {
            part.add(aggregate, value, sign);
        }
    }

    /// The rows that these changes make of those that there are.
    pub(super) fn finish<'r>(
        self,
        shape: &ViewShape,
        source: &Source<'_>,
        row: impl Fn(&Key) -> Option<&'r [u8]>,
    ) -> BTreeMap<Key, Written> {
        let mut rows = BTreeMap::new();
        for (key, change) in self.0 {
            let before = row(&key);
            let after = change.apply(shape, source, before.map(RowRef::new));
            if before != after.as_deref() {
                rows.insert(key, after);
            }
        }
        rows
    }
}

impl Change {
    fn apply(self, shape: &ViewShape, source: &Source<'_>, before: Option<RowRef<'_>>) -> Written {
        let mut place = shape.groups.len();
        let mut column = || {
            let value = before.map_or(ValueRef::Null, |row| row.get(place));
            place += 1;
            value
        };
        let rows = integer(column()) + self.rows;
        if rows <= 0 {
            return None;
        }
        let mut values = self.group.clone();
        values.push(Value::BigInt(rows));
        for (part, aggregate) in self.parts.into_iter().zip(&shape.aggregates) {
            match (part, aggregate) {
                (Part::Count(count), _) => values.push(Value::BigInt(integer(column()) + count)),
                (Part::Sum { total, count }, ViewAggregate::Sum { scale, .. }) => {
                    let scale = u32::from(*scale);
                    let total = digits(column(), scale).map(|before| before + total);
                    values.push(numeric(total, scale));
                    values.push(Value::BigInt(integer(column()) + count));
                }
                (Part::Extreme { comes, goes }, ViewAggregate::Extreme { greatest, .. }) => {
                    let now = column();
                    let may_be_gone = goes != Value::Null && !is_better(now, goes.as_ref(), *greatest);
                    values.push(if may_be_gone {
                        source.extreme(shape, aggregate, &self.group)
                    } else if is_better(comes.as_ref(), now, *greatest) {
                        comes
                    } else {
                        now.to_value()
                    });
                }
                (Part::Sum { .. } | Part::Extreme { .. }, _) => values.push(Value::Null),
            }
        }
        let values: Vec<ValueRef<'_>> = values.iter().map(Value::as_ref).collect();
        Some(encode_row(&values).into())
    }
}

impl Part {
    fn nothing(aggregate: &ViewAggregate) -> Self {
        match aggregate {
            ViewAggregate::Count(_) => Self::Count(0),
            ViewAggregate::Sum { .. } => Self::Sum { total: 0, count: 0 },
            ViewAggregate::Extreme { .. } => Self::Extreme {
                comes: Value::Null,
                goes: Value::Null,
            },
        }
    }

    fn add(&mut self, aggregate: &ViewAggregate, value: Value, sign: i64) {
        if value == Value::Null {
            return;
        }
        match (self, aggregate) {
            (Self::Count(count), _) => *count += sign,
            (Self::Sum { total, count }, ViewAggregate::Sum { scale, .. }) => {
                *total += i128::from(sign) * digits(value.as_ref(), u32::from(*scale)).unwrap_or(0);
                *count += sign;
            }
            (Self::Extreme { comes, goes }, ViewAggregate::Extreme { greatest, .. }) => {
                let best = if sign > 0 { comes } else { goes };
                if is_better(value.as_ref(), best.as_ref(), *greatest) {
                    *best = value;
                }
            }
            (Self::Sum { .. } | Self::Extreme { .. }, _) => {}
        }
    }
}

/// A value comes before another as an extreme; anything before NULL.
fn is_better(value: ValueRef<'_>, than: ValueRef<'_>, greatest: bool) -> bool {
    if than == ValueRef::Null {
        return value != ValueRef::Null;
    }
    let order = compare(value, than).ok().flatten();
    order.is_some_and(|order| if greatest { order.is_gt() } else { order.is_lt() })
}

fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::BigInt(value) => value,
        ValueRef::Int(value) => i64::from(value),
        _ => 0,
    }
}

/// A number's digits at a scale, those of NULL 0; None: it can't be known.
fn digits(value: ValueRef<'_>, scale: u32) -> Option<i128> {
    match value {
        ValueRef::Null => Some(0),
        value => mantissa(to_decimal(value).ok()?, scale),
    }
}

/// Sums have room in it (`MAX_SUMMED_PRECISION`); NULL for one that hasn't, which no table has rows enough for.
fn numeric(total: Option<i128>, scale: u32) -> Value {
    let value = total.and_then(|total| Decimal::try_from_i128_with_scale(total, scale).ok());
    value.map_or(Value::Null, Value::Numeric)
}

impl Source<'_> {
    /// The least or greatest value of a group; NULL: there is none.
    fn extreme(&self, shape: &ViewShape, aggregate: &ViewAggregate, group: &[Value]) -> Value {
        let ViewAggregate::Extreme {
            column,
            greatest,
            index,
            ..
        } = aggregate
        else {
            return Value::Null;
        };
        let mut prefix = Vec::new();
        for (expr, value) in shape.groups.iter().zip(group) {
            if let Expr::Column(_) = expr {
                push_value(&mut prefix, value.as_ref(), false);
            }
        }
        // NULL is the greatest, and none of these.
        let mut null = prefix.clone();
        push_value(&mut null, ValueRef::Null, false);
        let span = Span {
            from: Key::new(&prefix),
            to: Some(Key::new(&null)),
        };
        let see = seen_at(self.snapshot);
        let value_of = |row| RowRef::new(row).with_missing(&shape.missing).get(*column);
        if let Some(mut found) = by_index(self.table, *index, see, self.writes, &span, *greatest) {
            let row = found.find_map(|(_, key, seen)| seen.row.filter(|_| (self.counts)(&key)));
            return row.map_or(Value::Null, |row| value_of(row).to_value());
        }
        // The index is not built yet.
        let mut best = Value::Null;
        for row in self.rows() {
            let value = value_of(row);
            if is_better(value, best.as_ref(), *greatest)
                && Contribution::of(shape, row).is_some_and(|row| row.group == group)
            {
                best = value.to_value();
            }
        }
        best
    }
}
