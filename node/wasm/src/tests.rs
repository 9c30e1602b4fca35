use bytes::Bytes;
use volt_engine::error::StatementError;
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Body, Collector, Machine, Next, Notice, Parameter, Procedure, Statement};
use volt_engine::value::{DataType, Value, ValueRef};

use super::*;
use crate::limits::{MAX_COMPILED, MAX_COMPILED_BYTES};

const CONTEXT: StatementContext = StatementContext { now_micros: 77 };

/// Everything that can be imported, a page of memory, and `call` with this body.
fn module(body: &str) -> String {
    format!(
        r#"(module
          (import "volt" "arguments" (func $arguments (param i32 i32) (result i32)))
          (import "volt" "execute" (func $execute (param i32 i32 i32) (result i64)))
          (import "volt" "row" (func $row (param i32 i32) (result i32)))
          (import "volt" "emit" (func $emit (param i32 i32)))
          (import "volt" "notice" (func $notice (param i32 i32 i32)))
          (import "volt" "raise" (func $raise (param i32 i32)))
          (import "volt" "now" (func $now (result i64)))
          (memory (export "memory") 1)
          ;; 100: no values. 200: the BIGINT 7. 300: a text. 400: an error.
          (data (i32.const 100) "\00\00\00\00")
          (data (i32.const 200) "\01\00\00\00\03\07\00\00\00\00\00\00\00")
          (data (i32.const 300) "hello")
          (data (i32.const 400) "\02\00\00\00\06\05\00\00\0022012\06\02\00\00\00no")
          (func (export "call") {body}))"#
    )
}

fn compile(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A BIGINT argument; statement 0 has no parameter, statement 1 one; rows of one BIGINT.
fn procedure(text: &str) -> Procedure {
    let statement = |parameters: &[DataType]| Statement {
        sql: String::new(),
        parameters: parameters.to_vec(),
        tables: Vec::new(),
        program: None,
        keys: Vec::new(),
        sequences: Vec::new(),
    };
    let bytes = compile(text);
    Modules::default().check(&bytes).unwrap();
    Procedure {
        id: 1,
        name: "p".to_owned(),
        language: "wasm".to_owned(),
        source: String::new(),
        parameters: vec![Parameter {
            name: "n".to_owned(),
            data_type: DataType::BigInt,
            is_input: true,
            is_output: false,
        }],
        columns: vec![("c".to_owned(), DataType::BigInt)],
        partition_by: None,
        body: Body::Module(Bytes::from(bytes)),
        statements: vec![statement(&[]), statement(&[DataType::Int])],
    }
}

/// What a call asked for and told.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    executed: Vec<(usize, Vec<Value>)>,
    rows: Vec<Vec<Value>>,
    notices: Vec<Notice>,
    pauses: u64,
}

/// Runs a call; each statement gives the rows 10 and 20.
fn run_procedure(procedure: &Procedure) -> Result<Seen, StatementError> {
    let compiled = Modules::default().compiled(procedure)?;
    let mut call = compiled.start(procedure, &[Value::BigInt(5)], &CONTEXT)?;
    let mut seen = Seen::default();
    loop {
        match call.advance()? {
            Next::Execute { statement, .. } => {
                seen.executed.push((statement, call.frame().to_vec()));
                let mut rows = Collector::new(usize::MAX);
                for number in [10, 20] {
                    rows.row(&[ValueRef::BigInt(number)]);
                }
                call.executed(2, &mut rows)?;
            }
            Next::Row => {
                call.give_row(&mut |row| seen.rows.push(row.iter().map(|value| value.to_value()).collect()))?;
            }
            Next::Pause => seen.pauses += 1,
            Next::Value { .. } => panic!("a module takes no values of sequences"),
            Next::Done => {
                assert_eq!(call.returned(), seen.rows.len() as u64);
                seen.notices = call.take_notices();
                return Ok(seen);
            }
        }
    }
}

fn run(body: &str) -> Result<Seen, StatementError> {
    run_procedure(&procedure(&module(body)))
}

