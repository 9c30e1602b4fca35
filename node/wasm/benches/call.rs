//! What a call of a module costs, without the statements' own work: `cargo bench -p volt-wasm`.

use bytes::Bytes;
use divan::Bencher;
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Body, Collector, Machine, Next, Procedure, Statement};
use volt_engine::value::ValueRef;
use volt_wasm::Modules;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// A module whose memory has so many pages, with data at its end, as a compiler makes one.
fn procedure(pages: u32, body: &str) -> Procedure {
    let data = (pages - 1) << 16;
    let text = format!(
        r#"(module
          (import "volt" "execute" (func $execute (param i32 i32 i32) (result i64)))
          (import "volt" "row" (func $row (param i32 i32) (result i32)))
          (memory (export "memory") {pages})
          (data (i32.const {data}) "\00\00\00\00")
          (func (export "call") {body}))"#
    );
    Procedure {
        id: 1,
        name: "p".to_owned(),
        language: "wasm".to_owned(),
        source: String::new(),
        parameters: Vec::new(),
        columns: Vec::new(),
        partition_by: None,
        body: Body::Module(Bytes::from(wat::parse_str(text).expect("a module"))),
        statements: vec![Statement {
            sql: String::new(),
            parameters: Vec::new(),
            tables: Vec::new(),
            program: None,
            keys: Vec::new(),
            sequences: Vec::new(),
        }],
    }
}

fn call(bencher: Bencher, procedure: &Procedure) {
    let modules = Modules::default();
    let compiled = modules.compiled(procedure).expect("a module that can run");
    let context = StatementContext { now_micros: 0 };
    bencher.bench_local(|| {
        let mut call = compiled.start(procedure, &[], &context).expect("a call");
        loop {
            match call.advance() {
                Ok(Next::Execute { .. }) => {
                    let mut rows = Collector::new(1);
                    rows.row(&[ValueRef::BigInt(1)]);
                    call.executed(1, &mut rows).expect("an answer");
                }
                Ok(Next::Pause | Next::Row | Next::Value { .. }) => {}
                Ok(Next::Done) | Err(_) => return,
            }
        }
    });
}

#[divan::bench(args = [1, 17])]
fn nothing(bencher: Bencher, pages: u32) {
    call(bencher, &procedure(pages, ""));
}

/// As Voter: five statements, a row of each, written into a place of the memory that nobody has touched.
#[divan::bench(args = [1, 17])]
fn five_statements(bencher: Bencher, pages: u32) {
    let data = (pages - 1) << 16;
    let statement = format!(
        "(drop (call $execute (i32.const 0) (i32.const {data}) (i32.const 4)))
         (drop (call $row (i32.const {}) (i32.const 64)))",
        data + 8192
    );
    call(bencher, &procedure(pages, &statement.repeat(5)));
}

/// How long a partition stands still for one that never ends.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn endless(bencher: Bencher) {
    call(bencher, &procedure(1, "(loop $l (br $l))"));
}

/// The same with work in the loop.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn endless_sum(bencher: Bencher) {
    let body = "(local $n i64) (loop $l (local.set $n (i64.add (i64.load (i32.const 8)) (i64.mul (local.get $n) (i64.const 31))))
        (i64.store (i32.const 8) (local.get $n)) (br $l))";
    call(bencher, &procedure(1, body));
}

/// Compiling a small module.
#[divan::bench]
fn compile(bencher: Bencher) {
    let procedure = procedure(1, "");
    bencher
        .with_inputs(Modules::default)
        .bench_local_values(|modules| modules.compiled(&procedure).map(drop));
}
