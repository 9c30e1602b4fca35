//! Runs row programs against the newest state; writes become effects, which are not applied here.

use std::collections::BTreeMap;

use super::Partition;
use super::table::{Table, Version};
use crate::Lsn;
use crate::catalog::Column;
use crate::effects::{Effects, EffectsBuilder};
use crate::error::StatementError;
use crate::key::{encode_key, push_key};
use crate::plan::eval::{Scope, cast, peek};
use crate::plan::{Access, Action, Expr, Program, StatementContext};
use crate::row::{RowRef, encode_row};
use crate::value::{Value, ValueRef};

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
    /// What it had met by then, as in `Outcome`.
    pub observed: Lsn,
    /// The error.
    pub error: StatementError,
}

impl Partition {
    /// Runs a program; its rows go to `sink`, one at a time.
    pub fn run(
        &self,
        program: &Program,
        parameters: &[Value],
        context: &StatementContext,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<Outcome, Failed> {
        let empty = Table::default();
        let table = self.tables.get(&program.table).unwrap_or(&empty);
        let mut run = Run { program, table, parameters, context, observed: 0 };
        let done = match &program.action {
            Action::Select { access, filter, project, limit, offset } => {
                run.select(access, filter.as_ref(), project, (*limit, *offset), sink).map(|affected| (affected, None))
            }
            Action::Insert { rows } => run.insert(rows),
            Action::Update { access, filter, set } => run.update(access, filter.as_ref(), set),
            Action::Delete { access, filter } => run.delete(access, filter.as_ref()),
        };
        match done {
            Ok((affected, effects)) => Ok(Outcome { observed: run.observed, affected, effects }),
            Err(error) => Err(Failed { observed: run.observed, error }),
        }
    }
}

struct Run<'a> {
    program: &'a Program,
    table: &'a Table,
    parameters: &'a [Value],
    context: &'a StatementContext,
    observed: Lsn,
}

type Written = Result<(u64, Option<Effects>), StatementError>;

