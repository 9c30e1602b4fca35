//! Bugs that are planted (`volt_node::world::PlantedBug`), to see that a run finds them. README.md has the table.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use volt_node::world::PlantedBug;

use crate::many::seed_in_its_own_process;
use crate::{PARALLEL, run};

/// What stands before the words of the check that found something.
pub const VIOLATED: &str = "violated: ";

/// Seeds from 1 that are tried when the one that is known to find a bug does not: what a seed does changes with the code.
const TRIED: u64 = 300;

/// A bug, the seed that is known to find it, and words of the checks that may.
type Known = (PlantedBug, u64, &'static [&'static str]);

const LOST: &str = "invariant 1";
const NOT_LINEARISABLE: &str = "is not linearisable";
/// Also what the witnesses and those who look at the accounts say.
const NOT_SERIALISABLE: &str = "invariant 3";
const DIFFER: &str = "invariant 4";
const HALF: &str = "invariant 5";
const TWICE: &str = "invariant 7";
/// A node's own assertion.
const ASSERTED: &str = "panicked at node/";
/// The metadata group's leader meets a member that has forgotten what it had.
const GOES_BACK: &str = "follower log reversion";
/// A node refuses what its disk holds.
const CANT_GO_ON: &str = "can't go on";
/// What was put right does not answer.
const STUCK: &str = "is not answered at the end";
/// A client is told what nothing that happened explains, as that its table is not there.
const UNEXPLAINED: &str = "no fault explains";

/// What may come of histories that part, or of what was answered and is undone: it depends on who looks first.
const PARTED: &[&str] = &[ASSERTED, LOST, NOT_LINEARISABLE, NOT_SERIALISABLE, DIFFER, HALF, TWICE];

const KNOWN: &[Known] = &[
    (PlantedBug::AckBeforeBackup, 3, PARTED),
    (PlantedBug::ReadPastCommitted, 3, PARTED),
    (
        PlantedBug::OldEpochTaken,
        9,
        &[ASSERTED, LOST, NOT_LINEARISABLE, NOT_SERIALISABLE, DIFFER, STUCK],
    ),
    (PlantedBug::LeaseIgnored, 10, &[NOT_LINEARISABLE, NOT_SERIALISABLE]),
    (PlantedBug::StaleReplicaPromoted, 30, PARTED),
    (PlantedBug::LateMemberForgotten, 3, PARTED),
    (PlantedBug::BackupDoesNotCut, 9, PARTED),
    (PlantedBug::FlushSkipped, 7, &[CANT_GO_ON, LOST]),
    (
        PlantedBug::GroupLogNotFlushed,
        3,
        &[UNEXPLAINED, CANT_GO_ON, ASSERTED, GOES_BACK],
    ),
    (PlantedBug::DecisionNotReplicated, 5, &[HALF, TWICE, NOT_SERIALISABLE]),
    (PlantedBug::VoterAborts, 1, &[HALF, TWICE, STUCK, NOT_SERIALISABLE]),
    (PlantedBug::PreparedServed, 1, &[NOT_SERIALISABLE]),
    (PlantedBug::ReadsNotValidated, 1, &[NOT_SERIALISABLE, HALF, LOST]),
    (PlantedBug::RangesNotValidated, 1, &[NOT_SERIALISABLE]),
    (PlantedBug::KeysNotTakenOver, 3, &[ASSERTED, TWICE]),
    (
        PlantedBug::HomeAnswersEarly,
        9,
        &[HALF, TWICE, LOST, NOT_SERIALISABLE, ASSERTED],
    ),
    (PlantedBug::CheckpointBeforeMarks, 188, &[CANT_GO_ON]),
    (
        PlantedBug::FillIncomplete,
        2,
        &[DIFFER, LOST, ASSERTED, NOT_SERIALISABLE, TWICE, UNEXPLAINED],
    ),
    (PlantedBug::TooFewAsked, 6, PARTED),
    (
        PlantedBug::VoteNotReplicated,
        3,
        &[HALF, TWICE, LOST, NOT_SERIALISABLE, ASSERTED],
    ),
    (PlantedBug::TornTailKept, 7, &[CANT_GO_ON, LOST, ASSERTED]),
    (
        PlantedBug::MovedTableServed,
        1,
        &[LOST, NOT_LINEARISABLE, NOT_SERIALISABLE, HALF, TWICE],
    ),
    (PlantedBug::MovedRowsShown, 26, &[NOT_SERIALISABLE, HALF]),
    (
        PlantedBug::CutNotHeld,
        22,
        &[HALF, LOST, NOT_SERIALISABLE, NOT_LINEARISABLE],
    ),
];

/// The bug of this process's runs, by `PLANT`.
pub fn planted() -> Option<PlantedBug> {
    let name = std::env::var("PLANT").ok()?;
    let bug = PlantedBug::named(&name);
    Some(bug.unwrap_or_else(|| panic!("PLANT={name} is none of {:?}", PlantedBug::ALL)))
}

/// The first seed that finds something, and what; None: none of these does.
pub fn first_that_finds(bug: PlantedBug, seeds: RangeInclusive<u64>) -> Option<(u64, String)> {
    let traces = run::traces().join(format!("{bug:?}"));
    let next = AtomicU64::new(*seeds.start());
    let is_found = AtomicBool::new(false);
    let found = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while !is_found.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let Some(what) = finds(bug, seed, &traces) else {
                        continue;
                    };
                    is_found.store(true, Ordering::Relaxed);
                    let mut found = found.lock().expect("no panic");
                    let is_first = found.as_ref().is_none_or(|(first, _)| seed < *first);
                    if is_first {
                        *found = Some((seed, what));
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic")
}

/// What this seed finds: the words of the check.
fn finds(bug: PlantedBug, seed: u64, traces: &Path) -> Option<String> {
    let said = seed_in_its_own_process(seed, traces, Some(bug)).err()?;
    let words = said.lines().find_map(|line| line.split_once(VIOLATED));
    Some(words.map_or(said.clone(), |(_, words)| words.to_owned()))
}

/// Notes what a check said, in one line, where the process that asked for this run finds it.
pub fn tell(violated: &str) {
    println!("{VIOLATED}{}", violated.replace('\n', " "));
}

/// Why nobody can say that this bug is found as it is known to be.
fn missed(&(bug, known, checks): &Known) -> Option<String> {
    let traces = run::traces().join("planted");
    let found = finds(bug, known, &traces).map(|words| (known, words));
    let Some((seed, words)) = found.or_else(|| first_that_finds(bug, 1..=TRIED)) else {
        return Some(format!("{bug:?} is found by none of {TRIED} seeds"));
    };
    println!("{bug:?} is found by seed {seed}: {words}");
    // "Invariants 3 and 5" is 3.
    let said = words.replace("invariants", "invariant");
    let is_known = checks.iter().any(|check| said.contains(check));
    (!is_known).then(|| format!("{bug:?} is found by seed {seed} for another reason: {words}"))
}

#[test]
fn every_planted_bug_is_found() {
    let next = Mutex::new(KNOWN.iter());
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(known) = next.lock().expect("no panic").next() else {
                        return;
                    };
                    let missed = missed(known);
                    faults.lock().expect("no panic").extend(missed);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_bug_is_known() {
    let known: Vec<PlantedBug> = KNOWN.iter().map(|(bug, ..)| *bug).collect();
    assert_eq!(known, PlantedBug::ALL);
}
