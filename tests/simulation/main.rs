//! Three whole nodes on one thread, with simulated time, network and disk. See README.md beside this file.
//!
//! `SEED=n` replays one seed, `SEEDS=n` runs so many (50 by default).

mod control;
mod determinism;
mod doors;
mod plan;
mod run;
mod shared;
mod sql;
mod workload;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use determinism::{on_seeded_thread, warm_up};
use run::{Outcome, run, trace_file};

const DEFAULT_SEEDS: u64 = 50;
/// The run before the first.
const WARM_UP_SEED: u64 = 0;
/// Seeds at a time.
const PARALLEL: usize = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

/// Runs a seed, keeps its trace, prints one line. Err: what went wrong, and how to see it again.
fn seed(seed: u64) -> Result<Outcome, String> {
    let again = format!("SEED={seed} cargo test -p volt-tests --test simulation seeds -- --nocapture");
    warm_up(|| drop(run(WARM_UP_SEED)));
    let outcome = on_seeded_thread(seed, move || run(seed)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("seed {seed} panicked: {}\n  again: {again}", said.unwrap_or_default())
    })?;
    let file = trace_file(seed);
    outcome
        .trace
        .save(&file)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let (answered, refused, unknown) = outcome.counts;
    println!(
        "seed {seed:>4}: {answered} answered, {refused} refused, {unknown} unknown, {} replicas compared, {:.1} s, trace {:016x}",
        outcome.compared,
        outcome.lasted.as_secs_f64(),
        outcome.trace.hash()
    );
    if let Some(fault) = &outcome.fault {
        return Err(format!(
            "seed {seed}: {fault}\n  trace: {}\n  again: {again}",
            file.display()
        ));
    }
    if !run::did_something(&outcome) {
        return Err(format!(
            "seed {seed}: only {answered} operations were answered\n  trace: {}",
            file.display()
        ));
    }
    Ok(outcome)
}

#[test]
fn seeds() {
    if let Some(one) = number("SEED") {
        seed(one).unwrap_or_else(|fault| panic!("{fault}"));
        return;
    }
    let count = number("SEEDS").unwrap_or(DEFAULT_SEEDS);
    let next = Arc::new(AtomicU64::new(1));
    let faults = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            let (next, faults) = (Arc::clone(&next), Arc::clone(&faults));
            scope.spawn(move || {
                loop {
                    let chosen = next.fetch_add(1, Ordering::Relaxed);
                    if chosen > count {
                        return;
                    }
                    if let Err(fault) = seed(chosen) {
                        println!("{fault}");
                        faults.lock().expect("no panic").push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.lock().expect("no panic");
    assert!(
        faults.is_empty(),
        "{} of {count} seeds failed:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for chosen in [3, 8] {
        let first = seed(chosen).unwrap_or_else(|fault| panic!("{fault}"));
        let second = seed(chosen).unwrap_or_else(|fault| panic!("{fault}"));
        if first.trace.hash() == second.trace.hash() {
            continue;
        }
        let (line, a, b) = first.trace.first_difference(&second.trace).unwrap_or_default();
        panic!("seed {chosen}: the traces differ from line {line} on:\n  {a}\n  {b}");
    }
}
