//! Three whole nodes on one thread, with simulated time, network and disk. See README.md beside this file.
//!
//! `SEED=n` replays one seed, `SEEDS=n` runs so many (50 by default). Each seed has a process of its own, so that what one
//! run leaves behind in statics can't reach the next, and a replay is what the first run was.

mod accounts;
mod columns;
mod control;
mod counters;
mod determinism;
mod doors;
mod faults;
mod host;
mod plan;
mod planted;
mod run;
mod serializable;
mod shared;
mod sql;
mod steady;
mod tables;
mod witness;
mod workload;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use determinism::on_seeded_thread;
use run::{did_something, run, trace_file};
use volt_node::world::{CrashPoint, PlantedBug};

const DEFAULT_SEEDS: u64 = 50;
/// Seeds at a time.
const PARALLEL: usize = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

/// Runs a seed in this process, keeps its trace, prints one line. Err: what went wrong, and how to see it again.
fn seed(seed: u64) -> Result<(), String> {
    let again = format!("SEED={seed} cargo test -p volt-tests --test simulation seeds -- --nocapture");
    let outcome = on_seeded_thread(seed, move || run(seed)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let said = said.unwrap_or_default();
        planted::tell(&said);
        format!("seed {seed} panicked: {said}\n  again: {again}")
    })?;
    let file = trace_file(seed);
    outcome
        .trace
        .save(&file)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let (answered, refused, unknown) = outcome.counts;
    println!(
        "seed {seed:>4}: {answered} answered, {refused} refused, {unknown} unknown, {} transactions checked, {} replicas compared, {} filled, {} checkpoints, {} loaded, {} met, {:.1} s, trace {:016x}",
        outcome.checked.happened,
        outcome.compared,
        outcome.filled,
        outcome.checkpoints.0,
        outcome.checkpoints.1,
        outcome.met.as_deref().unwrap_or("no point"),
        outcome.lasted.as_secs_f64(),
        outcome.trace.hash()
    );
    if let Some(fault) = &outcome.fault {
        planted::tell(fault);
        return Err(format!(
            "seed {seed}: {fault}\n  trace: {}\n  again: {again}",
            file.display()
        ));
    }
    if !did_something(&outcome) {
        return Err(format!(
            "seed {seed}: only {answered} operations were answered, {} transactions checked, {} replicas compared\n  trace: {}",
            outcome.checked.happened,
            outcome.compared,
            file.display()
        ));
    }
    Ok(())
}

/// What a seed's line says that it did.
#[derive(Clone, Default)]
struct Did {
    fills: u64,
    /// Starts from a checkpoint.
    loads: u64,
    /// The point at which a process ended.
    met: Option<String>,
}

/// Runs a seed in a process of its own, which is this program again, with a planted bug or without. Err: what it said.
fn seed_in_its_own_process(seed: u64, traces: &Path, bug: Option<PlantedBug>) -> Result<Did, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["--exact", "seeds", "--nocapture", "--test-threads=1"])
        .env("SEED", seed.to_string())
        .env("SIMULATION_TRACES", traces)
        .env_remove("PLANT")
        .envs(bug.map(|bug| ("PLANT", format!("{bug:?}"))))
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said
        .lines()
        .find(|line| line.contains(": ") && line.contains("answered"));
    println!("{}", summary.unwrap_or_default().trim_start_matches("test seeds ... "));
    if output.status.success() {
        let number = |what| summary.and_then(|summary| number_before(summary, what)).unwrap_or(0);
        return Ok(Did {
            fills: number(" filled"),
            loads: number(" loaded"),
            met: summary
                .and_then(|summary| word_before(summary, " met"))
                .map(str::to_owned),
        });
    }
    Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

/// What stands before this word in a seed's line.
fn word_before<'s>(summary: &'s str, what: &str) -> Option<&'s str> {
    summary.split(", ").find_map(|part| part.strip_suffix(what))
}

fn number_before(summary: &str, what: &str) -> Option<u64> {
    word_before(summary, what)?.parse().ok()
}

#[test]
fn seeds() {
    if let Some(one) = number("SEED") {
        seed(one).unwrap_or_else(|fault| panic!("{fault}"));
        return;
    }
    let count = number("SEEDS").unwrap_or(DEFAULT_SEEDS);
    if let Some(bug) = planted::planted() {
        let found = planted::first_that_finds(bug, 1..=count);
        let (first, what) = found.unwrap_or_else(|| panic!("none of {count} seeds finds {bug:?}"));
        println!("{bug:?} is found by seed {first}: {what}");
        return;
    }
    let next = AtomicU64::new(1);
    let (fills, loads) = (AtomicU64::new(0), AtomicU64::new(0));
    let met = Mutex::new(BTreeSet::new());
    let faults = Mutex::new(Vec::new());
    let traces = run::traces();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let chosen = next.fetch_add(1, Ordering::Relaxed);
                    if chosen > count {
                        return;
                    }
                    match seed_in_its_own_process(chosen, &traces, None) {
                        Ok(did) => {
                            fills.fetch_add(did.fills, Ordering::Relaxed);
                            loads.fetch_add(did.loads, Ordering::Relaxed);
                            met.lock().expect("no panic").extend(did.met);
                        }
                        Err(fault) => {
                            println!("{fault}");
                            faults.lock().expect("no panic").push(fault);
                        }
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
    let (fills, loads) = (fills.into_inner(), loads.into_inner());
    assert!(
        fills > 0 && loads > 0 || count < DEFAULT_SEEDS,
        "in {count} seeds {fills} replicas were filled, and {loads} starts went out from a checkpoint"
    );
    let met = met.into_inner().expect("no panic");
    let missed = CrashPoint::ALL.iter().map(|point| format!("{point:?}"));
    let missed: Vec<String> = missed.filter(|point| !met.contains(point)).collect();
    assert!(
        missed.is_empty() || count < DEFAULT_SEEDS,
        "in {count} seeds no process ended at {missed:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for chosen in [3, 8] {
        let [first, second] = ["first", "second"].map(|which| {
            let traces = run::traces().join(which);
            seed_in_its_own_process(chosen, &traces, None).unwrap_or_else(|fault| panic!("{fault}"));
            let file = traces.join(trace_file(chosen).file_name().expect("a file"));
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        });
        assert!(!first.is_empty());
        let mut lines = first.lines().zip(second.lines()).enumerate();
        if let Some((line, (a, b))) = lines.find(|(_, (a, b))| a != b) {
            panic!(
                "seed {chosen}: the traces differ from line {} on:\n  {a}\n  {b}",
                line + 1
            );
        }
        assert_eq!(first.len(), second.len(), "seed {chosen}: one trace goes on");
    }
}
