//! Selects of every shape over random rows, against loops over a map.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::effects::LogPayload;
use crate::plan::{Aggregate, AggregateFunction, BinaryOp, KeyBound, KeyRange, SortKey, Stage};
use crate::value::DataType;

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };

/// NULL or a number.
type Number = Option<i64>;
/// (a, b) is the key; c and d may be NULL.
type Rows = BTreeMap<(i64, i64), (Number, Number)>;

/// What a row has in d that lacks it: those that have it were written before there was a d.
const MISSING: i64 = 2;

fn columns() -> Vec<Column> {
    let column = |name: &str, nullable| Column {
        name: name.to_owned(),
        data_type: DataType::BigInt,
        nullable,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    vec![
        column("a", false),
        column("b", false),
        column("c", true),
        column("d", true),
    ]
}

fn program(action: Action) -> Program {
    let program = Program {
        table: 1,
        table_name: "t".to_owned(),
        columns: columns(),
        primary_key: vec![0, 1],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: vec![Value::Null, Value::Null, Value::Null, Value::BigInt(MISSING)],
        action,
    };
    program.validate().unwrap();
    program
}

fn literal(number: Number) -> Expr {
    Expr::Literal(number.map_or(Value::Null, Value::BigInt))
}

fn filled(rows: &Rows) -> Partition {
    let mut partition = Partition::new();
    let row = |(&(a, b), &(c, d)): (&(i64, i64), &(Number, Number))| [Some(a), Some(b), c, d].map(literal).to_vec();
    let (before, after) = rows
        .iter()
        .map(row)
        .partition(|row: &Vec<Expr>| row[3] == literal(Some(MISSING)));
    let before = Vec::into_iter(before).map(|mut row| row.drain(..3).collect());
    let mut without = program(Action::Insert { rows: Vec::new() });
    without.action = Action::Insert { rows: before.collect() };
    without.columns.truncate(3);
    for insert in [without, program(Action::Insert { rows: after })] {
        let outcome = partition.run(&insert, &[], &CONTEXT, &mut |_| {}).unwrap();
        if let Some(effects) = outcome.effects {
            let lsn = partition.applied() + 1;
            partition.apply_record(lsn, &LogPayload::Write(effects)).unwrap();
        }
    }
    partition
}

fn value_of(value: ValueRef<'_>) -> Number {
    match value {
        ValueRef::Null => None,
        ValueRef::BigInt(value) => Some(value),
        other => panic!("{other:?}"),
    }
}

fn answer(partition: &Partition, action: Action) -> Vec<Vec<Number>> {
    let mut rows = Vec::new();
    let outcome = partition
        .run(&program(action), &[], &CONTEXT, &mut |row| {
            rows.push(row.iter().copied().map(value_of).collect());
        })
        .unwrap();
    assert_eq!(outcome.affected, rows.len() as u64);
    rows
}

#[derive(Clone, Debug)]
struct Asked {
    prefix: Vec<Number>,
    from: Option<(Number, bool)>,
    to: Option<(Number, bool)>,
    backward: bool,
    /// Column 2 must be less.
    below: Option<i64>,
    stages: Vec<Step>,
    page: (u64, Option<u64>),
}

#[derive(Clone, Debug)]
enum Step {
    /// Column, descending, nulls first.
    Sort(Vec<(usize, bool, bool)>),
    Limit(i64, Option<i64>),
    /// Columns to group by; COUNT(*), and of a column COUNT, COUNT(DISTINCT), SUM, MIN and MAX.
    Group(Vec<usize>, usize),
    /// The column is not NULL.
    Filter(usize),
    /// These columns, and the sum of the first two.
    Project(Vec<usize>),
}

fn step(columns: usize) -> impl Strategy<Value = Step> {
    let column = 0..columns;
    prop_oneof![
        3 => prop::collection::vec((column.clone(), any::<bool>(), any::<bool>()), 1..3).prop_map(Step::Sort),
        2 => (0i64..4, prop::option::of(0i64..8)).prop_map(|(skip, fetch)| Step::Limit(skip, fetch)),
        2 => (prop::collection::vec(column.clone(), 0..3), column.clone()).prop_map(|(by, of)| Step::Group(by, of)),
        1 => column.clone().prop_map(Step::Filter),
        1 => prop::collection::vec(column, 2..5).prop_map(Step::Project),
    ]
}

impl Step {
    fn width(&self, before: usize) -> usize {
        match self {
            Self::Group(by, _) => by.len() + 6,
            Self::Project(columns) => columns.len() + 1,
            _ => before,
        }
    }

    fn stage(&self) -> Stage {
        let aggregate = |function, argument: Option<usize>, distinct| Aggregate {
            function,
            argument: argument.map(Expr::Column),
            distinct,
            filter: None,
            data_type: DataType::BigInt,
        };
        match self {
            Self::Sort(by) => Stage::Sort(
                by.iter()
                    .map(|&(column, descending, nulls_first)| SortKey {
                        expr: Expr::Column(column),
                        descending,
                        nulls_first,
                    })
                    .collect(),
            ),
            Self::Limit(skip, fetch) => Stage::Limit {
                skip: Some(literal(Some(*skip))),
                fetch: fetch.map(|fetch| literal(Some(fetch))),
            },
            Self::Group(by, of) => Stage::Aggregate {
                group: by.iter().copied().map(Expr::Column).collect(),
                aggregates: vec![
                    aggregate(AggregateFunction::Count, None, false),
                    aggregate(AggregateFunction::Count, Some(*of), false),
                    aggregate(AggregateFunction::Count, Some(*of), true),
                    aggregate(AggregateFunction::Sum, Some(*of), false),
                    aggregate(AggregateFunction::Min, Some(*of), false),
                    aggregate(AggregateFunction::Max, Some(*of), true),
                ],
            },
            Self::Filter(column) => Stage::Filter(Expr::Unary {
                op: crate::plan::UnaryOp::IsNotNull,
                operand: Box::new(Expr::Column(*column)),
            }),
            Self::Project(columns) => {
                let sum = Expr::Binary {
                    op: BinaryOp::Add,
                    left: Box::new(Expr::Column(columns[0])),
                    right: Box::new(Expr::Column(columns[1])),
                };
                Stage::Project(columns.iter().copied().map(Expr::Column).chain([sum]).collect())
            }
        }
    }

    /// What it makes of rows, the plain way.
    fn model(&self, mut rows: Vec<Vec<Number>>) -> Vec<Vec<Number>> {
        match self {
            Self::Sort(by) => {
                rows.sort_by(|one, other| {
                    let orders = by.iter().map(|key| rank(one[key.0], other[key.0], key.1, key.2));
                    orders.fold(Ordering::Equal, Ordering::then)
                });
                rows
            }
            Self::Limit(skip, fetch) => rows
                .into_iter()
                .skip(*skip as usize)
                .take(fetch.unwrap_or(i64::MAX) as usize)
                .collect(),
            Self::Group(by, of) => grouped(rows, by, *of),
            Self::Filter(column) => rows.into_iter().filter(|row| row[*column].is_some()).collect(),
            Self::Project(columns) => rows
                .into_iter()
                .map(|row| {
                    let mut new: Vec<Number> = columns.iter().map(|&column| row[column]).collect();
                    new.push(new[0].zip(new[1]).map(|(one, other)| one + other));
                    new
                })
                .collect(),
        }
    }
}

fn rank(one: Number, other: Number, descending: bool, nulls_first: bool) -> Ordering {
    match (one, other) {
        (None, None) => Ordering::Equal,
        (None, _) if nulls_first => Ordering::Less,
        (None, _) => Ordering::Greater,
        (_, None) => rank(other, one, descending, nulls_first).reverse(),
        (one, other) if descending => other.cmp(&one),
        (one, other) => one.cmp(&other),
    }
}

/// NULLs make one group, which comes last.
fn grouped(rows: Vec<Vec<Number>>, by: &[usize], of: usize) -> Vec<Vec<Number>> {
    let mut groups: BTreeMap<Vec<(bool, Number)>, Vec<Number>> = BTreeMap::new();
    if by.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    for row in rows {
        let key = by.iter().map(|&column| (row[column].is_none(), row[column])).collect();
        groups.entry(key).or_default().push(row[of]);
    }
    let told = |(key, values): (Vec<(bool, Number)>, Vec<Number>)| {
        let known: Vec<i64> = values.iter().copied().flatten().collect();
        let mut row: Vec<Number> = key.into_iter().map(|(_, value)| value).collect();
        row.push(Some(values.len() as i64));
        row.push(Some(known.len() as i64));
        row.push(Some(known.iter().collect::<BTreeSet<_>>().len() as i64));
        row.push((!known.is_empty()).then(|| known.iter().sum()));
        row.push(known.iter().min().copied());
        row.push(known.iter().max().copied());
        row
    };
    groups.into_iter().map(told).collect()
}

fn asked() -> impl Strategy<Value = Asked> {
    let number = || prop_oneof![9 => (-2i64..5).prop_map(Some), 1 => Just(None)];
    let bound = move || prop::option::of((number(), any::<bool>()));
    let found = (prop::collection::vec(number(), 0..3), bound(), bound(), any::<bool>());
    let page = (0u64..3, prop::option::of(0u64..6));
    (found, prop::option::of(-2i64..3), page, 0usize..4).prop_flat_map(|(found, below, page, count)| {
        let stages = (0..count).fold(Just((4, Vec::new())).boxed(), |stages, _| {
            let more = |(width, stages): (usize, Vec<Step>)| {
                step(width).prop_map(move |step| {
                    let mut stages = stages.clone();
                    stages.push(step);
                    (stages.last().map_or(width, |step| step.width(width)), stages)
                })
            };
            stages.prop_flat_map(more).boxed()
        });
        stages.prop_map(move |(_, stages)| {
            let (prefix, from, to, backward) = found.clone();
            // A whole key has no next column.
            let bounds = if prefix.len() < 2 { (from, to) } else { (None, None) };
            Asked {
                prefix,
                from: bounds.0,
                to: bounds.1,
                backward,
                below,
                stages,
                page,
            }
        })
    })
}

impl Asked {
    fn action(&self) -> Action {
        let bound = |&(number, inclusive): &(Number, bool)| KeyBound {
            value: literal(number),
            inclusive,
        };
        let width = self.stages.iter().fold(4, |width, step| step.width(width));
        Action::Select {
            access: Access::Range(KeyRange {
                prefix: self.prefix.iter().copied().map(literal).collect(),
                from: self.from.as_ref().map(bound),
                to: self.to.as_ref().map(bound),
                backward: self.backward,
            }),
            filter: self.below.map(|below| Expr::Binary {
                op: BinaryOp::Less,
                left: Box::new(Expr::Column(2)),
                right: Box::new(literal(Some(below))),
            }),
            stages: self.stages.iter().map(Step::stage).collect(),
            project: (0..width).map(Expr::Column).collect(),
            limit: self.page.1,
            offset: self.page.0,
        }
    }

    fn finds(&self, key: [i64; 2]) -> bool {
        let test = |bound: Option<(Number, bool)>, order: Ordering| match bound {
            None => true,
            Some((None, _)) => false,
            Some((Some(bound), inclusive)) => match key[self.prefix.len()].cmp(&bound) {
                Ordering::Equal => inclusive,
                other => other == order,
            },
        };
        self.prefix.iter().zip(key).all(|(wanted, is)| *wanted == Some(is))
            && test(self.from, Ordering::Greater)
            && test(self.to, Ordering::Less)
    }

    fn model(&self, rows: &Rows) -> Vec<Vec<Number>> {
        let found = rows.iter().filter(|&(&(a, b), _)| self.finds([a, b]));
        let mut found: Vec<Vec<Number>> = found.map(|(&(a, b), &(c, d))| vec![Some(a), Some(b), c, d]).collect();
        if self.backward {
            found.reverse();
        }
        if let Some(below) = self.below {
            found.retain(|row| row[2].is_some_and(|c| c < below));
        }
        let found = self.stages.iter().fold(found, |rows, step| step.model(rows));
        let (skip, limit) = self.page;
        found
            .into_iter()
            .skip(skip as usize)
            .take(limit.unwrap_or(u64::MAX) as usize)
            .collect()
    }
}

fn rows() -> impl Strategy<Value = Rows> {
    let number = || prop_oneof![4 => (-3i64..4).prop_map(Some), 1 => Just(None)];
    prop::collection::btree_map((-1i64..4, -1i64..4), (number(), number()), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_select_is_its_model(rows in rows(), asked in prop::collection::vec(asked(), 1..6)) {
        let partition = filled(&rows);
        for asked in asked {
            prop_assert_eq!(answer(&partition, asked.action()), asked.model(&rows), "{:?}", asked);
        }
    }
}

/// More rows than a sort of few keeps; their order is not their keys'.
fn many(count: i64) -> Rows {
    (0..count)
        .map(|number| ((1, number), (Some(number * 7_919 % 10_007), None)))
        .collect()
}

#[test]
fn the_first_of_many_are_found_without_keeping_all() {
    let rows = many(5_000);
    let asked = |fetch| Asked {
        prefix: vec![Some(1)],
        from: None,
        to: None,
        backward: false,
        below: None,
        stages: vec![Step::Sort(vec![(2, true, true)]), Step::Limit(2, Some(fetch))],
        page: (0, None),
    };
    let partition = filled(&rows);
    for fetch in [0, 1, 600, 4_000] {
        assert_eq!(
            answer(&partition, asked(fetch).action()),
            asked(fetch).model(&rows),
            "{fetch}"
        );
    }
}

#[test]
fn what_a_select_looks_at_and_keeps_is_bounded() {
    let partition = filled(&many(MAX_ENTRIES_READ as i64 + 1));
    let fails = |action| {
        let failed = partition.run(&program(action), &[], &CONTEXT, &mut |_| {});
        failed.map_err(|failed| failed.error)
    };
    let mut asked = Asked {
        prefix: vec![Some(1)],
        from: None,
        to: None,
        backward: false,
        below: None,
        stages: vec![Step::Group(Vec::new(), 2)],
        page: (0, None),
    };
    let limit = MAX_ENTRIES_READ;
    assert_eq!(fails(asked.action()), Err(StatementError::TooManyEntries { limit }));
    asked.from = Some((Some(1), true));
    assert!(fails(asked.action()).is_ok());
    // Each row takes a hundred bytes and more, and so does each group.
    for stage in [Step::Sort(vec![(2, false, false)]), Step::Group(vec![2, 1], 2)] {
        asked.stages = vec![Step::Project(vec![0; 60]), stage.clone()];
        if let Step::Group(..) = stage {
            asked.stages = vec![stage];
        }
        assert_eq!(fails(asked.action()), Err(StatementError::TooMuchKept), "{asked:?}");
    }
    // Of which only a few are wanted, few are kept.
    asked.stages = vec![Step::Sort(vec![(2, false, false)])];
    asked.page = (0, Some(3));
    assert!(fails(asked.action()).is_ok());
}
