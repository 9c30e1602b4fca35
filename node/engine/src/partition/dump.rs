//! A partition's whole state at a snapshot, in chunks: for a learner, and some day for checkpoints.
//!
//! The first chunk carries the LSN, the prepared transaction and the decisions, so it must be taken while the
//! snapshot is the newest state; the others, rows as of the snapshot. A chunk: kind (1), then
//! 1 (head): lsn u64, prepared? (u8, transaction, home u32, lsn u64, effects), count varint, (lsn, transaction, u8)*;
//! 2 (rows): (table u32, key, lsn u64, row)*.

use bytes::Bytes;

use super::{Partition, Prepared, Stats};
use crate::effects::{Effects, TransactionId};
use crate::row::{CorruptError, Reader, RowRef, put_varint};
use crate::{Lsn, TableId};

const HEAD: u8 = 1;
const ROWS: u8 = 2;

/// Where a dump goes on: after this key of this table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpCursor {
    table: TableId,
    key: Option<Vec<u8>>,
}

impl Partition {
    /// The next chunk of the state at `snapshot`, about `max_bytes` of it; begin without a cursor.
    pub fn dump_chunk(&self, snapshot: Lsn, after: Option<DumpCursor>, max_bytes: usize) -> (Bytes, Option<DumpCursor>) {
        let Some(cursor) = after else {
            assert_eq!(snapshot, self.applied, "a dump begins at the newest state");
            return (self.dump_head().into(), Some(DumpCursor::default()));
        };
        let mut out = vec![ROWS];
        for (&id, table) in self.tables.range(cursor.table..) {
            let after = if id == cursor.table { cursor.key.as_deref() } else { None };
            for (key, version) in table.after(after) {
                let Some(version) = version.at(snapshot) else { continue };
                let Some(row) = version.row.as_deref() else { continue };
                out.extend_from_slice(&id.to_le_bytes());
                put_varint(&mut out, key.len() as u64);
                out.extend_from_slice(key);
                out.extend_from_slice(&version.lsn.to_le_bytes());
                put_varint(&mut out, row.len() as u64);
                out.extend_from_slice(row);
                if out.len() >= max_bytes {
                    return (out.into(), Some(DumpCursor { table: id, key: Some(key.to_vec()) }));
                }
            }
        }
        (out.into(), None)
    }

    fn dump_head(&self) -> Vec<u8> {
        let mut out = vec![HEAD];
        out.extend_from_slice(&self.applied.to_le_bytes());
        out.push(u8::from(self.prepared.is_some()));
        if let Some(prepared) = &self.prepared {
            prepared.transaction.encode(&mut out);
            out.extend_from_slice(&prepared.home.to_le_bytes());
            out.extend_from_slice(&prepared.lsn.to_le_bytes());
            put_varint(&mut out, prepared.effects.0.len() as u64);
            out.extend_from_slice(&prepared.effects.0);
        }
        put_varint(&mut out, self.decided.len() as u64);
        for (lsn, transaction) in &self.decided {
            out.extend_from_slice(&lsn.to_le_bytes());
            transaction.encode(&mut out);
            out.push(u8::from(self.decisions.get(transaction) == Some(&true)));
        }
        out
    }

    /// Takes a chunk into a partition that began empty.
    pub fn load_chunk(&mut self, chunk: &[u8]) -> Result<(), CorruptError> {
        let mut reader = Reader(chunk);
        match reader.byte()? {
            HEAD => self.load_head(&mut reader),
            ROWS => self.load_rows(&mut reader),
            _ => Err(CorruptError::new("chunk")),
        }
    }

    fn load_head(&mut self, reader: &mut Reader<'_>) -> Result<(), CorruptError> {
        self.applied = reader.u64()?;
        self.committed = self.applied;
        if reader.byte()? != 0 {
            let transaction = TransactionId::decode(reader)?;
            let (home, lsn) = (reader.u32()?, reader.u64()?);
            let effects = Effects(Bytes::copy_from_slice(reader.bytes()?));
            effects.iter().try_for_each(|effect| effect.map(|_| ()))?;
            self.prepared = Some(Prepared { transaction, home, effects, lsn });
        }
        for _ in 0..reader.varint()? {
            let lsn = reader.u64()?;
            let transaction = TransactionId::decode(reader)?;
            let commit = reader.byte()? != 0;
            self.decided.push_back((lsn, transaction));
            self.decisions.insert(transaction, commit);
        }
        Ok(())
    }

    fn load_rows(&mut self, reader: &mut Reader<'_>) -> Result<(), CorruptError> {
        while !reader.0.is_empty() {
            let table = reader.u32()?;
            let key = reader.bytes()?;
            let lsn = reader.u64()?;
            let row = reader.bytes()?;
            RowRef::parse(row)?;
            if lsn > self.applied {
                return Err(CorruptError::new("chunk: a row newer than its snapshot"));
            }
            self.tables.entry(table).or_default().restore(key, lsn, row);
        }
        Ok(())
    }

    /// A checksum of all rows, with their LSNs, that a snapshot at `snapshot` sees, of the prepared transaction and of
    /// nothing else: replicas with the same LSN have the same.
    pub fn checksum_at(&self, snapshot: Lsn) -> u64 {
        let mut checksum = 0_u64;
        for (id, table) in &self.tables {
            for (key, version) in table.after(None) {
                let Some(version) = version.at(snapshot) else { continue };
                let Some(row) = version.row.as_deref() else { continue };
                let mut crc = crc32c::crc32c(&id.to_le_bytes());
                crc = crc32c::crc32c_append(crc, key);
                crc = crc32c::crc32c_append(crc, &version.lsn.to_le_bytes());
                crc = crc32c::crc32c_append(crc, row);
                checksum = checksum.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(crc);
            }
        }
        checksum
    }
}

impl Stats {
    /// Bytes a row, on average.
    pub fn bytes_per_row(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.bytes as f64 / self.rows as f64 }
    }
}
