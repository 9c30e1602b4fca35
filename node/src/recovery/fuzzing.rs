//! Whatever stands in a file: it is read back, or refused.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use uuid::Uuid;
use volt_engine::effects::{EffectsBuilder, LogPayload, TransactionId};
use volt_engine::key::encode_key;
use volt_engine::partition::Partition;
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;

use super::checkpoint;
use super::log::layout::{self, CHECKPOINT, ENTRY_BYTES, HEADER_BYTES, Header, Magic, SEGMENT, VERSION};
use super::log::{LogEntry, reader};
use super::replay::Replay;
use crate::world::simulated::{SimulatedDisk, SimulatedRandom};

const CLUSTER: Uuid = Uuid::nil();
const MARK: u64 = 7;

/// A log of one segment, as it is and with its checksums put right, so that what lies behind them is reached too. True:
/// the second was read.
pub fn segment(bytes: &[u8]) -> bool {
    let mut is_read = false;
    for bytes in [bytes.to_vec(), put_right(bytes)] {
        let disk = SimulatedDisk::new(SimulatedRandom::new(0), false);
        let folder = Path::new("log");
        disk.put(&reader::segment_file(folder, 1), bytes);
        let mut replay = Replay::default();
        let mut take = |partition, entry| replay.take(partition, entry).map_err(|error| error.to_string());
        is_read = block_on(reader::replay(&disk.mount(), (folder, 1), CLUSTER, &mut take)).is_ok();
        if is_read {
            let _ = replay.finish();
        }
    }
    is_read
}

/// The same of a checkpoint, whose entries are applied as at a start.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let mut is_read = false;
    for bytes in [bytes.to_vec(), put_right(bytes)] {
        let disk = SimulatedDisk::new(SimulatedRandom::new(0), false);
        disk.put(&checkpoint::path_of(1, checkpoint::SUFFIX), bytes);
        let mut replay = Replay::default();
        let mut take = |partition, entry| {
            let taken = replay.take_checkpoint(partition, entry);
            taken.map_err(|error| error.to_string())
        };
        is_read = block_on(checkpoint::load(&disk.mount(), CLUSTER, &mut take)).is_ok();
    }
    is_read
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