fn fails(body: &str) -> (&'static str, String) {
    let error = run(body).unwrap_err();
    (error.sqlstate(), error.to_string())
}

fn bigints(rows: &[Vec<Value>]) -> Vec<i64> {
    let one = |row: &Vec<Value>| match row[..] {
        [Value::BigInt(value)] => value,
        _ => panic!("{row:?}"),
    };
    rows.iter().map(one).collect()
}

#[test]
fn arguments_come_in_and_rows_go_out() {
    let seen = run("
        (drop (call $arguments (i32.const 0) (i32.const 64)))
        (call $emit (i32.const 0) (i32.const 13))
        (call $emit (i32.const 200) (i32.const 13))");
    assert_eq!(bigints(&seen.unwrap().rows), [5, 7]);
}

#[test]
fn a_statement_takes_parameters_and_gives_rows() {
    let seen = run("
        (local $size i32)
        (drop (call $execute (i32.const 0) (i32.const 100) (i32.const 4)))
        ;; No room: nothing is taken.
        (drop (call $row (i32.const 0) (i32.const 12)))
        (loop $next
          (local.set $size (call $row (i32.const 0) (i32.const 64)))
          (if (i32.gt_s (local.get $size) (i32.const 0)) (then
            (call $emit (i32.const 0) (local.get $size))
            (br $next))))
        ;; Its answer, then that of another.
        (i64.store (i32.const 205) (call $execute (i32.const 1) (i32.const 200) (i32.const 13)))
        (call $emit (i32.const 200) (i32.const 13))")
    .unwrap();
    assert_eq!(bigints(&seen.rows), [10, 20, 2]);
    // As the statement's own type.
    assert_eq!(seen.executed, [(0, vec![]), (1, vec![Value::Int(7)])]);
}

#[test]
fn time_and_notices() {
    let seen = run("
        (i64.store (i32.const 205) (call $now))
        (call $emit (i32.const 200) (i32.const 13))
        (call $notice (i32.const 2) (i32.const 300) (i32.const 5))")
    .unwrap();
    assert_eq!(bigints(&seen.rows), [CONTEXT.now_micros]);
    assert_eq!((seen.notices.len(), seen.notices[0].message.as_str()), (1, "hello"));
}

#[test]
fn errors_of_the_modules_own() {
    let Err(StatementError::Raised { sqlstate, message, .. }) = run("(call $raise (i32.const 400) (i32.const 21))")
    else {
        panic!("no error");
    };
    assert_eq!((sqlstate.as_str(), message.as_str()), ("22012", "no"));
    // The row of a number is none.
    assert_eq!(fails("(call $raise (i32.const 200) (i32.const 13))").0, "39000");
    // 00000 is no error.
    let fine = "(i32.store8 (i32.const 409) (i32.const 48)) (i32.store8 (i32.const 410) (i32.const 48))
                (call $raise (i32.const 400) (i32.const 21))";
    assert_eq!(
        fails(fine).1,
        "procedure p is wrong: an error with the SQLSTATE \"00012\""
    );
}

#[test]
fn traps_have_reasons() {
    let reason = |body: &str| {
        let (sqlstate, message) = fails(body);
        assert_eq!(sqlstate, "38000", "{message}");
        message
    };
    assert_eq!(
        reason("(unreachable)"),
        "procedure p trapped: wasm `unreachable` instruction executed"
    );
    let message = reason("(drop (i32.load (i32.const 65536)))");
    assert_eq!(message, "procedure p trapped: out of bounds memory access");
    assert_eq!(
        reason("(drop (i32.div_s (i32.const 1) (i32.const 0)))"),
        "procedure p trapped: integer divide by zero"
    );
    let deep = r#"(module (memory (export "memory") 1) (func $f (export "call") (call $f)))"#;
    let error = run_procedure(&procedure(deep)).unwrap_err();
    assert_eq!(error.to_string(), "procedure p trapped: call stack exhausted");
}

#[test]
fn fuel_ends_and_is_counted_alike_each_time() {
    let (sqlstate, message) = fails("(loop $l (br $l))");
    assert_eq!(
        (sqlstate, message.as_str()),
        ("54000", "procedure p used up its 500000000 units of fuel")
    );
    let seen = run("(local $n i32) (loop $l
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $n) (i32.const 10000000))))");
    let pauses = seen.unwrap().pauses;
    assert!((10..30).contains(&pauses), "{pauses}");
    // Bytes cost too, and so do statements.
    let filling = "(loop $l (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br $l))";
    assert_eq!(fails(filling).0, "54000");
    let asking = "(loop $l (drop (call $execute (i32.const 0) (i32.const 100) (i32.const 4))) (br $l))";
    assert_eq!(fails(asking).0, "54000");
}

