//! Tables that move to another replication group's partitions (`metadata::moves`).
//!
//! The primary of each old partition copies the table to the new partition of the same place, in passes: the first takes all
//! rows, later ones what has changed since, while others read and write the table. When all old partitions have little left to
//! copy, the table is closed, and they copy the last of it, each after whatever it had begun before it heard that; then the table lies in
//! the new partitions. What of it is left in the old ones is removed, a moment later, some rows at a time.
//!
//! What must hold:
//! - nobody is served of a table where it is closed, and in no place before the map says that it lies there: what a primary has heard
//!   of the catalog it goes by from then on, and its successor has heard as much, for it was made primary later;
//! - what a new partition was told is lost if it gets another primary before that is in every replica in sync: then it is told all
//!   again, and only when it is in every one does the old primary say that it has come that far;
//! - a piece that comes late, when a newer one has come, is refused.
//!
//! Bounded: two copies at a time on a node while the table is open, at the pace of fills, and one piece of each on its way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, sleep};
use tokio_util::task::AbortOnDropHandle;
use volt_engine::effects::{LogPayload, TransactionId};
use volt_engine::partition::{MOVED_WITH_TABLES, Piece};
use volt_engine::{Epoch, PartitionId, TableId};

use super::Coordinator;
use super::participant::{Participant, commit_wait};
use super::request::{Failure, PlaceRequest, Placed, Reply, Request};
use crate::error::SqlError;
use crate::metadata::command::Command;
use crate::metadata::map::ClusterMap;
use crate::metadata::moves::MovePhase;
use crate::world::PlantedBug;

/// Bytes of rows in a piece, about.
const PIECE_BYTES: usize = 256 << 10;
/// Copies at a time on a node of tables that are open.
const COPIES_AT_ONCE: usize = 2;
/// Between two passes.
const PASS_EVERY: Duration = Duration::from_millis(500);
/// Between two tries of a piece.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// A piece is told so often; then all is told anew.
const MOST_TRIES: u32 = 20;
/// A pass that takes no longer leaves little to copy when the table is closed.
const SHORT_PASS: Duration = Duration::from_millis(200);
/// After so many passes the table is closed however long they take: writers are quicker than the copy.
const MOST_PASSES: u32 = 10;
/// How often it is looked for what is to be moved, or removed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A new arrangement is so old before rows that it leaves behind are removed: a cut of the archive may still be on its way.
const LINGER: Duration = Duration::from_secs(5);
/// Rows that are removed at a time.
const REMOVED_AT_ONCE: usize = 1_000;

/// Moves what this node's primaries are to move, for as long as the process lives.
pub(super) async fn run(coordinator: Arc<Coordinator>) {
    let mut movers: BTreeMap<(TableId, PartitionId), Moving> = BTreeMap::new();
    let (slots, turns) = (Arc::new(Semaphore::new(COPIES_AT_ONCE)), Arc::new(AtomicU64::new(0)));
    let mut catalog = (0, Instant::now());
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let map = coordinator.cluster_map();
        if map.restoring().is_some() || map.standby.is_some() {
            // What is to be moved is not there yet, or is what another cluster moves.
            movers.clear();
            continue;
        }
        if map.catalog_version != catalog.0 {
            catalog = (map.catalog_version, Instant::now());
        }
        let led = led(&coordinator, &map);
        movers.retain(|&(table, partition), moving| {
            let number = map.moves.get(&table).map(|one| one.number);
            let goes_on = number == Some(moving.number) && led.get(&partition) == Some(&moving.epoch);
            goes_on && !moving.mover.is_finished()
        });
        coordinator.participant.keep_stuck(|from| movers.contains_key(from));
        for (&table, one) in &map.moves {
            let from = map.tables.get(&table).and_then(|table| map.groups.get(&table.group));
            for &partition in from.into_iter().flat_map(|group| &group.partitions) {
                let (Some(&epoch), Some(to)) = (led.get(&partition), map.moves_to(one, partition)) else {
                    continue;
                };
                movers.entry((table, partition)).or_insert_with(|| {
                    let mover = Mover {
                        coordinator: Arc::clone(&coordinator),
                        slots: Arc::clone(&slots),
                        turns: Arc::clone(&turns),
                        table,
                        number: one.number,
                        from: (partition, epoch),
                        to,
                        reign: None,
                        copied: BTreeMap::new(),
                        held_at_close: None,
                        has_warned: false,
                    };
                    Moving {
                        number: one.number,
                        epoch,
                        mover: AbortOnDropHandle::new(tokio::spawn(mover.run())),
                    }
                });
            }
        }
        if catalog.1.elapsed() >= LINGER {
            led.keys()
                .for_each(|&partition| coordinator.participant.remove_some_left(partition));
        }
    }
}

/// A mover at work.
struct Moving {
    /// In which of its table's moves.
    number: u64,
    /// In which this node's reign over the old partition began.
    epoch: Epoch,
    mover: AbortOnDropHandle<()>,
}

