//! Columns that are added and dropped.
//!
//! A row that was written before a column was added lacks it, and has the value that the column was added with. A row has its values by place, so the place of a column outlives it: rows that are there keep what they have in it, new
//! ones have NULL, and nothing that names a column finds it. No row is touched, and what was planned before still finds
//! every other column where it was.

use super::{Column, Table, ViewAggregate, ViewShape};
use crate::plan::{Action, Expr, Program};
use crate::value::Value;

impl Column {
    /// Leaves a place that takes NULL. The name is PostgreSQL's for it, which nobody gives a column.
    fn forget(&mut self, place: usize) {
        self.name = format!("........dropped.{}........", place + 1);
        self.nullable = true;
        self.default = None;
        self.missing = Value::Null;
        self.is_dropped = true;
    }
}

impl Table {
    /// The columns that there are, each with its place in a row.
    pub fn present_columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        let placed = self.columns.iter().enumerate();
        placed.filter(|(_, column)| !column.is_dropped)
    }

    /// The place of the column with this name.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        self.present_columns()
            .find_map(|(place, column)| (column.name == name).then_some(place))
    }

    /// By column, what rows have in those that they lack (`RowRef::with_missing`). Empty when it is NULL in all.
    pub fn missing(&self) -> Vec<Value> {
        let last = self.columns.iter().rposition(|column| column.missing != Value::Null);
        let known = &self.columns[..last.map_or(0, |last| last + 1)];
        known.iter().map(|column| column.missing.clone()).collect()
    }

    /// Drops a column that is not of the primary key, with the indexes, the CHECK constraints and the TTL that look at it.
    pub fn drop_column(&mut self, place: usize) {
        if let Some(column) = self.columns.get_mut(place) {
            column.forget(place);
        }
        self.indexes.retain(|index| {
            let shape = &index.shape;
            let is_ordered_by = shape.columns.iter().any(|column| column.place == place);
            !is_ordered_by && !shape.predicate.as_ref().is_some_and(|expr| expr.reads(place))
        });
        self.checks.retain(|one| !one.check.condition.reads(place));
        self.ttl.take_if(|ttl| ttl.column == place);
    }
}

impl Program {
    /// What the program is after a column of its table was dropped that it doesn't name.
    pub fn drop_column(&mut self, place: usize) {
        if let Some(column) = self.columns.get_mut(place) {
            column.forget(place);
        }
        self.checks.retain(|check| !check.condition.reads(place));
        if let Action::Insert { rows } = &mut self.action {
            let values = rows.iter_mut().filter_map(|row| row.get_mut(place));
            values.for_each(|value| *value = Expr::Literal(Value::Null));
        }
    }
}

impl ViewShape {
    /// It looks at this column of its source's rows.
    pub fn reads(&self, place: usize) -> bool {
        let of_aggregate = |aggregate: &ViewAggregate| match aggregate {
            ViewAggregate::Count(argument) | ViewAggregate::Sum { argument, .. } => argument.reads(place),
            ViewAggregate::Extreme { column, .. } => *column == place,
        };
        let mut exprs = self.groups.iter().chain(&self.filter);
        exprs.any(|expr| expr.reads(place)) || self.aggregates.iter().any(of_aggregate)
    }
}

impl Expr {
    /// It looks at this column of its row.
    pub fn reads(&self, place: usize) -> bool {
        // An explicit stack: expressions are deep.
        let mut open = vec![self];
        while let Some(expr) = open.pop() {
            match expr {
                Self::Column(column) if *column == place => return true,
                Self::Column(_) | Self::Parameter(_) | Self::Literal(_) | Self::Version(_) => {}
                Self::Binary { left, right, .. } => open.extend([&**left, &**right]),
                Self::Unary { operand, .. } | Self::Cast { operand, .. } => open.push(operand),
                Self::InList { operand, list, .. } => {
                    open.push(operand);
                    open.extend(list);
                }
                Self::Like { operand, pattern, .. } => open.extend([&**operand, &**pattern]),
                Self::Case { arms, otherwise } => {
                    open.extend(arms.iter().flat_map(|(condition, value)| [condition, value]));
                    open.extend(otherwise.as_deref());
                }
                Self::Call { arguments, .. } => open.extend(arguments),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
