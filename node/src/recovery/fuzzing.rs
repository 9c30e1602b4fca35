//! Whatever stands in a file: it is read back, or refused.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;
use volt_engine::effects::{EffectsBuilder, LogPayload, TransactionId};
use volt_engine::key::encode_key;
use volt_engine::partition::Partition;
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;

use super::checkpoint;
use super::lanes::Lanes;
use super::log::layout::{self, CHECKPOINT, ENTRY_BYTES, HEADER_BYTES, Header, Magic, SEGMENT, VERSION};
use super::log::{LogEntry, LogError, reader};
use super::replay::Replay;
use super::sink::{EntrySink, InOrder};
use crate::replication::replica::Replica;
use crate::world::simulated::{SimulatedDisk, SimulatedRandom};

const CLUSTER: Uuid = Uuid::nil();
const MARK: u64 = 7;

/// More than one, so that what several make is held against what one makes.
const LANES: usize = 3;
/// Small, so that entries lie across blocks.
const BLOCK_BYTES: usize = 64;

/// A log of one segment, as it is and with its checksums put right, so that what lies behind them is reached too. True:
/// the second was read.
pub fn segment(bytes: &[u8]) -> bool {
    let mut is_read = false;
    for bytes in [bytes.to_vec(), put_right(bytes)] {
        let disk = disk_with(&reader::segment_file(Path::new("log"), 1), bytes);
        let mut replay = Replay::default();
        let mut take =
            InOrder::new(|partition, entry| replay.take(partition, entry).map_err(|error| error.to_string()));
        let in_order = block_on(read_segment(&disk, &mut take));
        let in_lanes = block_on(async {
            let mut lanes = Lanes::new(LANES);
            lanes.log_begins(None);
            let read = read_segment(&disk, &mut lanes).await;
            (read, lanes.finish().await)
        });
        is_read = in_order.is_ok();
        let replicas = replay.finish().map_err(|error| error.to_string());
        compare((in_order, replicas), in_lanes);
    }
    is_read
}

async fn read_segment(disk: &Arc<SimulatedDisk>, sink: &mut dyn EntrySink) -> Result<(), LogError> {
    let from = (Path::new("log"), 1);
    let end = reader::replay(&disk.mount(), from, CLUSTER, BLOCK_BYTES, sink).await;
    end.map(drop)
}

/// The same of a checkpoint, whose entries are applied as at a start.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let mut is_read = false;
    for bytes in [bytes.to_vec(), put_right(bytes)] {
        let disk = disk_with(&checkpoint::path_of(1, checkpoint::SUFFIX), bytes);
        let mut replay = Replay::default();
        let mut take = InOrder::new(|partition, entry| {
            let taken = replay.take_checkpoint(partition, entry);
            taken.map_err(|error| error.to_string())
        });
        let in_order = block_on(read_checkpoint(&disk, &mut take));
        let in_lanes = block_on(async {
            let mut lanes = Lanes::new(LANES);
            let read = read_checkpoint(&disk, &mut lanes).await;
            (read, lanes.finish().await)
        });
        is_read = in_order.is_ok();
        let replicas = replay.finish().map_err(|error| error.to_string());
        compare((in_order, replicas), in_lanes);
    }
    is_read
}

async fn read_checkpoint(disk: &Arc<SimulatedDisk>, sink: &mut dyn EntrySink) -> Result<(), LogError> {
    let loaded = checkpoint::load(&disk.mount(), CLUSTER, BLOCK_BYTES, sink).await;
    loaded.map(drop)
}

fn disk_with(file: &Path, bytes: Vec<u8>) -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new(SimulatedRandom::new(0), false);
    disk.put(file, bytes);
    disk
}

/// Lanes are tasks.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(work)
}

/// What was read, and the replicas that it made, if it was read to the end.
type Outcome = (Result<(), LogError>, Result<Vec<Replica>, String>);

fn compare((in_order, replicas): Outcome, (in_lanes, same_replicas): Outcome) {
    assert_eq!(in_order, in_lanes, "lanes read something else");
    if in_order.is_err() {
        return;
    }
    let ends = |replicas: Vec<Replica>| -> Vec<_> {
        let end = |replica: &Replica| (replica.partition, replica.appended, replica.committed);
        replicas.iter().map(end).collect()
    };
    assert_eq!(replicas.map(ends), same_replicas.map(ends), "lanes make something else");
}

/// Checksums that fit, as far as the lengths do.
fn put_right(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    let checksum = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    let mut at = HEADER_BYTES;
    while bytes.len() - at >= ENTRY_BYTES {
        let end = at + layout::size(&bytes[at..]);
        if end > bytes.len() {
            break;
        }
        // Of all but itself.
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[at..at + 4]), &bytes[at + 8..end]);
        bytes[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
    bytes
}

fn records() -> [LogPayload; 4] {
    let mut effects = EffectsBuilder::default();
    let values = [ValueRef::BigInt(7), ValueRef::Text("seven")];
    effects.put(3, &encode_key([values[0]]), &encode_row(&values));
    effects.remove(3, &encode_key([values[1]]));
    let effects = effects.finish();
    let transaction = TransactionId {
        began_micros: 1,
        node: 2,
        boot: 3,
        sequence: 4,
    };
    [
        LogPayload::EpochStart,
        LogPayload::Write(effects.clone()),
        LogPayload::Prepared {
            transaction,
            home: 1,
            effects,
        },
        LogPayload::Commit(transaction),
    ]
}

fn record(lsn: u64) -> LogEntry {
    let payload = records()[lsn as usize - 1].encode();
    LogEntry::Record { epoch: 1, lsn, payload }
}

fn file(magic: Magic, salt: u64, entries: &[LogEntry]) -> BytesMut {
    let header = Header {
        version: VERSION,
        cluster: CLUSTER,
        sequence: 1,
        salt,
    };
    let mut out = BytesMut::from(header.encode(magic));
    for entry in entries {
        layout::encode(1, entry, &mut out);
    }
    out
}

fn fill() -> [LogEntry; 3] {
    let (chunk, _) = Partition::new().dump_chunk(0, None, 1 << 10);
    let no_epochs: Vec<(u64, u64)> = Vec::new();
    let epochs = postcard::to_stdvec(&no_epochs).map(Bytes::from).unwrap_or_default();
    [
        LogEntry::Reset { epoch: 1 },
        LogEntry::FillChunk { chunk },
        LogEntry::FillDone {
            lsn: 0,
            epoch: 1,
            epochs,
        },
    ]
}

/// A segment with an entry of each kind.
pub fn example_segment() -> Vec<u8> {
    let mut entries = fill().to_vec();
    entries.extend((1..=4).map(record));
    entries.extend([
        LogEntry::Committed { lsn: 4 },
        LogEntry::Truncate { after: 4, epoch: 1 },
    ]);
    let mut out = file(SEGMENT, MARK, &entries);
    layout::encode_flushed_to(MARK, out.len() as u64, &mut out);
    layout::encode(1, &LogEntry::Dropped, &mut out);
    out.to_vec()
}

/// A checkpoint of one replica.
pub fn example_checkpoint() -> Vec<u8> {
    let mut entries = fill().to_vec();
    entries.extend((1..=4).map(record));
    entries.push(LogEntry::Mark { mark: MARK });
    let mut out = file(CHECKPOINT, MARK, &entries);
    layout::encode_end(entries.len() as u64, 1, &mut out);
    out.to_vec()
}
