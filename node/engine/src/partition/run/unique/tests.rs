//! Statements that use indexes, against the same ones that look at all rows, and unique indexes against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::{Column, Index as Definition, IndexColumn, IndexShape, IndexState};
use crate::effects::LogPayload;
use crate::plan::{Access, Action, BinaryOp, Expr, IndexRange, KeyBound, KeyRange, Program, StatementContext};
use crate::transaction::Writes;
use crate::value::{DataType, Value, ValueRef};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
const TABLE: TableId = 1;

/// NULL or a number.
type Number = Option<i64>;
/// By k: a and b.
type Rows = BTreeMap<i64, (Number, Number)>;

/// What a row has in b that lacks it: those that have it were written before there was a b.
const MISSING: i64 = 3;

fn missing() -> Vec<Value> {
    vec![Value::Null, Value::Null, Value::BigInt(MISSING)]
}

fn program(action: Action) -> Program {
    let column = |name: &str, nullable| Column {
        name: name.to_owned(),
        data_type: DataType::BigInt,
        nullable,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    let program = Program {
        table: TABLE,
        table_name: "t".to_owned(),
        columns: vec![column("k", false), column("a", true), column("b", true)],
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: missing(),
        action,
    };
    program.validate().unwrap();
    program
}

fn literal(number: Number) -> Expr {
    Expr::Literal(number.map_or(Value::Null, Value::BigInt))
}

fn compare(op: BinaryOp, column: usize, value: Number) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(Expr::Column(column)),
        right: Box::new(literal(value)),
    }
}

/// (a, b), b perhaps down; perhaps only rows where b > 1.
fn definition(descending: bool, partial: bool, unique: bool) -> Definition {
    Definition {
        name: "t_a_b".to_owned(),
        shape: IndexShape {
            missing: missing(),
            id: 1,
            columns: vec![
                IndexColumn {
                    place: 1,
                    descending: false,
                },
                IndexColumn { place: 2, descending },
            ],
            predicate: partial.then(|| compare(BinaryOp::Greater, 2, Some(1))),
        },
        unique,
        constraint: false,
        view: None,
        state: IndexState::Ready,
        source: String::new(),
    }
}

fn insert(rows: &[(i64, (Number, Number))]) -> Program {
    let row = |&(k, (a, b)): &(i64, (Number, Number))| [Some(k), a, b].map(literal).to_vec();
    program(Action::Insert {
        rows: rows.iter().map(row).collect(),
    })
}

/// By a program that knows no b.
fn without_b(rows: &[(i64, (Number, Number))]) -> Program {
    let mut without = insert(rows);
    without.columns.truncate(2);
    if let Action::Insert { rows } = &mut without.action {
        rows.iter_mut().for_each(|row| row.truncate(2));
    }
    without
}

fn commit(partition: &mut Partition, effects: Option<Effects>) {
    if let Some(effects) = effects {
        let lsn = partition.applied() + 1;
        partition.apply_record(lsn, &LogPayload::Write(effects)).unwrap();
        partition.commit_to(lsn);
    }
}

fn filled(rows: &Rows) -> Partition {
    let mut partition = Partition::new();
    let (before, after): (Vec<_>, Vec<_>) = rows
        .iter()
        .map(|(&k, &row)| (k, row))
        .partition(|(_, (_, b))| *b == Some(MISSING));
    for insert in [without_b(&before), insert(&after)] {
        let outcome = partition.run(&insert, &[], &CONTEXT, &mut |_| {}).unwrap();
        commit(&mut partition, outcome.effects);
    }
    partition
}

fn number() -> impl Strategy<Value = Number> {
    prop::option::weighted(0.8, 0i64..4)
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::btree_map(0i64..12, (number(), number()), 0..12)
}

fn as_numbers(row: &[ValueRef<'_>]) -> Vec<Number> {
    let number = |value: &ValueRef<'_>| match value {
        ValueRef::BigInt(value) => Some(*value),
        _ => None,
    };
    row.iter().map(number).collect()
}

#[derive(Clone, Debug)]
struct Asked {
    a: Number,
    from: Option<(Number, bool)>,
    to: Option<(Number, bool)>,
    backward: bool,
    limit: Option<u64>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let bound = || prop::option::of((prop::option::weighted(0.9, 0i64..4), any::<bool>()));
    (number(), bound(), bound(), any::<bool>(), prop::option::of(0u64..4)).prop_map(|(a, from, to, backward, limit)| {
        Asked {
            a,
            from,
            to,
            backward,
            limit,
        }
    })
}

