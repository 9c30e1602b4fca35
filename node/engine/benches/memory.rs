//! Memory a row: what a process grows by when it loads rows with a BIGINT key and a text of 100 bytes, everything
//! counted (resident set size), each case in a process of its own.
//!
//! `cargo bench -p volt-engine --bench memory`, or with a number of rows behind `--`.

mod common;

use std::process::Command;

use common::{Numbers, load};
use volt_engine::partition::Partition;

const ROWS: u32 = 5_000_000;
/// LSNs take more bytes the older a partition is: these rows come after so many records.
const RECORDS_BEFORE: u64 = 1 << 33;
const PAGE: u64 = 4096;

const KEYS: [(&str, &str); 3] = [
    ("ascending", "0, 1, 2 ... in this order"),
    ("shuffled", "the same in no order"),
    ("random", "any 64 bits"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [keys, partitions, rows] = arguments.as_slice() {
        return measure(keys, number(partitions), number(rows));
    }
    let rows = arguments.first().map_or(ROWS, |rows| number(rows));
    println!("{rows} rows of a BIGINT key and a text of 100 bytes, in bytes a row");
    println!("keys       partitions  resident  counted (Stats)  load, rows/s");
    let program = std::env::current_exe().expect("a process knows its program");
    for (keys, _) in KEYS {
        for partitions in ["1", "8"] {
            let child = Command::new(&program)
                .args([keys, partitions, &rows.to_string()])
                .status();
            assert!(child.expect("this program can be started").success());
        }
    }
    for (keys, meaning) in KEYS {
        println!("{keys}: {meaning}");
    }
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}

fn measure(keys: &str, partitions: u32, rows: u32) {
    let mut numbers = Numbers(1);
    let mut order: Vec<u32> = (0..rows).collect();
    if keys != "ascending" {
        numbers.shuffle(&mut order);
    }
    let key = |number: u32| match keys {
        "random" => Numbers(u64::from(number)).next() as i64,
        _ => i64::from(number),
    };
    let before = resident();
    let start = std::time::Instant::now();
    let mut all = Vec::new();
    for place in 0..partitions {
        let mut partition = Partition::new();
        // An empty dump: the partition begins behind its snapshot.
        let dump = [&[1][..], &RECORDS_BEFORE.to_le_bytes()].concat();
        partition.load_chunk(&dump).expect("a dump");
        let mine = order.iter().filter(|&&number| number % partitions == place);
        load(&mut partition, mine.map(|&number| key(number)));
        all.push(partition);
    }
    let rate = f64::from(rows) / start.elapsed().as_secs_f64();
    let grown = (resident() - before) as f64 / f64::from(rows);
    let counted = all.iter().map(|partition| partition.stats().bytes).sum::<u64>() as f64 / f64::from(rows);
    println!("{keys:<10} {partitions:>10} {grown:>9.1} {counted:>16.1} {rate:>13.0}");
    // Dropping it all is no part of this.
    std::mem::forget(all);
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * PAGE
}
