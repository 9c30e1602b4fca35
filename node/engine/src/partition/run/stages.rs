//! Runs the stages of a select. Rows are pushed from one into the next; a stage that needs all of them, to sort or to
//! group, keeps them in the row encoding and gives them at the end.

use std::collections::BTreeMap;

use super::super::view::View;
use super::{More, Page, Run, are_plain, give};
use crate::error::StatementError;
use crate::key::KeyBuffer;
use crate::plan::aggregate::{Accumulator, ENTRY_BYTES};
use crate::plan::eval::{Datum, Scope};
use crate::plan::{Access, Aggregate, Expr, SortKey, Stage};
use crate::row::{RowRef, encode_row_into};
use crate::value::{Value, ValueRef};

/// What the stages of a statement keep in one partition, in bytes, about.
pub const MAX_KEPT_BYTES: usize = 8 << 20;

/// A sort that needs only its first rows drops the others when it has so many times as many.
const SORT_SLACK: usize = 2;
/// But not before it has so many.
const MIN_SORTED: usize = 1_024;

impl<'a, V: View<'a>> Run<'a, V> {
    pub(super) fn staged(
        &mut self,
        access: &'a Access,
        filter: Option<&'a Expr>,
        stages: &'a [Stage],
        project: &'a [Expr],
        page: Page,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<u64, StatementError> {
        if page.left == 0 {
            return Ok(0);
        }
        let end = End {
            plain: are_plain(project),
            project,
            page,
            given: 0,
        };
        let mut line = Line::new(stages, end, self.scope)?;
        if !line.is_over() {
            self.each(access, filter, |run, _, row| line.push(0, run.scope(row), row, sink))?;
        }
        line.finish(sink)
    }
}

/// The stages of a run, and what they have so far.
struct Line<'a> {
    stages: Vec<State<'a>>,
    end: End<'a>,
    /// Without a row.
    scope: Scope<'a>,
    kept: usize,
}

/// What comes behind the last stage.
struct End<'a> {
    project: &'a [Expr],
    plain: bool,
    page: Page,
    given: u64,
}

