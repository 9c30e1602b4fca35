use super::*;
use crate::effects::EffectsBuilder;
use crate::effects::{LogPayload, MAX_EFFECTS_BYTES};
use crate::plan::{BinaryOp, UnaryOp};
use crate::value::DataType;

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };

fn program(action: Action) -> Program {
    let column = |name: &str, data_type, nullable| Column {
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    let columns = vec![
        column("id", DataType::BigInt, false),
        column("name", DataType::Varchar(5), true),
        column("price", DataType::Numeric { precision: 6, scale: 2 }, false),
    ];
    Program {
        table: 1,
        table_name: "items".to_owned(),
        columns,
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action,
    }
}

fn literal(value: impl Into<Option<i64>>) -> Expr {
    Expr::Literal(value.into().map_or(Value::Null, Value::BigInt))
}

fn text(text: &str) -> Expr {
    Expr::Literal(Value::Text(text.to_owned()))
}

fn insert(ids: &[i64]) -> Program {
    program(Action::Insert {
        rows: ids
            .iter()
            .map(|&id| vec![literal(id), text("abc"), literal(id)])
            .collect(),
    })
}

fn select(access: Access, filter: Option<Expr>) -> Program {
    let project = vec![Expr::Column(0), Expr::Column(1), Expr::Column(2)];
    program(Action::Select {
        access,
        filter,
        stages: Vec::new(),
        project,
        limit: None,
        offset: 0,
    })
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn point(id: i64) -> Access {
    Access::Point(vec![literal(id)])
}

/// Runs, and applies what it did.
fn write(partition: &mut Partition, program: &Program) -> Result<Outcome, Failed> {
    program.validate().unwrap();
    let outcome = partition.run(program, &[], &CONTEXT, &mut |_| {})?;
    if let Some(effects) = &outcome.effects {
        partition
            .apply_record(partition.applied() + 1, &LogPayload::Write(effects.clone()))
            .unwrap();
    }
    Ok(outcome)
}

fn read(partition: &Partition, program: &Program, parameters: &[Value]) -> (Vec<String>, Outcome) {
    let mut rows = Vec::new();
    let outcome = partition
        .run(program, parameters, &CONTEXT, &mut |values| {
            rows.push(values.iter().map(|value| value.to_text()).collect::<Vec<_>>().join("|"));
        })
        .unwrap();
    (rows, outcome)
}

fn filled() -> Partition {
    let mut partition = Partition::new();
    assert_eq!(write(&mut partition, &insert(&[3, 1, 2])).unwrap().affected, 3);
    partition
}

fn sqlstate(failed: Result<Outcome, Failed>) -> (&'static str, Lsn) {
    let failed = failed.unwrap_err();
    (failed.error.sqlstate(), failed.observed)
}

#[test]
fn rows_come_in_key_order_with_limit_and_offset() {
    let partition = filled();
    let (rows, outcome) = read(&partition, &select(Access::Scan, None), &[]);
    assert_eq!(rows, ["1|abc|1.00", "2|abc|2.00", "3|abc|3.00"]);
    assert_eq!((outcome.observed, outcome.affected, outcome.effects), (1, 3, None));
    let mut page = select(Access::Scan, None);
    if let Action::Select { limit, offset, .. } = &mut page.action {
        (*limit, *offset) = (Some(1), 1);
    }
    assert_eq!(read(&partition, &page, &[]).0, ["2|abc|2.00"]);
}

#[test]
fn a_point_is_found_by_a_parameter_of_either_integer_type() {
    let partition = filled();
    let by_parameter = select(Access::Point(vec![Expr::Parameter(0)]), None);
    assert_eq!(read(&partition, &by_parameter, &[Value::Int(2)]).0, ["2|abc|2.00"]);
    assert_eq!(read(&partition, &by_parameter, &[Value::BigInt(2)]).0, ["2|abc|2.00"]);
    assert!(read(&partition, &by_parameter, &[Value::Null]).0.is_empty());
    assert!(partition.run(&by_parameter, &[], &CONTEXT, &mut |_| {}).is_err());
}

#[test]
fn a_duplicate_tells_whom_it_met() {
    let mut partition = filled();
    let failed = write(&mut partition, &insert(&[9, 2])).unwrap_err();
    let StatementError::DuplicateKey { table, detail, .. } = failed.error else {
        panic!()
    };
    assert_eq!(
        (table.as_str(), detail.as_str(), failed.observed),
        ("items", "Key (id)=(2) already exists.", 1)
    );
    assert_eq!(sqlstate(write(&mut partition, &insert(&[7, 7]))), ("23505", 0));
    assert_eq!(partition.applied(), 1);
}

#[test]
fn what_is_missing_because_of_an_uncommitted_removal_is_observed() {
    let mut partition = filled();
    partition.commit_to(1);
    write(
        &mut partition,
        &program(Action::Delete {
            access: point(2),
            filter: None,
        }),
    )
    .unwrap();
    assert_eq!(read(&partition, &select(point(2), None), &[]).1.observed, 2);
    assert_eq!(read(&partition, &select(Access::Scan, None), &[]).1.observed, 2);
    assert_eq!(read(&partition, &select(point(1), None), &[]).1.observed, 1);
    assert_eq!(write(&mut partition, &insert(&[2])).unwrap().observed, 2);
    partition.commit_to(3);
    write(
        &mut partition,
        &program(Action::Delete {
            access: Access::Scan,
            filter: None,
        }),
    )
    .unwrap();
    partition.commit_to(4);
    assert_eq!(
        read(&partition, &select(Access::Scan, None), &[]).1.observed,
        0,
        "committed tombstones are gone"
    );
}

#[test]
fn an_error_from_an_uncommitted_row_is_observed() {
    let mut partition = filled();
    let divide = binary(BinaryOp::Divide, literal(1), literal(0));
    let update = program(Action::Update {
        access: point(1),
        filter: None,
        set: vec![(2, divide)],
    });
    assert_eq!(sqlstate(write(&mut partition, &update)), ("22012", 1));
}

#[test]
fn columns_enforce_their_types() {
    let mut partition = filled();
    let row = |id: Expr, name: Expr, price: Expr| {
        program(Action::Insert {
            rows: vec![vec![id, name, price]],
        })
    };
    let mut state = |program: Program| sqlstate(write(&mut partition, &program)).0;
    assert_eq!(state(row(literal(None), text("a"), literal(1))), "23502");
    assert_eq!(state(row(literal(9), text("a"), literal(None))), "23502");
    assert_eq!(state(row(literal(9), text("abcdef"), literal(1))), "22001");
    assert_eq!(state(row(literal(9), text("a"), literal(10_000))), "22003");
    assert_eq!(state(row(text("9"), text("a"), literal(1))), "42804");
    let set = |column, value| {
        program(Action::Update {
            access: point(1),
            filter: None,
            set: vec![(column, value)],
        })
    };
    assert_eq!(state(set(0, literal(None))), "23502");
    assert_eq!(state(set(1, text("abcdef"))), "22001");
    assert_eq!(state(set(0, literal(2))), "23505");
}

#[test]
fn keys_may_move_within_one_statement() {
    let mut partition = filled();
    let next = binary(BinaryOp::Add, Expr::Column(0), literal(1));
    let shift = program(Action::Update {
        access: Access::Scan,
        filter: None,
        set: vec![(0, next)],
    });
    assert_eq!(write(&mut partition, &shift).unwrap().affected, 3);
    assert_eq!(
        read(&partition, &select(Access::Scan, None), &[]).0,
        ["2|abc|1.00", "3|abc|2.00", "4|abc|3.00"]
    );
    let same = program(Action::Update {
        access: Access::Scan,
        filter: None,
        set: vec![(0, literal(7))],
    });
    assert_eq!(sqlstate(write(&mut partition, &same)).0, "23505");
}

#[test]
fn filters_have_three_values() {
    let mut partition = filled();
    let null_name = program(Action::Update {
        access: point(2),
        filter: None,
        set: vec![(1, Expr::Literal(Value::Null))],
    });
    write(&mut partition, &null_name).unwrap();
    let ids = |filter: Expr| read(&partition, &select(Access::Scan, Some(filter)), &[]).0.len();
    let is_abc = || binary(BinaryOp::Equal, Expr::Column(1), text("abc"));
    let not = |operand: Expr| Expr::Unary {
        op: UnaryOp::Not,
        operand: Box::new(operand),
    };
    assert_eq!(ids(is_abc()), 2);
    assert_eq!(ids(not(is_abc())), 0);
    let null = || Expr::Literal(Value::Null);
    assert_eq!(ids(binary(BinaryOp::Or, null(), is_abc())), 2);
    assert_eq!(ids(binary(BinaryOp::And, null(), is_abc())), 0);
    assert_eq!(ids(binary(BinaryOp::IsNotDistinctFrom, Expr::Column(1), null())), 1);
    let one_of = |list: Vec<Expr>, negated| Expr::InList {
        operand: Box::new(Expr::Column(0)),
        list,
        negated,
    };
    assert_eq!(ids(one_of(vec![literal(1), null()], false)), 1);
    assert_eq!(ids(one_of(vec![literal(1), null()], true)), 0);
    assert_eq!(ids(one_of(vec![literal(1)], true)), 2);
}

#[test]
fn a_prefix_finds_only_its_own() {
    let columns = |program: &mut Program| {
        program.columns[1].nullable = false;
        program.columns[1].data_type = DataType::Text;
        program.primary_key = vec![1, 0];
    };
    let mut partition = Partition::new();
    for (id, name) in [(1, "a"), (2, "a"), (3, "ab"), (4, ""), (5, "a\0")] {
        let mut one = program(Action::Insert {
            rows: vec![vec![literal(id), text(name), literal(id)]],
        });
        columns(&mut one);
        write(&mut partition, &one).unwrap();
    }
    let mut by_name = select(Access::Prefix(vec![text("a")]), None);
    columns(&mut by_name);
    let (rows, outcome) = read(&partition, &by_name, &[]);
    assert_eq!(rows, ["1|a|1.00", "2|a|2.00"]);
    assert_eq!(outcome.observed, 2, "what is beyond the prefix was not met");
}

#[test]
fn a_malformed_program_is_an_error_and_no_panic() {
    let mut partition = filled();
    let mut bad = vec![
        select(Access::Point(vec![literal(1), literal(2)]), None),
        select(Access::Scan, Some(Expr::Column(0))),
        select(Access::Point(vec![Expr::Column(0)]), None),
        program(Action::Insert {
            rows: vec![vec![literal(5)]],
        }),
        program(Action::Update {
            access: Access::Scan,
            filter: None,
            set: vec![(9, literal(1))],
        }),
    ];
    let mut keyless = insert(&[5]);
    keyless.primary_key = vec![8];
    bad.push(keyless);
    for program in bad {
        let failed = partition.run(&program, &[], &CONTEXT, &mut |_| {}).unwrap_err();
        assert_eq!(failed.error.sqlstate(), "42804", "{program:?}");
    }
    assert_eq!(write(&mut partition, &insert(&[])).unwrap(), Outcome::default());
}

#[test]
fn more_than_a_record_may_hold_is_refused() {
    let mut partition = filled();
    let row = |id: i64| vec![literal(id), text("abc"), literal(1)];
    let fits = MAX_EFFECTS_BYTES / 64;
    let too_many = program(Action::Insert {
        rows: (10..MAX_EFFECTS_BYTES as i64 / 16).map(row).collect(),
    });
    assert_eq!(sqlstate(write(&mut partition, &too_many)).0, "54000");
    let as_many = program(Action::Insert {
        rows: (10..10 + fits as i64).map(row).collect(),
    });
    assert_eq!(write(&mut partition, &as_many).unwrap().affected, fits as u64);
}

#[test]
fn a_row_has_the_version_of_the_record_that_wrote_it() {
    let mut partition = filled();
    let version_is = |lsn: i64| binary(BinaryOp::Equal, Expr::Version(0), literal(lsn));
    let discount = |lsn: i64| {
        program(Action::Update {
            access: Access::Scan,
            filter: Some(version_is(lsn)),
            set: vec![(2, Expr::Version(0))],
        })
    };
    let versions = program(Action::Select {
        access: Access::Scan,
        filter: None,
        stages: Vec::new(),
        project: vec![Expr::Column(0), Expr::Version(0), Expr::Column(2)],
        limit: None,
        offset: 0,
    });
    write(&mut partition, &insert(&[4])).unwrap();
    assert_eq!(write(&mut partition, &discount(7)).unwrap().affected, 0);
    assert_eq!(write(&mut partition, &discount(2)).unwrap().affected, 1);
    let (rows, _) = read(&partition, &versions, &[]);
    assert_eq!(rows, ["1|1|1.00", "2|1|2.00", "3|1|3.00", "4|3|2.00"]);

    // Its own rows have none yet, in a transaction.
    let mut own = EffectsBuilder::default();
    let row = crate::row::encode_row(&[ValueRef::BigInt(9), ValueRef::Null, ValueRef::BigInt(1)]);
    own.put(1, &crate::key::encode_key([ValueRef::BigInt(9)]), &row);
    let writes = crate::transaction::Writes::of(&own.finish()).unwrap();
    let mut seen = Vec::new();
    let attempt = partition.attempt(3, &writes, &versions, &[], &CONTEXT, &mut |values| {
        seen.push(values[1].to_value())
    });
    assert!(attempt.result.is_ok());
    assert_eq!(seen.last(), Some(&Value::Null));
    assert_eq!(seen.first(), Some(&Value::BigInt(1)));
}

fn column_is(column: usize, op: BinaryOp, number: i64) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(Expr::Cast {
            operand: Box::new(Expr::Column(column)),
            to: DataType::BigInt,
        }),
        right: Box::new(literal(number)),
    }
}