#[test]
fn memory_is_bounded() {
    let to = |pages: u32| format!("(drop (memory.grow (i32.const {pages})))");
    assert!(run(&to(255)).is_ok());
    let (sqlstate, message) = fails(&to(256));
    assert_eq!(
        (sqlstate, message.as_str()),
        ("54000", "procedure p needs more than 16 MiB of memory")
    );
}

#[test]
fn addresses_are_checked() {
    let requests = [
        "(drop (call $arguments (i32.const 65530) (i32.const 64)))",
        "(drop (call $arguments (i32.const -1) (i32.const 64)))",
        "(drop (call $execute (i32.const 0) (i32.const 65536) (i32.const 1)))",
        "(drop (call $execute (i32.const 0) (i32.const 0) (i32.const -1)))",
        "(call $emit (i32.const -8) (i32.const 13))",
        "(call $notice (i32.const 1) (i32.const 65535) (i32.const 2))",
        "(call $raise (i32.const 65535) (i32.const 2))",
        "(drop (call $execute (i32.const 0) (i32.const 100) (i32.const 4))) (drop (call $row (i32.const 65536) (i32.const 99)))",
    ];
    for request in requests {
        let (sqlstate, message) = fails(request);
        assert_eq!(sqlstate, "39000", "{request}: {message}");
        assert!(message.ends_with("are not all in its memory"), "{request}: {message}");
    }
}

#[test]
fn requests_are_checked() {
    let wrong = [
        (
            "(drop (call $execute (i32.const 2) (i32.const 100) (i32.const 4)))",
            "statement 2 of 2, counted from 0",
        ),
        (
            "(drop (call $execute (i32.const 1) (i32.const 100) (i32.const 4)))",
            "0 parameters for statement 1, which has 1",
        ),
        (
            "(drop (call $execute (i32.const 0) (i32.const 100) (i32.const 5)))",
            "a row with bytes left over at its end",
        ),
        (
            "(call $emit (i32.const 100) (i32.const 4))",
            "it returns a row of 0 values, not 1",
        ),
        (
            "(call $notice (i32.const 3) (i32.const 300) (i32.const 5))",
            "a notice of the unknown level 3",
        ),
        (
            "(call $notice (i32.const 1) (i32.const 100) (i32.const 4))",
            "a notice with a zero byte in it",
        ),
    ];
    for (body, what) in wrong {
        assert_eq!(fails(body), ("39000", format!("procedure p is wrong: {what}")));
    }
}

#[test]
fn out_arguments_are_returned_once() {
    let with_output = |body: &str| {
        let mut procedure = procedure(&module(body));
        procedure.parameters[0].is_output = true;
        run_procedure(&procedure).map(|seen| bigints(&seen.rows))
    };
    let emit = "(call $emit (i32.const 200) (i32.const 13))";
    assert_eq!(with_output(emit), Ok(vec![7]));
    assert_eq!(
        with_output(&emit.repeat(2)).unwrap_err().to_string(),
        "procedure p is wrong: it returns its OUT arguments twice"
    );
    assert_eq!(
        with_output("").unwrap_err().to_string(),
        "procedure p is wrong: it has OUT arguments and returns none"
    );
    let mut without = procedure(&module(emit));
    without.columns.clear();
    assert_eq!(run_procedure(&without).unwrap_err().sqlstate(), "39000");
}

