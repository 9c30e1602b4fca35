use super::*;
use crate::error::StatementError;
use crate::plan::{BinaryOp, StatementContext};
use crate::value::Value;

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
/// The slots of every procedure here: a BIGINT parameter, a VARCHAR(3), FOUND, the row count, an INT.
const SLOTS: [DataType; 5] = [
    DataType::BigInt,
    DataType::Varchar(3),
    DataType::Boolean,
    DataType::BigInt,
    DataType::Int,
];
const FOUND: usize = 2;
const COUNT: usize = 3;
const NUMBER: usize = 4;

fn procedure(ops: Vec<Op>) -> Procedure {
    Procedure {
        id: 1,
        name: "p".to_owned(),
        language: "plpgsql".to_owned(),
        source: String::new(),
        parameters: vec![Parameter {
            name: "n".to_owned(),
            data_type: DataType::BigInt,
            is_input: true,
            is_output: false,
        }],
        columns: vec![("c".to_owned(), DataType::BigInt)],
        partition_by: None,
        body: Body::Code(Code {
            slots: SLOTS.to_vec(),
            ops,
            found: FOUND,
            row_count: COUNT,
        }),
        statements: vec![Statement {
            sql: "SELECT".to_owned(),
            parameters: Vec::new(),
            tables: Vec::new(),
            program: None,
            keys: Vec::new(),
            sequences: Vec::new(),
        }],
    }
}

fn literal(value: i64) -> Expr {
    Expr::Literal(Value::BigInt(value))
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn started(procedure: &Procedure) -> Execution<'_> {
    procedure.validate().unwrap();
    Execution::new(procedure, &[Value::BigInt(3)], CONTEXT).unwrap()
}

fn execute(into: Into) -> Op {
    Op::Execute { statement: 0, into }
}

fn row(values: &[i64]) -> Vec<Value> {
    values.iter().copied().map(Value::BigInt).collect()
}

/// What a statement gave.
fn kept(rows: &[Vec<Value>]) -> Collector {
    let mut kept = Collector::new(usize::MAX);
    for row in rows {
        kept.row(&row.iter().map(Value::as_ref).collect::<Vec<_>>());
    }
    kept
}

/// The row that comes next.
fn next_row(execution: &mut Execution<'_>) -> Vec<Value> {
    assert_eq!(execution.advance().unwrap(), Next::Row);
    let mut given = Vec::new();
    let mut sink = |row: &[crate::value::ValueRef<'_>]| given.extend(row.iter().map(|value| value.to_value()));
    execution.give_row(&mut sink).unwrap();
    given
}

#[test]
fn a_loop_runs_as_often_as_it_says() {
    // while n > 0 { return n; n := n - 1 }
    let counting = procedure(vec![
        Op::JumpUnless {
            condition: binary(BinaryOp::Greater, Expr::Parameter(0), literal(0)),
            target: 4,
        },
        Op::ReturnRow(vec![Expr::Parameter(0)]),
        Op::Assign {
            slot: 0,
            value: binary(BinaryOp::Subtract, Expr::Parameter(0), literal(1)),
        },
        Op::Jump(0),
    ]);
    let mut execution = started(&counting);
    for left in [3, 2, 1] {
        assert_eq!(next_row(&mut execution), row(&[left]));
    }
    assert_eq!(execution.advance().unwrap(), Next::Done);
    assert_eq!(execution.returned(), 3);
}

#[test]
fn an_endless_loop_ends_with_an_error() {
    let endless = procedure(vec![Op::Jump(0)]);
    let error = started(&endless).advance().unwrap_err();
    assert_eq!(error.sqlstate(), "54000");
    // So does a run along all of a code that is too long to be one.
    let steps = procedure(vec![Op::Jump(1); MAX_PARTS + 1]);
    assert!(steps.validate().is_err());
}

#[test]
fn the_first_row_goes_into_variables_and_none_makes_them_null() {
    let into = |strict| {
        procedure(vec![execute(Into::Slots {
            slots: vec![NUMBER, 1],
            strict,
            at_most_one: false,
            is_statement: true,
        })])
    };
    let taken = Next::Execute {
        statement: 0,
        rows: RowsTaken::Kept(1),
    };
    let lax = into(false);
    let mut execution = started(&lax);
    assert_eq!(execution.advance().unwrap(), taken);
    execution.executed(2, &mut kept(&[row(&[5, 77])])).unwrap();
    let frame = execution.frame();
    assert_eq!(frame[NUMBER], Value::Int(5), "as its variable's type");
    assert_eq!(frame[1], Value::Text("77".to_owned()));
    assert_eq!(
        (&frame[FOUND], &frame[COUNT]),
        (&Value::Boolean(true), &Value::BigInt(1))
    );

    let mut execution = started(&lax);
    execution.advance().unwrap();
    execution.executed(0, &mut kept(&[])).unwrap();
    let frame = execution.frame();
    assert_eq!((&frame[NUMBER], &frame[FOUND]), (&Value::Null, &Value::Boolean(false)));

    // Of a statement that writes more than one is too many, and none is none.
    let writes = procedure(vec![execute(Into::Slots {
        slots: vec![NUMBER],
        strict: false,
        at_most_one: true,
        is_statement: true,
    })]);
    for (affected, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(StatementError::MoreRows))] {
        let mut execution = started(&writes);
        execution.advance().unwrap();
        assert_eq!(execution.executed(affected, &mut kept(&[])), expected);
    }

    let strict = into(true);
    for (affected, sqlstate) in [(0, "P0002"), (2, "P0003")] {
        let mut execution = started(&strict);
        execution.advance().unwrap();
        let error = execution.executed(affected, &mut kept(&[row(&[1, 2])])).unwrap_err();
        assert_eq!(error.sqlstate(), sqlstate);
    }
    // Too long for the variable, too large for the other.
    for values in [row(&[1, 1234]), row(&[i64::MAX, 1])] {
        let mut execution = started(&lax);
        execution.advance().unwrap();
        let error = execution.executed(1, &mut kept(&[values])).unwrap_err();
        assert!(["22001", "22003"].contains(&error.sqlstate()), "{error}");
    }
}

