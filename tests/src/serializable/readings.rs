//! Each read by itself: what it saw of others, and whether that may have been seen by anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Anomaly;
use super::history::{Journal, Outcome, Step, Transaction};

/// A list as a transaction found it, without its own writes.
pub struct Reading {
    pub reader: usize,
    pub list: u64,
    pub before: Vec<u64>,
    /// The reader has happened; else it only shows what was there.
    pub counts: bool,
}

/// A predicate as a transaction found it, without its own writes.
pub struct Sighting {
    pub reader: usize,
    pub sets: Range<u64>,
    pub values: Range<u64>,
    pub found: BTreeSet<u64>,
    /// As above.
    pub counts: bool,
}

/// What a value is to one who reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Written(usize),
    /// It was undone, or its transaction has not happened.
    Void(usize),
}

/// See the module.
#[derive(Default)]
pub struct Readings {
    pub lists: Vec<Reading>,
    pub scans: Vec<Sighting>,
    /// Transactions that have happened.
    pub happened: BTreeSet<usize>,
    /// By list: values of those, and who wrote them.
    pub appended: BTreeMap<u64, Vec<(u64, usize)>>,
    /// By value: its set, and who wrote it.
    pub inserted: BTreeMap<u64, (u64, usize)>,
    /// What is wrong with single reads.
    pub anomalies: Vec<Anomaly>,
    /// By list and value, and for members of sets without a list.
    origins: BTreeMap<(Option<u64>, u64), Origin>,
}

impl Readings {
    /// Of all transactions.
    pub fn of(history: &[Transaction]) -> Self {
        let mut readings = Self::default();
        readings.note_origins(history);
        for (reader, transaction) in history.iter().enumerate() {
            readings.follow(reader, transaction);
        }
        readings.settle_the_unknown(history);
        readings.note_writes(history);
        for number in 0..readings.lists.len() {
            readings.judge_list(history, number);
        }
        for number in 0..readings.scans.len() {
            readings.judge_scan(number);
        }
        readings
    }

    /// Who appended it, if that has happened.
    pub fn writer(&self, list: u64, value: u64) -> Option<usize> {
        match self.origins.get(&(Some(list), value)) {
            Some(Origin::Written(writer)) if self.happened.contains(writer) => Some(*writer),
            _ => None,
        }
    }

    fn note_origins(&mut self, history: &[Transaction]) {
        for (writer, transaction) in history.iter().enumerate() {
            for step in &transaction.steps {
                let place = match step {
                    Step::Append { list, value } => (Some(*list), *value),
                    Step::Insert { value, .. } => (None, *value),
                    _ => continue,
                };
                let before = self.origins.insert(place, Origin::Void(writer));
                assert!(before.is_none(), "{place:?} is written twice");
            }
            if transaction.outcome == Outcome::Aborted {
                continue;
            }
            let written = transaction.written();
            let lists = written.lists.iter();
            let places = lists.flat_map(|(list, values)| values.iter().map(|value| (Some(*list), *value)));
            for place in places.chain(written.sets.iter().map(|(_, value)| (None, *value))) {
                self.origins.insert(place, Origin::Written(writer));
            }
        }
    }

    /// Takes its own writes out of what it read.
    fn follow(&mut self, reader: usize, transaction: &Transaction) {
        let mut journal = Journal::default();
        let mut lists: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (at, step) in transaction.steps.iter().enumerate() {
            let internal = Anomaly::Internal {
                transaction: reader,
                step: at,
            };
            match step {
                Step::Read { list, values } => {
                    let Some(before) = values.strip_suffix(journal.of_list(*list)) else {
                        self.anomalies.push(internal);
                        continue;
                    };
                    let first = lists.entry(*list).or_insert_with(|| before.to_vec());
                    if first != before || before.iter().any(|value| self.is_by(Some(*list), *value, reader)) {
                        self.anomalies.push(internal);
                    }
                    self.lists.push(Reading {
                        reader,
                        list: *list,
                        before: before.to_vec(),
                        counts: false,
                    });
                }
                Step::Scan { sets, values, found } if !self.follow_scan(reader, &journal, sets, values, found) => {
                    self.anomalies.push(internal);
                }
                _ => {}
            }
            journal.note(step);
        }
    }