/// The partitions that this process leads, each with the epoch in which it was made its primary.
fn led(coordinator: &Coordinator, map: &ClusterMap) -> BTreeMap<PartitionId, Epoch> {
    let replicas = &coordinator.replicas;
    let ours = map.partitions.values().filter(|info| {
        let boot = (info.primary == Some(replicas.node_id)).then_some(info.primary_boot);
        boot == Some(replicas.boot_id)
    });
    let epoch = |partition| replicas.with(partition, |replica| Some(replica.reign()?.began_epoch));
    ours.filter_map(|info| Some((info.partition_id, epoch(info.partition_id)??)))
        .collect()
}

/// Copies a table from one partition to another.
struct Mover {
    coordinator: Arc<Coordinator>,
    slots: Arc<Semaphore>,
    turns: Arc<AtomicU64>,
    table: TableId,
    /// Which of its moves.
    number: u64,
    /// The old partition, and the epoch in which its primary's reign began.
    from: (PartitionId, Epoch),
    to: PartitionId,
    /// The new primary's reign, to which was told what is in `copied`.
    reign: Option<Epoch>,
    /// Of each table the pieces as they were told.
    copied: BTreeMap<TableId, Vec<Told>>,
    /// Who held the old partition at the first look after it had closed the table.
    held_at_close: Option<Option<TransactionId>>,
    /// It has said that it is refused.
    has_warned: bool,
}

/// Where a piece ends, and its digest.
type Told = (Option<Vec<u8>>, [u8; 32]);

/// The copy can't go on: the node, or the new partition, is not what it was.
struct Interrupted;

impl Mover {
    /// Until it is aborted: by whoever started it, when the move is over or this is no longer the primary.
    async fn run(mut self) {
        let mut passes = 0;
        loop {
            let phase = self.phase();
            let is_closing = phase == Some(MovePhase::Closing);
            if is_closing && !self.is_closed().await {
                sleep(TRY_AGAIN).await;
                continue;
            }
            let began = Instant::now();
            let passed = match is_closing {
                true => self.pass(true).await,
                false => {
                    let Ok(_slot) = Arc::clone(&self.slots).acquire_owned().await else {
                        return;
                    };
                    self.pass(false).await
                }
            };
            passes += 1;
            let is_enough = is_closing || began.elapsed() <= SHORT_PASS || passes >= MOST_PASSES;
            match (passed, phase) {
                (Ok(()), Some(phase)) if is_enough => self.advance(phase).await,
                (Ok(()), _) => {}
                (Err(Interrupted), _) => {
                    (self.reign, self.copied) = (None, BTreeMap::new());
                }
            }
            if !is_closing && self.phase() == Some(MovePhase::Copying) {
                sleep(PASS_EVERY).await;
            } else {
                sleep(TRY_AGAIN).await;
            }
        }
    }

    fn phase(&self) -> Option<MovePhase> {
        let map = self.coordinator.cluster_map();
        let one = map.moves.get(&self.table).filter(|one| one.number == self.number);
        one.map(|one| one.phase)
    }

    /// Whether the old partition has closed the table, and all that had begun before is over and committed.
    async fn is_closed(&mut self) -> bool {
        let (participant, (partition, _)) = (Arc::clone(&self.coordinator.participant), self.from);
        let wait = participant.replicas.with_catalog(partition, |replica| {
            let is_closed =
                replica.engine.closed_since(self.table).is_some() || replica.planted.has(PlantedBug::MovedTableServed);
            replica.reign().filter(|_| is_closed)?;
            // Who comes to hold it after that does nothing with the table.
            let holder = replica.hold.holder().map(|holder| holder.transaction);
            let first = *self.held_at_close.get_or_insert(holder);
            let rests = holder.is_none() || holder != first;
            let applied = replica.engine.applied();
            rests.then(|| commit_wait(replica, partition, applied, true))
        });
        match wait.flatten() {
            Some(wait) => participant.committed(&[wait]).await.is_ok(),
            None => false,
        }
    }

    /// Tells what is not there yet; with `is_last`, until it is in every replica in sync.
    async fn pass(&mut self, is_last: bool) -> Result<(), Interrupted> {
        for table in [self.table].into_iter().chain(MOVED_WITH_TABLES) {
            self.pass_table(table, is_last).await?;
        }
        if !is_last {
            return Ok(());
        }
        // Said again, it changes nothing, and is answered with how safe it is.
        let nothing = Piece {
            rows: volt_engine::effects::Effects::default(),
            until: Some(Vec::new()),
        };
        while !self.tell(self.table, None, &nothing).await?.is_safe {
            sleep(TRY_AGAIN).await;
        }
        Ok(())
    }

