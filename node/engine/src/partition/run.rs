//! Runs row programs against the newest state; writes become effects, which are not applied here.

mod check;
mod find;
mod returning;
mod stages;
mod unique;
mod write;

pub use find::{MAX_ENTRIES_READ, MAX_ENTRIES_TO_WRITE};
pub use returning::MAX_RETURNED_BYTES;
pub use stages::MAX_KEPT_BYTES;
pub use unique::Duplicates;

use super::Partition;
use super::view::{Newest, Seen, View};
use crate::Lsn;
use crate::catalog::Column;
use crate::effects::Effects;
use crate::error::StatementError;
use crate::key::{Key, KeyBuffer};
use crate::plan::cast::as_key;
use crate::plan::eval::{Datum, Datums, Scope, ValueRefs, parameter};
use crate::plan::{Access, Action, Expr, Program, StatementContext};
use crate::row::RowRef;
use crate::span::Span;
use crate::value::{Value, ValueRef};

/// Results of so many columns, all plain, are given without allocating.
const PLAIN_COLUMNS: usize = 16;

/// What a program did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The greatest LSN of any version or tombstone that it met: to be committed before anyone hears of this.
    pub observed: Lsn,
    /// Rows returned or changed.
    pub affected: u64,
    /// What it wants to do; None: nothing.
    pub effects: Option<Effects>,
}

/// Why it did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// What it had met by then, as in `Outcome`: the error may come from what is not committed.
    pub observed: Lsn,
    /// The error.
    pub error: StatementError,
}

impl Partition {
    /// Runs a program; its rows go to `sink`, one at a time. Rows given before an error don't count.
    pub fn run(
        &self,
        program: &Program,
        parameters: &[Value],
        context: &StatementContext,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<Outcome, Failed> {
        let view = Newest(self.tables.get(&program.table));
        let mut run = Run::new(program, view, parameters, context);
        let result = self
            .check_view(program.table, Lsn::MAX)
            .and_then(|()| run.perform(sink));
        match result {
            Ok((affected, effects)) => Ok(Outcome {
                observed: run.observed,
                affected,
                effects,
            }),
            Err(error) => Err(Failed {
                observed: run.observed,
                error,
            }),
        }
    }
}

/// A program being run on what its view shows.
pub(super) struct Run<'a, V> {
    program: &'a Program,
    view: V,
    scope: Scope<'a>,
    observed: Lsn,
}

/// OFFSET and LIMIT.
struct Page {
    skip: u64,
    left: u64,
}

type Written = Result<(u64, Option<Effects>), StatementError>;

/// Whether to look at more rows.
type More = Result<bool, StatementError>;

