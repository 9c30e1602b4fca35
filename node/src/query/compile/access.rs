//! How the rows of a statement are found: by the conditions that every one of them must meet.

use volt_engine::catalog::{Index, Table};
use volt_engine::plan::{Access, BinaryOp, Expr, Function, IndexRange, KeyBound, KeyRange, UnaryOp};
use volt_engine::value::DataType;

use super::expr::balanced;

/// The rows to look at, and what those that are meant satisfy besides.
pub(super) struct Found {
    pub(super) access: Access,
    pub(super) filter: Option<Expr>,
    /// The columns that have one value in all of them.
    bound: Vec<usize>,
    /// What they are ordered by, and whether down.
    order: Vec<(usize, bool)>,
    rank: Rank,
}

/// How few rows there may be: the greater, the fewer. The kind of access, columns that have one value, bounds of the next.
type Rank = (Kind, usize, usize);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    All,
    Some,
    /// One, by a unique index.
    Unique,
    /// One, by its key.
    Point,
}

/// One of ORDER BY's that is a column.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) column: usize,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// What the partition column must be equal to.
pub(super) fn partition_value(table: &Table, conditions: &[Expr]) -> Option<Expr> {
    let place = table.partition_column?;
    let value = |condition: &Expr| key_value(&without_widening(table, condition.clone()), place).cloned();
    conditions.iter().filter_map(value).find(is_timeless)
}

/// A comparison of an INT column with a BIGINT: the column need not be cast for it, and is found as it is.
fn without_widening(table: &Table, condition: Expr) -> Expr {
    let is_int = |expr: &Expr| match expr {
        Expr::Column(place) => table.columns.get(*place).map(|column| column.data_type) == Some(DataType::Int),
        _ => false,
    };
    let plain = |side: Box<Expr>| match *side {
        Expr::Cast {
            operand,
            to: DataType::BigInt,
        } if is_int(&operand) => operand,
        side => Box::new(side),
    };
    match condition {
        Expr::Binary { op, left, right } if is_comparison(op) => Expr::Binary {
            op,
            left: plain(left),
            right: plain(right),
        },
        condition => condition,
    }
}

/// The way to the fewest rows.
pub(super) fn find(table: &Table, conditions: Vec<Expr>) -> Found {
    ways(table, conditions).swap_remove(0)
}

/// The same, but of several ways that may be as good one that has the rows in this order.
pub(super) fn find_in_order(table: &Table, conditions: Vec<Expr>, order: &[Order]) -> Found {
    let mut ways = ways(table, conditions);
    let best = ways[0].rank;
    let has_order = |way: &Found| way.rank == best && way.direction(table, order).is_some();
    let place = ways.iter().position(has_order).unwrap_or(0);
    ways.swap_remove(place)
}

/// By the primary key, and by each index that has all rows that are meant; the best first, of equals the key.
fn ways(table: &Table, conditions: Vec<Expr>) -> Vec<Found> {
    let conditions = conditions.into_iter().map(|one| without_widening(table, one));
    let conditions: Vec<Expr> = conditions.collect();
    let of_index = |index: &Index| {
        let shape = &index.shape;
        let has_all = shape
            .predicate
            .as_ref()
            .is_none_or(|predicate| follows(table, predicate, &conditions));
        has_all.then(|| by_index(table, index, conditions.clone()))
    };
    let by_index = table.indexes.iter().filter_map(of_index).collect::<Vec<_>>();
    let mut ways = vec![by_key(table, conditions)];
    ways.extend(by_index);
    ways.sort_by_key(|way| std::cmp::Reverse(way.rank));
    ways
}

/// The key, as far as the conditions name it; the rest filters.
fn by_key(table: &Table, mut conditions: Vec<Expr>) -> Found {
    let bound = bound(table, &conditions);
    let order: Vec<_> = table.primary_key.iter().map(|&column| (column, false)).collect();
    let (prefix, from, to) = narrow(&mut conditions, &order);
    let bounds = usize::from(from.is_some()) + usize::from(to.is_some());
    let narrowed = (prefix.len(), bounds);
    let kind;
    let access = if prefix.len() == table.primary_key.len() {
        kind = Kind::Point;
        Access::Point(prefix)
    } else if bounds > 0 {
        kind = Kind::Some;
        Access::Range(KeyRange {
            prefix,
            from,
            to,
            backward: false,
        })
    } else if prefix.is_empty() {
        kind = Kind::All;
        Access::Scan
    } else {
        kind = Kind::Some;
        Access::Prefix(prefix)
    };
    Found {
        access,
        filter: balanced(BinaryOp::And, conditions),
        bound,
        order,
        rank: (kind, narrowed.0, narrowed.1),
    }
}