fn checked(mut program: Program, checks: &[(&str, Expr)]) -> Program {
    let check = |(name, condition): &(&str, Expr)| crate::plan::Check {
        name: (*name).to_owned(),
        condition: condition.clone(),
    };
    program.checks = checks.iter().map(check).collect();
    program.validate().unwrap();
    program
}

#[test]
fn a_row_that_makes_a_check_false_is_not_put() {
    let mut partition = Partition::new();
    let checks = [
        ("dear", column_is(2, BinaryOp::Less, 10)),
        ("short", column_is(0, BinaryOp::GreaterOrEqual, 0)),
    ];
    let run = |partition: &Partition, program| partition.run(&checked(program, &checks), &[], &CONTEXT, &mut |_| {});
    let outcome = run(&partition, insert(&[1, 9])).unwrap();
    partition
        .apply_record(1, &LogPayload::Write(outcome.effects.unwrap()))
        .unwrap();
    let failed = run(&partition, insert(&[2, 10])).unwrap_err();
    assert_eq!(failed.error.sqlstate(), "23514");
    assert_eq!(
        failed.error,
        StatementError::CheckViolation {
            table: "items".to_owned(),
            constraint: "dear".to_owned(),
            detail: "Failing row contains (10, abc, 10.00).".to_owned(),
        }
    );
    // Before the key is looked for, and after NOT NULL.
    let failed = run(&partition, insert(&[-1])).unwrap_err();
    assert!(failed.error.to_string().ends_with("\"short\""), "{failed}");
    let update = |column, value| {
        program(Action::Update {
            access: Access::Scan,
            filter: None,
            set: vec![(column, value)],
        })
    };
    let failed = run(&partition, update(2, literal(11))).unwrap_err();
    assert_eq!(failed.error.sqlstate(), "23514");
    assert!(
        failed.observed > 0,
        "the rows that it has met are to be committed first"
    );
    // Also when the key changes.
    let less = Expr::Binary {
        op: BinaryOp::Subtract,
        left: Box::new(Expr::Column(0)),
        right: Box::new(literal(5)),
    };
    assert_eq!(run(&partition, update(0, less)).unwrap_err().error.sqlstate(), "23514");
    assert_eq!(run(&partition, update(2, literal(3))).unwrap().affected, 2);
    assert_eq!(run(&partition, insert(&[9])).unwrap_err().error.sqlstate(), "23505");
}

