//! Statements on one row by its key, among a million rows: compiled programs, run as a primary runs them.

mod common;

use std::hint::black_box;

use common::{CONTEXT, Numbers, loaded, program};
use divan::Bencher;
use divan::counter::ItemsCount;
use volt_engine::effects::LogPayload;
use volt_engine::plan::{Access, Action, Expr};
use volt_engine::value::{Value, ValueRef};

const ROWS: u32 = 1_000_000;
/// Statements a sample.
const BATCH: usize = 10_000;

fn main() {
    divan::main();
}

fn by_key(parameter: usize) -> Access {
    Access::Point(vec![Expr::Parameter(parameter)])
}

fn random_keys() -> Vec<i64> {
    let mut numbers = Numbers(2);
    (0..BATCH).map(|_| numbers.below(u64::from(ROWS)) as i64).collect()
}

/// SELECT v FROM kv WHERE k = $1
#[divan::bench(sample_count = 100, sample_size = 1)]
fn read(bencher: Bencher) {
    let partition = loaded(ROWS);
    let select = program(Action::Select {
        access: by_key(0),
        filter: None,
        project: vec![Expr::Column(1)],
        limit: None,
        offset: 0,
    });
    let batch = bencher.counter(ItemsCount::new(BATCH)).with_inputs(random_keys);
    batch.bench_local_values(|keys| {
        for key in keys {
            let sink = &mut |row: &[ValueRef<'_>]| {
                black_box(row);
            };
            let outcome = partition.run(&select, &[Value::BigInt(key)], &CONTEXT, sink);
            assert_eq!(outcome.expect("a read").affected, 1);
        }
    });
}

/// UPDATE kv SET v = $1 WHERE k = $2, its effects recorded, applied and committed.
#[divan::bench(sample_count = 100, sample_size = 1)]
fn update(bencher: Bencher) {
    let mut partition = loaded(ROWS);
    let update = program(Action::Update {
        access: by_key(1),
        filter: None,
        set: vec![(1, Expr::Parameter(0))],
    });
    let mut parameters = [Value::Text("y".repeat(100)), Value::BigInt(0)];
    let batch = bencher.counter(ItemsCount::new(BATCH)).with_inputs(random_keys);
    batch.bench_local_values(|keys| {
        for key in keys {
            parameters[1] = Value::BigInt(key);
            let outcome = partition.run(&update, &parameters, &CONTEXT, &mut |_| {});
            let effects = outcome.expect("an update").effects.expect("a change");
            let payload = LogPayload::Write(effects);
            black_box(payload.encode());
            let lsn = partition.applied() + 1;
            partition.apply_record(lsn, &payload).expect("in order");
            partition.commit_to(lsn);
        }
    });
}
