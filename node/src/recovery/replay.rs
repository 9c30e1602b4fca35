//! From the log on disk to replicas, at the start of a process.
//!
//! A replica applies what a mark says was committed and holds the rest, as a backup does: the primary of the next
//! epoch says what becomes of it.

use std::collections::BTreeMap;

use volt_engine::PartitionId;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;

use super::log::{LogEntry, OF_THE_NODE};
use crate::replication::Record;
use crate::replication::epochs::EpochHistory;
use crate::replication::replica::Replica;

/// The log contradicts itself: its checksums are right, but its records can't have been written in this order.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition}: {what}")]
pub(crate) struct ReplayError {
    partition: PartitionId,
    what: String,
}

/// Where a partition's entries of the log begin to say what its checkpoint doesn't hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// Behind this mark: the replica was captured there.
    Mark(u64),
    /// With the first `Reset`: it was being filled. That the checkpoint may have seen a later one does no harm.
    Reset,
    /// With the first `Dropped`: it was dropped while the checkpoint was taken.
    Dropped,
    /// They do.
    Now,
}

/// Replicas in the making: first from a checkpoint's entries, if there is one, then from the log's.
#[derive(Default)]
pub(crate) struct Replay {
    replicas: BTreeMap<PartitionId, Replica>,
    filling: BTreeMap<PartitionId, Partition>,
    /// Of the partitions that the checkpoint names.
    since: BTreeMap<PartitionId, Since>,
    /// The checkpoint's first mark, until it is found: partitions that it does not name held nothing there.
    begun: Option<u64>,
}

impl Replay {
    /// Takes the next entry of a checkpoint. The last of each partition says where the log goes on.
    pub(crate) fn take_checkpoint(&mut self, partition: PartitionId, entry: LogEntry) -> Result<(), ReplayError> {
        let since = match entry {
            LogEntry::Mark { mark } => Some(Since::Mark(mark)),
            LogEntry::Reset { .. } => Some(Since::Reset),
            LogEntry::Dropped => Some(Since::Dropped),
            _ => None,
        };
        if let Some(since) = since {
            self.since.insert(partition, since);
        }
        self.apply(partition, entry)
    }

    /// The checkpoint ends; it began at this mark of the log.
    pub(crate) fn checkpoint_ends(&mut self, begun: u64) {
        self.begun = Some(begun);
    }

    /// Takes the next entry of the log.
    pub(crate) fn take(&mut self, partition: PartitionId, entry: LogEntry) -> Result<(), ReplayError> {
        if partition == OF_THE_NODE {
            let found = matches!(entry, LogEntry::Mark { mark } if Some(mark) == self.begun);
            self.begun.take_if(|_| found);
            return Ok(());
        }
        let since = match self.since.get_mut(&partition) {
            Some(since) => since,
            None if self.begun.is_some() => return Ok(()),
            None => return self.apply(partition, entry),
        };
        let begins = match (*since, &entry) {
            (Since::Now, _) | (Since::Reset, LogEntry::Reset { .. }) | (Since::Dropped, LogEntry::Dropped) => true,
            (Since::Mark(wanted), LogEntry::Mark { mark }) => wanted == *mark,
            _ => false,
        };
        if !begins {
            return Ok(());
        }
        *since = Since::Now;
        self.apply(partition, entry)
    }

    fn apply(&mut self, partition: PartitionId, entry: LogEntry) -> Result<(), ReplayError> {
        match entry {
            LogEntry::Record { epoch, lsn, payload } => {
                let replica = self.replica(partition);
                if lsn != replica.appended + 1 {
                    return failed(partition, format!("record {lsn} after record {}", replica.appended));
                }
                if let Err(error) = LogPayload::decode(&payload) {
                    return failed(partition, format!("record {lsn}: {error}"));
                }
                let last = replica.history.epoch_at(replica.appended);
                if epoch < last {
                    return failed(partition, format!("record {lsn} of epoch {epoch} after epoch {last}"));
                }
                replica.replay(Record { lsn, epoch, payload });
            }
            LogEntry::Committed { lsn } => {
                if let Err(error) = self.replica(partition).replay_committed(lsn) {
                    return failed(partition, format!("committed up to {lsn}: {error}"));
                }
            }
            LogEntry::Truncate { after, .. } => {
                let replica = self.replica(partition);
                if after < replica.committed {
                    return failed(
                        partition,
                        format!("cut to {after} below committed {}", replica.committed),
                    );
                }
                // Beyond the end there is nothing to cut, and the end stays where it is.
                replica.cut(after.min(replica.appended));
            }
            LogEntry::Reset { .. } => {
                let unfinished = self.filling.insert(partition, Partition::new());
                let replica = self.replica(partition);
                replica.emptied();
                replica.keep_as_base(unfinished.unwrap_or_default(), true);
            }
            LogEntry::FillChunk { chunk } => {
                let loaded = self.filling.entry(partition).or_default().load_chunk(&chunk);
                if let Err(error) = loaded {
                    return failed(partition, format!("chunk of a fill: {error}"));
                }
            }
            LogEntry::FillDone { lsn, epochs, .. } => {
                let Some(engine) = self.filling.remove(&partition) else {
                    return failed(partition, "the end of a fill without its beginning".to_owned());
                };
                let history = postcard::from_bytes::<EpochHistory>(&epochs).ok();
                let Some(history) = history.filter(|history| history.is_sound(lsn)) else {
                    return failed(partition, "unreadable epochs of a fill".to_owned());
                };
                if engine.applied() != lsn {
                    return failed(partition, format!("a fill to {lsn} that ends at {}", engine.applied()));
                }
                self.replica(partition).filled(engine, history, lsn);
            }
            LogEntry::Dropped => {
                self.replicas.remove(&partition);
                self.filling.remove(&partition);
            }
            LogEntry::Mark { .. } => {}
        }
        Ok(())
    }

    /// Takes in what another one made of other partitions of the same checkpoint and log.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.replicas.extend(other.replicas);
        self.filling.extend(other.filling);
        self.since.extend(other.since);
        self.begun = self.begun.or(other.begun);
    }

    /// The replicas, as the log left them. A checkpoint was not finished before its marks were on disk: one that is
    /// missing means that the log has lost what was flushed.
    pub(crate) fn finish(mut self) -> Result<Vec<Replica>, ReplayError> {
        let unmarked = self.since.iter().find(|(_, since)| **since != Since::Now);
        let unmarked = unmarked.map(|(&partition, _)| partition);
        match unmarked.or(self.begun.map(|_| OF_THE_NODE)) {
            Some(partition) => failed(
                partition,
                "the log ends before the place that its checkpoint names".to_owned(),
            ),
            None => {
                // What had been copied when the process ended, need not come again.
                for (partition, unfinished) in std::mem::take(&mut self.filling) {
                    if let Some(replica) = self.replicas.get_mut(&partition) {
                        replica.keep_as_base(unfinished, true);
                    }
                }
                Ok(self.replicas.into_values().collect())
            }
        }
    }

    fn replica(&mut self, partition: PartitionId) -> &mut Replica {
        self.replicas
            .entry(partition)
            .or_insert_with(|| Replica::new(partition))
    }
}

fn failed<T>(partition: PartitionId, what: String) -> Result<T, ReplayError> {
    Err(ReplayError { partition, what })
}