    fn is_by(&self, list: Option<u64>, value: u64, reader: usize) -> bool {
        let origin = self.origins.get(&(list, value));
        origin
            .is_some_and(|origin| matches!(origin, Origin::Written(writer) | Origin::Void(writer) if *writer == reader))
    }

    /// False: its own writes are not there as they must be.
    fn follow_scan(
        &mut self,
        reader: usize,
        journal: &Journal,
        sets: &Range<u64>,
        values: &Range<u64>,
        found: &[u64],
    ) -> bool {
        let own: BTreeSet<u64> = found
            .iter()
            .copied()
            .filter(|value| self.is_by(None, *value, reader))
            .collect();
        let written = journal.written().sets.iter();
        let expected: BTreeSet<u64> = written
            .filter(|(set, value)| sets.contains(set) && values.contains(value))
            .map(|(_, value)| *value)
            .collect();
        let mut others = BTreeSet::new();
        for value in found.iter().copied().filter(|value| !own.contains(value)) {
            if !others.insert(value) || !values.contains(&value) {
                self.anomalies.push(Anomaly::Invented { reader, value });
            }
        }
        self.scans.push(Sighting {
            reader,
            sets: sets.clone(),
            values: values.clone(),
            found: others,
            counts: false,
        });
        own == expected
    }

    /// An outcome that nobody knows is known when somebody saw it.
    fn settle_the_unknown(&mut self, history: &[Transaction]) {
        let in_lists = self.lists.iter().flat_map(|reading| {
            let places = reading.before.iter().map(|value| (Some(reading.list), *value));
            places.map(|place| (reading.reader, place))
        });
        let in_scans = self.scans.iter().flat_map(|scan| {
            let places = scan.found.iter().map(|value| (None, *value));
            places.map(|place| (scan.reader, place))
        });
        let mut seen = BTreeSet::new();
        for (reader, place) in in_lists.chain(in_scans) {
            match self.origins.get(&place) {
                Some(Origin::Written(writer)) if *writer != reader => seen.insert(*writer),
                _ => false,
            };
        }
        self.happened = (0..history.len())
            .filter(|transaction| match history[*transaction].outcome {
                Outcome::Committed => true,
                Outcome::Aborted => false,
                Outcome::Unknown => seen.contains(transaction),
            })
            .collect();
        for reading in &mut self.lists {
            reading.counts = self.happened.contains(&reading.reader);
        }
        for scan in &mut self.scans {
            scan.counts = self.happened.contains(&scan.reader);
        }
    }

    fn note_writes(&mut self, history: &[Transaction]) {
        for &writer in &self.happened {
            let written = history[writer].written();
            for (list, values) in written.lists {
                let appended = self.appended.entry(list).or_default();
                appended.extend(values.into_iter().map(|value| (value, writer)));
            }
            for (set, value) in written.sets {
                self.inserted.insert(value, (set, writer));
            }
        }
    }

    fn judge_list(&mut self, history: &[Transaction], number: usize) {
        let Reading {
            reader, list, before, ..
        } = &self.lists[number];
        let (reader, list) = (*reader, *list);
        let mut anomalies = Vec::new();
        let mut seen = BTreeSet::new();
        for value in before {
            anomalies.extend(self.judge(reader, Some(list), *value));
            if !seen.insert(*value) {
                anomalies.push(Anomaly::Invented { reader, value: *value });
            }
        }
        if let Some(value) = before.last().copied()
            && let Some(writer) = self.writer(list, value)
            && history[writer].written().lists[&list].last() != Some(&value)
        {
            anomalies.push(Anomaly::IntermediateRead { reader, writer, value });
        }
        self.anomalies.extend(anomalies);
    }

    fn judge_scan(&mut self, number: usize) {
        let scan = &self.scans[number];
        let found = scan.found.iter();
        let anomalies: Vec<Anomaly> = found
            .filter_map(|value| self.judge(scan.reader, None, *value))
            .collect();
        self.anomalies.extend(anomalies);
    }

    fn judge(&self, reader: usize, list: Option<u64>, value: u64) -> Option<Anomaly> {
        match self.origins.get(&(list, value)) {
            None => Some(Anomaly::Invented { reader, value }),
            // Its own is judged where it is followed.
            Some(Origin::Void(writer)) if *writer != reader => Some(Anomaly::AbortedRead {
                reader,
                writer: *writer,
                value,
            }),
            _ => None,
        }
    }
}
