//! From the log on disk to replicas, at the start of a process.
//!
//! A replica applies what a mark says was committed and holds the rest, as a backup does: the primary of the next
//! epoch says what becomes of it.

use std::collections::BTreeMap;

use volt_engine::PartitionId;
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;

use super::log::LogEntry;
use crate::replication::Record;
use crate::replication::replica::Replica;

/// The log contradicts itself: its checksums are right, but its records can't have been written in this order.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition}: {what}")]
pub(crate) struct ReplayError {
    partition: PartitionId,
    what: String,
}

/// Replicas in the making.
#[derive(Default)]
pub(crate) struct Replay {
    replicas: BTreeMap<PartitionId, Replica>,
    filling: BTreeMap<PartitionId, Partition>,
}

impl Replay {
    /// Takes the next entry.
    pub(crate) fn take(&mut self, partition: PartitionId, entry: LogEntry) -> Result<(), ReplayError> {
        match entry {
            LogEntry::Record { epoch, lsn, payload } => {
                let replica = self.replica(partition);
                if lsn != replica.appended + 1 {
                    return failed(partition, format!("record {lsn} after record {}", replica.appended));
                }
                if let Err(error) = LogPayload::decode(&payload) {
                    return failed(partition, format!("record {lsn}: {error}"));
                }
                replica.replay(Record { lsn, epoch, payload });
            }
            LogEntry::Committed { lsn } => self.replica(partition).replay_committed(lsn),
            LogEntry::Truncate { after, .. } => {
                let replica = self.replica(partition);
                if after < replica.committed {
                    return failed(
                        partition,
                        format!("cut to {after} below committed {}", replica.committed),
                    );
                }
                replica.cut(after);
            }
            LogEntry::Reset { .. } => {
                self.replica(partition).emptied();
                self.filling.insert(partition, Partition::new());
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
                let Ok(history) = postcard::from_bytes(&epochs) else {
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
        }
        Ok(())
    }

    /// The replicas, as the log left them.
    pub(crate) fn finish(self) -> Vec<Replica> {
        self.replicas.into_values().collect()
    }

    fn replica(&mut self, partition: PartitionId) -> &mut Replica {
        self.replicas
            .entry(partition)
            .or_insert_with(|| Replica::new(partition))
    }
}

fn failed(partition: PartitionId, what: String) -> Result<(), ReplayError> {
    Err(ReplayError { partition, what })
}
