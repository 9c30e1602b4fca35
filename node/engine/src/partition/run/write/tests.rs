//! INSERTs whose rows meet others, against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::catalog::Column;
use crate::effects::LogPayload;
use crate::error::StatementError;
use crate::partition::Partition;
use crate::plan::{Access, Action, BinaryOp, Expr, OnConflict, Program, StatementContext};
use crate::transaction::Writes;
use crate::value::{DataType, Value, ValueRef};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
/// What a row has in n that lacks it.
const MISSING: i64 = 2;

type Rows = BTreeMap<i64, i64>;

/// (k, n), k the key.
fn program(action: Action) -> Program {
    let column = |name: &str| Column {
        name: name.to_owned(),
        data_type: DataType::BigInt,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    Program {
        table: 1,
        table_name: "t".to_owned(),
        columns: vec![column("k"), column("n")],
        missing: vec![Value::Null, Value::BigInt(MISSING)],
        primary_key: vec![0],
        checks: Vec::new(),
        action,
        on_conflict: None,
        returning: Some(vec![Expr::Column(0), Expr::Column(1)]),
        repeats: false,
    }
}

fn number(value: i64) -> Expr {
    Expr::Literal(Value::BigInt(value))
}

fn insert(rows: &[(i64, i64)], on_conflict: Option<OnConflict>) -> Program {
    let row = |&(k, n): &(i64, i64)| vec![number(k), number(n)];
    let rows = rows.iter().map(row).collect();
    let program = Program {
        on_conflict,
        ..program(Action::Insert { rows })
    };
    program.validate().expect("a right program");
    program
}

/// n = n * 10 + excluded.n, where n < excluded.n.
fn merging() -> OnConflict {
    let binary = |op, left, right| Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    };
    let times = binary(BinaryOp::Multiply, Expr::Column(1), number(10));
    OnConflict::Update {
        set: vec![(1, binary(BinaryOp::Add, times, Expr::Column(3)))],
        filter: Some(binary(BinaryOp::Less, Expr::Column(1), Expr::Column(3))),
    }
}

/// What comes of it, and which rows are returned.
fn expected(
    rows: &Rows,
    put: &[(i64, i64)],
    on_conflict: Option<&OnConflict>,
) -> Result<(Rows, Vec<(i64, i64)>), StatementError> {
    let (mut after, mut returned, mut written) = (rows.clone(), Vec::new(), Vec::new());
    for &(k, n) in put {
        let n = match (after.get(&k), on_conflict) {
            (None, _) => n,
            (Some(_), Some(OnConflict::Nothing)) => continue,
            (Some(_), Some(_)) if written.contains(&k) => return Err(StatementError::RowAffectedTwice),
            (Some(old), Some(_)) if *old < n => old * 10 + n,
            (Some(_), Some(_)) => continue,
            (Some(_), None) => {
                return Err(StatementError::DuplicateKey {
                    table: "t".to_owned(),
                    constraint: "t_pkey".to_owned(),
                    detail: format!("Key (k)=({k}) already exists."),
                });
            }
        };
        after.insert(k, n);
        returned.push((k, n));
        written.push(k);
    }
    Ok((after, returned))
}

fn big(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::BigInt(value) => value,
        other => panic!("{other:?}"),
    }
}

fn all(partition: &Partition, writes: &Writes) -> Rows {
    let scan = program(Action::Select {
        access: Access::Scan,
        filter: None,
        stages: Vec::new(),
        project: vec![Expr::Column(0), Expr::Column(1)],
        limit: None,
        offset: 0,
    });
    let scan = Program {
        returning: None,
        ..scan
    };
    let mut rows = Rows::new();
    let mut take = |row: &[ValueRef<'_>]| {
        rows.insert(big(row[0]), big(row[1]));
    };
    let read = partition.attempt(partition.applied(), writes, &scan, &[], &CONTEXT, &mut take);
    read.result.expect("rows");
    rows
}

