use proptest::prelude::*;

use super::*;
use crate::catalog::Column;
use crate::effects::LogPayload;
use crate::plan::{Access, Action, BinaryOp, Expr, KeyBound, KeyRange, Program};
use crate::procedure::{Body, Code, Into, Op, Parameter, PartitionBy};
use crate::value::DataType;

const CONTEXT: StatementContext = StatementContext { now_micros: 7 };
const ONLY: Home = Home { index: 0, count: 1 };

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
        columns: vec![column("k"), column("v")],
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action,
    }
}

fn number(value: i64) -> Expr {
    Expr::Literal(Value::BigInt(value))
}

fn plus(delta: i64) -> Expr {
    Expr::Binary {
        op: BinaryOp::Add,
        left: Box::new(Expr::Column(1)),
        right: Box::new(number(delta)),
    }
}

fn insert(key: i64, value: i64) -> Program {
    program(Action::Insert {
        rows: vec![vec![number(key), number(value)]],
    })
}

fn select(access: Access) -> Program {
    program(Action::Select {
        access,
        filter: None,
        stages: Vec::new(),
        project: vec![Expr::Column(0), Expr::Column(1)],
        limit: None,
        offset: 0,
    })
}

fn update(access: Access, set: (usize, Expr)) -> Program {
    program(Action::Update {
        access,
        filter: None,
        set: vec![set],
    })
}

fn delete(access: Access) -> Program {
    program(Action::Delete { access, filter: None })
}

fn point(key: i64) -> Access {
    Access::Point(vec![number(key)])
}

/// Slot 0 is the parameter, 1 FOUND, 2 the row count.
fn procedure(statements: Vec<(Program, Into)>, columns: usize) -> Procedure {
    let (mut ops, mut made) = (Vec::new(), Vec::new());
    for (program, into) in statements {
        let statement = made.len();
        let counts = into == Into::Nowhere;
        ops.push(Op::Execute { statement, into });
        if counts && columns == 2 {
            ops.push(Op::ReturnRow(vec![Expr::Parameter(1), Expr::Parameter(2)]));
        }
        made.push(Statement {
            sql: String::new(),
            parameters: Vec::new(),
            tables: vec![1],
            program: Some(program),
            keys: Vec::new(),
            sequences: Vec::new(),
        });
    }
    let column = |place: usize| (format!("c{place}"), DataType::Text);
    let procedure = Procedure {
        id: 1,
        name: "p".to_owned(),
        language: "plpgsql".to_owned(),
        source: String::new(),
        parameters: vec![Parameter {
            name: "k".to_owned(),
            data_type: DataType::BigInt,
            is_input: true,
            is_output: false,
        }],
        columns: (0..columns).map(column).collect(),
        partition_by: Some(PartitionBy {
            table: 1,
            data_type: DataType::BigInt,
            parameter: 0,
        }),
        body: Body::Code(Code {
            slots: vec![DataType::BigInt, DataType::Boolean, DataType::BigInt],
            ops,
            found: 1,
            row_count: 2,
        }),
        statements: made,
    };
    procedure.validate().unwrap();
    procedure
}

fn apply(partition: &mut Partition, outcome: &Outcome) {
    if let Some(effects) = &outcome.effects {
        let record = LogPayload::Write(effects.clone());
        partition.apply_record(partition.applied() + 1, &record).unwrap();
    }
}

fn texts(values: &[ValueRef<'_>]) -> Vec<String> {
    values.iter().map(|value| value.to_text()).collect()
}

fn rows_of(partition: &Partition) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let all = select(Access::Scan);
    partition
        .run(&all, &[], &CONTEXT, &mut |row| rows.push(texts(row)))
        .unwrap();
    rows
}

fn filled() -> Partition {
    let mut partition = Partition::new();
    for key in 1..=4 {
        let outcome = partition
            .run(&insert(key, key * 10), &[], &CONTEXT, &mut |_| {})
            .unwrap();
        apply(&mut partition, &outcome);
    }
    partition
}

