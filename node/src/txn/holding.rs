//! Who of this node's transactions may hold partitions: their primaries ask, when one is held for long.
//!
//! A hold outlives its transaction when the word that ends it is lost, or comes before the hold itself, which waited for
//! its turn.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use volt_engine::effects::TransactionId;

use super::Coordinator;
use super::participant::Participant;

/// The transactions that this process coordinates and that have not ended.
#[derive(Default)]
pub(super) struct Holdings(Mutex<BTreeSet<TransactionId>>);

impl Holdings {
    /// From now on it may hold partitions.
    fn begin(self: &Arc<Self>, transaction: TransactionId) -> Holding {
        let is_new = self.names().insert(transaction);
        assert!(is_new, "a transaction's name is used once");
        Holding {
            transaction,
            holdings: Arc::clone(self),
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<TransactionId>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// A transaction that may hold partitions, for as long as this is kept.
pub(super) struct Holding {
    pub(super) transaction: TransactionId,
    holdings: Arc<Holdings>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holdings.names().remove(&self.transaction);
    }
}

impl Participant {
    /// Whether a transaction that this node coordinates may still want what it holds; it has no vote yet.
    pub(super) fn is_holding(&self, transaction: TransactionId) -> bool {
        self.holdings.names().contains(&transaction)
    }
}

impl Coordinator {
    /// A transaction that may hold partitions until this is dropped. It begins anew, under a new name, with its old age.
    pub(super) fn begin_holding(&self, began_micros: i64) -> Holding {
        let transaction = self.new_transaction(began_micros);
        self.participant.holdings.begin(transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_holds_until_it_ends() {
        let holdings = Arc::new(Holdings::default());
        let name = |sequence| TransactionId {
            began_micros: 1,
            node: 1,
            boot: 1,
            sequence,
        };
        let (first, second) = (holdings.begin(name(1)), holdings.begin(name(2)));
        drop(first);
        assert_eq!(*holdings.names(), BTreeSet::from([name(2)]));
        assert_eq!(second.transaction, name(2));
        drop(second);
        assert!(holdings.names().is_empty());
    }
}