    async fn pass_table(&mut self, table: TableId, is_last: bool) -> Result<(), Interrupted> {
        let told = self.copied.remove(&table).unwrap_or_default();
        let mut told = told.into_iter().peekable();
        let (mut copied, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let until = told.peek().and_then(|(until, _)| until.clone());
            let piece = self
                .read(table, after.as_deref(), until.as_deref())
                .ok_or(Interrupted)?;
            let digest = digest(after.as_deref(), &piece);
            let is_known = told
                .peek()
                .is_some_and(|(until, known)| *until == piece.until && *known == digest);
            if !is_known {
                while !self.tell(table, after.as_deref(), &piece).await?.is_whole {}
                if !is_last {
                    let replicas = &self.coordinator.replicas;
                    sleep(replicas.filling.take(replicas.now_ms(), piece.rows.size())).await;
                }
            }
            // Others come in between.
            tokio::task::yield_now().await;
            // A piece that has grown is told in parts, the last of which ends where it did.
            if piece.until == until {
                told.next();
            }
            let is_end = piece.until.is_none();
            copied.push((piece.until.clone(), digest));
            after = piece.until;
            if is_end {
                self.copied.insert(table, copied);
                return Ok(());
            }
        }
    }

    fn read(&self, table: TableId, after: Option<&[u8]>, until: Option<&[u8]>) -> Option<Piece> {
        let (partition, epoch) = self.from;
        let read = self.coordinator.replicas.with(partition, |replica| {
            replica.reign().filter(|reign| reign.began_epoch == epoch)?;
            Some(replica.engine.piece(table, after, until, PIECE_BYTES))
        });
        read.flatten()
    }

    /// Has the new partition's primary make a piece so; tries again while it can't be reached.
    async fn tell(&mut self, table: TableId, after: Option<&[u8]>, piece: &Piece) -> Result<Placed, Interrupted> {
        for _ in 0..MOST_TRIES {
            let place = PlaceRequest {
                partition: self.to,
                reign: self.reign,
                moved: self.table,
                number: self.number,
                from_epoch: self.from.1,
                turn: self.turns.fetch_add(1, Ordering::Relaxed),
                table,
                after: after.map(<[u8]>::to_vec),
                until: piece.until.clone(),
                rows: piece.rows.clone(),
            };
            match self.coordinator.ask_primary(self.to, Request::Place(place)).await {
                Ok(Reply::Placed(placed)) => {
                    self.reign = Some(placed.reign);
                    self.note_stuck(None);
                    return Ok(placed);
                }
                Ok(Reply::Failed(Failure::Sql(error))) => self.note_stuck(Some(&error)),
                Ok(Reply::Failed(failure)) => tracing::debug!(table, ?failure, "rows can't be moved now"),
                Ok(_) | Err(_) => {}
            }
            sleep(TRY_AGAIN).await;
        }
        // It may have another primary by now, which has not got all that was told.
        Err(Interrupted)
    }

    /// Where the table goes it is refused, or is not any more; a warning says so once.
    fn note_stuck(&mut self, refused: Option<&SqlError>) {
        let ((partition, _), table) = (self.from, self.table);
        let why = self.coordinator.participant.note_stuck(table, partition, refused);
        let Some(why) = why.filter(|_| !self.has_warned) else {
            return;
        };
        self.has_warned = true;
        tracing::warn!(
            table,
            partition,
            to = self.to,
            why,
            "a table can't be moved on now; it is tried again"
        );
    }

    async fn advance(&self, phase: MovePhase) {
        let (partition, began) = self.from;
        let reign = self.coordinator.replicas.with(partition, |replica| {
            let reign = replica.reign().filter(|reign| reign.began_epoch == began)?;
            Some(reign.epoch)
        });
        let Some(epoch) = reign.flatten() else { return };
        let map = self.coordinator.cluster_map();
        let is_told = map
            .moves
            .get(&self.table)
            .is_none_or(|one| one.number != self.number || one.phase != phase || one.done.contains(&partition));
        if is_told {
            return;
        }
        let command = Command::AdvanceMove {
            table: self.table,
            number: self.number,
            partition,
            epoch,
            phase,
        };
        if let Err(error) = self.coordinator.replicas.metadata.propose(command).await {
            tracing::debug!(table = self.table, partition, %error, "a move is not on record");
        }
    }
}

/// SHA-256 over a range of keys and its rows.
fn digest(after: Option<&[u8]>, piece: &Piece) -> [u8; 32] {
    let mut digest = Sha256::new();
    for bound in [after, piece.until.as_deref()] {
        let length = bound.map_or(u64::MAX, |bound| bound.len() as u64);
        digest.update(length.to_le_bytes());
        digest.update(bound.unwrap_or_default());
    }
    digest.update(piece.rows.as_bytes());
    digest.finalize().into()
}

// ---- What is left

impl Participant {
    /// Removes some rows of a table that lies elsewhere, if this node leads the partition and nobody holds it.
    fn remove_some_left(&self, partition: PartitionId) {
        let _ = self.replicas.with_catalog(partition, |replica| {
            if self.not_now(replica, false).is_some() || !self.lease_is_valid() {
                return;
            }
            let map = self.replicas.metadata.map();
            let Some(group) = map.partitions.get(&partition).map(|info| info.group) else {
                return;
            };
            let elsewhere = |table: &TableId| map.tables.contains_key(table) && !map.has_rows_in(*table, group);
            let mut left = replica.engine.tables_with_rows().into_iter().filter(elsewhere);
            let removals = left.find_map(|table| replica.engine.to_empty(table, REMOVED_AT_ONCE));
            if let Some(removals) = removals {
                self.replicas.append(replica, &LogPayload::Write(removals));
            }
        });
    }
}
