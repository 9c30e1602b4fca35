//! What an interactive transaction has written so far, statement by statement, so that a savepoint can be returned to.

use std::collections::BTreeMap;
use std::sync::Arc;

use volt_engine::PartitionId;
use volt_engine::effects::{Effects, MAX_EFFECTS_BYTES};
use volt_engine::transaction::Writes;

use crate::error::SqlError;

/// What a transaction has written and not applied, in each partition.
pub type AllWrites = BTreeMap<PartitionId, Writes>;

/// Invariant: `writes` and `bytes` are those of `entries`, in order.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: Vec<(PartitionId, Effects)>,
    writes: Arc<AllWrites>,
    bytes: BTreeMap<PartitionId, usize>,
}

impl Journal {
    /// All of it, the last change of each key.
    pub(super) fn writes(&self) -> &Arc<AllWrites> {
        &self.writes
    }

    /// A place to come back to.
    pub(super) fn savepoint(&self) -> usize {
        self.entries.len()
    }

    /// A statement's writes: all, or none and an error when they are too many.
    pub(super) fn push(&mut self, written: Vec<(PartitionId, Effects)>) -> Result<(), SqlError> {
        let mut bytes = self.bytes.clone();
        for (partition, effects) in &written {
            let bytes = bytes.entry(*partition).or_default();
            *bytes += effects.0.len();
            if *bytes > MAX_EFFECTS_BYTES {
                let limit = MAX_EFFECTS_BYTES >> 20;
                let message = format!("a transaction may change at most {limit} MiB in one partition");
                return Err(SqlError::new("54000", message));
            }
        }
        self.bytes = bytes;
        for (partition, effects) in written {
            self.add(partition, &effects)?;
            self.entries.push((partition, effects));
        }
        Ok(())
    }

    /// Forgets what was written after a savepoint.
    pub(super) fn rewind(&mut self, savepoint: usize) -> Result<(), SqlError> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.truncate(savepoint);
        *self = Self::default();
        self.push(entries)
    }

    fn add(&mut self, partition: PartitionId, effects: &Effects) -> Result<(), SqlError> {
        // A query of the transaction that still runs keeps what it began with.
        let writes = Arc::make_mut(&mut self.writes);
        let writes = writes.entry(partition).or_default();
        writes.add(effects).map_err(SqlError::internal)
    }
}

#[cfg(test)]
mod tests {
    use volt_engine::effects::EffectsBuilder;
    use volt_engine::row::encode_row;
    use volt_engine::value::ValueRef;

    use super::*;

    fn put(key: u8, bytes: usize) -> Effects {
        let mut effects = EffectsBuilder::default();
        effects.put(1, &[key], &encode_row(&[ValueRef::Bytea(&vec![key; bytes])]));
        effects.finish()
    }

    fn keys(journal: &Journal, partition: PartitionId) -> Vec<u8> {
        let effects = journal.writes().get(&partition).map(Writes::to_effects);
        let effects = effects.unwrap_or_default();
        effects.iter().map(|effect| effect.unwrap().key.unwrap()[0]).collect()
    }

    #[test]
    fn a_savepoint_is_returned_to_more_than_once() {
        let mut journal = Journal::default();
        journal.push(vec![(1, put(1, 1)), (2, put(2, 1))]).unwrap();
        let savepoint = journal.savepoint();
        for key in 3..5 {
            journal.push(vec![(1, put(key, 1))]).unwrap();
            assert_eq!(keys(&journal, 1), [1, key]);
            journal.rewind(savepoint).unwrap();
            assert_eq!((keys(&journal, 1), keys(&journal, 2)), (vec![1], vec![2]));
        }
        journal.rewind(0).unwrap();
        assert!(journal.writes().is_empty());
    }

    #[test]
    fn too_much_for_one_partition_is_refused_and_leaves_the_rest() {
        let mut journal = Journal::default();
        let most = MAX_EFFECTS_BYTES - 100;
        journal.push(vec![(1, put(1, most)), (2, put(1, most))]).unwrap();
        let savepoint = journal.savepoint();
        let error = journal.push(vec![(3, put(1, 1)), (1, put(2, 100))]).unwrap_err();
        assert_eq!(error.sqlstate, "54000");
        assert_eq!(journal.savepoint(), savepoint);
        assert!(keys(&journal, 3).is_empty());
        journal.rewind(0).unwrap();
        journal.push(vec![(1, put(2, most))]).unwrap();
    }
}
