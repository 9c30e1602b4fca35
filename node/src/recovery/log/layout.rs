//! The bytes of a segment, and of a checkpoint. Every number is little-endian.
//!
//! A segment: a header, then entries to its end. A checkpoint: the same, under its own magic, and an end as its last entry.
//!
//! | header | bytes | |
//! | --- | --- | --- |
//! | magic | 8 | `VOLTLOG` and a zero; `VOLTCKP` and a zero |
//! | version | 4 | 1 |
//! | cluster | 16 | the cluster's UUID |
//! | sequence | 8 | the segment's number, as in its name; the checkpoint's |
//! | salt | 8 | random; marks carry it, so that no payload can look like one; of a checkpoint: the log's mark of its beginning |
//! | checksum | 4 | CRC-32C of all that precedes it |
//!
//! | entry | bytes | |
//! | --- | --- | --- |
//! | length | 4 | of the payload |
//! | checksum | 4 | CRC-32C of everything in the entry but itself |
//! | kind | 1 | as in `Kind` |
//! | partition | 4 | 0 for a mark of the log's own |
//! | epoch | 8 | or 0; of `FlushedTo`: the salt; of `End`: how many entries precede it |
//! | lsn | 8 | or 0; of `FlushedTo`: an offset in this segment; of `End`: the first segment to be replayed; of `Mark`: the mark |
//! | payload | length | |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;
use volt_engine::PartitionId;

use super::{LogEntry, MAX_PAYLOAD_BYTES};

/// The first bytes of a file.
pub(in crate::recovery) type Magic = &'static [u8; 8];
/// Of a segment.
pub(in crate::recovery) const SEGMENT: Magic = b"VOLTLOG\0";
/// Of a checkpoint.
pub(in crate::recovery) const CHECKPOINT: Magic = b"VOLTCKP\0";
/// The version that this program writes, and the only one that it reads.
pub(in crate::recovery) const VERSION: u32 = 1;
/// Size of a segment's header.
pub(in crate::recovery) const HEADER_BYTES: usize = 48;
/// Size of an entry without its payload.
pub(in crate::recovery) const ENTRY_BYTES: usize = 29;

const RECORD: u8 = 1;
const COMMITTED: u8 = 2;
const TRUNCATE: u8 = 3;
const RESET: u8 = 4;
const FILL_CHUNK: u8 = 5;
const FILL_DONE: u8 = 6;
const DROPPED: u8 = 7;
const FLUSHED_TO: u8 = 8;
const MARK: u8 = 9;
const END: u8 = 10;

/// The bytes of an entry whose checksum is right. Who applies it decodes it: that is another task than the reader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked<'a>(&'a [u8]);

impl<'a> Checked<'a> {
    /// Bytes that were `bytes` of one before.
    pub(in crate::recovery) fn again(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All of it, its head too.
    pub(in crate::recovery) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// What it says.
    pub(in crate::recovery) fn decode(&self) -> Result<LogEntry, Unreadable> {
        let (Some(head), Some(payload)) = (Head::decode(self.0), self.0.get(ENTRY_BYTES..)) else {
            return Err(Unreadable::Short);
        };
        let Head { epoch, lsn, .. } = head;
        // A copy, so that an entry that is kept does not keep what was read with it in memory.
        let payload = || Bytes::copy_from_slice(payload);
        Ok(match head.kind {
            RECORD => LogEntry::Record {
                epoch,
                lsn,
                payload: payload(),
            },
            COMMITTED => LogEntry::Committed { lsn },
            TRUNCATE => LogEntry::Truncate { after: lsn, epoch },
            RESET => LogEntry::Reset { epoch },
            FILL_CHUNK => LogEntry::FillChunk { chunk: payload() },
            FILL_DONE => LogEntry::FillDone {
                lsn,
                epoch,
                epochs: payload(),
            },
            DROPPED => LogEntry::Dropped,
            MARK => LogEntry::Mark { mark: lsn },
            other => return Err(Unreadable::Kind(other)),
        })
    }
}

/// What an entry of the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recovery) enum Framed<'a> {
    /// A partition's.
    Entry(PartitionId, Checked<'a>),
    /// The log's own: when this was written, the segment was known to be on the disk up to this offset. It tells a
    /// torn tail from damage: nothing before a mark can be torn.
    FlushedTo(u64),
    /// A checkpoint's last: it is whole.
    End {
        /// How many entries precede it.
        entries: u64,
        /// Where the log that belongs to it begins.
        first_segment: u64,
    },
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recovery) enum Unreadable {
    /// They end in the middle.
    Short,
    /// The length is beyond all bounds.
    Length,
    /// The checksum is another.
    Checksum,
    /// The kind is none of ours, though the checksum is right.
    Kind(u8),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("an entry ends in the middle"),
            Self::Length => f.write_str("an entry has an impossible length"),
            Self::Checksum => f.write_str("an entry's checksum is wrong"),
            Self::Kind(kind) => write!(f, "an entry has the unknown kind {kind}"),
        }
    }
}

/// The header of a segment or a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::recovery) struct Header {
    pub version: u32,
    pub cluster: Uuid,
    pub sequence: u64,
    pub salt: u64,
}