enum State<'a> {
    Filter(&'a Expr),
    Project(&'a [Expr]),
    Limit { skip: u64, left: u64 },
    Sort(Sorting<'a>),
    Aggregate(Grouping<'a>),
}

struct Sorting<'a> {
    keys: &'a [SortKey],
    /// Memcomparable, and the row.
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Only so many of the first are wanted.
    wanted: Option<usize>,
}

struct Grouping<'a> {
    group: &'a [Expr],
    aggregates: &'a [Aggregate],
    groups: BTreeMap<Vec<u8>, Group>,
}

/// Its values, and what is told of it.
struct Group {
    values: Vec<Value>,
    accumulators: Vec<Accumulator>,
}

impl<'a> Line<'a> {
    fn new(stages: &'a [Stage], end: End<'a>, scope: Scope<'a>) -> Result<Self, StatementError> {
        let mut states: Vec<State<'a>> = Vec::with_capacity(stages.len());
        // From the end: a sort looks at how many rows are wanted behind it.
        let mut wanted = end.page.left.checked_add(end.page.skip);
        for stage in stages.iter().rev() {
            let state = match stage {
                Stage::Filter(condition) => State::Filter(condition),
                Stage::Project(exprs) => State::Project(exprs),
                Stage::Limit { skip, fetch } => State::Limit {
                    skip: count(skip.as_ref(), &scope, "OFFSET")?.unwrap_or(0),
                    left: count(fetch.as_ref(), &scope, "LIMIT")?.unwrap_or(u64::MAX),
                },
                Stage::Sort(keys) => State::Sort(Sorting {
                    keys,
                    rows: Vec::new(),
                    wanted: wanted.and_then(|wanted| usize::try_from(wanted).ok()),
                }),
                Stage::Aggregate { group, aggregates } => State::Aggregate(Grouping {
                    group,
                    aggregates,
                    groups: BTreeMap::new(),
                }),
            };
            wanted = match &state {
                State::Limit { skip, left } => left.min(&wanted.unwrap_or(u64::MAX)).checked_add(*skip),
                State::Project(_) => wanted,
                _ => None,
            };
            states.push(state);
        }
        states.reverse();
        Ok(Self {
            stages: states,
            end,
            scope,
            kept: 0,
        })
    }

    /// No row would come through: there is no need to look at any.
    fn is_over(&self) -> bool {
        let none = |state: &State<'_>| matches!(state, State::Limit { left: 0, .. });
        self.stages.iter().any(none)
    }

    /// A row for the stage at `at`; whether that takes more. `scope` has the row.
    fn push(&mut self, at: usize, scope: Scope<'_>, row: RowRef<'_>, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> More {
        let Some(state) = self.stages.get_mut(at) else {
            return self.end.take(&scope, row, sink);
        };
        match state {
            State::Filter(condition) => {
                if !condition.is_true(&scope)? {
                    return Ok(true);
                }
                self.push(at + 1, scope, row, sink)
            }
            State::Project(exprs) => {
                let projected = encoded(exprs, &scope)?;
                self.push_encoded(at + 1, &projected, sink)
            }
            State::Limit { left: 0, .. } => Ok(false),
            State::Limit { skip, .. } if *skip > 0 => {
                *skip -= 1;
                Ok(true)
            }
            State::Limit { left, .. } => {
                *left -= 1;
                let more = *left > 0;
                Ok(self.push(at + 1, scope, row, sink)? && more)
            }
            State::Sort(sorting) => {
                let change = sorting.add(&scope, row)?;
                self.keep(change)
            }
            State::Aggregate(grouping) => {
                let more = grouping.add(&scope)?;
                self.keep(more as isize)
            }
        }
    }

    fn push_encoded(&mut self, at: usize, row: &[u8], sink: &mut dyn FnMut(&[ValueRef<'_>])) -> More {
        let row = RowRef::new(row);
        let scope = Scope {
            row: Some(row),
            ..self.scope
        };
        self.push(at, scope, row, sink)
    }

    fn keep(&mut self, change: isize) -> More {
        self.kept = self.kept.saturating_add_signed(change);
        if self.kept > MAX_KEPT_BYTES {
            return Err(StatementError::TooMuchKept);
        }
        Ok(true)
    }

    /// No more rows come: the stages that waited for all of them go on. Returns how many rows were given.
    fn finish(mut self, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Result<u64, StatementError> {
        for at in 0..self.stages.len() {
            let rows = match &mut self.stages[at] {
                State::Sort(sorting) => sorting.finish(),
                State::Aggregate(grouping) => grouping.finish()?,
                _ => continue,
            };
            for row in rows {
                if !self.push_encoded(at + 1, &row, sink)? {
                    break;
                }
            }
        }
        Ok(self.end.given)
    }
}

impl End<'_> {
    fn take(&mut self, scope: &Scope<'_>, row: RowRef<'_>, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> More {
        if self.page.skip > 0 {
            self.page.skip -= 1;
            return Ok(true);
        }
        give(self.project, self.plain, row, scope, sink)?;
        self.given += 1;
        Ok(self.given < self.page.left)
    }
}

impl Sorting<'_> {
    /// Returns how many bytes more are kept.
    fn add(&mut self, scope: &Scope<'_>, row: RowRef<'_>) -> Result<isize, StatementError> {
        let mut key = Vec::new();
        for by in self.keys {
            push_sort_key(&mut key, by, by.expr.evaluate(scope)?.as_ref());
        }
        let mut bytes = Vec::new();
        encode_row_into(&mut bytes, row.whole().collect::<Vec<_>>().into_iter());
        let mut change = (key.len() + bytes.len() + ENTRY_BYTES) as isize;
        self.rows.push((key, bytes));
        if let Some(wanted) = self.wanted
            && self.rows.len() >= wanted.saturating_mul(SORT_SLACK).max(MIN_SORTED)
        {
            self.sort();
            for (key, row) in self.rows.drain(wanted..) {
                change -= (key.len() + row.len() + ENTRY_BYTES) as isize;
            }
        }
        Ok(change)
    }

    /// Rows of equal rank keep their order.
    fn sort(&mut self) {
        self.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    }

    fn finish(&mut self) -> Vec<Vec<u8>> {
        self.sort();
        std::mem::take(&mut self.rows).into_iter().map(|(_, row)| row).collect()
    }
}

/// Keys of several columns are beginnings of no others, so that inverted ones sort the other way round.
fn push_sort_key(key: &mut Vec<u8>, by: &SortKey, value: ValueRef<'_>) {
    let is_null = value == ValueRef::Null;
    key.push(u8::from(is_null != by.nulls_first));
    if is_null {
        return;
    }
    let mut encoded = KeyBuffer::new();
    encoded.push_value(value);
    let flip = if by.descending { 0xFF } else { 0 };
    key.extend(encoded.as_bytes().iter().map(|byte| byte ^ flip));
}

impl Grouping<'_> {
    /// Returns how many bytes more are kept, about.
    fn add(&mut self, scope: &Scope<'_>) -> Result<usize, StatementError> {
        let group: Vec<Datum<'_>> = evaluated(self.group, scope)?;
        let mut key = KeyBuffer::new();
        group.iter().for_each(|value| key.push_value(value.as_ref()));
        let mut more = 0;
        if !self.groups.contains_key(key.as_bytes()) {
            more += 2 * key.as_bytes().len() + (1 + group.len() + self.aggregates.len()) * ENTRY_BYTES;
            let values = group.into_iter().map(Datum::into_value).collect();
            self.groups
                .insert(key.as_bytes().to_vec(), new_group(values, self.aggregates)?);
        }
        let Some(group) = self.groups.get_mut(key.as_bytes()) else {
            return Ok(more);
        };
        for (aggregate, accumulator) in self.aggregates.iter().zip(&mut group.accumulators) {
            if let Some(filter) = &aggregate.filter
                && !filter.is_true(scope)?
            {
                continue;
            }
            match &aggregate.argument {
                None => accumulator.add_row(),
                Some(argument) => more += accumulator.add(argument.evaluate(scope)?.as_ref())?,
            }
        }
        Ok(more)
    }

    fn finish(&mut self) -> Result<Vec<Vec<u8>>, StatementError> {
        let mut groups = std::mem::take(&mut self.groups);
        if groups.is_empty() && self.group.is_empty() {
            groups.insert(Vec::new(), new_group(Vec::new(), self.aggregates)?);
        }
        let rows = groups.into_values().map(|mut group| {
            for accumulator in group.accumulators {
                group.values.push(accumulator.finish()?);
            }
            let mut row = Vec::new();
            encode_row_into(&mut row, group.values.iter().map(Value::as_ref));
            Ok(row)
        });
        rows.collect()
    }
}

fn new_group(values: Vec<Value>, aggregates: &[Aggregate]) -> Result<Group, StatementError> {
    let accumulators = aggregates.iter().map(Accumulator::new);
    Ok(Group {
        values,
        accumulators: accumulators.collect::<Result<_, _>>()?,
    })
}

fn evaluated<'s>(exprs: &'s [Expr], scope: &Scope<'s>) -> Result<Vec<Datum<'s>>, StatementError> {
    exprs.iter().map(|expr| expr.evaluate(scope)).collect()
}

fn encoded(exprs: &[Expr], scope: &Scope<'_>) -> Result<Vec<u8>, StatementError> {
    let values = evaluated(exprs, scope)?;
    let mut row = Vec::new();
    encode_row_into(&mut row, values.iter().map(Datum::as_ref));
    Ok(row)
}

/// LIMIT and OFFSET; None: there is none, or NULL.
fn count(expr: Option<&Expr>, scope: &Scope<'_>, clause: &str) -> Result<Option<u64>, StatementError> {
    let Some(expr) = expr else { return Ok(None) };
    let value = expr.evaluate(scope)?;
    let number = match value.as_ref() {
        ValueRef::Null => return Ok(None),
        ValueRef::Int(number) => i64::from(number),
        ValueRef::BigInt(number) => number,
        other => {
            let message = format!("{clause} can't take a value of type {}", other.type_name());
            return Err(StatementError::TypeMismatch(message));
        }
    };
    let negative = |_| StatementError::NegativeCount {
        clause: clause.to_owned(),
    };
    u64::try_from(number).map(Some).map_err(negative)
}
