//! What transactions did, and what they were told.

use std::collections::BTreeMap;
use std::ops::Range;

/// One thing that a transaction did. Every value is written to an object once in a whole history, so that a value that is
/// read names its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value went to the end of a list.
    Append {
        /// Which list.
        list: u64,
        /// What.
        value: u64,
    },
    /// All of a list was read.
    Read {
        /// Which list.
        list: u64,
        /// What it held.
        values: Vec<u64>,
    },
    /// The value became a member of a set; there it stays.
    Insert {
        /// Which set.
        set: u64,
        /// What.
        value: u64,
    },
    /// A predicate was read: which members of these sets lie in this range.
    Scan {
        /// Which sets.
        sets: Range<u64>,
        /// Which values.
        values: Range<u64>,
        /// Those that were there.
        found: Vec<u64>,
    },
    /// A place to come back to.
    Savepoint,
    /// What was written after the last savepoint was taken back.
    Undo,
}

/// What a transaction was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All of it happens at one moment.
    Serializable,
    /// It reads at one moment, writes at a later one, and nobody writes between them what it writes.
    Snapshot,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client was told that it is done.
    Committed,
    /// It has certainly not happened.
    Aborted,
    /// Nobody knows: it may have happened, may happen later, or never.
    Unknown,
}

/// A transaction as its client saw it. Moments are numbers that grow as the run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Which client.
    pub client: u32,
    /// When its first statement was sent.
    pub began: u64,
    /// When the last answer came.
    pub ended: u64,
    /// What it was promised.
    pub level: Level,
    /// What came of it.
    pub outcome: Outcome,
    /// What it did, in order; only what was answered, but all that was or may have been written.
    pub steps: Vec<Step>,
}

impl Transaction {
    /// What it has written when it ends: what was undone is left out.
    pub fn written(&self) -> Written {
        let mut journal = Journal::default();
        for step in &self.steps {
            journal.note(step);
        }
        journal.written
    }
}

/// What a transaction has written so far.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// By list, in order.
    pub lists: BTreeMap<u64, Vec<u64>>,
    /// Set and value.
    pub sets: Vec<(u64, u64)>,
}

/// Follows a transaction's writes through its savepoints.
#[derive(Default)]
pub struct Journal {
    written: Written,
    savepoints: Vec<Written>,
}

impl Journal {
    /// The next step.
    pub fn note(&mut self, step: &Step) {
        match step {
            Step::Append { list, value } => self.written.lists.entry(*list).or_default().push(*value),
            Step::Insert { set, value } => self.written.sets.push((*set, *value)),
            Step::Savepoint => self.savepoints.push(self.written.clone()),
            // The savepoint stays.
            Step::Undo => self.written = self.savepoints.last().cloned().unwrap_or_default(),
            Step::Read { .. } | Step::Scan { .. } => {}
        }
    }

    /// What has been written and not undone.
    pub fn written(&self) -> &Written {
        &self.written
    }

    /// What it has appended to this list.
    pub fn of_list(&self, list: u64) -> &[u64] {
        self.written.lists.get(&list).map_or(&[], Vec::as_slice)
    }
}
