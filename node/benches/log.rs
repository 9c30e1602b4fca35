//! The node's log on this disk: records of 100 bytes that many appenders queue, each of which waits until its own are safe
//! before it queues the next.

use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;
use volt_node::config::Durability;
use volt_node::recovery::log::{Log, LogEntry, LogOptions};
use volt_node::world::World;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records a sample.
const RECORDS: usize = 1_000_000;
const RECORD_BYTES: usize = 100;
/// Those who append at the same time, each for a partition of its own.
const APPENDERS: usize = 16;
const CLUSTER: Uuid = Uuid::from_u128(7);

fn main() {
    divan::main();
}

/// A log in a folder of its own under the target directory: `/tmp` may be memory.
fn open(runtime: &Runtime, durability: Durability) -> (TempDir, Arc<Log>) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let world = World::production(folder.path()).expect("a folder of our own");
    let options = LogOptions::new(durability);
    let mut take = |_, _| Ok(());
    let opened = Log::open(&world, options, CLUSTER, &mut take);
    let log = runtime.block_on(opened).expect("a new log");
    (folder, Arc::new(log))
}

/// One of the appenders: `outstanding` records at a time.
async fn append(log: Arc<Log>, appender: usize, outstanding: usize) {
    let payload = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let records = RECORDS / APPENDERS;
    let mut lsn = 0;
    while lsn < records {
        let mut ticket = 0;
        for _ in 0..outstanding.min(records - lsn) {
            lsn += 1;
            let record = LogEntry::Record {
                epoch: 1,
                lsn: lsn as u64,
                payload: payload.clone(),
            };
            ticket = log.append(appender as u32 + 1, &record);
        }
        log.wait_safe(ticket).await.expect("the disk writes");
    }
}

/// All of them; how often the log said that more is safe.
async fn append_all(log: Arc<Log>, outstanding: usize) -> usize {
    let mut safe = log.safe();
    let counting = tokio::spawn(async move {
        let mut times = 1;
        while (*safe.borrow_and_update() as usize) < RECORDS && safe.changed().await.is_ok() {
            times += 1;
        }
        times
    });
    let appenders = (0..APPENDERS).map(|appender| tokio::spawn(append(Arc::clone(&log), appender, outstanding)));
    for appender in appenders.collect::<Vec<_>>() {
        appender.await.expect("no panic");
    }
    counting.await.expect("no panic")
}

fn measure(bencher: Bencher, durability: Durability, outstanding: usize) {
    let runtime = Runtime::new().expect("threads");
    let mut flushes = Vec::new();
    let batch = bencher.counter(ItemsCount::new(RECORDS));
    let opened = batch.with_inputs(|| open(&runtime, durability));
    opened.bench_local_values(|(folder, log)| {
        flushes.push(runtime.block_on(append_all(log, outstanding)));
        folder
    });
    let flushes = flushes.iter().sum::<usize>() as f64 / flushes.len() as f64;
    println!(
        "   {durability:?}, {outstanding} outstanding: {:.0} records a write",
        RECORDS as f64 / flushes
    );
}

/// With a flush for whatever has gathered during the last one.
#[divan::bench(args = [64, 512, 4096], sample_count = 5, sample_size = 1)]
fn fsync(bencher: Bencher, outstanding: usize) {
    measure(bencher, Durability::Fsync, outstanding);
}

/// Safe when the kernel has it.
#[divan::bench(args = [64, 512, 4096], sample_count = 5, sample_size = 1)]
fn written(bencher: Bencher, outstanding: usize) {
    measure(bencher, Durability::Async, outstanding);
}