#[test]
fn a_long_value_is_cut_in_the_error_and_null_passes() {
    let long = "ä".repeat(100);
    let mut wide = program(Action::Insert {
        rows: vec![vec![literal(1), text(&long), literal(1)]],
    });
    wide.columns[1].data_type = DataType::Text;
    let failed = Partition::new()
        .run(
            &checked(wide, &[("no", Expr::Literal(Value::Boolean(false)))]),
            &[],
            &CONTEXT,
            &mut |_| {},
        )
        .unwrap_err();
    let StatementError::CheckViolation { detail, .. } = failed.error else {
        panic!("{failed}");
    };
    assert_eq!(
        detail,
        format!("Failing row contains (1, {}..., 1.00).", "ä".repeat(32))
    );
    let null = checked(insert(&[1]), &[("unknown", Expr::Literal(Value::Null))]);
    assert_eq!(
        Partition::new()
            .run(&null, &[], &CONTEXT, &mut |_| {})
            .unwrap()
            .affected,
        1
    );
}

#[test]
fn an_error_shows_nothing_of_a_dropped_column() {
    let mut late = checked(insert(&[1]), &[("no", Expr::Literal(Value::Boolean(false)))]);
    late.drop_column(1);
    let Action::Insert { rows } = &mut late.action else {
        panic!("an INSERT");
    };
    rows[0][1] = text("old");
    let failed = Partition::new().run(&late, &[], &CONTEXT, &mut |_| {}).unwrap_err();
    let StatementError::CheckViolation { detail, .. } = failed.error else {
        panic!("{failed}");
    };
    assert_eq!(detail, "Failing row contains (1, 1.00).");
}