/// Whatever ends a call, the next one finds a new memory.
#[test]
fn calls_know_nothing_of_each_other() {
    let body = "
        (drop (call $execute (i32.const 0) (i32.const 100) (i32.const 4)))
        (i64.store (i32.const 205) (i64.load (i32.const 5000)))
        (i64.store (i32.const 5000) (i64.const 3))
        (call $emit (i32.const 200) (i32.const 13))";
    let procedure = procedure(&module(body));
    let modules = Modules::default();
    let compiled = modules.compiled(&procedure).unwrap();
    for _ in 0..3 {
        let mut call = compiled.start(&procedure, &[Value::Null], &CONTEXT).unwrap();
        // One is left in the middle.
        let mut left = compiled.start(&procedure, &[Value::Null], &CONTEXT).unwrap();
        assert!(matches!(left.advance(), Ok(Next::Execute { .. })));
        assert!(matches!(call.advance(), Ok(Next::Execute { .. })));
        drop(left);
        call.executed(0, &mut Collector::default()).unwrap();
        assert_eq!(call.advance(), Ok(Next::Row));
        call.give_row(&mut |row| assert_eq!(row, [ValueRef::BigInt(0)]))
            .unwrap();
        assert_eq!(call.advance(), Ok(Next::Done));
        assert_eq!(call.advance(), Ok(Next::Done));
    }
}

#[test]
fn so_many_calls_and_no_more() {
    let procedure = procedure(&module(
        "(drop (call $execute (i32.const 0) (i32.const 100) (i32.const 4)))",
    ));
    let modules = Modules::default();
    let compiled = modules.compiled(&procedure).unwrap();
    let mut calls = Vec::new();
    for _ in 0..MAX_CALLS {
        let mut call = compiled.start(&procedure, &[Value::Null], &CONTEXT).unwrap();
        assert!(matches!(call.advance(), Ok(Next::Execute { .. })));
        calls.push(call);
    }
    let mut beyond = compiled.start(&procedure, &[Value::Null], &CONTEXT).unwrap();
    assert_eq!(
        beyond.advance(),
        Err(StatementError::TooManyModules { limit: MAX_CALLS })
    );
    calls.pop();
    let mut again = compiled.start(&procedure, &[Value::Null], &CONTEXT).unwrap();
    assert!(matches!(again.advance(), Ok(Next::Execute { .. })));
}

