//! Histories that a database in one variable makes: those of a right one always pass; the same with one answer changed, and
//! those of databases that leave something out, are found.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const CLIENTS: usize = 5;
const TRANSACTIONS: usize = 150;
const OBJECTS: u64 = 4;
const SEEDS: u64 = 60;

/// What the database leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// Reads are at the beginning, writes at the end, and nobody looks at what came between.
    NoValidation,
    /// As before, but who writes the same list is refused: snapshot isolation, sold as serialisable.
    OnlyWritesAreValidated,
    /// What is rolled back stays.
    NoRollback,
    /// Now and then a read is of an older state.
    StaleReads,
}

#[derive(Clone, Default)]
struct State {
    lists: BTreeMap<u64, Vec<u64>>,
    members: BTreeSet<(u64, u64)>,
}

struct Database {
    fault: Fault,
    random: StdRng,
    states: Vec<State>,
    unique: u64,
}

impl Database {
    fn new(fault: Fault, seed: u64) -> Self {
        Self {
            fault,
            random: StdRng::seed_from_u64(seed),
            states: vec![State::default()],
            unique: 0,
        }
    }

    fn last(&self) -> usize {
        self.states.len() - 1
    }

    /// A history of clients that each do one transaction after another.
    fn history(&mut self) -> Vec<Transaction> {
        let (mut history, mut free, mut now) = (Vec::new(), [1_u64; CLIENTS], 10);
        for _ in 0..TRANSACTIONS {
            now += self.random.random_range(1..4);
            let client = self.random.random_range(0..CLIENTS);
            now = now.max(free[client]);
            let mut transaction = self.transaction();
            transaction.client = client as u32;
            transaction.began = self.random.random_range(free[client]..=now);
            transaction.ended = now + self.random.random_range(0..6);
            free[client] = transaction.ended + 1;
            history.push(transaction);
        }
        let everything: Vec<Step> = (0..OBJECTS).map(|list| self.read(self.last(), list)).collect();
        history.push(Transaction {
            client: 99,
            began: now + 100,
            ended: now + 101,
            level: Level::Serializable,
            outcome: Outcome::Committed,
            steps: [everything, vec![self.scan(self.last(), 0..OBJECTS, 0..u64::MAX)]].concat(),
        });
        history
    }

