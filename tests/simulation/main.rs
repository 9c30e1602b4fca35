//! Whole clusters on one thread, with simulated time, network and disk. See README.md beside this file.
//!
//! `SEED=n` replays one seed, `SEEDS=n` runs so many (300 by default). Each seed has a process of its own, so that what one
//! run leaves behind in statics can't reach the next, and a replay is what the first run was.

mod accounts;
mod archive;
mod columns;
mod control;
mod counters;
mod determinism;
mod doors;
mod faults;
mod host;
mod many;
mod movers;
mod plan;
mod planted;
mod restored;
mod run;
mod scale;
mod serializable;
mod shared;
mod sql;
mod steady;
mod tables;
mod voter;
mod witness;
mod workload;
mod zones;

use determinism::on_seeded_thread;
use many::{Together, Traces, seed_in_its_own_process};
use run::{did_something, run, trace_file};

const DEFAULT_SEEDS: u64 = 300;
/// Seeds at a time.
const PARALLEL: usize = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

/// How one sees a seed again.
fn again(seed: u64) -> String {
    let profile =
        std::env::var("SIMULATION_PROFILE").map_or_else(|_| String::new(), |name| format!(" --profile {name}"));
    format!("SEED={seed} cargo test{profile} --workspace --test simulation seeds -- --nocapture")
}

/// Runs a seed in this process, keeps its trace, prints one line. Err: what went wrong, and how to see it again.
fn seed(seed: u64) -> Result<(), String> {
    let again = again(seed);
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
        "seed {seed:>4}: {answered} answered, {refused} refused, {unknown} unknown, {} transactions checked, {} replicas compared, {} filled, {} checkpoints, {} loaded, {} met, {} happened, {:.1} s, trace {:016x}",
        outcome.checked.happened,
        outcome.compared,
        outcome.filled,
        outcome.checkpoints.0,
        outcome.checkpoints.1,
        outcome.met.as_deref().unwrap_or("no point"),
        outcome.happened.join(" "),
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
    let together = Together::run(1..=count, PARALLEL, Traces::Kept);
    assert_eq!(together.failures(), None);
    assert_eq!(together.missed().filter(|_| count >= DEFAULT_SEEDS), None);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for chosen in [3, 4] {
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