impl<'a, V: View<'a>> Run<'a, V> {
    pub(super) fn new(program: &'a Program, view: V, parameters: &'a [Value], context: &'a StatementContext) -> Self {
        let scope = Scope {
            row: None,
            lsn: 0,
            parameters,
            context,
        };
        Self {
            program,
            view,
            scope,
            observed: 0,
        }
    }

    pub(super) fn observed(&self) -> Lsn {
        self.observed
    }

    pub(super) fn into_view(self) -> V {
        self.view
    }

    /// Runs it: rows returned or changed, and what it wants to do.
    #[inline]
    pub(super) fn perform(&mut self, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Written {
        let (affected, effects) = self.act(sink)?;
        Ok((if self.program.repeats { 0 } else { affected }, effects))
    }

    #[inline]
    fn act(&mut self, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Written {
        match &self.program.action {
            Action::Select {
                access,
                filter,
                stages,
                project,
                limit,
                offset,
            } => {
                let page = Page {
                    skip: *offset,
                    left: limit.unwrap_or(u64::MAX),
                };
                let given = match stages.as_slice() {
                    [] => self.select(access, filter.as_ref(), project, page, sink)?,
                    stages => self.staged(access, filter.as_ref(), stages, project, page, sink)?,
                };
                Ok((given, None))
            }
            Action::Insert { rows } => self.insert(rows, sink),
            Action::Update { access, filter, set } => self.update(access, filter.as_ref(), set, sink),
            Action::Truncate { others } => self.truncate(others),
            Action::Delete { access, filter } => self.delete(access, filter.as_ref(), sink),
        }
    }

    fn scope(&self, row: RowRef<'a>) -> Scope<'a> {
        Scope {
            row: Some(row),
            ..self.scope
        }
    }

    /// Gives each row that `access` finds and `filter` keeps to `take`, in key order, until that says stop.
    #[inline]
    fn each(
        &mut self,
        access: &'a Access,
        filter: Option<&'a Expr>,
        mut take: impl FnMut(&Self, &Key, RowRef<'a>) -> More,
    ) -> Result<(), StatementError> {
        match access {
            Access::Point(values) => {
                let Some(key) = self.key(values)? else { return Ok(()) };
                let key = key.to_key();
                if let Some(seen) = self.view.get(&key) {
                    self.one(&key, seen, filter, &mut take)?;
                }
                Ok(())
            }
            Access::Prefix(values) => match self.key(values)? {
                Some(prefix) => self.each_of(Span::of_prefix(prefix.to_key()), false, filter, take),
                None => Ok(()),
            },
            Access::Range(range) => match self.span(range)? {
                Some(span) => self.each_of(span, range.backward, filter, take),
                None => Ok(()),
            },
            Access::Scan => self.each_of(Span::all(), false, filter, take),
            Access::Index(index) => self.each_by_index(index, filter, take),
        }
    }

    #[inline]
    fn one(
        &mut self,
        key: &Key,
        seen: Seen<'a>,
        filter: Option<&'a Expr>,
        take: &mut impl FnMut(&Self, &Key, RowRef<'a>) -> More,
    ) -> More {
        self.observed = self.observed.max(seen.lsn);
        let Some(row) = seen.row else { return Ok(true) };
        let row = RowRef::new(row).with_missing(&self.program.missing);
        self.scope.lsn = seen.lsn;
        if let Some(filter) = filter
            && !filter.is_true(&self.scope(row))?
        {
            return Ok(true);
        }
        if !self.program.is_read_only() {
            self.view.changes(key, seen.lsn);
        }
        take(self, key, row)
    }

    /// The key, or its beginning, that these expressions give; None: it finds nothing (one is NULL, or no value of its
    /// column).
    #[inline]
    fn key(&self, values: &'a [Expr]) -> Result<Option<KeyBuffer>, StatementError> {
        let mut key = KeyBuffer::new();
        if values.len() > self.program.primary_key.len() {
            return Err(StatementError::TypeMismatch(
                "more key values than key columns".to_owned(),
            ));
        }
        for (value, &column) in values.iter().zip(&self.program.primary_key) {
            let column = self.column(column)?;
            let Some(value) = as_key(value.evaluate(&self.scope)?, column.data_type)? else {
                return Ok(None);
            };
            key.push_value(value.as_ref());
        }
        Ok(Some(key))
    }

    fn column(&self, place: usize) -> Result<&'a Column, StatementError> {
        let missing = || StatementError::TypeMismatch(format!("{} has no column {place}", self.program.table_name));
        self.program.columns.get(place).ok_or_else(missing)
    }

    fn select(
        &mut self,
        access: &'a Access,
        filter: Option<&'a Expr>,
        project: &'a [Expr],
        mut page: Page,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<u64, StatementError> {
        if page.left == 0 {
            return Ok(0);
        }
        let plain = are_plain(project);
        let mut given = 0;
        self.each(access, filter, |run, _, row| {
            if page.skip > 0 {
                page.skip -= 1;
                return Ok(true);
            }
            give(project, plain, row, &run.scope(row), sink)?;
            given += 1;
            Ok(given < page.left)
        })?;
        Ok(given)
    }
}

/// Gives one row of the result.
#[inline]
fn give<'a>(
    project: &'a [Expr],
    plain: bool,
    row: RowRef<'a>,
    scope: &Scope<'a>,
    sink: &mut dyn FnMut(&[ValueRef<'_>]),
) -> Result<(), StatementError> {
    if plain {
        let mut values = [ValueRef::Null; PLAIN_COLUMNS];
        fill_plain(project, row, scope, &mut values)?;
        sink(&values[..project.len()]);
        return Ok(());
    }
    let values = project
        .iter()
        .map(|expr| expr.evaluate(scope))
        .collect::<Result<Datums<'_>, _>>()?;
    sink(&values.iter().map(Datum::as_ref).collect::<ValueRefs<'_>>());
    Ok(())
}

/// All of these need no evaluation, and there are few.
fn are_plain(project: &[Expr]) -> bool {
    project.len() <= PLAIN_COLUMNS && project.iter().all(is_plain)
}

/// It needs no evaluation, only a look.
fn is_plain(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_) | Expr::Parameter(_) | Expr::Literal(_))
}

/// Plain results; columns in ascending order, as most are, in one walk over the row.
#[inline]
fn fill_plain<'a>(
    project: &'a [Expr],
    row: RowRef<'a>,
    scope: &Scope<'a>,
    values: &mut [ValueRef<'a>; PLAIN_COLUMNS],
) -> Result<(), StatementError> {
    let mut walk = row.walk();
    for (slot, expr) in values.iter_mut().zip(project) {
        *slot = match expr {
            Expr::Column(column) => walk.get(*column),
            Expr::Parameter(place) => parameter(scope, *place)?,
            Expr::Literal(value) => value.as_ref(),
            _ => ValueRef::Null,
        };
    }
    Ok(())
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;