    /// Happens now, if the database is a right one.
    fn transaction(&mut self) -> Transaction {
        let outcome = match self.random.random_range(0..20) {
            0..2 => Outcome::Aborted,
            2 => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        let at = self.snapshot();
        let (mut steps, mut working) = (Vec::new(), vec![self.states[at].clone()]);
        for _ in 0..self.random.random_range(1..6) {
            self.states.push(working.last().cloned().unwrap_or_default());
            let step = self.step();
            self.states.pop();
            let state = working.last_mut().expect("one at least");
            match &step {
                Step::Append { list, value } => state.lists.entry(*list).or_default().push(*value),
                Step::Insert { set, value } => drop(state.members.insert((*set, *value))),
                Step::Savepoint => {
                    let saved = state.clone();
                    working.push(saved);
                }
                Step::Undo if working.len() == 1 => continue,
                Step::Undo => {
                    let saved = working[working.len() - 2].clone();
                    *working.last_mut().expect("one at least") = saved;
                }
                Step::Read { .. } | Step::Scan { .. } => {}
            }
            steps.push(step);
        }
        let mut transaction = Transaction {
            client: 0,
            began: 0,
            ended: 0,
            level: Level::Serializable,
            outcome,
            steps,
        };
        self.end(at, &mut transaction);
        transaction
    }

    /// Which state it reads.
    fn snapshot(&mut self) -> usize {
        let back = match self.fault {
            Fault::NoValidation | Fault::OnlyWritesAreValidated => self.random.random_range(0..3),
            Fault::StaleReads if self.random.random_range(0..20) == 0 => 8,
            _ => 0,
        };
        self.last().saturating_sub(back)
    }

    fn end(&mut self, at: usize, transaction: &mut Transaction) {
        let written = transaction.written();
        let is_void = match transaction.outcome {
            Outcome::Aborted => self.fault != Fault::NoRollback,
            Outcome::Unknown => self.random.random_bool(0.5),
            Outcome::Committed => false,
        };
        if is_void {
            return;
        }
        let mut state = self.states[self.last()].clone();
        let is_changed = |list: &u64| state.lists.get(list) != self.states[at].lists.get(list);
        let must_fail = self.fault == Fault::OnlyWritesAreValidated && written.lists.keys().any(is_changed);
        if must_fail {
            transaction.outcome = Outcome::Aborted;
            return;
        }
        for (list, values) in written.lists {
            state.lists.entry(list).or_default().extend(values);
        }
        state.members.extend(written.sets);
        self.states.push(state);
    }

    fn step(&mut self) -> Step {
        let object = self.random.random_range(0..OBJECTS);
        self.unique += 1;
        match self.random.random_range(0..12) {
            0..3 => Step::Append {
                list: object,
                value: self.unique,
            },
            3..7 => self.read(self.last(), object),
            7..9 => Step::Insert {
                set: object,
                value: self.unique * 1000 + self.random.random_range(0..10) * 100,
            },
            9 => self.scan(self.last(), object..object + 2, 0..self.unique * 700),
            10 => Step::Savepoint,
            _ => Step::Undo,
        }
    }

    fn read(&self, state: usize, list: u64) -> Step {
        let values = self.states[state].lists.get(&list).cloned().unwrap_or_default();
        Step::Read { list, values }
    }

    fn scan(&self, state: usize, sets: std::ops::Range<u64>, values: std::ops::Range<u64>) -> Step {
        let members = self.states[state].members.iter();
        let found = members
            .filter(|(set, value)| sets.contains(set) && values.contains(value))
            .map(|(_, value)| *value)
            .collect();
        Step::Scan { sets, values, found }
    }
}

#[test]
fn what_a_right_database_does_always_passes() {
    for seed in 0..SEEDS {
        let history = Database::new(Fault::Nothing, seed).history();
        match check(&history) {
            Ok(checked) => assert!(
                checked.happened > TRANSACTIONS / 2 && checked.edges > TRANSACTIONS,
                "{checked:?}"
            ),
            Err(anomalies) => panic!("seed {seed}: {}", explain(&history, &anomalies)),
        }
    }
}

/// In how many seeds it is found, and the names of what was found.
fn found(fault: Fault) -> (u64, BTreeSet<String>) {
    let (mut seeds, mut names) = (0, BTreeSet::new());
    for seed in 0..SEEDS {
        if let Err(anomalies) = check(&Database::new(fault, seed).history()) {
            seeds += 1;
            names.extend(anomalies.iter().map(|anomaly| {
                match anomaly {
                    Anomaly::Cycle(cycle) => cycle.name().to_owned(),
                    other => other
                        .to_string()
                        .split_whitespace()
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                }
            }));
        }
    }
    (seeds, names)
}

#[test]
fn what_a_database_leaves_out_is_found() {
    for (fault, name) in [
        (Fault::NoValidation, "lost update"),
        (Fault::OnlyWritesAreValidated, "stale read"),
        (Fault::NoRollback, "G1a"),
        (Fault::StaleReads, "stale read"),
    ] {
        let (seeds, names) = found(fault);
        assert!(seeds > SEEDS * 9 / 10, "{name}: only {seeds} of {SEEDS}, {names:?}");
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

/// The last value of a list that was read is left out, though whoever wrote it had ended before: always found.
#[test]
fn one_value_less_is_found() {
    mutate(|history, random| {
        let (reader, step, value) = choose(history, random, |history, reader, step| match step {
            Step::Read { list, values } => {
                let value = *values.last()?;
                is_older(history, reader, &Step::Append { list: *list, value }).then_some(value)
            }
            Step::Scan { sets, found, .. } => {
                let value = *found.last()?;
                let set = |set| is_older(history, reader, &Step::Insert { set, value });
                sets.clone().any(set).then_some(value)
            }
            _ => None,
        })?;
        match &mut history[reader].steps[step] {
            Step::Read { values: found, .. } | Step::Scan { found, .. } => found.retain(|held| *held != value),
            _ => {}
        }
        Some(())
    });
}

/// Two values of a list that somebody else read are exchanged.
#[test]
fn another_order_is_found() {
    mutate(|history, random| {
        let longest = |list: u64| move |step: &Step| matches!(step, Step::Read { list: of, values } if *of == list && values.len() > 3);
        let (reader, step, ()) = choose(history, random, |history, reader, step| match step {
            Step::Read { list, values } if values.len() > 3 => {
                let others = history.iter().enumerate().filter(|(other, _)| *other != reader);
                let mut others = others.flat_map(|(_, other)| &other.steps);
                others.any(longest(*list)).then_some(())
            }
            _ => None,
        })?;
        if let Step::Read { values, .. } = &mut history[reader].steps[step] {
            values.swap(0, 1);
        }
        Some(())
    });
}

/// A transaction whose writes were seen is said not to have happened.
#[test]
fn a_writer_who_was_refused_is_found() {
    mutate(|history, random| {
        let (writer, ..) = choose(history, random, |history, writer, step| {
            let is_last = history[writer].outcome == Outcome::Committed && writer + 1 < history.len();
            match step {
                Step::Append { .. } => is_last.then_some(()),
                _ => None,
            }
        })?;
        let was_undone = history[writer].written().lists.is_empty();
        history[writer].outcome = Outcome::Aborted;
        (!was_undone).then_some(())
    });
}

/// Whether a committed transaction that ended before this one began did that step, and nothing was undone in it.
fn is_older(history: &[Transaction], reader: usize, wanted: &Step) -> bool {
    history[reader].outcome == Outcome::Committed
        && history.iter().any(|writer| {
            writer.outcome == Outcome::Committed
                && writer.ended < history[reader].began
                && writer.steps.contains(wanted)
        })
}

/// A step for which the test says something.
fn choose<T>(
    history: &[Transaction],
    random: &mut StdRng,
    test: impl Fn(&[Transaction], usize, &Step) -> Option<T>,
) -> Option<(usize, usize, T)> {
    for _ in 0..2_000 {
        let reader = random.random_range(0..history.len());
        let step = random.random_range(0..history[reader].steps.len().max(1));
        let found = history[reader]
            .steps
            .get(step)
            .and_then(|step| test(history, reader, step));
        if let Some(found) = found {
            return Some((reader, step, found));
        }
    }
    None
}

fn mutate(mutation: impl Fn(&mut [Transaction], &mut StdRng) -> Option<()>) {
    let mut mutated = 0;
    for seed in 0..SEEDS {
        let mut history = Database::new(Fault::Nothing, seed).history();
        let mut random = StdRng::seed_from_u64(seed);
        if mutation(&mut history, &mut random).is_some() {
            mutated += 1;
            assert!(check(&history).is_err(), "seed {seed}: the mutation was not found");
        }
    }
    assert!(mutated > SEEDS / 2, "only {mutated} mutations");
}