#[test]
fn a_subquery_tells_found_nothing_and_has_one_row() {
    let asks = procedure(vec![
        execute(Into::Nowhere),
        execute(Into::Exists(2)),
        execute(Into::Slots {
            slots: vec![NUMBER],
            strict: false,
            at_most_one: false,
            is_statement: false,
        }),
    ]);
    let mut execution = started(&asks);
    execution.advance().unwrap();
    execution.executed(4, &mut kept(&[])).unwrap();
    execution.advance().unwrap();
    execution.executed(0, &mut kept(&[])).unwrap();
    assert_eq!(execution.frame()[2], Value::Boolean(false), "EXISTS");
    assert_eq!(
        execution.frame()[COUNT],
        Value::BigInt(4),
        "as the statement before left it"
    );
    execution.advance().unwrap();
    assert_eq!(
        execution.executed(2, &mut kept(&[row(&[1])])).unwrap_err(),
        StatementError::SubqueryRows
    );
}

#[test]
fn rows_that_loops_keep_are_bounded_and_given_one_by_one() {
    let walking = procedure(vec![
        execute(Into::Rows(0)),
        Op::NextRow {
            rows: 0,
            slots: vec![0],
            done: 4,
            met: FOUND,
        },
        Op::ReturnRow(vec![Expr::Parameter(0)]),
        Op::Jump(1),
    ]);
    let mut execution = started(&walking);
    execution.advance().unwrap();
    execution.executed(2, &mut kept(&[row(&[8]), row(&[9])])).unwrap();
    assert_eq!(next_row(&mut execution), row(&[8]));
    assert_eq!(next_row(&mut execution), row(&[9]));
    assert_eq!(execution.advance().unwrap(), Next::Done);
    assert_eq!(execution.frame()[FOUND], Value::Boolean(true));

    let mut all = Collector::new(usize::MAX);
    let long = "x".repeat(1 << 20);
    for _ in 0..20 {
        all.row(&[crate::value::ValueRef::Text(&long)]);
    }
    assert_eq!(all.check(&walking).unwrap_err().sqlstate(), "54000");
    let mut first = Collector::new(1);
    for _ in 0..20 {
        first.row(&[crate::value::ValueRef::Text(&long)]);
    }
    assert_eq!(first.check(&walking), Ok(()));
    assert_eq!(first.take_rows().len(), 1);
}

#[test]
fn raise_tells_or_fails() {
    let raise = |level| {
        procedure(vec![Op::Raise(Raise {
            level,
            message: vec![
                Piece::Text("n is ".to_owned()),
                Piece::Value(Expr::Parameter(0)),
                Piece::Value(Expr::Parameter(1)),
            ],
            sqlstate: "23514".to_owned(),
            detail: None,
            hint: Some(Expr::Parameter(0)),
        })])
    };
    let (told, failed) = (raise(Level::Notice), raise(Level::Exception));
    let mut execution = started(&told);
    assert_eq!(execution.advance().unwrap(), Next::Done);
    let notice = Notice {
        level: Level::Notice,
        message: "n is 3<NULL>".to_owned(),
    };
    assert_eq!(execution.take_notices(), [notice]);
    let expected = StatementError::Raised {
        sqlstate: "23514".to_owned(),
        message: "n is 3<NULL>".to_owned(),
        detail: None,
        hint: Some("3".to_owned()),
    };
    assert_eq!(started(&failed).advance().unwrap_err(), expected);
}

#[test]
fn what_is_out_of_range_is_refused_before_it_runs() {
    let far = 99;
    let wrong = [
        Op::Jump(far),
        Op::Assign {
            slot: far,
            value: literal(1),
        },
        // A column, where there is no row.
        Op::Assign {
            slot: 0,
            value: Expr::Column(0),
        },
        Op::Execute {
            statement: 1,
            into: Into::Nowhere,
        },
        execute(Into::Exists(far)),
        execute(Into::Rows(MAX_PARTS)),
        Op::ReturnRow(Vec::new()),
        Op::NextRow {
            rows: 0,
            slots: vec![far],
            done: 0,
            met: FOUND,
        },
    ];
    for op in wrong {
        let text = format!("{op:?}");
        assert!(procedure(vec![op]).validate().is_err(), "{text}");
    }
    let fine = procedure(Vec::new());
    assert!(fine.validate().is_ok());
    let Body::Code(code) = &fine.body else { unreachable!() };
    let body = Body::Code(Code {
        found: 0,
        ..code.clone()
    });
    let found_is_no_boolean = Procedure { body, ..fine };
    assert!(found_is_no_boolean.validate().is_err());
}
