//! Snapshots of this node's partitions that somebody reads: their versions are kept until he says that he is done, or is
//! not heard of for long.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use volt_engine::effects::TransactionId;
use volt_engine::error::StatementError;
use volt_engine::partition::{Projection, ScanChunk};
use volt_engine::plan::Program;
use volt_engine::transaction::Writes;
use volt_engine::value::ValueRef;
use volt_engine::{Lsn, PartitionId, TableId};

use super::participant::{EncodedRows, Participant};
use super::request::{Failure, Reply, ScanRequest};
use crate::error::SqlError;
use crate::replication::replica::Replica;
use crate::world::PlantedBug;

/// Bytes of rows in one chunk of a scan.
const SCAN_CHUNK_BYTES: usize = 1 << 20;
/// A snapshot that nobody has read from for so long is let go.
pub(crate) const PIN_LIMIT_MS: u64 = 60_000;

/// Who keeps what.
pub(super) type Pins = Mutex<BTreeMap<TransactionId, Pinned>>;

/// The versions that a snapshot keeps here.
#[derive(Default)]
pub(super) struct Pinned {
    /// Each with the version of the catalog that its replica knew then.
    at: BTreeMap<PartitionId, (Lsn, u64)>,
    used_ms: u64,
}

impl Participant {
    /// Keeps the versions of a snapshot until `unpin`, or until nobody has used it for `PIN_LIMIT_MS`.
    pub(crate) fn pin(&self, transaction: TransactionId, at: Vec<(PartitionId, Lsn)>) {
        // What can't be pinned any more was taken away by an older transaction: letting go of the holds will say so.
        let pin = |(partition, lsn)| {
            let catalog = self.replicas.with(partition, |replica| pin(replica, lsn));
            Some((partition, (lsn, catalog??)))
        };
        self.note_pinned(transaction, at.into_iter().filter_map(pin).collect());
    }

    /// Notes what the engine has pinned already, each with the catalog's version of that moment. A partition that the snapshot
    /// had before is let go there: its reader took it anew.
    pub(super) fn note_pinned(&self, transaction: TransactionId, at: Vec<(PartitionId, (Lsn, u64))>) {
        let used_ms = self.replicas.now_ms();
        let mut before = Vec::new();
        {
            let mut pins = self.pins.lock().expect("no panic under this lock");
            let pinned = pins.entry(transaction).or_default();
            pinned.used_ms = used_ms;
            for (partition, kept) in at {
                before.extend(pinned.at.insert(partition, kept).map(|(lsn, _)| (partition, lsn)));
            }
        }
        self.let_go(before);
    }

    /// If this snapshot is kept here, the version of the catalog that was known then; it is in use.
    pub(super) fn uses_pin(&self, transaction: TransactionId, partition: PartitionId, snapshot: Lsn) -> Option<u64> {
        let mut pins = self.pins.lock().expect("no panic under this lock");
        let pinned = pins.get_mut(&transaction)?;
        let (_, catalog_version) = pinned.at.get(&partition).filter(|(lsn, _)| *lsn == snapshot)?;
        pinned.used_ms = self.replicas.now_ms();
        Some(*catalog_version)
    }

    /// The snapshot is no longer needed here.
    pub(crate) fn unpin(&self, transaction: TransactionId) {
        let pinned = self.pins.lock().expect("no panic under this lock").remove(&transaction);
        let at = pinned.into_iter().flat_map(|pinned| pinned.at);
        self.let_go(at.map(|(partition, (lsn, _))| (partition, lsn)));
    }

    fn let_go(&self, pinned: impl IntoIterator<Item = (PartitionId, Lsn)>) {
        for (partition, lsn) in pinned {
            self.replicas.with(partition, |replica| replica.engine.unpin(lsn));
        }
    }

    /// Lets go of snapshots that nobody has used for long: their reader died.
    pub(crate) fn expire_pins(&self) {
        let now_ms = self.replicas.now_ms();
        let expired: Vec<TransactionId> = {
            let pins = self.pins.lock().expect("no panic under this lock");
            let old = pins.iter().filter(|(_, pinned)| pinned.used_ms + PIN_LIMIT_MS < now_ms);
            old.map(|(&transaction, _)| transaction).collect()
        };
        expired.into_iter().for_each(|transaction| self.unpin(transaction));
    }

    /// One chunk of a scan at a snapshot that is pinned here.
    pub(crate) fn scan(&self, scan: &ScanRequest) -> Reply {
        let Some(pinned_by) = self.uses_pin(scan.transaction, scan.partition, scan.snapshot) else {
            return Reply::Failed(Failure::NotPrimary);
        };
        let writes = match Writes::of(&scan.writes) {
            Ok(writes) => writes,
            Err(error) => return Reply::Failed(Failure::Sql(SqlError::internal(error))),
        };
        let chunk = self.replicas.with(scan.partition, |replica| {
            // A replica that was filled, or given up and taken again, has none of the old one's pins.
            if !replica.engine.is_pinned(scan.snapshot) {
                return None;
            }
            if let Err(error) = check_shown(replica, scan.table, pinned_by) {
                return Some(Err(error));
            }
            let known = replica
                .engine
                .check_dropped(scan.table, scan.dropped_columns, scan.snapshot);
            if let Err(error) = known {
                return Some(Err(error));
            }
            let program = scan.program.as_ref();
            if let Some(rows) = program.and_then(|program| find(replica, program, scan, &writes)) {
                return Some(Ok(ScanChunk { rows, next: None }));
            }
            Some(replica.engine.scan_at(
                scan.table,
                scan.snapshot,
                &writes,
                scan.after.as_deref(),
                SCAN_CHUNK_BYTES,
                None,
                &[],
                &scan.context,
                scan.project.as_deref().map(|columns| Projection {
                    columns,
                    missing: &scan.missing,
                    version_base: scan.version_base,
                }),
            ))
        });
        match chunk.flatten() {
            Some(Ok(chunk)) => Reply::Chunk {
                rows: chunk.rows,
                next: chunk.next,
            },
            Some(Err(error)) => Reply::Failed(Failure::Sql(error.into())),
            None => Reply::Failed(Failure::NotPrimary),
        }
    }
}

/// Keeps the versions of a snapshot; with them goes the version of the catalog that is known as they are taken. None: they are gone.
pub(super) fn pin(replica: &mut Replica, lsn: Lsn) -> Option<u64> {
    replica.engine.pin(lsn).then_some(replica.catalog_version)
}

/// What was there before a table was closed may be read on; what had come by then to where it moves may not.
pub(super) fn check_shown(replica: &Replica, table: TableId, pinned_by: u64) -> Result<(), StatementError> {
    match replica.planted.has(PlantedBug::MovedRowsShown) {
        true => Ok(()),
        false => replica.engine.check_shown(table, pinned_by),
    }
}

/// The rows that a program finds, if they are not more than a chunk, and not more must be looked at than a program may.
fn find(replica: &Replica, program: &Program, scan: &ScanRequest, writes: &Writes) -> Option<Vec<Bytes>> {
    let (mut rows, mut bytes) = (EncodedRows::default(), 0);
    let mut take = |row: &[ValueRef<'_>]| {
        if bytes < SCAN_CHUNK_BYTES {
            rows.push(row);
            bytes += rows.0.last().map_or(0, |row| row.len() + size_of::<Bytes>());
        }
    };
    let attempt = replica
        .engine
        .attempt(scan.snapshot, writes, program, &[], &scan.context, &mut take);
    (attempt.result.is_ok() && bytes < SCAN_CHUNK_BYTES).then_some(rows.0)
}