impl<'a> Run<'a> {
    fn scope<'r>(&self, row: Option<RowRef<'r>>) -> Scope<'r>
    where
        'a: 'r,
    {
        Scope { row, parameters: self.parameters, context: self.context }
    }

    /// Gives each row that `access` finds and `filter` keeps to `take`, in key order, until that says stop.
    fn each(
        &mut self,
        access: &Access,
        filter: Option<&Expr>,
        mut take: impl FnMut(&Self, &[u8], RowRef<'a>) -> Result<bool, StatementError>,
    ) -> Result<(), StatementError> {
        let table = self.table;
        match access {
            Access::Point(values) => {
                let Some(key) = self.key(values)? else { return Ok(()) };
                if let Some(version) = table.get(&key) {
                    self.one(&key, version, filter, &mut take)?;
                }
                Ok(())
            }
            Access::Prefix(values) => {
                let Some(prefix) = self.key(values)? else { return Ok(()) };
                for (key, version) in table.with_prefix(prefix) {
                    if !self.one(key, version, filter, &mut take)? {
                        return Ok(());
                    }
                }
                Ok(())
            }
            Access::Scan => {
                for (key, version) in table.after(None) {
                    if !self.one(key, version, filter, &mut take)? {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }

    fn one(
        &mut self,
        key: &[u8],
        version: &'a Version,
        filter: Option<&Expr>,
        take: &mut impl FnMut(&Self, &[u8], RowRef<'a>) -> Result<bool, StatementError>,
    ) -> Result<bool, StatementError> {
        self.observed = self.observed.max(version.lsn);
        let Some(row) = version.row.as_deref() else { return Ok(true) };
        let row = RowRef::trusted(row).map_err(|error| StatementError::TypeMismatch(error.to_string()))?;
        if let Some(filter) = filter
            && !filter.is_true(&self.scope(Some(row)))?
        {
            return Ok(true);
        }
        take(self, key, row)
    }

    /// The key, or its beginning, that these expressions give; None when one is NULL: it finds nothing.
    fn key(&self, values: &[Expr]) -> Result<Option<Vec<u8>>, StatementError> {
        let mut key = Vec::with_capacity(values.len() * 9);
        for (value, &column) in values.iter().zip(&self.program.primary_key) {
            let scope = self.scope(None);
            match peek(value, &scope) {
                Some(ValueRef::Null) => return Ok(None),
                Some(value @ (ValueRef::Int(_) | ValueRef::BigInt(_) | ValueRef::Text(_))) => push_key(&mut key, value),
                _ => {
                    let value = cast(value.eval(&scope)?, self.column(column)?.data_type)?;
                    if value == Value::Null {
                        return Ok(None);
                    }
                    push_key(&mut key, value.as_ref());
                }
            }
        }
        Ok(Some(key))
    }

    fn column(&self, place: usize) -> Result<&'a Column, StatementError> {
        let missing = || StatementError::TypeMismatch(format!("{} has no column {place}", self.program.table_name));
        self.program.columns.get(place).ok_or_else(missing)
    }

    fn select(
        &mut self,
        access: &Access,
        filter: Option<&Expr>,
        project: &[Expr],
        (limit, offset): (Option<u64>, u64),
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<u64, StatementError> {
        let (mut skipped, mut given) = (0, 0);
        let plain = project.iter().all(|expr| matches!(expr, Expr::Column(_)));
        if limit == Some(0) {
            return Ok(0);
        }
        self.each(access, filter, |run, _, row| {
            if skipped < offset {
                skipped += 1;
                return Ok(true);
            }
            let scope = run.scope(Some(row));
            if plain {
                let value = |expr: &Expr| if let Expr::Column(column) = expr { row.get(*column) } else { ValueRef::Null };
                match project {
                    [only] => sink(&[value(only)]),
                    _ => sink(&project.iter().map(value).collect::<Vec<_>>()),
                }
            } else {
                let values = project.iter().map(|expr| expr.eval(&scope)).collect::<Result<Vec<_>, _>>()?;
                sink(&values.iter().map(Value::as_ref).collect::<Vec<_>>());
            }
            given += 1;
            Ok(limit.is_none_or(|limit| given < limit))
        })?;
        Ok(given)
    }

    fn insert(&mut self, rows: &[Vec<Expr>]) -> Written {
        let mut effects = EffectsBuilder::default();
        let mut keys = std::collections::BTreeSet::new();
        for row in rows {
            let scope = self.scope(None);
            let mut values = Vec::with_capacity(row.len());
            for (place, expr) in row.iter().enumerate() {
                values.push(self.fit(place, expr.eval(&scope)?)?);
            }
            let key = self.key_of(&values);
            let taken = self.table.get(&key);
            self.observed = self.observed.max(taken.map_or(0, |version| version.lsn));
            if taken.is_some_and(|version| version.row.is_some()) || keys.contains(&key) {
                return Err(self.duplicate(&values));
            }
            effects.put(self.program.table, &key, &encode(&values));
            keys.insert(key);
        }
        Ok((rows.len() as u64, Some(effects.finish()).filter(|_| !rows.is_empty())))
    }

    fn update(&mut self, access: &Access, filter: Option<&Expr>, set: &[(usize, Expr)]) -> Written {
        let moves = set.iter().any(|(column, _)| self.program.primary_key.contains(column));
        let mut changed: Vec<(Vec<u8>, Vec<Value>)> = Vec::new();
        self.each(access, filter, |run, key, row| {
            let scope = run.scope(Some(row));
            let mut values: Vec<Value> = row.values().map(ValueRef::to_value).collect();
            values.resize(run.program.columns.len().max(values.len()), Value::Null);
            for (column, expr) in set {
                let fitted = run.fit(*column, expr.eval(&scope)?)?;
                values[*column] = fitted;
            }
            changed.push((key.to_vec(), values));
            Ok(true)
        })?;
        if changed.is_empty() {
            return Ok((0, None));
        }
        let mut effects = EffectsBuilder::default();
        if !moves {
            for (key, values) in &changed {
                effects.put(self.program.table, key, &encode(values));
            }
            return Ok((changed.len() as u64, Some(effects.finish())));
        }
        // Keys may move: a new key must be free, or be one that is moving away.
        let old: BTreeMap<&[u8], ()> = changed.iter().map(|(key, _)| (key.as_slice(), ())).collect();
        let mut new = BTreeMap::new();
        for (_, values) in &changed {
            let key = self.key_of(values);
            let taken = self.table.get(&key);
            self.observed = self.observed.max(taken.map_or(0, |version| version.lsn));
            let in_the_way = taken.is_some_and(|version| version.row.is_some()) && !old.contains_key(key.as_slice());
            if in_the_way || new.insert(key, values).is_some() {
                return Err(self.duplicate(values));
            }
        }
        for key in old.keys().filter(|key| !new.contains_key(**key)) {
            effects.remove(self.program.table, key);
        }
        for (key, values) in &new {
            effects.put(self.program.table, key, &encode(values));
        }
        Ok((changed.len() as u64, Some(effects.finish())))
    }

    fn delete(&mut self, access: &Access, filter: Option<&Expr>) -> Written {
        let (mut effects, mut affected) = (EffectsBuilder::default(), 0);
        let table = self.program.table;
        self.each(access, filter, |_, key, _| {
            effects.remove(table, key);
            affected += 1;
            Ok(true)
        })?;
        Ok((affected, Some(effects.finish()).filter(|_| affected > 0)))
    }

    /// A value as its column takes it.
    fn fit(&self, place: usize, value: Value) -> Result<Value, StatementError> {
        let column = self.column(place)?;
        if value == Value::Null && (!column.nullable || self.program.primary_key.contains(&place)) {
            return Err(StatementError::NotNull { table: self.program.table_name.clone(), column: column.name.clone() });
        }
        cast(value, column.data_type)
    }

    fn key_of(&self, values: &[Value]) -> Vec<u8> {
        encode_key(self.program.primary_key.iter().map(|&column| values.get(column).map_or(ValueRef::Null, Value::as_ref)))
    }

    fn duplicate(&self, values: &[Value]) -> StatementError {
        let name = |column: &usize| self.program.columns.get(*column).map_or("?", |column| column.name.as_str());
        let names: Vec<&str> = self.program.primary_key.iter().map(name).collect();
        let text = |column: &usize| values.get(*column).map_or(String::new(), |value| value.as_ref().to_text());
        let texts: Vec<String> = self.program.primary_key.iter().map(text).collect();
        StatementError::DuplicateKey {
            table: self.program.table_name.clone(),
            detail: format!("Key ({})=({}) already exists.", names.join(", "), texts.join(", ")),
        }
    }
}

fn encode(values: &[Value]) -> Vec<u8> {
    encode_row(&values.iter().map(Value::as_ref).collect::<Vec<_>>())
}