/// The first half of the rows is written; the other half was written before there was an n.
fn filled(rows: &Rows) -> Partition {
    let mut partition = Partition::new();
    let (old, new): (Vec<_>, Vec<_>) = rows.iter().map(|(&k, &n)| (k, n)).partition(|(_, n)| *n == MISSING);
    let mut without = insert(&old, None);
    without.columns.truncate(1);
    without.returning = None;
    if let Action::Insert { rows } = &mut without.action {
        rows.iter_mut().for_each(|row| row.truncate(1));
    }
    for program in [without, insert(&new, None)] {
        let ran = partition.run(&program, &[], &CONTEXT, &mut |_| {}).expect("free keys");
        apply(&mut partition, ran.effects);
    }
    partition
}

fn apply(partition: &mut Partition, effects: Option<crate::effects::Effects>) {
    let Some(effects) = effects else { return };
    let lsn = partition.applied() + 1;
    partition
        .apply_record(lsn, &LogPayload::Write(effects))
        .expect("records are in order");
}

fn on_conflict() -> impl Strategy<Value = Option<OnConflict>> {
    prop_oneof![Just(None), Just(Some(OnConflict::Nothing)), Just(Some(merging()))]
}

proptest! {
    #[test]
    fn rows_that_meet_others_are_merged(
        rows in prop::collection::btree_map(0i64..8, 0i64..5, 0..8),
        put in prop::collection::vec((0i64..10, 0i64..8), 1..5),
        again in prop::collection::vec((0i64..10, 0i64..8), 1..5),
        on_conflict in on_conflict(),
    ) {
        let mut partition = filled(&rows);
        prop_assert_eq!(all(&partition, &Writes::default()), rows.clone());
        let expected = expected(&rows, &put, on_conflict.as_ref());
        let program = insert(&put, on_conflict.clone());
        let mut returned = Vec::new();
        let ran = partition.run(&program, &[], &CONTEXT, &mut |row| returned.push((big(row[0]), big(row[1]))));
        match (ran, expected) {
            (Ok(ran), Ok((after, expected))) => {
                prop_assert_eq!(ran.affected, returned.len() as u64);
                prop_assert_eq!(returned, expected);
                // A transaction that has written it sees the same, and merges with it.
                let mut writes = Writes::default();
                if let Some(effects) = &ran.effects {
                    writes.add(effects).expect("own effects");
                }
                prop_assert_eq!(all(&partition, &writes), after.clone());
                let second = partition.attempt(partition.applied(), &writes, &insert(&again, on_conflict.clone()), &[], &CONTEXT, &mut |_| {});
                apply(&mut partition, ran.effects);
                prop_assert_eq!(all(&partition, &Writes::default()), after.clone());
                match (second.result, super::tests::expected(&after, &again, on_conflict.as_ref())) {
                    (Ok((_, effects)), Ok((after, _))) => {
                        apply(&mut partition, effects);
                        prop_assert_eq!(all(&partition, &Writes::default()), after);
                    }
                    (Err(error), Err(expected)) => prop_assert_eq!(error, expected),
                    (got, expected) => prop_assert!(false, "{got:?} is not {expected:?}"),
                }
            }
            (Err(failed), Err(expected)) => prop_assert_eq!(failed.error, expected),
            (got, expected) => prop_assert!(false, "{got:?} is not {expected:?}"),
        }
    }
}

#[test]
fn a_conflict_is_an_inserts_and_leaves_the_key_alone() {
    let wrong = |on_conflict, action| {
        let program = Program {
            on_conflict: Some(on_conflict),
            returning: None,
            ..program(action)
        };
        program.validate().is_err()
    };
    let update = |place, column| OnConflict::Update {
        set: vec![(place, Expr::Column(column))],
        filter: None,
    };
    let rows = || Action::Insert { rows: Vec::new() };
    assert!(!wrong(update(1, 3), rows()));
    assert!(wrong(update(0, 3), rows()), "the key");
    assert!(wrong(update(2, 3), rows()), "a column that is not there");
    assert!(wrong(update(1, 4), rows()), "beyond both rows");
    let delete = Action::Delete {
        access: Access::Scan,
        filter: None,
    };
    assert!(wrong(OnConflict::Nothing, delete));
}