/// The same by an index.
fn by_index(table: &Table, index: &Index, mut conditions: Vec<Expr>) -> Found {
    let bound = bound(table, &conditions);
    let columns = index.shape.columns.iter();
    let mut order: Vec<_> = columns.map(|column| (column.place, column.descending)).collect();
    let (prefix, from, to) = narrow(&mut conditions, &order);
    // Rows with the same values are in the order of their keys.
    order.extend(table.primary_key.iter().map(|&column| (column, false)));
    let bounds = usize::from(from.is_some()) + usize::from(to.is_some());
    let kind = match prefix.len() {
        // While it is being made there may be more; that is slower, not wrong.
        all if all == index.shape.columns.len() && index.unique => Kind::Unique,
        0 if bounds == 0 => Kind::All,
        _ => Kind::Some,
    };
    let rank = (kind, prefix.len(), bounds);
    let range = KeyRange {
        prefix,
        from,
        to,
        backward: false,
    };
    let shape = index.shape.clone();
    Found {
        access: Access::Index(Box::new(IndexRange { shape, range })),
        filter: balanced(BinaryOp::And, conditions),
        bound,
        order,
        rank,
    }
}

/// The columns that have one value in all rows.
fn bound(table: &Table, conditions: &[Expr]) -> Vec<usize> {
    let has_value = |condition: &Expr| {
        let column = |&column: &usize| key_value(condition, column).is_some();
        (0..table.columns.len()).find(|place| column(place))
    };
    conditions.iter().filter_map(has_value).collect()
}

type Narrowed = (Vec<Expr>, Option<KeyBound>, Option<KeyBound>);

/// The values of the first columns, taken out of the conditions, and the bounds of the next one.
fn narrow(conditions: &mut Vec<Expr>, key: &[(usize, bool)]) -> Narrowed {
    let mut prefix = Vec::new();
    for &(column, _) in key {
        let place = conditions
            .iter()
            .position(|condition| key_value(condition, column).is_some());
        let Some(place) = place else { break };
        let condition = conditions.remove(place);
        prefix.extend(key_value(&condition, column).cloned());
    }
    let (from, to) = match key.get(prefix.len()) {
        Some(&(next, _)) => bounds(conditions, next),
        None => (None, None),
    };
    (prefix, from, to)
}

/// Every row that meets the conditions meets the predicate: each part of it is one of them, or says that a column is not
/// NULL that one of them compares.
fn follows(table: &Table, predicate: &Expr, conditions: &[Expr]) -> bool {
    let mut parts = Vec::new();
    flatten(predicate.clone(), &mut parts);
    let parts: Vec<Expr> = parts.into_iter().map(|part| without_widening(table, part)).collect();
    let is_met = |part: &Expr| {
        if conditions.contains(part) {
            return true;
        }
        let Expr::Unary {
            op: UnaryOp::IsNotNull,
            operand,
        } = part
        else {
            return false;
        };
        let Expr::Column(column) = **operand else { return false };
        let compares = |condition: &Expr| compared(condition, column).is_some_and(|(op, _)| is_comparison(op));
        conditions.iter().any(compares)
    };
    parts.iter().all(is_met)
}

/// It is not true of NULL.
fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    matches!(op, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual)
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
            Access::Index(index) => index.range.backward = true,
            Access::Prefix(prefix) => self.access = Access::Range(range(std::mem::take(prefix))),
            Access::Scan => self.access = Access::Range(range(Vec::new())),
        }
        true
    }

    /// Whether the walk that has this order goes backwards; None: none has it.
    fn direction(&self, table: &Table, order: &[Order]) -> Option<bool> {
        let is_bound = |column: usize| self.bound.contains(&column);
        let mut key = self.order.iter().filter(|(column, _)| !is_bound(*column));
        let mut backward = None;
        for wanted in order.iter().filter(|order| !is_bound(order.column)) {
            // Beyond the whole key there is one row of each rank.
            let Some((column, descending)) = key.next() else { break };
            let goes_back = wanted.descending != *descending;
            // NULL is the greatest.
            let nulls = !table.columns[*column].nullable || wanted.nulls_first == wanted.descending;
            if *column != wanted.column || *backward.get_or_insert(goes_back) != goes_back || !nulls {
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

/// Known before any row.
fn is_constant(expr: &Expr) -> bool {
    every(expr, &|part| !matches!(part, Expr::Column(_) | Expr::Version(_)))
}

/// The same wherever and whenever it is asked for.
fn is_timeless(expr: &Expr) -> bool {
    let is_now = |part: &Expr| {
        matches!(
            part,
            Expr::Call {
                function: Function::Now,
                ..
            }
        )
    };
    every(expr, &|part| !is_now(part))
}

/// Whether it holds for an expression and all that is in it.
fn every(expr: &Expr, holds: &impl Fn(&Expr) -> bool) -> bool {
    let all = |parts: &[Expr]| parts.iter().all(|part| every(part, holds));
    holds(expr)
        && match expr {
            Expr::Parameter(_) | Expr::Literal(_) | Expr::Column(_) | Expr::Version(_) => true,
            Expr::Cast { operand, .. } | Expr::Unary { operand, .. } => every(operand, holds),
            Expr::Binary { left, right, .. } => every(left, holds) && every(right, holds),
            Expr::InList { operand, list, .. } => every(operand, holds) && all(list),
            Expr::Like { operand, pattern, .. } => every(operand, holds) && every(pattern, holds),
            Expr::Case { arms, otherwise } => {
                let mut arms = arms.iter();
                arms.all(|(when, then)| every(when, holds) && every(then, holds))
                    && otherwise.as_deref().is_none_or(|value| every(value, holds))
            }
            Expr::Call { arguments, .. } => all(arguments),
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
