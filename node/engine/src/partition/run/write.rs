//! Programs that write: their effects, which are not applied here.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::super::view::View;
use super::returning::Sink;
use super::{Run, Written};
use crate::effects::EffectsBuilder;
use crate::error::StatementError;
use crate::key::{Key, KeyBuffer};
use crate::plan::cast::assign;
use crate::plan::eval::{Datum, Datums, NULL, Scope};
use crate::plan::{Access, Expr, OnConflict, Program};
use crate::row::{RowRef, encode_changed_into, encode_row_into};
use crate::value::ValueRef;
use crate::{Lsn, TableId};

/// Columns that an UPDATE changes without allocating.
const FEW: usize = 6;

impl<'a, V: View<'a>> Run<'a, V> {
    pub(super) fn insert(&mut self, rows: &'a [Vec<Expr>], sink: Sink<'_>) -> Written {
        let mut returned = self.returned(sink);
        let (mut effects, mut affected) = (EffectsBuilder::default(), 0);
        let mut keys = BTreeSet::new();
        let mut encoded = Vec::new();
        let mut uniques = self.uniques();
        for row in rows {
            let values = self.values_to_put(row)?;
            encode(&mut encoded, &values);
            self.check(&encoded)?;
            let key = self.key_of(&values)?;
            let there = self.there(&key);
            let is_put_already = keys.contains(&key);
            let mut old = None;
            if there.is_some() || is_put_already {
                match (&self.program.on_conflict, there) {
                    (None, _) => return Err(self.duplicate(&values)),
                    (Some(OnConflict::Nothing), _) => continue,
                    (Some(OnConflict::Update { set, filter }), Some((lsn, there))) if !is_put_already => {
                        if !self.merged((lsn, there), &values, (set, filter.as_ref()), &mut encoded)? {
                            continue;
                        }
                        self.check(&encoded)?;
                        self.view.changes(&key, lsn);
                        old = Some(there);
                    }
                    (Some(OnConflict::Update { .. }), _) => return Err(StatementError::RowAffectedTwice),
                }
            }
            effects.put(self.program.table, key.as_bytes(), &encoded);
            effects.check_size()?;
            self.put_unique(&mut uniques, &key, old, &encoded)?;
            returned.give(RowRef::new(&encoded), 0)?;
            affected += 1;
            if rows.len() > 1 {
                keys.insert(key);
            }
        }
        self.check_unique(&uniques)?;
        Ok((affected, effects.finish_if_any()))
    }

    /// The values of a row of VALUES, as their columns take them.
    fn values_to_put(&self, row: &'a [Expr]) -> Result<Datums<'a>, StatementError> {
        if row.len() != self.program.columns.len() {
            let what = "a row has not one value a column";
            return Err(StatementError::TypeMismatch(what.to_owned()));
        }
        let value = |(place, expr): (usize, &'a Expr)| self.fit(place, expr.evaluate(&self.scope)?);
        row.iter().enumerate().map(value).collect()
    }

    /// The row that has this key, with its version; what there is, or was, has been observed.
    fn there(&mut self, key: &Key) -> Option<(Lsn, RowRef<'a>)> {
        let seen = self.view.get(key)?;
        self.observed = self.observed.max(seen.lsn);
        let row = RowRef::new(seen.row?).with_missing(&self.program.missing);
        Some((seen.lsn, row))
    }

    /// ON CONFLICT DO UPDATE: what is there with what changes of it. False: it stays as it is.
    fn merged(
        &self,
        (lsn, there): (Lsn, RowRef<'a>),
        to_put: &[Datum<'a>],
        (set, filter): (&'a [(usize, Expr)], Option<&'a Expr>),
        encoded: &mut Vec<u8>,
    ) -> Result<bool, StatementError> {
        let columns = self.program.columns.len();
        let mut old: Vec<ValueRef<'_>> = there.whole().collect();
        old.resize(old.len().max(columns), ValueRef::Null);
        let (mut both, to_put) = (Vec::new(), to_put.iter().map(Datum::as_ref));
        let of_both: Vec<ValueRef<'_>> = old[..columns].iter().copied().chain(to_put).collect();
        encode_row_into(&mut both, of_both.into_iter());
        let scope = Scope {
            row: Some(RowRef::new(&both)),
            lsn,
            ..self.scope
        };
        if let Some(filter) = filter
            && !filter.is_true(&scope)?
        {
            return Ok(false);
        }
        let mut values: Vec<Datum<'_>> = old.into_iter().map(Datum::Ref).collect();
        for (place, expr) in set {
            values[*place] = self.fit(*place, expr.evaluate(&scope)?)?;
        }
        encode(encoded, &values);
        Ok(true)
    }

    /// Whether a row has this key; what there is, or was, has been observed.
    fn is_taken(&mut self, key: &Key) -> bool {
        self.there(key).is_some()
    }

    pub(super) fn update(
        &mut self,
        access: &'a Access,
        filter: Option<&'a Expr>,
        set: &'a [(usize, Expr)],
        sink: Sink<'_>,
    ) -> Written {
        if set.iter().any(|(column, _)| self.program.primary_key.contains(column)) {
            return self.update_keys(access, filter, set, sink);
        }
        let mut returned = self.returned(sink);
        let (mut effects, mut affected) = (EffectsBuilder::default(), 0);
        let mut encoded = Vec::new();
        let mut uniques = self.uniques();
        self.each(access, filter, |run, key, row| {
            run.encode_updated(row, set, &mut encoded)?;
            run.check(&encoded)?;
            effects.put(run.program.table, key.as_bytes(), &encoded);
            effects.check_size()?;
            run.put_unique(&mut uniques, key, Some(row), &encoded)?;
            returned.give(RowRef::new(&encoded), 0)?;
            affected += 1;
            Ok(true)
        })?;
        self.check_unique(&uniques)?;
        Ok((affected, effects.finish_if_any()))
    }

    /// An update that may move rows to other keys: a new key must be free, or be one that is moving away. As in
    /// standard SQL the whole statement counts; PostgreSQL would refuse some orders.
    fn update_keys(
        &mut self,
        access: &'a Access,
        filter: Option<&'a Expr>,
        set: &'a [(usize, Expr)],
        sink: Sink<'_>,
    ) -> Written {
        let mut returned = self.returned(sink);
        let (mut changed, mut encoded) = (Vec::new(), Vec::new());
        self.each(access, filter, |run, key, row| {
            let mut values = Vec::new();
            run.updated(row, set, &mut values)?;
            encode(&mut encoded, &values);
            run.check(&encoded)?;
            returned.give(RowRef::new(&encoded), 0)?;
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

    /// The row with the values that `set` changes, which are evaluated on the old row.
    fn encode_updated(
        &self,
        row: RowRef<'a>,
        set: &'a [(usize, Expr)],
        encoded: &mut Vec<u8>,
    ) -> Result<(), StatementError> {
        let scope = self.scope(row);
        let fitted = |(column, expr): &'a (usize, Expr)| Ok((*column, self.fit(*column, expr.evaluate(&scope)?)?));
        let fitted = set
            .iter()
            .map(fitted)
            .collect::<Result<SmallVec<[_; FEW]>, StatementError>>()?;
        let mut changed: SmallVec<[(usize, ValueRef<'_>); FEW]> =
            fitted.iter().map(|(column, value)| (*column, value.as_ref())).collect();
        changed.sort_by_key(|(column, _)| *column);
        // Of one that is named twice the last counts.
        changed.reverse();
        changed.dedup_by_key(|(column, _)| *column);
        changed.reverse();
        encoded.clear();
        encode_changed_into(encoded, row, self.program.columns.len(), &changed);
        Ok(())
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
        values.extend(row.whole().map(Datum::Ref));
        values.resize(values.len().max(self.program.columns.len()), NULL);
        for (column, expr) in set {
            let fitted = self.fit(*column, expr.evaluate(&scope)?)?;
            values[*column] = fitted;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, access: &'a Access, filter: Option<&'a Expr>, sink: Sink<'_>) -> Written {
        let (mut effects, mut affected) = (EffectsBuilder::default(), 0);
        let mut returned = self.returned(sink);
        self.each(access, filter, |run, key, row| {
            effects.remove(run.program.table, key.as_bytes());
            effects.check_size()?;
            returned.give(row, run.scope.lsn)?;
            affected += 1;
            Ok(true)
        })?;
        Ok((affected, effects.finish_if_any()))
    }

    /// How many rows go is not counted.
    pub(super) fn truncate(&self, others: &[TableId]) -> Written {
        let mut effects = EffectsBuilder::default();
        for &table in [self.program.table].iter().chain(others) {
            effects.clear(table);
            effects.check_size()?;
        }
        Ok((0, effects.finish_if_any()))
    }

    /// A value as its column takes it.
    fn fit<'v>(&self, place: usize, value: Datum<'v>) -> Result<Datum<'v>, StatementError> {
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
pub(super) fn duplicate<'r>(
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

fn encode(out: &mut Vec<u8>, values: &[Datum<'_>]) {
    out.clear();
    encode_row_into(out, values.iter().map(Datum::as_ref));
}

#[cfg(test)]
mod tests;
