//! What was decided of transactions over several partitions: remembered for those who ask later.

use std::collections::{BTreeMap, VecDeque};

use super::Prepared;
use crate::Lsn;
use crate::effects::TransactionId;

/// Decisions that are remembered; the oldest go first.
pub const MAX_DECISIONS: usize = 65_536;

/// Invariant: `by_transaction` and `in_order` hold the same decisions, one an LSN.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_transaction: BTreeMap<TransactionId, bool>,
    in_order: VecDeque<Decision>,
    /// How to take back the newest of them, in LSN order.
    undo: VecDeque<Undo>,
}

/// A decision: true is commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) lsn: Lsn,
    pub(super) transaction: TransactionId,
    pub(super) committed: bool,
}

#[derive(Debug)]
struct Undo {
    lsn: Lsn,
    /// What the decision settled.
    prepared: Option<Prepared>,
    /// What was forgotten to make room.
    forgotten: Option<Decision>,
}

impl Decisions {
    pub(super) fn get(&self, transaction: TransactionId) -> Option<bool> {
        self.by_transaction.get(&transaction).copied()
    }

    /// Those with an LSN greater than `after`, in order.
    pub(super) fn after(&self, after: Lsn) -> impl Iterator<Item = &Decision> {
        let first = self.in_order.partition_point(|decision| decision.lsn <= after);
        self.in_order.range(first..)
    }

    /// Remembers a decision on a transaction that has none yet.
    pub(super) fn remember(&mut self, decision: Decision, prepared: Option<Prepared>) {
        let forgotten = self.restore(decision);
        self.undo.push_back(Undo { lsn: decision.lsn, prepared, forgotten });
    }

    /// The same, not to be undone any more. Returns what was forgotten to make room.
    pub(super) fn restore(&mut self, decision: Decision) -> Option<Decision> {
        if self.by_transaction.insert(decision.transaction, decision.committed).is_some() {
            return None;
        }
        self.in_order.push_back(decision);
        if self.in_order.len() <= MAX_DECISIONS {
            return None;
        }
        let oldest = self.in_order.pop_front()?;
        self.by_transaction.remove(&oldest.transaction);
        Some(oldest)
    }

    /// The transaction that was prepared at `snapshot` and has been settled since.
    pub(super) fn prepared_at(&self, snapshot: Lsn) -> Option<&Prepared> {
        let settled_later = self.undo.iter().filter(|undo| undo.lsn > snapshot);
        settled_later.filter_map(|undo| undo.prepared.as_ref()).find(|prepared| prepared.lsn <= snapshot)
    }

    /// Takes back the decisions beyond `lsn`; returns the transaction that is prepared again.
    pub(super) fn undo_after(&mut self, lsn: Lsn) -> Option<Prepared> {
        let mut prepared = None;
        while let Some(undo) = self.undo.pop_back_if(|undo| undo.lsn > lsn) {
            if let Some(decision) = self.in_order.pop_back() {
                self.by_transaction.remove(&decision.transaction);
            }
            if let Some(forgotten) = undo.forgotten {
                self.by_transaction.insert(forgotten.transaction, forgotten.committed);
                self.in_order.push_front(forgotten);
            }
            prepared = undo.prepared.filter(|prepared| prepared.lsn <= lsn).or(prepared);
        }
        prepared
    }

    /// Decisions up to `lsn` are not undone any more, and no dump begins before them.
    pub(super) fn settle(&mut self, lsn: Lsn) {
        while self.undo.pop_front_if(|undo| undo.lsn <= lsn).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(lsn: Lsn) -> Decision {
        let transaction = TransactionId { began_micros: lsn as i64, node: 1, boot: 1, sequence: lsn };
        Decision { lsn, transaction, committed: lsn.is_multiple_of(2) }
    }

    #[test]
    fn the_oldest_is_forgotten_and_comes_back_when_undone() {
        let mut decisions = Decisions::default();
        let limit = MAX_DECISIONS as Lsn;
        for lsn in 1..=limit + 2 {
            decisions.remember(decision(lsn), None);
        }
        assert_eq!(decisions.get(decision(2).transaction), None);
        assert_eq!(decisions.get(decision(3).transaction), Some(false));
        assert_eq!(decisions.in_order.len(), MAX_DECISIONS);
        decisions.undo_after(limit + 1);
        assert_eq!(decisions.get(decision(1).transaction), None);
        assert_eq!(decisions.get(decision(2).transaction), Some(true));
        assert_eq!(decisions.get(decision(limit + 2).transaction), None);
        assert_eq!(decisions.by_transaction.len(), MAX_DECISIONS);
    }
}
