//! What random writes return, against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::Column;
use crate::effects::LogPayload;
use crate::partition::{Failed, Outcome, Partition};
use crate::plan::{Access, Action, BinaryOp, Function, Program, StatementContext};
use crate::value::{DataType, Value};

const CONTEXT: StatementContext = StatementContext { now_micros: 5 };

/// By key: the value, and the LSN that wrote it.
type Rows = BTreeMap<i64, (i64, i64)>;
/// Key, value, their sum, the version.
type Told = Vec<[Option<i64>; 4]>;

fn number(value: i64) -> Expr {
    Expr::Literal(Value::BigInt(value))
}

fn sum(left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op: BinaryOp::Add,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn program(action: Action, returning: Option<Vec<Expr>>) -> Program {
    let column = |name: &str, data_type| Column {
        name: name.to_owned(),
        data_type,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    Program {
        table: 1,
        table_name: "t".to_owned(),
        columns: vec![column("k", DataType::BigInt), column("v", DataType::BigInt)],
        primary_key: vec![0],
        checks: Vec::new(),
        action,
        returning,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
    }
}

#[derive(Clone, Debug)]
enum Write {
    Insert(Vec<(i64, i64)>),
    /// Adds to the values that are at least so great.
    Update(i64, i64),
    /// Moves one key.
    Move(i64, i64),
    /// Removes what has a value that is less.
    Delete(i64),
}

fn write() -> impl Strategy<Value = Write> {
    let key = || 0..12_i64;
    prop_oneof![
        3 => prop::collection::vec((key(), -9..9_i64), 1..4).prop_map(Write::Insert),
        2 => (-9..9_i64, -3..3_i64).prop_map(|(from, delta)| Write::Update(from, delta)),
        1 => (key(), key()).prop_map(|(from, to)| Write::Move(from, to)),
        2 => (-9..5_i64).prop_map(Write::Delete),
    ]
}

impl Write {
    fn action(&self) -> Action {
        let value_is = |op, than| {
            Some(Expr::Binary {
                op,
                left: Box::new(Expr::Column(1)),
                right: Box::new(number(than)),
            })
        };
        match self {
            Self::Insert(rows) => Action::Insert {
                rows: rows
                    .iter()
                    .map(|&(key, value)| vec![number(key), number(value)])
                    .collect(),
            },
            Self::Update(from, delta) => Action::Update {
                access: Access::Scan,
                filter: value_is(BinaryOp::GreaterOrEqual, *from),
                set: vec![(1, sum(Expr::Column(1), number(*delta)))],
            },
            Self::Move(from, to) => Action::Update {
                access: Access::Point(vec![number(*from)]),
                filter: None,
                set: vec![(0, number(*to))],
            },
            Self::Delete(below) => Action::Delete {
                access: Access::Scan,
                filter: value_is(BinaryOp::Less, *below),
            },
        }
    }

    /// What it must return; None: a key is there already, and nothing happens.
    fn on(&self, rows: &mut Rows, lsn: i64) -> Option<Told> {
        let told = |key: i64, value: i64, version| [Some(key), Some(value), Some(key + value), version];
        match self {
            Self::Insert(new) => {
                let before = rows.clone();
                for &(key, value) in new {
                    if rows.insert(key, (value, lsn)).is_some() {
                        *rows = before;
                        return None;
                    }
                }
                Some(new.iter().map(|&(key, value)| told(key, value, None)).collect())
            }
            Self::Update(from, delta) => {
                let met = rows.iter_mut().filter(|(_, (value, _))| value >= from);
                let changed = met.map(|(key, row)| {
                    *row = (row.0 + delta, lsn);
                    told(*key, row.0, None)
                });
                Some(changed.collect())
            }
            Self::Move(from, to) => {
                let Some(&(value, _)) = rows.get(from) else {
                    return Some(Vec::new());
                };
                if from != to && rows.contains_key(to) {
                    return None;
                }
                rows.remove(from);
                rows.insert(*to, (value, lsn));
                Some(vec![told(*to, value, None)])
            }
            Self::Delete(below) => {
                let met: Vec<i64> = rows
                    .iter()
                    .filter(|(_, (value, _))| value < below)
                    .map(|(key, _)| *key)
                    .collect();
                let removed = met.into_iter().filter_map(|key| {
                    let (value, version) = rows.remove(&key)?;
                    Some(told(key, value, Some(version)))
                });
                Some(removed.collect())
            }
        }
    }
}

fn run(partition: &Partition, program: &Program) -> (Told, Result<Outcome, Failed>) {
    program.validate().unwrap();
    let mut told = Vec::new();
    let outcome = partition.run(program, &[], &CONTEXT, &mut |row| {
        let number = |value: &ValueRef<'_>| match value {
            ValueRef::BigInt(number) => Some(*number),
            ValueRef::Null => None,
            other => panic!("{other:?}"),
        };
        let numbers: Vec<Option<i64>> = row.iter().map(number).collect();
        told.push(numbers.try_into().unwrap());
    });
    (told, outcome)
}

proptest! {
    #[test]
    fn a_write_returns_the_rows_that_it_changes(writes in prop::collection::vec(write(), 1..20)) {
        let returning = vec![Expr::Column(0), Expr::Column(1), sum(Expr::Column(0), Expr::Column(1)), Expr::Version(0)];
        let (mut partition, mut rows) = (Partition::new(), Rows::new());
        for write in writes {
            let lsn = partition.applied() + 1;
            let expected = write.on(&mut rows, lsn as i64);
            let (told, outcome) = run(&partition, &program(write.action(), Some(returning.clone())));
            let (silent, same) = run(&partition, &program(write.action(), None));
            prop_assert_eq!(&outcome, &same, "what it returns changes nothing");
            prop_assert!(silent.is_empty());
            let Ok(outcome) = outcome else {
                prop_assert!(expected.is_none());
                continue;
            };
            prop_assert_eq!(outcome.affected, told.len() as u64);
            prop_assert_eq!(Some(told), expected);
            if let Some(effects) = outcome.effects {
                partition.apply_record(lsn, &LogPayload::Write(effects)).unwrap();
            }
        }
    }
}

#[test]
fn what_is_returned_is_bounded_and_of_a_row() {
    let insert = Write::Insert(vec![(1, 1), (2, 2)]).action();
    let long = Expr::Literal(Value::Text("x".repeat(MAX_RETURNED_BYTES / 2)));
    let returned = |exprs| {
        let program = program(insert.clone(), Some(exprs));
        program.validate()?;
        let outcome = Partition::new().run(&program, &[], &CONTEXT, &mut |_| {});
        outcome.map(|outcome| outcome.affected).map_err(|failed| failed.error)
    };
    assert_eq!(returned(vec![long]), Err(StatementError::TooMuchReturned));
    assert_eq!(returned(vec![Expr::Literal(Value::Text("x".repeat(1 << 20)))]), Ok(2));
    assert_eq!(returned(Vec::new()), Ok(2), "rows without columns");
    let now = Expr::Call {
        function: Function::Now,
        arguments: Vec::new(),
    };
    assert_eq!(returned(vec![now]), Ok(2));
    assert!(returned(vec![Expr::Column(2)]).is_err(), "a column that there isn't");
    let select = Action::Delete {
        access: Access::Scan,
        filter: None,
    };
    assert!(program(select, Some(vec![Expr::Column(1)])).validate().is_ok());
    let truncate = Action::Truncate { others: Vec::new() };
    assert!(program(truncate, Some(vec![Expr::Column(1)])).validate().is_err());
}
