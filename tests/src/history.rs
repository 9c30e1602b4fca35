//! What clients did to rows that are registers, and what they were told.

use std::collections::{BTreeMap, BTreeSet};

/// What a client asked for. Values are unique over a whole run, so that a value read names its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `INSERT` of the row with this value.
    Insert(u64),
    /// `UPDATE` of the row, whatever it holds.
    Write(u64),
    /// `UPDATE ... WHERE value = from`.
    Exchange {
        /// What it must hold.
        from: u64,
        /// What it holds then.
        to: u64,
    },
    /// `SELECT`.
    Read,
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// INSERT 0 1, or UPDATE 1.
    Done,
    /// UPDATE 0: there was no such row (or it held something else); or a duplicate key.
    Nothing,
    /// The row's value, or no row.
    Found(Option<u64>),
    /// Refused, and certainly without any effect.
    Refused,
    /// Nobody knows: it may have happened, may happen later, or never.
    Unknown,
}

/// One request and its answer. Moments are numbers that grow as the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which client.
    pub client: u32,
    /// When it was sent.
    pub sent: u64,
    /// When its answer came.
    pub answered: u64,
    /// What was asked.
    pub action: Action,
    /// What came back.
    pub answer: Answer,
}

/// Everything that was done, by register.
#[derive(Clone, Debug, Default)]
pub struct History {
    registers: BTreeMap<u64, Vec<Operation>>,
}

impl History {
    /// One more operation on this register.
    pub fn push(&mut self, register: u64, operation: Operation) {
        self.registers.entry(register).or_default().push(operation);
    }

    /// The operations of each register.
    pub fn registers(&self) -> impl Iterator<Item = (u64, &[Operation])> {
        self.registers
            .iter()
            .map(|(register, operations)| (*register, operations.as_slice()))
    }

    /// How many operations were answered as asked, refused, and left without an answer.
    pub fn counts(&self) -> (usize, usize, usize) {
        let all = || self.registers.values().flatten();
        let refused = all().filter(|operation| operation.answer == Answer::Refused).count();
        let unknown = all().filter(|operation| operation.answer == Answer::Unknown).count();
        (all().count() - refused - unknown, refused, unknown)
    }
}

/// Rows that are only ever inserted: the plainest form of "no acknowledged write is lost".
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    attempted: BTreeSet<u64>,
    /// In the order of their answers.
    acknowledged: Vec<u64>,
}

/// What is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerFault {
    /// Acknowledged, and not there.
    pub lost: Vec<u64>,
    /// There, and never asked for.
    pub invented: Vec<u64>,
    /// There more than once.
    pub repeated: Vec<u64>,
}

impl Ledger {
    /// Somebody asks for this row.
    pub fn attempt(&mut self, id: u64) {
        self.attempted.insert(id);
    }

    /// He was told that it is there.
    pub fn acknowledge(&mut self, id: u64) {
        self.acknowledged.push(id);
    }

    /// How many rows must be there; one that was asked for twice may count twice.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Compares with what is there at the end.
    pub fn check(&self, found: &[u64]) -> Result<(), LedgerFault> {
        self.check_as_of(self.acknowledged.len(), found)
    }

    /// Compares with what was there at a moment when so many rows were acknowledged.
    pub fn check_as_of(&self, acknowledged: usize, found: &[u64]) -> Result<(), LedgerFault> {
        let mut there = BTreeSet::new();
        let repeated: Vec<u64> = found.iter().copied().filter(|id| !there.insert(*id)).collect();
        let due: BTreeSet<u64> = self.acknowledged.iter().take(acknowledged).copied().collect();
        let lost: Vec<u64> = due.difference(&there).copied().collect();
        let invented: Vec<u64> = there.difference(&self.attempted).copied().collect();
        if lost.is_empty() && invented.is_empty() && repeated.is_empty() {
            return Ok(());
        }
        Err(LedgerFault {
            lost,
            invented,
            repeated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_misses_what_was_acknowledged_only() {
        let mut ledger = Ledger::default();
        for id in 1..=4 {
            ledger.attempt(id);
        }
        ledger.acknowledge(1);
        ledger.acknowledge(2);
        assert_eq!(ledger.check(&[2, 1]), Ok(()));
        assert_eq!(ledger.check_as_of(1, &[1]), Ok(()));
        assert_eq!(ledger.check_as_of(1, &[2]).unwrap_err().lost, [1]);
        assert_eq!(ledger.check_as_of(2, &[1]).unwrap_err().lost, [2]);
        assert_eq!(ledger.check(&[2, 1, 4]), Ok(()));
        assert_eq!(ledger.check(&[2, 3]).unwrap_err().lost, [1]);
        assert_eq!(ledger.check(&[1, 2, 9]).unwrap_err().invented, [9]);
        assert_eq!(ledger.check(&[1, 2, 2]).unwrap_err().repeated, [2]);
    }
}