impl Header {
    pub(in crate::recovery) fn encode(&self, magic: Magic) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
        bytes.put_slice(magic);
        bytes.put_u32_le(self.version);
        bytes.put_slice(self.cluster.as_bytes());
        bytes.put_u64_le(self.sequence);
        bytes.put_u64_le(self.salt);
        let checksum = crc32c::crc32c(&bytes);
        bytes.put_u32_le(checksum);
        bytes.freeze()
    }

    /// None if it is damaged.
    pub(in crate::recovery) fn decode(bytes: &[u8], magic: Magic) -> Option<Self> {
        let mut header = bytes.get(..HEADER_BYTES)?;
        let checksum = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        if &header[..magic.len()] != magic {
            return None;
        }
        header.advance(magic.len());
        let version = header.get_u32_le();
        let mut cluster = [0; 16];
        header.copy_to_slice(&mut cluster);
        let (sequence, salt) = (header.get_u64_le(), header.get_u64_le());
        let cluster = Uuid::from_bytes(cluster);
        (header.get_u32_le() == checksum).then_some(Self {
            version,
            cluster,
            sequence,
            salt,
        })
    }
}

/// Appends an entry to `out`.
pub(in crate::recovery) fn encode(partition: PartitionId, entry: &LogEntry, out: &mut BytesMut) {
    let (kind, epoch, lsn, payload): (u8, u64, u64, &[u8]) = match entry {
        LogEntry::Record { epoch, lsn, payload } => (RECORD, *epoch, *lsn, payload),
        LogEntry::Committed { lsn } => (COMMITTED, 0, *lsn, &[]),
        LogEntry::Truncate { after, epoch } => (TRUNCATE, *epoch, *after, &[]),
        LogEntry::Reset { epoch } => (RESET, *epoch, 0, &[]),
        LogEntry::FillChunk { chunk } => (FILL_CHUNK, 0, 0, chunk),
        LogEntry::FillDone { lsn, epoch, epochs } => (FILL_DONE, *epoch, *lsn, epochs),
        LogEntry::Dropped => (DROPPED, 0, 0, &[]),
        LogEntry::Mark { mark } => (MARK, 0, *mark, &[]),
    };
    frame(kind, partition, epoch, lsn, payload, out);
}

/// Appends the log's own mark to `out`.
pub(in crate::recovery) fn encode_flushed_to(salt: u64, offset: u64, out: &mut BytesMut) {
    frame(FLUSHED_TO, 0, salt, offset, &[], out);
}

/// Appends a checkpoint's end to `out`.
pub(in crate::recovery) fn encode_end(entries: u64, first_segment: u64, out: &mut BytesMut) {
    frame(END, 0, entries, first_segment, &[], out);
}

fn frame(kind: u8, partition: PartitionId, epoch: u64, lsn: u64, payload: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.reserve(ENTRY_BYTES + payload.len());
    // `Log::append` refuses longer ones.
    out.put_u32_le(payload.len() as u32);
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u32_le(partition);
    out.put_u64_le(epoch);
    out.put_u64_le(lsn);
    out.put_slice(payload);
    let checksum = checksum(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Of a whole entry: its length, then all behind its checksum.
fn checksum(entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry[..4]), &entry[8..])
}

/// What precedes an entry's payload.
struct Head {
    length: usize,
    checksum: u32,
    kind: u8,
    partition: PartitionId,
    epoch: u64,
    lsn: u64,
}

impl Head {
    /// None: there is no more of it.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut head = bytes.get(..ENTRY_BYTES)?;
        Some(Self {
            length: head.get_u32_le() as usize,
            checksum: head.get_u32_le(),
            kind: head.get_u8(),
            partition: head.get_u32_le(),
            epoch: head.get_u64_le(),
            lsn: head.get_u64_le(),
        })
    }
}

/// The entry at the start of `bytes`, and its size.
pub(in crate::recovery) fn decode(bytes: &[u8]) -> Result<(Framed<'_>, usize), Unreadable> {
    let Some(head) = Head::decode(bytes) else {
        return Err(Unreadable::Short);
    };
    if head.length > MAX_PAYLOAD_BYTES {
        return Err(Unreadable::Length);
    }
    let size = ENTRY_BYTES + head.length;
    let Some(whole) = bytes.get(..size) else {
        return Err(Unreadable::Short);
    };
    if checksum(whole) != head.checksum {
        return Err(Unreadable::Checksum);
    }
    let framed = match head.kind {
        RECORD..=DROPPED | MARK => Framed::Entry(head.partition, Checked(whole)),
        FLUSHED_TO => Framed::FlushedTo(head.lsn),
        END => Framed::End {
            entries: head.epoch,
            first_segment: head.lsn,
        },
        other => return Err(Unreadable::Kind(other)),
    };
    Ok((framed, size))
}

/// The size of the entry that begins here; of its head alone while no more is there.
#[cfg(any(test, feature = "simulation"))]
pub(in crate::recovery) fn size(bytes: &[u8]) -> usize {
    let length = bytes
        .first_chunk()
        .map_or(0, |length| u32::from_le_bytes(*length) as usize);
    ENTRY_BYTES + length.min(MAX_PAYLOAD_BYTES)
}

/// True when somewhere in `rest` (of a segment, from `offset` to its end) stands a mark that vouches for its first byte.
pub(in crate::recovery) fn is_vouched_for(rest: &[u8], offset: u64, salt: u64) -> bool {
    // What every such mark starts with behind its checksum; the cheap test that comes first.
    let mut head = BytesMut::new();
    encode_flushed_to(salt, 0, &mut head);
    rest.windows(ENTRY_BYTES).any(|candidate| {
        candidate[..4] == head[..4]
            && candidate[8..21] == head[8..21]
            && matches!(decode(candidate), Ok((Framed::FlushedTo(to), _)) if to > offset)
    })
}