impl Asked {
    fn program(&self, shape: &IndexShape) -> Program {
        let bound = |bound: Option<(Number, bool)>| {
            bound.map(|(value, inclusive)| KeyBound {
                value: literal(value),
                inclusive,
            })
        };
        let range = KeyRange {
            prefix: vec![literal(self.a)],
            from: bound(self.from),
            to: bound(self.to),
            backward: self.backward,
        };
        program(Action::Select {
            access: Access::Index(Box::new(IndexRange {
                shape: shape.clone(),
                range,
            })),
            filter: None,
            stages: Vec::new(),
            project: (0..3).map(Expr::Column).collect(),
            limit: self.limit,
            offset: 0,
        })
    }

    /// The answer, from the rows alone.
    fn answer(&self, rows: &Rows, descending: bool, partial: bool) -> Vec<Vec<Number>> {
        let within = |b: Number| {
            let from = self.from.is_none_or(|(from, inclusive)| match (from, b) {
                (Some(from), Some(b)) => b > from || (inclusive && b == from),
                _ => false,
            });
            let to = self.to.is_none_or(|(to, inclusive)| match (to, b) {
                (Some(to), Some(b)) => b < to || (inclusive && b == to),
                _ => false,
            });
            from && to
        };
        let is_meant = |(_, (a, b)): &(&i64, &(Number, Number))| {
            self.a.is_some() && *a == self.a && within(*b) && (!partial || b.is_some_and(|b| b > 1))
        };
        let mut found: Vec<_> = rows.iter().filter(is_meant).collect();
        // NULL is the greatest; ties by the key, always up.
        let rank = |b: Number| {
            let rank = b.unwrap_or(i64::MAX - 1);
            if descending { -rank } else { rank }
        };
        found.sort_by_key(|(k, (_, b))| (rank(*b), **k));
        if self.backward {
            found.reverse();
        }
        let found = found.into_iter().map(|(k, (a, b))| vec![Some(*k), *a, *b]);
        match self.limit {
            Some(limit) => found.take(limit as usize).collect(),
            None => found.collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// Built or not; the newest state, a snapshot under a transaction's own writes, and what a procedure sees.
    #[test]
    fn a_range_of_an_index_has_its_rows_in_order(
        rows in rows(), own in rows(), asked in asked(), descending: bool, partial: bool, built: bool,
    ) {
        let definition = definition(descending, partial, false);
        let program = asked.program(&definition.shape);
        let mut partition = filled(&rows);
        partition.set_indexes(TABLE, std::slice::from_ref(&definition));
        if built {
            prop_assert!(partition.build_indexes(1_000));
        }
        let mut found = Vec::new();
        partition.run(&program, &[], &CONTEXT, &mut |row| found.push(as_numbers(row))).unwrap();
        prop_assert_eq!(&found, &asked.answer(&rows, descending, partial));
        // Rows of its own that the transaction adds, over those that are there.
        let mut both = rows.clone();
        let fresh: Vec<_> = own.iter().filter(|(k, _)| !rows.contains_key(k)).map(|(&k, &row)| (k, row)).collect();
        both.extend(fresh.iter().copied());
        let outcome = partition.run(&insert(&fresh), &[], &CONTEXT, &mut |_| {}).unwrap();
        let writes = Writes::of(&outcome.effects.unwrap_or_default()).unwrap();
        let at = partition.applied();
        prop_assert!(partition.pin(at));
        let mut found = Vec::new();
        let attempt = partition.attempt(at, &writes, &program, &[], &CONTEXT, &mut |row| found.push(as_numbers(row)));
        prop_assert!(attempt.result.is_ok());
        prop_assert_eq!(&found, &asked.answer(&both, descending, partial));
        // Whoever changes the answer of what it read in the stored rows, changes what it rests on.
        let gone = rows.keys().next().copied();
        if let Some(gone) = gone {
            let delete = self::program(Action::Delete {
                access: Access::Point(vec![literal(Some(gone))]),
                filter: None,
            });
            let effects = partition.run(&delete, &[], &CONTEXT, &mut |_| {}).unwrap().effects;
            commit(&mut partition, effects);
            let mut after = both.clone();
            after.remove(&gone);
            if asked.answer(&after, descending, partial) != found {
                prop_assert!(!partition.stands(&attempt.reads, at));
            }
        }
        partition.unpin(at);
    }

    #[test]
    fn no_two_rows_have_the_same_values(
        rows in rows(), steps in prop::collection::vec((prop::bool::ANY, rows(), 0i64..12, number(), number()), 1..8),
        partial: bool,
    ) {
        let definition = definition(false, partial, true);
        let values = |(a, b): (Number, Number)| match (a, b) {
            (Some(a), Some(b)) if !partial || b > 1 => Some((a, b)),
            _ => None,
        };
        let is_unique = |rows: &Rows| {
            let all: Vec<_> = rows.values().filter_map(|row| values(*row)).collect();
            all.iter().collect::<BTreeSet<_>>().len() == all.len()
        };
        let mut partition = filled(&rows);
        partition.set_indexes(TABLE, std::slice::from_ref(&definition));
        let new = insert(&[(99, (Some(99), Some(99)))]);
        let missing = partition.run(&new, &[], &CONTEXT, &mut |_| {});
        let is_missing = matches!(missing.map_err(|failed| failed.error), Err(StatementError::IndexNotBuilt { .. }));
        prop_assert_eq!(is_missing, !rows.is_empty());
        prop_assert!(partition.build_indexes(1_000));
        let has_twice = matches!(partition.find_duplicate(TABLE, 1, None, 1_000), Ok(Duplicates::Found(_)));
        prop_assert_eq!(has_twice, !is_unique(&rows));
        let mut after = None;
        let in_steps = loop {
            match partition.find_duplicate(TABLE, 1, after.as_deref(), 2).unwrap() {
                Duplicates::After(next) => after = Some(next),
                other => break other != Duplicates::None,
            }
        };
        prop_assert_eq!(in_steps, has_twice);
        if has_twice {
            return Ok(());
        }
        let mut model = rows;
        for (inserts, new, k, a, b) in steps {
            let mut next = model.clone();
            let statement = if inserts {
                let fresh: Vec<_> = new.iter().filter(|(k, _)| !model.contains_key(k)).map(|(&k, &r)| (k, r)).collect();
                next.extend(fresh.iter().copied());
                insert(&fresh)
            } else {
                // Every row from k on: a stays or becomes this one, b becomes the next one.
                for (_, row) in next.range_mut(k..) {
                    *row = (a.or(row.0), row.1.map(|old| old + b.unwrap_or(1)));
                }
                let plus = Expr::Binary {
                    op: BinaryOp::Add,
                    left: Box::new(Expr::Column(2)),
                    right: Box::new(literal(Some(b.unwrap_or(1)))),
                };
                let mut set = vec![(2, plus)];
                set.extend(a.map(|a| (1, literal(Some(a)))));
                program(Action::Update {
                    access: Access::Scan,
                    filter: Some(compare(BinaryOp::GreaterOrEqual, 0, Some(k))),
                    set,
                })
            };
            match partition.run(&statement, &[], &CONTEXT, &mut |_| {}) {
                Ok(outcome) => {
                    prop_assert!(is_unique(&next), "{next:?}");
                    if let Some(effects) = &outcome.effects {
                        prop_assert_eq!(partition.keeps_unique(effects), Ok(true));
                    }
                    commit(&mut partition, outcome.effects);
                    model = next;
                }
                Err(failed) => {
                    prop_assert!(!is_unique(&next), "{next:?}: {failed}");
                    let StatementError::DuplicateKey { constraint, .. } = failed.error else {
                        panic!("{failed}");
                    };
                    prop_assert_eq!(constraint, "t_a_b");
                }
            }
        }
    }
}

#[test]
fn a_row_that_lacks_a_column_is_held_to_what_it_has_there() {
    let mut partition = filled(&Rows::from([(1, (Some(1), Some(MISSING)))]));
    partition.set_indexes(TABLE, &[definition(false, false, true)]);
    while !partition.build_indexes(10) {}
    let twice = partition.run(&without_b(&[(2, (Some(1), None))]), &[], &CONTEXT, &mut |_| {});
    let error = twice.expect_err("another row has the values").error;
    assert!(error.to_string().contains("t_a_b"), "{error}");
    let StatementError::DuplicateKey { detail, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(detail, "Key (a, ?)=(1, 3) already exists.", "it knows no name");
}
