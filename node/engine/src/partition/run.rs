//! Runs row programs against the newest state; writes become effects, which are not applied here.

mod check;
mod find;
mod stages;
mod unique;

use std::collections::{BTreeMap, BTreeSet};

pub use find::{MAX_ENTRIES_READ, MAX_ENTRIES_TO_WRITE};
pub use stages::MAX_KEPT_BYTES;
pub use unique::Duplicates;

use super::Partition;
use super::view::{Newest, Seen, View};
use crate::catalog::Column;
use crate::effects::{Effects, EffectsBuilder};
use crate::error::StatementError;
use crate::key::{Key, KeyBuffer};
use crate::plan::cast::{as_key, assign};
use crate::plan::eval::{Datum, NULL, Scope, parameter};
use crate::plan::{Access, Action, Expr, Program, StatementContext};
use crate::row::{RowRef, encode_row_into};
use crate::span::Span;
use crate::value::{Value, ValueRef};
use crate::{Lsn, TableId};

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
        match run.perform(sink) {
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
            Action::Insert { rows } => self.insert(rows),
            Action::Update { access, filter, set } => self.update(access, filter.as_ref(), set),
            Action::Truncate { others } => self.truncate(others),
            Action::Delete { access, filter } => self.delete(access, filter.as_ref()),
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
        let row = RowRef::new(row);
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

    fn insert(&mut self, rows: &'a [Vec<Expr>]) -> Written {
        let mut effects = EffectsBuilder::default();
        let mut keys = BTreeSet::new();
        let mut encoded = Vec::new();
        let mut uniques = self.uniques();
        for row in rows {
            if row.len() != self.program.columns.len() {
                return Err(StatementError::TypeMismatch(
                    "a row has not one value a column".to_owned(),
                ));
            }
            let mut values = Vec::with_capacity(row.len());
            for (place, expr) in row.iter().enumerate() {
                values.push(self.fit(place, expr.evaluate(&self.scope)?)?);
            }
            encode(&mut encoded, &values);
            self.check(&encoded)?;
            let key = self.key_of(&values)?;
            if self.is_taken(&key) || keys.contains(&key) {
                return Err(self.duplicate(&values));
            }
            effects.put(self.program.table, key.as_bytes(), &encoded);
            effects.check_size()?;
            self.put_unique(&mut uniques, &key, None, &encoded)?;
            if rows.len() > 1 {
                keys.insert(key);
            }
        }
        self.check_unique(&uniques)?;
        Ok((rows.len() as u64, effects.finish_if_any()))
    }

    /// Whether a row has this key; what there is, or was, has been observed.
    fn is_taken(&mut self, key: &Key) -> bool {
        let Some(seen) = self.view.get(key) else {
            return false;
        };
        self.observed = self.observed.max(seen.lsn);
        seen.row.is_some()
    }

    fn update(&mut self, access: &'a Access, filter: Option<&'a Expr>, set: &'a [(usize, Expr)]) -> Written {
        if set.iter().any(|(column, _)| self.program.primary_key.contains(column)) {
            return self.update_keys(access, filter, set);
        }
        let (mut effects, mut affected) = (EffectsBuilder::default(), 0);
        let (mut values, mut encoded) = (Vec::new(), Vec::new());
        let mut uniques = self.uniques();
        self.each(access, filter, |run, key, row| {
            run.updated(row, set, &mut values)?;
            encode(&mut encoded, &values);
            run.check(&encoded)?;
            effects.put(run.program.table, key.as_bytes(), &encoded);
            effects.check_size()?;
            run.put_unique(&mut uniques, key, Some(row), &encoded)?;
            affected += 1;
            Ok(true)
        })?;
        self.check_unique(&uniques)?;
        Ok((affected, effects.finish_if_any()))
    }

    /// An update that may move rows to other keys: a new key must be free, or be one that is moving away. As in
    /// standard SQL the whole statement counts; PostgreSQL would refuse some orders.
    fn update_keys(&mut self, access: &'a Access, filter: Option<&'a Expr>, set: &'a [(usize, Expr)]) -> Written {
        let (mut changed, mut encoded) = (Vec::new(), Vec::new());
        self.each(access, filter, |run, key, row| {
            let mut values = Vec::new();
            run.updated(row, set, &mut values)?;
            encode(&mut encoded, &values);
            run.check(&encoded)?;
            changed.push((key.clone(), values));
            Ok(true)
        })?;
        let old: BTreeSet<Key> = changed.iter().map(|(key, _)| key.clone()).collect();
        let mut new = BTreeMap::new();
        for (_, values) in &changed {
            let key = self.key_of(values)?;
            if (self.is_taken(&key) && !old.contains(&key)) || new.insert(key, values).is_some() {
                return Err(self.duplicate(values));
            }
        }
        let mut effects = EffectsBuilder::default();
        let mut uniques = self.uniques();
        old.iter().for_each(|key| uniques.goes(key));
        for key in old.iter().filter(|key| !new.contains_key(*key)) {
            effects.remove(self.program.table, key.as_bytes());
        }
        for (key, values) in &new {
            encode(&mut encoded, values);
            effects.put(self.program.table, key.as_bytes(), &encoded);
            effects.check_size()?;
            self.put_unique(&mut uniques, key, None, &encoded)?;
        }
        self.check_unique(&uniques)?;
        Ok((changed.len() as u64, effects.finish_if_any()))
    }

    /// The row's values with those that `set` changes, which are evaluated on the old row.
    fn updated(
        &self,
        row: RowRef<'a>,
        set: &'a [(usize, Expr)],
        values: &mut Vec<Datum<'a>>,
    ) -> Result<(), StatementError> {
        let scope = self.scope(row);
        values.clear();
        values.extend(row.values().map(Datum::Ref));
        // A row from before a column was added lacks it.
        values.resize(values.len().max(self.program.columns.len()), NULL);
        for (column, expr) in set {
            let fitted = self.fit(*column, expr.evaluate(&scope)?)?;
            values[*column] = fitted;
        }
        Ok(())
    }

    fn delete(&mut self, access: &'a Access, filter: Option<&'a Expr>) -> Written {
        let (mut effects, mut affected) = (EffectsBuilder::default(), 0);
        self.each(access, filter, |run, key, _| {
            effects.remove(run.program.table, key.as_bytes());
            effects.check_size()?;
            affected += 1;
            Ok(true)
        })?;
        Ok((affected, effects.finish_if_any()))
    }

    /// How many rows go is not counted.
    fn truncate(&self, others: &[TableId]) -> Written {
        let mut effects = EffectsBuilder::default();
        for &table in [self.program.table].iter().chain(others) {
            effects.clear(table);
            effects.check_size()?;
        }
        Ok((0, effects.finish_if_any()))
    }

    /// A value as its column takes it.
    fn fit(&self, place: usize, value: Datum<'a>) -> Result<Datum<'a>, StatementError> {
        let column = self.column(place)?;
        if value.is_null() && (!column.nullable || self.program.primary_key.contains(&place)) {
            return Err(StatementError::NotNull {
                table: self.program.table_name.clone(),
                column: column.name.clone(),
            });
        }
        assign(value, column.data_type)
    }

    fn key_of(&self, values: &[Datum<'_>]) -> Result<Key, StatementError> {
        let mut key = KeyBuffer::new();
        for &column in &self.program.primary_key {
            self.column(column)?;
            key.push_value(values.get(column).map_or(ValueRef::Null, Datum::as_ref));
        }
        Ok(key.to_key())
    }

    fn duplicate(&self, values: &[Datum<'_>]) -> StatementError {
        let value = |place: usize| values.get(place).map_or(ValueRef::Null, Datum::as_ref);
        let constraint = format!("{}_pkey", self.program.table_name);
        let columns = self.program.primary_key.iter().copied();
        duplicate(self.program, constraint, columns, value)
    }
}

/// What a unique index, or the primary key, has already.
fn duplicate<'r>(
    program: &Program,
    constraint: String,
    columns: impl Iterator<Item = usize>,
    value: impl Fn(usize) -> ValueRef<'r>,
) -> StatementError {
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for place in columns {
        names.push(program.columns.get(place).map_or("?", |column| column.name.as_str()));
        texts.push(value(place).to_text());
    }
    StatementError::DuplicateKey {
        table: program.table_name.clone(),
        constraint,
        detail: format!("Key ({})=({}) already exists.", names.join(", "), texts.join(", ")),
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
        .collect::<Result<Vec<_>, _>>()?;
    sink(&values.iter().map(Datum::as_ref).collect::<Vec<_>>());
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

fn encode(out: &mut Vec<u8>, values: &[Datum<'_>]) {
    out.clear();
    encode_row_into(out, values.iter().map(Datum::as_ref));
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;
