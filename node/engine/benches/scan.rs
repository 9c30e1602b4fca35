//! Reading all of a million rows, which came in no order: through snapshot scans, and inside the partition.

mod common;

use common::{CONTEXT, TABLE, loaded, program};
use divan::Bencher;
use divan::counter::ItemsCount;
use volt_engine::partition::{MAX_ENTRIES_READ, Partition, Projection};
use volt_engine::plan::{Access, Action, BinaryOp, Expr, KeyBound, KeyRange};
use volt_engine::row::RowRef;
use volt_engine::transaction::Writes;
use volt_engine::value::{Value, ValueRef};

const ROWS: u32 = 1_000_000;
/// As DataFusion's scans ask for them.
const CHUNK: usize = 1 << 20;

fn main() {
    divan::main();
}

fn number(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::BigInt(number) => number,
        other => panic!("{other:?}"),
    }
}

/// k < $1
fn less() -> Expr {
    Expr::Binary {
        op: BinaryOp::Less,
        left: Box::new(Expr::Column(0)),
        right: Box::new(Expr::Parameter(0)),
    }
}

/// The sum of k over a snapshot scan.
fn sum(partition: &Partition, filter: Option<&Expr>, parameters: &[Value], project: Option<&[usize]>) -> i64 {
    let (mut sum, mut after) = (0, None);
    let writes = Writes::default();
    loop {
        let snapshot = partition.applied();
        let from = after.as_deref();
        let chunk = partition.scan_at(
            TABLE,
            snapshot,
            &writes,
            from,
            CHUNK,
            filter,
            parameters,
            &CONTEXT,
            project.map(|columns| Projection {
                columns,
                missing: &[],
                version_base: 0,
            }),
        );
        let chunk = chunk.expect("a scan");
        sum += chunk
            .rows
            .iter()
            .map(|row| number(RowRef::new(row).get(0)))
            .sum::<i64>();
        match chunk.next {
            Some(next) => after = Some(next),
            None => return sum,
        }
    }
}

/// SELECT sum(k): whole rows leave the partition.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn snapshot_whole_rows(bencher: Bencher) {
    let partition = loaded(ROWS);
    let bencher = bencher.counter(ItemsCount::new(ROWS));
    bencher.bench_local(|| sum(&partition, None, &[], None));
}

/// SELECT sum(k): one column leaves it.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn snapshot_one_column(bencher: Bencher) {
    let partition = loaded(ROWS);
    let bencher = bencher.counter(ItemsCount::new(ROWS));
    bencher.bench_local(|| sum(&partition, None, &[], Some(&[0])));
}

/// SELECT sum(k) WHERE k < a hundredth of all: one column of few rows leaves it.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn snapshot_filter(bencher: Bencher) {
    let partition = loaded(ROWS);
    let parameters = [Value::BigInt(i64::from(ROWS) / 100)];
    let filter = less();
    let bencher = bencher.counter(ItemsCount::new(ROWS));
    bencher.bench_local(|| sum(&partition, Some(&filter), &parameters, Some(&[0])));
}

/// SELECT k by programs, each over as many rows as one may look at: nothing is encoded.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn program_one_column(bencher: Bencher) {
    let partition = loaded(ROWS);
    let bound = |place, inclusive| {
        let value = Expr::Parameter(place);
        Some(KeyBound { value, inclusive })
    };
    let select = program(Action::Select {
        access: Access::Range(KeyRange {
            prefix: Vec::new(),
            from: bound(0, true),
            to: bound(1, false),
            backward: false,
        }),
        filter: None,
        stages: Vec::new(),
        project: vec![Expr::Column(0)],
        limit: None,
        offset: 0,
    });
    let piece = MAX_ENTRIES_READ as i64;
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let (mut sum, mut rows) = (0, 0);
        for from in (0..i64::from(ROWS)).step_by(MAX_ENTRIES_READ) {
            let bounds = [Value::BigInt(from), Value::BigInt(from + piece)];
            let outcome = partition.run(&select, &bounds, &CONTEXT, &mut |row| sum += number(row[0]));
            rows += outcome.expect("a scan").affected;
        }
        assert_eq!(rows, u64::from(ROWS));
        sum
    });
}
