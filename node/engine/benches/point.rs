//! Statements on one row by its key, in no order, among as many rows as each line says: compiled programs, run as a
//! primary runs them.

mod common;

use std::hint::black_box;

use common::{CONTEXT, Numbers, TABLE, loaded, loaded_names, name, program, program_on};
use divan::Bencher;
use divan::counter::ItemsCount;
use volt_engine::catalog::{ViewAggregate, ViewShape};
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;
use volt_engine::plan::{Access, Action, Expr, Program};
use volt_engine::value::{DataType, Value, ValueRef};

/// A thousand fit a cache; a million fit none.
const ROWS: [u32; 2] = [1_000, 1_000_000];
/// Statements a sample.
const BATCH: usize = 10_000;

fn main() {
    divan::main();
}

fn by_key(parameter: usize) -> Access {
    Access::Point(vec![Expr::Parameter(parameter)])
}

fn random_keys(rows: u32) -> Vec<i64> {
    let mut numbers = Numbers(2);
    (0..BATCH).map(|_| numbers.below(u64::from(rows)) as i64).collect()
}

fn select() -> Action {
    Action::Select {
        access: by_key(0),
        filter: None,
        stages: Vec::new(),
        project: vec![Expr::Column(1)],
        limit: None,
        offset: 0,
    }
}

fn read_one(partition: &Partition, select: &Program, key: Value) {
    let sink = &mut |row: &[ValueRef<'_>]| {
        black_box(row);
    };
    let outcome = partition.run(select, &[key], &CONTEXT, sink);
    assert_eq!(outcome.expect("a read").affected, 1);
}

/// SELECT v FROM kv WHERE k = $1
#[divan::bench(args = ROWS, sample_count = 100, sample_size = 1)]
fn read(bencher: Bencher, rows: u32) {
    let partition = loaded(rows);
    let select = program(select());
    let batch = bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| random_keys(rows));
    batch.bench_local_values(|keys| {
        for key in keys {
            read_one(&partition, &select, Value::BigInt(key));
        }
    });
}

/// The same by a text of 19 bytes.
#[divan::bench(args = ROWS, sample_count = 100, sample_size = 1)]
fn read_by_name(bencher: Bencher, rows: u32) {
    let partition = loaded_names(rows);
    let select = program_on(DataType::Text, select());
    let names = || random_keys(rows).into_iter().map(|key| Value::Text(name(key as u64)));
    let batch = bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| names().collect::<Vec<_>>());
    batch.bench_local_values(|keys| {
        for key in keys {
            read_one(&partition, &select, key);
        }
    });
}

/// UPDATE kv SET v = $1 WHERE k = $2, its effects recorded, applied and committed; `values` in turn.
fn update_in(bencher: Bencher, rows: u32, mut partition: Partition, values: [&str; 2]) {
    let update = program(Action::Update {
        access: by_key(1),
        filter: None,
        set: vec![(1, Expr::Parameter(0))],
    });
    let mut parameters = values.map(|value| [Value::Text(value.repeat(100)), Value::BigInt(0)]);
    let batch = bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| random_keys(rows));
    batch.bench_local_values(|keys| {
        for (place, key) in keys.into_iter().enumerate() {
            let parameters = &mut parameters[place % 2];
            parameters[1] = Value::BigInt(key);
            let outcome = partition.run(&update, parameters, &CONTEXT, &mut |_| {});
            let effects = outcome.expect("an update").effects.expect("a change");
            let payload = LogPayload::Write(effects);
            black_box(payload.encode());
            let lsn = partition.applied() + 1;
            partition.apply_record(lsn, &payload).expect("in order");
            partition.commit_to(lsn);
        }
    });
}

#[divan::bench(args = ROWS, sample_count = 100, sample_size = 1)]
fn update(bencher: Bencher, rows: u32) {
    update_in(bencher, rows, loaded(rows), ["y", "y"]);
}

/// With CREATE MATERIALIZED VIEW AS SELECT v, COUNT(*), SUM(k) FROM kv GROUP BY v: half of the rows change their group.
#[divan::bench(args = ROWS, sample_count = 100, sample_size = 1)]
fn update_with_a_view(bencher: Bencher, rows: u32) {
    let mut partition = loaded(rows);
    let shape = ViewShape {
        missing: Vec::new(),
        source: TABLE,
        filter: None,
        groups: vec![Expr::Column(1)],
        aggregates: vec![ViewAggregate::Sum {
            argument: Expr::Column(0),
            scale: 0,
        }],
    };
    partition.set_views([(TABLE + 1, &shape)]);
    assert!(partition.build_views(usize::MAX));
    update_in(bencher, rows, partition, ["y", "z"]);
}
