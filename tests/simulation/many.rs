//! Many seeds, each in a process of its own: what they came to together, and which of them failed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use volt_node::world::{CrashPoint, PlantedBug};

use crate::plan::EVENTS;
use crate::planted::VIOLATED;
use crate::{again, run};

/// A failed seed's words are cut to so many characters.
const LONGEST_WORDS: usize = 300;

/// What a seed's line says that it did.
#[derive(Clone, Default)]
pub struct Did {
    /// Replicas that were filled.
    pub fills: u64,
    /// Starts from a checkpoint.
    pub loads: u64,
    /// The point at which a process ended.
    pub met: Option<String>,
    /// Faults, and what came of them.
    pub happened: BTreeSet<String>,
}

/// Runs a seed in a process of its own, which is this program again, with a planted bug or without. Err: what it said.
pub fn seed_in_its_own_process(seed: u64, traces: &Path, bug: Option<PlantedBug>) -> Result<Did, String> {
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
            happened: summary
                .and_then(|summary| word_before(summary, " happened"))
                .map(|names| names.split(' ').map(str::to_owned).collect())
                .unwrap_or_default(),
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

/// Which traces stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traces {
    /// All of them.
    Kept,
    /// Only those of the seeds that failed: a soak would fill the disk.
    OfFailures,
}

/// What a seed that failed had violated, in short.
fn violated(seed: u64, said: &str) -> String {
    let words = said
        .lines()
        .find_map(|line| line.split_once(VIOLATED).map(|(_, what)| what));
    let too_little = || {
        said.lines()
            .find(|line| line.starts_with(&format!("seed {seed}: only")))
    };
    let words = words.or_else(too_little).unwrap_or("it died");
    words.chars().take(LONGEST_WORDS).collect()
}

/// What seeds came to.
#[derive(Default)]
pub struct Together {
    /// How many have run.
    count: u64,
    fills: u64,
    loads: u64,
    met: BTreeSet<String>,
    happened: BTreeSet<String>,
    /// What those that failed had violated, in short.
    failed: BTreeMap<u64, String>,
}

impl Together {
    /// Runs them, so many at a time. One that fails says so at once, and stops nothing.
    pub fn run(seeds: RangeInclusive<u64>, at_a_time: usize, kept: Traces) -> Self {
        let traces = run::traces();
        let next = Mutex::new(seeds);
        let together = Mutex::new(Self::default());
        std::thread::scope(|scope| {
            for _ in 0..at_a_time {
                scope.spawn(|| {
                    loop {
                        let Some(seed) = next.lock().expect("no panic").next() else {
                            return;
                        };
                        let did = seed_in_its_own_process(seed, &traces, None);
                        if did.is_ok() && kept == Traces::OfFailures {
                            // One that is not there takes no room either.
                            let _ = std::fs::remove_file(run::trace_file(seed));
                        }
                        together.lock().expect("no panic").add(seed, did);
                    }
                });
            }
        });
        together.into_inner().expect("no panic")
    }

    fn add(&mut self, seed: u64, did: Result<Did, String>) {
        self.count += 1;
        match did {
            Ok(did) => {
                self.fills += did.fills;
                self.loads += did.loads;
                self.met.extend(did.met);
                self.happened.extend(did.happened);
            }
            Err(said) => {
                println!("{said}");
                let words = violated(seed, &said);
                println!("FAILED seed {seed}: {words}\n  again: {}", again(seed));
                self.failed.insert(seed, words);
            }
        }
    }

    /// One line for each seed that failed, and how to see it again; None: none did.
    pub fn failures(&self) -> Option<String> {
        let line =
            |(seed, violated): (&u64, &String)| format!("  seed {seed}: {violated}\n    again: {}\n", again(*seed));
        let lines: String = self.failed.iter().map(line).collect();
        let (failed, count) = (self.failed.len(), self.count);
        (failed > 0).then(|| format!("{failed} of {count} seeds failed:\n{lines}"))
    }

    /// What they came to, in a line.
    fn came_to(&self) -> String {
        let (fills, loads) = (self.fills, self.loads);
        let events: Vec<&str> = self.happened.iter().chain(&self.met).map(String::as_str).collect();
        format!("{fills} fills, {loads} starts from a checkpoint, {}", events.join(" "))
    }

    /// What none of them came to, though so many should have.
    pub fn missed(&self) -> Option<String> {
        let points = CrashPoint::ALL.iter().map(|point| format!("{point:?}"));
        let points = points.filter(|point| !self.met.contains(point));
        let events = EVENTS.iter().map(|event| (*event).to_owned());
        let events = events.filter(|event| !self.happened.contains(event));
        let counted = [("a fill", self.fills), ("a start from a checkpoint", self.loads)];
        let counted = counted.into_iter().filter(|(_, count)| *count == 0);
        let missed: Vec<String> = points
            .chain(events)
            .chain(counted.map(|(what, _)| what.to_owned()))
            .collect();
        (!missed.is_empty()).then(|| format!("in {} seeds these never happened: {missed:?}", self.count))
    }
}

/// Any number of seeds; it is asked for by name (`make soak`).
#[test]
#[ignore = "goes on for as long as one likes"]
fn soak() {
    let count = crate::number("SEEDS").unwrap_or(crate::DEFAULT_SEEDS);
    let from = crate::number("FROM").unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let at_a_time = crate::number("AT_A_TIME").map_or(cores, |number| number.max(1) as usize);
    let last = from.saturating_add(count).saturating_sub(1);
    let together = Together::run(from..=last, at_a_time, Traces::OfFailures);
    let failures = together.failures();
    let all_well = format!("all of {} seeds passed", together.count);
    println!("{}", failures.as_deref().unwrap_or(&all_well));
    println!("what they came to: {}", together.came_to());
    assert!(failures.is_none(), "the seeds that failed are above");
}
