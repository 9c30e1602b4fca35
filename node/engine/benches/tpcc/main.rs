//! TPC-C (revision 5.11) in process: its five transactions as partitioned procedures in SQL, compiled as a node compiles
//! them, and run as a primary runs them. One partition has all warehouses, one thread runs one call after the other, and each
//! call's effects are encoded as a record, applied and committed. There is no client, no log and no backup.
//!
//! Before anything is measured some thousand transactions run, and TPC-C's consistency conditions are checked.

mod calls;
mod catalog;
mod consistency;
mod load;
mod random;

use std::cell::RefCell;
use std::sync::Arc;

use calls::{Call, Transaction};
use catalog::Catalog;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use random::Random;
use volt_engine::effects::LogPayload;
use volt_engine::partition::{Home, Partition};
use volt_engine::plan::StatementContext;
use volt_engine::procedure::Procedure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOME: Home = Home { index: 0, count: 1 };
/// Transactions before the check of what they have done.
const CHECKED: usize = 20_000;

thread_local! {
    static DATABASE: RefCell<Database> = RefCell::new(Database::new());
}

fn main() {
    divan::main();
}

/// The partition, and what a node would have beside it.
struct Database {
    partition: Partition,
    /// In the order of `Transaction::ALL`.
    procedures: Vec<Arc<Procedure>>,
    random: Random,
    next_value: i64,
    now_micros: i64,
}

impl Database {
    /// Loaded, used and found consistent.
    fn new() -> Self {
        let catalog = Catalog::read();
        let procedure = |transaction: Transaction| Arc::new(catalog.procedure(transaction.procedure()).clone());
        let mut database = Self {
            partition: load::loaded(&catalog),
            procedures: Transaction::ALL.map(procedure).to_vec(),
            random: Random::new(2),
            next_value: 0,
            now_micros: 1_700_000_000_000_000,
        };
        database.check(&catalog);
        database
    }

    fn check(&mut self, catalog: &Catalog) {
        consistency::check(&self.partition, catalog);
        let calls = self.mix(CHECKED);
        self.run(&calls);
        consistency::check(&self.partition, catalog);
    }

    fn calls(&mut self, transaction: Transaction, count: usize) -> Vec<Call> {
        (0..count).map(|_| Call::new(transaction, &mut self.random)).collect()
    }

    fn mix(&mut self, count: usize) -> Vec<Call> {
        let mut call = || {
            let transaction = Transaction::any(&mut self.random);
            Call::new(transaction, &mut self.random)
        };
        (0..count).map(|_| call()).collect()
    }

    fn run(&mut self, calls: &[Call]) {
        for call in calls {
            self.call(call);
        }
    }

    fn call(&mut self, call: &Call) {
        self.now_micros += 1;
        let context = StatementContext {
            now_micros: self.now_micros,
        };
        let next_value = &mut self.next_value;
        let called = self.partition.call(
            &self.procedures[call.transaction as usize],
            &call.arguments,
            HOME,
            &context,
            &mut |_| {
                *next_value += 1;
                Some(*next_value)
            },
            &mut |row| {
                black_box(row.len());
            },
        );
        let effects = match called {
            Ok(called) if !call.fails => called.outcome.effects,
            Err(_) if call.fails => return,
            Ok(_) => panic!("{:?} with an item that is not there", call.transaction),
            Err(failed) => panic!("{:?} {:?}: {failed}", call.transaction, call.arguments),
        };
        let Some(effects) = effects else { return };
        let lsn = self.partition.applied() + 1;
        let payload = LogPayload::Write(effects);
        black_box(payload.encode());
        self.partition
            .apply_record(lsn, &payload)
            .expect("records are in order");
        self.partition.commit_to(lsn);
    }
}

/// Runs what `calls` makes, a sample at a time.
fn measure(bencher: Bencher, count: usize, calls: impl Fn(&mut Database) -> Vec<Call>) {
    DATABASE.with(|database| {
        let batch = bencher.counter(ItemsCount::new(count));
        let batch = batch.with_inputs(|| calls(&mut database.borrow_mut()));
        batch.bench_local_values(|calls| database.borrow_mut().run(&calls));
    });
}

/// 45 % NewOrder, 43 % Payment, 4 % each of the others.
#[divan::bench(sample_count = 25, sample_size = 1)]
fn mix(bencher: Bencher) {
    measure(bencher, 10_000, |database| database.mix(10_000));
}

#[divan::bench(sample_count = 25, sample_size = 1)]
fn new_order(bencher: Bencher) {
    measure(bencher, 5_000, |database| database.calls(Transaction::NewOrder, 5_000));
}

#[divan::bench(sample_count = 25, sample_size = 1)]
fn payment(bencher: Bencher) {
    measure(bencher, 5_000, |database| database.calls(Transaction::Payment, 5_000));
}

#[divan::bench(sample_count = 25, sample_size = 1)]
fn order_status(bencher: Bencher) {
    measure(bencher, 5_000, |database| {
        database.calls(Transaction::OrderStatus, 5_000)
    });
}

/// Each delivers ten orders, which are placed before, out of the measurement.
#[divan::bench(sample_count = 25, sample_size = 1)]
fn delivery(bencher: Bencher) {
    measure(bencher, 500, |database| {
        let orders = database.calls(Transaction::NewOrder, 5_000);
        database.run(&orders);
        database.calls(Transaction::Delivery, 500)
    });
}

#[divan::bench(sample_count = 25, sample_size = 1)]
fn stock_level(bencher: Bencher) {
    measure(bencher, 500, |database| database.calls(Transaction::StockLevel, 500));
}
