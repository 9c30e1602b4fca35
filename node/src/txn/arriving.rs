//! What comes to the partitions to which a table moves (`moving`).

use tokio::time::Instant;
use volt_engine::effects::LogPayload;
use volt_engine::partition::MOVED_WITH_TABLES;
use volt_engine::{Epoch, Lsn, PartitionId};

use super::participant::{Participant, Ran, commit_wait};
use super::request::{Failure, PlaceRequest, Placed, Reply};
use super::serve::HOLD_WAIT;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::metadata::moves::TableMove;
use crate::statement::CommitWait;

/// What came to a partition of a table that moves there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    /// In which of the table's moves.
    number: u64,
    from_epoch: Epoch,
    turn: u64,
    /// The last record that changed something.
    lsn: Lsn,
}

impl Participant {
    pub(super) async fn serve_place(&self, place: &PlaceRequest) -> Reply {
        let deadline = Instant::now() + HOLD_WAIT;
        loop {
            match self.place(place) {
                Ok((placed, wait)) => {
                    if let Err(failure) = self.committed(&[wait]).await {
                        return Reply::Failed(failure);
                    }
                    let is_safe = self
                        .replicas
                        .with(place.partition, |replica| replica.is_everywhere(wait.lsn));
                    return Reply::Placed(Placed {
                        is_safe: is_safe == Some(true),
                        ..placed
                    });
                }
                Err(Some(failure)) => return Reply::Failed(*failure),
                Err(None) => {}
            }
            if let Err(failure) = self.turn(place.partition, deadline).await {
                return Reply::Failed(failure);
            }
        }
    }

    /// None: others hold the partition.
    fn place(&self, place: &PlaceRequest) -> Result<(Placed, CommitWait), Option<Box<Failure>>> {
        let not_primary = || Some(Box::new(Failure::NotPrimary));
        let failed = |error| Some(Box::new(Failure::Sql(error)));
        let partition = place.partition;
        let placed = self.replicas.with_catalog(partition, |replica| {
            match self.not_now(replica, false) {
                None => {}
                Some(Ran::Held) => return Err(None),
                Some(_) => return Err(not_primary()),
            }
            let reign = replica.reign().map_or(0, |reign| reign.began_epoch);
            if place.reign.is_some_and(|told| told != reign) || !self.lease_is_valid() {
                return Err(not_primary());
            }
            let mut arrived = self.arrived.lock().expect("no panic under this lock");
            let map = self.replicas.metadata.map();
            arrived.retain(|(table, _), _| map.moves.contains_key(table));
            let is_meant = |one: &&TableMove| one.number == place.number && is_to(&map, one, partition);
            if map.moves.get(&place.moved).filter(is_meant).is_none() {
                return Err(not_primary());
            }
            let before = arrived.entry((place.moved, partition)).or_default();
            if before.number != place.number {
                *before = Arrived {
                    number: place.number,
                    ..Arrived::default()
                };
            }
            if (place.from_epoch, place.turn) < (before.from_epoch, before.turn) {
                return Err(not_primary());
            }
            (before.from_epoch, before.turn) = (place.from_epoch, place.turn);
            if place.table != place.moved && !MOVED_WITH_TABLES.contains(&place.table) {
                let message = format!("rows of table {} come with table {}", place.table, place.moved);
                return Err(failed(SqlError::internal(message)));
            }
            let range = (place.after.as_deref(), place.until.as_deref());
            let placing = replica.engine.to_place(place.table, range, &place.rows);
            let placing = placing.map_err(|error| failed(SqlError::internal(error)))?;
            if let Some(effects) = placing.effects {
                self.memory.admit(Some(&effects)).map_err(failed)?;
                before.lsn = self.replicas.append(replica, &LogPayload::Write(effects));
            } else if before.lsn == 0 {
                // What is there came in an earlier reign.
                before.lsn = replica.appended;
            }
            let placed = Placed {
                reign,
                is_safe: false,
                is_whole: placing.is_whole,
            };
            Ok((placed, commit_wait(replica, partition, before.lsn, true)))
        });
        placed.unwrap_or_else(|| Err(not_primary()))
    }
}

fn is_to(map: &ClusterMap, one: &TableMove, partition: PartitionId) -> bool {
    map.partitions.get(&partition).is_some_and(|info| info.group == one.to)
}
