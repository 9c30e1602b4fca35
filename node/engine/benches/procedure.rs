//! Partitioned procedures, as a primary runs them: Voter, the benchmark of telephone votes in a television show. A call
//! looks up the contestant, the caller's state and how often the caller has voted, and records the vote.

mod common;

use common::{CONTEXT, Numbers};
use divan::Bencher;
use divan::counter::ItemsCount;
use volt_engine::TableId;
use volt_engine::catalog::Column;
use volt_engine::effects::LogPayload;
use volt_engine::partition::{Home, Partition};
use volt_engine::plan::{Access, Action, BinaryOp, Expr, Program};
use volt_engine::procedure::{Body, Code, Into, Op, Parameter, PartitionBy, Procedure, Statement};
use volt_engine::value::{DataType, Value};

const CONTESTANTS: TableId = 1;
const STATES: TableId = 2;
const VOTERS: TableId = 3;
const VOTES: TableId = 4;
/// Votes of one number.
const LIMIT: i64 = 2;
/// Calls a sample.
const BATCH: usize = 10_000;
const HOME: Home = Home { index: 0, count: 1 };

fn main() {
    divan::main();
}

/// A table of BIGINT columns, and of one text behind them.
fn program(table: TableId, numbers: usize, action: Action) -> Program {
    let column = |place: usize| Column {
        name: format!("c{place}"),
        data_type: if place < numbers {
            DataType::BigInt
        } else {
            DataType::Text
        },
        nullable: false,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    Program {
        table,
        table_name: format!("t{table}"),
        columns: (0..=numbers).map(column).collect(),
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action,
    }
}

fn slot(slot: usize) -> Expr {
    Expr::Parameter(slot)
}

fn number(value: i64) -> Expr {
    Expr::Literal(Value::BigInt(value))
}

fn select(table: TableId, numbers: usize, key: Expr, column: usize) -> Program {
    let action = Action::Select {
        access: Access::Point(vec![key]),
        filter: None,
        stages: Vec::new(),
        project: vec![Expr::Column(column)],
        limit: None,
        offset: 0,
    };
    program(table, numbers, action)
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn into(slot: usize) -> Into {
    Into::Slots {
        slots: vec![slot],
        strict: false,
        at_most_one: false,
        is_statement: true,
    }
}

/// vote(phone, contestant): slots 0 and 1; 2 is FOUND, 3 the row count, 4 a text, 5 the votes so far.
fn vote() -> Procedure {
    let text = || Expr::Literal(Value::Text(String::new()));
    let area = binary(BinaryOp::Divide, slot(0), number(10_000));
    let more = binary(BinaryOp::Add, Expr::Column(1), number(1));
    let programs = [
        select(CONTESTANTS, 1, slot(1), 1),
        select(STATES, 1, area, 1),
        select(VOTERS, 2, slot(0), 1),
        program(
            VOTERS,
            2,
            Action::Insert {
                rows: vec![vec![slot(0), number(1), text()]],
            },
        ),
        program(
            VOTERS,
            2,
            Action::Update {
                access: Access::Point(vec![slot(0)]),
                filter: None,
                set: vec![(1, more)],
            },
        ),
        program(
            VOTES,
            3,
            Action::Insert {
                rows: vec![vec![
                    binary(
                        BinaryOp::Add,
                        binary(BinaryOp::Multiply, slot(0), number(LIMIT)),
                        slot(5),
                    ),
                    slot(0),
                    slot(1),
                    slot(4),
                ]],
            },
        ),
    ];
    let execute = |statement, into| Op::Execute { statement, into };
    let unless = |condition, target| Op::JumpUnless { condition, target };
    let ops = vec![
        execute(0, into(4)),
        unless(slot(2), 12),
        execute(1, into(4)),
        execute(2, into(5)),
        unless(slot(2), 8),
        unless(binary(BinaryOp::Less, slot(5), number(LIMIT)), 12),
        execute(4, Into::Nowhere),
        Op::Jump(10),
        Op::Assign {
            slot: 5,
            value: number(0),
        },
        execute(3, Into::Nowhere),
        execute(5, Into::Nowhere),
        Op::ReturnRow(vec![number(0)]),
    ];
    let parameter = |name: &str| Parameter {
        name: name.to_owned(),
        data_type: DataType::BigInt,
        is_input: true,
        is_output: false,
    };
    let statement = |program: Program| Statement {
        sql: String::new(),
        parameters: Vec::new(),
        tables: vec![program.table],
        program: Some(program),
        keys: Vec::new(),
        sequences: Vec::new(),
    };
    let bigint = DataType::BigInt;
    Procedure {
        id: 1,
        name: "vote".to_owned(),
        language: "plpgsql".to_owned(),
        source: String::new(),
        parameters: vec![parameter("phone"), parameter("contestant")],
        columns: vec![("status".to_owned(), bigint)],
        partition_by: Some(PartitionBy {
            table: VOTES,
            data_type: bigint,
            parameter: 0,
        }),
        body: Body::Code(Code {
            slots: vec![bigint, bigint, DataType::Boolean, bigint, DataType::Text, bigint],
            ops,
            found: 2,
            row_count: 3,
        }),
        statements: programs.map(statement).into(),
    }
}

fn loaded() -> Partition {
    let mut partition = Partition::new();
    let mut put = |table, key: i64| {
        let row = vec![number(key), Expr::Literal(Value::Text(format!("name {key}")))];
        let insert = program(table, 1, Action::Insert { rows: vec![row] });
        let outcome = partition.run(&insert, &[], &CONTEXT, &mut |_| {}).expect("a new key");
        let effects = outcome.effects.expect("a row");
        let lsn = partition.applied() + 1;
        partition
            .apply_record(lsn, &LogPayload::Write(effects))
            .expect("records are in order");
    };
    (0..6).for_each(|key| put(CONTESTANTS, key));
    (0..1_000).for_each(|key| put(STATES, key));
    partition.commit_to(partition.applied());
    partition
}

/// CALL vote(phone, contestant), its effects recorded and applied; one in a hundred names a contestant that is not there.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn voter(bencher: Bencher) {
    let vote = vote();
    vote.validate().expect("a procedure that can run");
    let mut numbers = Numbers(3);
    let mut partition = loaded();
    let mut calls = || {
        let mut call = || {
            let contestant = if numbers.below(100) == 0 {
                99
            } else {
                numbers.below(6) as i64
            };
            [
                Value::BigInt(numbers.below(10_000_000) as i64),
                Value::BigInt(contestant),
            ]
        };
        (0..BATCH).map(|_| call()).collect::<Vec<_>>()
    };
    let batch = bencher.counter(ItemsCount::new(BATCH)).with_inputs(&mut calls);
    batch.bench_local_values(|calls| {
        for arguments in calls {
            let called = partition
                .call(&vote, &arguments, HOME, &CONTEXT, &mut |_| None, &mut |_| {})
                .expect("a vote");
            if let Some(effects) = called.outcome.effects {
                let lsn = partition.applied() + 1;
                partition
                    .apply_record(lsn, &LogPayload::Write(effects))
                    .expect("records are in order");
                partition.commit_to(lsn);
            }
        }
    });
}
