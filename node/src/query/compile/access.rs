//! How the rows of a statement are found: by the conditions that every one of them must meet.

use volt_engine::catalog::Table;
use volt_engine::plan::{Access, BinaryOp, Expr, KeyBound, KeyRange};

use super::expr::balanced;

/// The rows to look at, and what those that are meant satisfy besides.
pub(super) struct Found {
    pub(super) access: Access,
    pub(super) filter: Option<Expr>,
    /// The columns that have one value in all of them.
    bound: Vec<usize>,
}

/// One of ORDER BY's that is a column: (which, whether descending).
pub(super) type Order = (usize, bool);

/// What the partition column must be equal to.
pub(super) fn partition_value(table: &Table, conditions: &[Expr]) -> Option<Expr> {
    let mut values = conditions
        .iter()
        .filter_map(|condition| key_value(condition, table.partition_column));
    values.next().cloned()
}

/// The key, as far as the conditions name it; the rest filters.
pub(super) fn find(table: &Table, mut conditions: Vec<Expr>) -> Found {
    let has_value = |condition: &Expr| {
        let column = |&column: &usize| key_value(condition, column).is_some();
        (0..table.columns.len()).find(|place| column(place))
    };
    let bound = conditions.iter().filter_map(has_value).collect();
    let mut prefix = Vec::new();
    for &column in &table.primary_key {
        let place = conditions
            .iter()
            .position(|condition| key_value(condition, column).is_some());
        let Some(place) = place else { break };
        let condition = conditions.remove(place);
        prefix.extend(key_value(&condition, column).cloned());
    }
    let (from, to) = match table.primary_key.get(prefix.len()) {
        Some(&next) => bounds(&conditions, next),
        None => (None, None),
    };
    let access = if prefix.len() == table.primary_key.len() {
        Access::Point(prefix)
    } else if from.is_some() || to.is_some() {
        Access::Range(KeyRange {
            prefix,
            from,
            to,
            backward: false,
        })
    } else if prefix.is_empty() {
        Access::Scan
    } else {
        Access::Prefix(prefix)
    };
    Found {
        access,
        filter: balanced(BinaryOp::And, conditions),
        bound,
    }
}

/// The first of each kind. They stay among the conditions, for a bound that no key can be says nothing.
fn bounds(conditions: &[Expr], column: usize) -> (Option<KeyBound>, Option<KeyBound>) {
    let (mut from, mut to) = (None, None);
    for condition in conditions {
        let Some((op, value)) = compared(condition, column) else {
            continue;
        };
        let (end, inclusive) = match op {
            BinaryOp::Greater => (&mut from, false),
            BinaryOp::GreaterOrEqual => (&mut from, true),
            BinaryOp::Less => (&mut to, false),
            BinaryOp::LessOrEqual => (&mut to, true),
            _ => continue,
        };
        let value = value.clone();
        end.get_or_insert(KeyBound { value, inclusive });
    }
    (from, to)
}

impl Found {
    /// True when the rows are found in this order; perhaps they are walked backwards for it.
    pub(super) fn comes_in(&mut self, table: &Table, order: &[Order]) -> bool {
        let Some(backward) = self.direction(table, order) else {
            return false;
        };
        if !backward {
            return true;
        }
        let range = |prefix| KeyRange {
            prefix,
            from: None,
            to: None,
            backward: true,
        };
        match &mut self.access {
            Access::Point(_) => {}
            Access::Range(range) => range.backward = true,
            Access::Prefix(prefix) => self.access = Access::Range(range(std::mem::take(prefix))),
            Access::Scan => self.access = Access::Range(range(Vec::new())),
        }
        true
    }

    /// Whether the walk that has this order goes backwards; None: none has it.
    fn direction(&self, table: &Table, order: &[Order]) -> Option<bool> {
        let is_bound = |column: &usize| self.bound.contains(column);
        let mut key = table.primary_key.iter().filter(|column| !is_bound(column));
        let mut backward = None;
        for (column, descending) in order.iter().filter(|(column, _)| !is_bound(column)) {
            // Beyond the whole key there is one row of each rank.
            let Some(next) = key.next() else { break };
            if next != column || *backward.get_or_insert(*descending) != *descending {
                return None;
            }
        }
        Some(backward.unwrap_or(false))
    }
}

/// `column op value`, where the value is known before any row; of `value op column`, the same turned round.
fn compared(condition: &Expr, column: usize) -> Option<(BinaryOp, &Expr)> {
    let Expr::Binary { op, left, right } = condition else {
        return None;
    };
    match (&**left, &**right) {
        (Expr::Column(found), value) if *found == column && is_constant(value) => Some((*op, value)),
        (value, Expr::Column(found)) if *found == column && is_constant(value) => {
            let turned = match op {
                BinaryOp::Less => BinaryOp::Greater,
                BinaryOp::LessOrEqual => BinaryOp::GreaterOrEqual,
                BinaryOp::Greater => BinaryOp::Less,
                BinaryOp::GreaterOrEqual => BinaryOp::LessOrEqual,
                other => *other,
            };
            Some((turned, value))
        }
        _ => None,
    }
}

/// `column = value`, either way round, where the value is known before any row.
fn key_value(condition: &Expr, column: usize) -> Option<&Expr> {
    compared(condition, column)
        .filter(|(op, _)| *op == BinaryOp::Equal)
        .map(|(_, value)| value)
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Parameter(_) | Expr::Literal(_) => true,
        Expr::Cast { operand, .. } | Expr::Unary { operand, .. } => is_constant(operand),
        _ => false,
    }
}

/// The conditions that all must be true for this one to be.
pub(super) fn flatten(condition: Expr, into: &mut Vec<Expr>) {
    match condition {
        Expr::Binary {
            op: BinaryOp::And,
            left,
            right,
        } => {
            flatten(*left, into);
            flatten(*right, into);
        }
        other => into.push(other),
    }
}