#[test]
fn the_same_nan_everywhere() {
    // 0/0 with its sign turned, as a BIGINT.
    let seen = run("
        (i64.store (i32.const 205) (i64.reinterpret_f64 (f64.add (f64.const -nan:0x4000000000001) (f64.const 1))))
        (call $emit (i32.const 200) (i32.const 13))");
    assert_eq!(bigints(&seen.unwrap().rows), [0x7ff8 << 48]);
}

#[test]
fn what_is_compiled_is_kept_within_bounds() {
    let modules = Modules::default();
    let mut procedure = procedure(r#"(module (memory (export "memory") 1) (func (export "call")))"#);
    for id in 1..=MAX_COMPILED as u32 + 1 {
        procedure.id = id;
        modules.compiled(&procedure).unwrap();
        // It stays in use.
        assert!(modules.get(1).is_some());
    }
    assert!(modules.get(2).is_none() && modules.get(3).is_some());
    modules.retain(|id| id != 3);
    assert!(modules.get(3).is_none());
    const { assert!(MAX_COMPILED_BYTES >= volt_engine::procedure::MAX_MODULE_BYTES) };
}

fn refused(text: &str) -> Refused {
    Modules::default().check(&compile(text)).unwrap_err()
}

#[test]
fn modules_that_are_no_procedures() {
    let no_module = Modules::default().check(b"\0asm, it says").unwrap_err();
    assert_eq!(no_module.sqlstate, "42P13");
    assert!(Modules::default().check(b"").is_err());
    let wants = |import: &str| {
        refused(&format!(
            r#"(module {import} (memory (export "memory") 1) (func (export "call")))"#
        ))
    };
    let wasi = wants(r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#);
    assert_eq!(
        (wasi.sqlstate, wasi.message.as_str()),
        (
            "0A000",
            "import \"fd_write\" from \"wasi_snapshot_preview1\" is not supported"
        )
    );
    assert_eq!(wants(r#"(import "volt" "sleep" (func))"#).sqlstate, "0A000");
    let other_type = wants(r#"(import "volt" "now" (func (result i32)))"#);
    assert_eq!(
        (other_type.sqlstate, other_type.message.as_str()),
        ("42P13", "an import has another type")
    );
    let message = |text: &str| refused(text).message;
    assert_eq!(
        message(r#"(module (func (export "call")))"#),
        "the module exports no memory \"memory\""
    );
    assert_eq!(
        message(r#"(module (memory (export "memory") 1))"#),
        "the module exports no function \"call\""
    );
    assert_eq!(
        message(r#"(module (memory (export "memory") 1) (func (export "call") (param i32)))"#),
        "the module's function \"call\" has parameters or results"
    );
    let features = [
        r#"(module (memory (export "memory") 1 1 shared) (func (export "call")))"#,
        r#"(module (memory (export "memory") i64 1) (func (export "call")))"#,
        r#"(module (memory (export "memory") 1) (memory 1) (func (export "call")))"#,
        r#"(module (memory (export "memory") 257) (func (export "call")))"#,
        r#"(module (memory (export "memory") 1) (table 20001 funcref) (func (export "call")))"#,
        r#"(module (memory (export "memory") 1) (func (export "call") (drop (f32x4.relaxed_madd
            (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))"#,
        "(component)",
    ];
    for text in features {
        let refused = refused(text);
        assert_eq!(refused.sqlstate, "42P13", "{text}");
        assert!(refused.detail.is_some(), "{text}");
    }
}

#[test]
fn statements_lie_in_a_section() {
    let of = |section: &str| {
        Modules::default().check(&compile(&format!(
            r#"(module (memory (export "memory") 1) (func (export "call")) {section})"#
        )))
    };
    let section = |data: &str| format!(r#"(@custom "volt.statements" "{data}")"#);
    assert_eq!(of(""), Ok(Vec::new()));
    let two = Ok(vec!["SELECT 1".to_owned(), "SELECT 2".to_owned()]);
    assert_eq!(of(&section(r"SELECT 1\00SELECT 2\00")), two);
    assert_eq!(of(&(section(r"SELECT 1\00") + &section(r"SELECT 2\00"))), two);
    assert_eq!(of(&section("SELECT 1")).unwrap_err().sqlstate, "42P13");
    assert_eq!(of(&section(r"\ff\00")).unwrap_err().sqlstate, "22021");
    assert_eq!(
        of(&section(&r"a\00".repeat(MAX_STATEMENTS))).map(|texts| texts.len()),
        Ok(MAX_STATEMENTS)
    );
    assert_eq!(
        of(&section(&r"a\00".repeat(MAX_STATEMENTS + 1))).unwrap_err().sqlstate,
        "54000"
    );
    assert_eq!(
        of(&section(&"a".repeat(MAX_STATEMENT_BYTES + 1))).unwrap_err().sqlstate,
        "54000"
    );
}

proptest::proptest! {
    /// A module damaged anywhere is refused, or runs and ends.
    #[test]
    fn damaged_modules_do_no_harm(at in proptest::prelude::any::<proptest::sample::Index>(), byte: u8) {
        let mut bytes = compile(&module("(drop (call $execute (i32.const 0) (i32.const 100) (i32.const 4)))"));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if Modules::default().check(&bytes).is_ok() {
            let mut damaged = procedure(&module(""));
            damaged.body = Body::Module(Bytes::from(bytes));
            let _ = run_procedure(&damaged);
        }
    }
}