type Rows = Vec<Vec<String>>;

fn call(partition: &Partition, procedure: &Procedure, home: Home) -> (Rows, Result<Called, Failed>) {
    let mut rows = Vec::new();
    let called = partition.call(
        procedure,
        &[Value::BigInt(1)],
        home,
        &CONTEXT,
        &mut |_| None,
        &mut |row| {
            rows.push(texts(row));
        },
    );
    (rows, called)
}

/// What each statement gives when they run one after another, each applied: what a call of all of them must give.
fn one_by_one(mut partition: Partition, statements: &[Program]) -> (Rows, Result<Partition, StatementError>) {
    let mut told = Vec::new();
    for program in statements {
        let mut rows = Vec::new();
        let outcome = match partition.run(program, &[], &CONTEXT, &mut |row| rows.push(texts(row))) {
            Ok(outcome) => outcome,
            Err(failed) => return (told, Err(failed.error)),
        };
        if program.is_read_only() || program.returning.is_some() {
            told.extend(rows);
        } else {
            let found = if outcome.affected > 0 { "true" } else { "false" };
            told.push(vec![found.to_owned(), outcome.affected.to_string()]);
        }
        apply(&mut partition, &outcome);
    }
    (told, Ok(partition))
}

fn statements() -> impl Strategy<Value = Vec<Program>> {
    let key = || 0..6_i64;
    let access = prop_oneof![
        4 => key().prop_map(point),
        1 => Just(Access::Scan),
        1 => key().prop_map(|key| Access::Prefix(vec![number(key)])),
        2 => (key(), any::<bool>()).prop_map(|(key, backward)| Access::Range(KeyRange {
            prefix: Vec::new(),
            from: None,
            to: Some(KeyBound { value: number(key), inclusive: true }),
            backward,
        })),
    ];
    let statement = (access, key(), -5..5_i64, 0..5, any::<bool>()).prop_map(|(access, key, value, kind, returns)| {
        let mut program = match kind {
            0 => insert(key, value),
            1 => update(access, (1, plus(value))),
            2 => delete(access),
            // A key that moves.
            3 => update(point(key), (0, number(value.abs()))),
            _ => return select(access),
        };
        program.returning = returns.then(|| vec![Expr::Column(0), plus(1)]);
        program
    });
    prop::collection::vec(statement, 1..12)
}

proptest! {
    #[test]
    fn a_call_does_what_its_statements_do_one_after_another(statements in statements()) {
        let made = statements.iter().map(|program| {
            let returns = program.is_read_only() || program.returning.is_some();
            let into = if returns { Into::Caller } else { Into::Nowhere };
            (program.clone(), into)
        });
        let procedure = procedure(made.collect(), 2);
        let mut partition = filled();
        let before = rows_of(&partition);
        let (rows, called) = call(&partition, &procedure, ONLY);
        prop_assert_eq!(rows_of(&partition), before, "nothing is applied by a call");
        let (told, expected) = one_by_one(filled(), &statements);
        match (called, expected) {
            (Ok(called), Ok(expected)) => {
                prop_assert_eq!(rows, told);
                apply(&mut partition, &called.outcome);
                prop_assert_eq!(rows_of(&partition), rows_of(&expected));
            }
            (Err(failed), Err(expected)) => prop_assert_eq!(failed.error, expected),
            (called, expected) => prop_assert!(false, "{:?} instead of {:?}", called, expected.map(|_| ())),
        }
    }
}

