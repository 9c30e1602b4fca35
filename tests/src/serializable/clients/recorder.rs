//! Where clients write down what they did.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ERAS, VALUES_OF_AN_ERA};
use crate::serializable::history::Transaction;

#[derive(Default)]
struct Recorded {
    history: Vec<Transaction>,
    moment: u64,
    unique: u64,
}

/// A history that grows, with the clock that orders it and the values that are unique in it.
#[derive(Clone)]
pub struct Recorder {
    recorded: Arc<Mutex<Recorded>>,
    note: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Recorder {
    /// Each transaction is told to `note`, too.
    pub fn new(note: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            recorded: Arc::default(),
            note: Arc::new(note),
        }
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The history so far.
    pub fn history(&self) -> Vec<Transaction> {
        self.recorded().history.clone()
    }

    /// The newest moment.
    pub fn now(&self) -> u64 {
        self.recorded().moment
    }

    pub(super) fn moment(&self) -> u64 {
        let mut recorded = self.recorded();
        recorded.moment += 1;
        recorded.moment
    }

    pub(super) fn unique(&self) -> u64 {
        let mut recorded = self.recorded();
        recorded.unique += 1;
        recorded.unique
    }

    /// Which objects are in use.
    pub(super) fn era(&self) -> u64 {
        (self.recorded().unique / VALUES_OF_AN_ERA).min(ERAS - 1)
    }

    /// A transaction that ends now.
    pub(super) fn push(&self, mut transaction: Transaction) {
        transaction.ended = self.moment();
        (self.note)(&format!("{transaction:?}"));
        self.recorded().history.push(transaction);
    }
}