#[test]
fn what_a_call_met_is_to_be_committed_first_also_when_it_fails() {
    let partition = filled();
    let reads = procedure(vec![(select(point(3)), Into::Caller)], 2);
    let (_, called) = call(&partition, &reads, ONLY);
    assert_eq!(called.unwrap().outcome.observed, 3, "the record that wrote key 3");
    let fails = procedure(
        vec![
            (insert(9, 9), Into::Nowhere),
            (select(point(9)), Into::Caller),
            (insert(2, 0), Into::Nowhere),
        ],
        2,
    );
    let (_, called) = call(&partition, &fails, ONLY);
    let failed = called.unwrap_err();
    assert_eq!((failed.observed, failed.error.sqlstate()), (2, "23505"));
}

#[test]
fn a_row_of_another_partition_is_refused_before_its_statement_runs() {
    let mut strays = procedure(vec![(update(point(3), (1, number(0))), Into::Nowhere)], 0);
    strays.statements[0].keys = vec![number(3)];
    let three = partition_index(ValueRef::BigInt(3), 5);
    for index in 0..5 {
        let (_, called) = call(&filled(), &strays, Home { index, count: 5 });
        match called {
            Ok(_) => assert_eq!(index, three),
            Err(failed) => {
                assert_ne!(index, three);
                assert_eq!((failed.error.sqlstate(), failed.observed), ("0A000", 0));
            }
        }
    }
}

#[test]
fn effects_of_all_statements_together_are_bounded() {
    let long = Value::Text("x".repeat(1 << 20));
    let mut writes = Vec::new();
    for key in 0..9 {
        let mut program = insert(key + 100, 0);
        program.columns[1].data_type = DataType::Text;
        program.action = Action::Insert {
            rows: vec![vec![number(key + 100), Expr::Literal(long.clone())]],
        };
        writes.push((program, Into::Nowhere));
    }
    let (_, called) = call(&filled(), &procedure(writes[..7].to_vec(), 0), ONLY);
    assert_eq!(called.unwrap().outcome.affected, 0, "no rows were returned");
    let (_, called) = call(&filled(), &procedure(writes, 0), ONLY);
    assert_eq!(called.unwrap_err().error, StatementError::TooManyEffects);
}

#[test]
fn values_of_sequences_go_to_their_slots_before_what_needs_them() {
    let mut numbered = procedure(Vec::new(), 1);
    let Body::Code(code) = &mut numbered.body else {
        panic!("it is code");
    };
    code.slots.extend([DataType::BigInt, DataType::Int]);
    let rows = vec![vec![Expr::Parameter(3), Expr::Parameter(4)]];
    numbered.statements.push(Statement {
        sql: String::new(),
        parameters: Vec::new(),
        tables: vec![1],
        program: Some(program(Action::Insert { rows })),
        keys: Vec::new(),
        sequences: vec![(8, 3)],
    });
    let (statement, into) = (0, Into::Nowhere);
    code.ops = vec![
        Op::NextValue { slot: 4, sequence: 9 },
        Op::Execute { statement, into },
        Op::ReturnRow(vec![Expr::Parameter(4)]),
    ];
    numbered.validate().unwrap();
    assert_eq!(numbered.sequences().collect::<Vec<_>>(), [9, 8]);
    let mut partition = filled();
    let mut values = |sequence| Some(100 + i64::from(sequence));
    let arguments = [Value::BigInt(1)];
    let mut rows = Vec::new();
    let called = partition.call(&numbered, &arguments, ONLY, &CONTEXT, &mut values, &mut |row| {
        rows.push(texts(row));
    });
    apply(&mut partition, &called.unwrap().outcome);
    assert_eq!(rows, [["109"]]);
    assert_eq!(rows_of(&partition).last().unwrap(), &["108", "109"]);

    let mut only_nine = |sequence| (sequence == 9).then_some(1);
    let failed = partition.call(&numbered, &arguments, ONLY, &CONTEXT, &mut only_nine, &mut |_| {});
    let failed = failed.unwrap_err();
    assert_eq!(failed.error, StatementError::NoValueAtHand { sequence: 8 });

    numbered.statements[0].sequences = vec![(8, 9)];
    assert!(numbered.validate().is_err(), "a slot out of range");
}
