//! A partition's whole state at a snapshot, in chunks: for a learner's fill, and for checkpoints.
//!
//! The snapshot is pinned from before the first chunk until after the last; records may be applied in between. Rows
//! keep the LSNs that wrote them; those of materialized views are left out. Every chunk can be loaded on its own, again, and in any order after the first.
//!
//! A chunk: layout version (1), snapshot u64, then items until its end:
//! 1 prepared: lsn u64, transaction, home u32, counted effects; 2 decision: lsn u64, transaction, committed u8;
//! 3 row: table u32, lsn u64, counted key, counted row. Integers are little-endian.

mod versions;

pub use versions::{with_versions, without_versions};

use std::collections::BTreeMap;

use bytes::Bytes;

use super::decisions::Decision;
use super::{Partition, Prepared};
use crate::codec::{Reader, put_counted};
use crate::effects::{Effects, TransactionId};
use crate::error::CorruptError;
use crate::hash::Hasher;
use crate::row::RowRef;
use crate::{Lsn, TableId};

const LAYOUT: u8 = 1;
const PREPARED: u8 = 1;
const DECISION: u8 = 2;
const ROW: u8 = 3;

/// Where a dump goes on. As bytes: 1 and the LSN of a decision; or 2, a table and a counted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpCursor(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// After this decision.
    Decision(Lsn),
    /// After this key of this table.
    Row(TableId, Vec<u8>),
}

impl DumpCursor {
    /// True when nothing but rows follows: `dump_range` can begin here, or end.
    pub fn is_among_rows(&self) -> bool {
        matches!(self.0, Place::Row(..))
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.0 {
            Place::Decision(lsn) => {
                out.push(1);
                out.extend_from_slice(&lsn.to_le_bytes());
            }
            Place::Row(table, key) => {
                out.push(2);
                out.extend_from_slice(&table.to_le_bytes());
                put_counted(&mut out, key);
            }
        }
        out
    }

    /// From these bytes, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptError> {
        let mut reader = Reader::new(bytes);
        let place = match reader.u8()? {
            1 => Place::Decision(reader.u64()?),
            2 => Place::Row(reader.u32()?, reader.counted()?.to_vec()),
            tag => return Err(CorruptError::UnknownTag(tag)),
        };
        match reader.is_empty() {
            true => Ok(Self(place)),
            false => Err(CorruptError::OutOfPlace("bytes behind a cursor")),
        }
    }
}

impl Partition {
    /// The next chunk of the state at `snapshot`, about `max_bytes` of it; begin without a cursor; without a cursor in
    /// the answer it was the last.
    pub fn dump_chunk(
        &self,
        snapshot: Lsn,
        after: Option<DumpCursor>,
        max_bytes: usize,
    ) -> (Bytes, Option<DumpCursor>) {
        assert!(snapshot <= self.applied, "a dump is of a state that was");
        let mut out = header(snapshot);
        let place = match after {
            None => {
                self.dump_prepared(snapshot, &mut out);
                Place::Decision(0)
            }
            Some(cursor) => cursor.0,
        };
        let next = match place {
            Place::Decision(lsn) => self.dump_decisions(snapshot, lsn, max_bytes, &mut out),
            Place::Row(table, key) => self.dump_rows(snapshot, Some((table, &key)), max_bytes, &mut out),
        };
        (out.into(), next.map(DumpCursor))
    }

    fn dump_prepared(&self, snapshot: Lsn, out: &mut Vec<u8>) {
        let now = self.prepared.as_ref().filter(|prepared| prepared.lsn <= snapshot);
        let Some(prepared) = now.or_else(|| self.decisions.prepared_at(snapshot)) else {
            return;
        };
        out.push(PREPARED);
        out.extend_from_slice(&prepared.lsn.to_le_bytes());
        prepared.transaction.encode(out);
        out.extend_from_slice(&prepared.home.to_le_bytes());
        put_counted(out, &prepared.effects.0);
    }

    fn dump_decisions(&self, snapshot: Lsn, after: Lsn, max_bytes: usize, out: &mut Vec<u8>) -> Option<Place> {
        for decision in self
            .decisions
            .after(after)
            .take_while(|decision| decision.lsn <= snapshot)
        {
            out.push(DECISION);
            out.extend_from_slice(&decision.lsn.to_le_bytes());
            decision.transaction.encode(out);
            out.push(u8::from(decision.committed));
            if out.len() >= max_bytes {
                return Some(Place::Decision(decision.lsn));
            }
        }
        self.dump_rows(snapshot, None, max_bytes, out)
    }

    fn dump_rows(
        &self,
        snapshot: Lsn,
        after: Option<(TableId, &[u8])>,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Option<Place> {
        for (&table, rows) in self.tables.range(after.map_or(0, |(table, _)| table)..) {
            if self.views.contains(table) {
                continue;
            }
            let after = after.filter(|(begun, _)| *begun == table).map(|(_, key)| key);
            for (key, version) in rows.after(after) {
                let Some((lsn, row)) = version.at(snapshot) else {
                    continue;
                };
                put_row(out, table, lsn, key.as_bytes(), row);
                if out.len() >= max_bytes {
                    return Some(Place::Row(table, key.as_bytes().to_vec()));
                }
            }
        }
        None
    }

    /// The rows behind one cursor, up to another one or to the end, as a chunk of the dump of another partition at `snapshot`: the
    /// same bytes as the chunk between these cursors has there, if the rows are the same. None: there are more than
    /// `max_bytes` of them, or a cursor is not among rows.
    pub fn dump_range(
        &self,
        snapshot: Lsn,
        after: &DumpCursor,
        until: Option<&DumpCursor>,
        max_bytes: usize,
    ) -> Option<Bytes> {
        let Place::Row(first, begun) = &after.0 else {
            return None;
        };
        let until = match until {
            None => None,
            Some(DumpCursor(Place::Row(table, key))) => Some((*table, key.as_slice())),
            Some(DumpCursor(Place::Decision(_))) => return None,
        };
        let mut out = header(snapshot);
        for (&table, rows) in self.tables.range(first..) {
            if until.is_some_and(|(last, _)| table > last) {
                break;
            }
            if self.views.contains(table) {
                continue;
            }
            let after = (table == *first).then_some(begun.as_slice());
            let until = until.filter(|(last, _)| *last == table).map(|(_, key)| key);
            for (key, version) in rows.after(after) {
                if until.is_some_and(|until| key.as_bytes() > until) {
                    break;
                }
                if let Some((lsn, row)) = version.at(self.applied) {
                    put_row(&mut out, table, lsn, key.as_bytes(), row);
                }
                if out.len() > max_bytes {
                    return None;
                }
            }
        }
        Some(out.into())
    }

    /// Takes a chunk into a partition that began empty and has applied nothing. After an error the partition holds a
    /// part, and is of no use.
    pub fn load_chunk(&mut self, chunk: &[u8]) -> Result<(), CorruptError> {
        let mut reader = Reader::new(chunk);
        match reader.u8()? {
            LAYOUT => {}
            layout => return Err(CorruptError::UnknownTag(layout)),
        }
        let snapshot = reader.u64()?;
        if self.applied != snapshot && (self.applied != 0 || !self.tables.is_empty()) {
            return Err(CorruptError::OutOfPlace("a chunk of another dump"));
        }
        (self.applied, self.committed) = (snapshot, snapshot);
        while !reader.is_empty() {
            match reader.u8()? {
                PREPARED => self.load_prepared(&mut reader)?,
                DECISION => self.load_decision(&mut reader)?,
                ROW => self.load_row(&mut reader)?,
                tag => return Err(CorruptError::UnknownTag(tag)),
            }
        }
        Ok(())
    }

    /// Nothing in a dump is newer than its snapshot.
    fn load_lsn(&self, reader: &mut Reader<'_>) -> Result<Lsn, CorruptError> {
        let lsn = reader.u64()?;
        if lsn <= self.applied {
            Ok(lsn)
        } else {
            Err(CorruptError::TooLarge)
        }
    }

    fn load_prepared(&mut self, reader: &mut Reader<'_>) -> Result<(), CorruptError> {
        let lsn = self.load_lsn(reader)?;
        let transaction = TransactionId::decode(reader)?;
        let home = reader.u32()?;
        let effects = Effects(Bytes::copy_from_slice(reader.counted()?));
        effects.check()?;
        self.prepared = Some(Prepared {
            transaction,
            home,
            effects,
            lsn,
        });
        Ok(())
    }

    fn load_decision(&mut self, reader: &mut Reader<'_>) -> Result<(), CorruptError> {
        let lsn = self.load_lsn(reader)?;
        let transaction = TransactionId::decode(reader)?;
        let committed = match reader.u8()? {
            0 => false,
            1 => true,
            tag => return Err(CorruptError::UnknownTag(tag)),
        };
        self.decisions.restore(Decision {
            lsn,
            transaction,
            committed,
        });
        Ok(())
    }

    fn load_row(&mut self, reader: &mut Reader<'_>) -> Result<(), CorruptError> {
        let table = reader.u32()?;
        let lsn = self.load_lsn(reader)?;
        let key = reader.counted()?;
        let row = reader.counted()?;
        RowRef::parse(row)?;
        self.tables.entry(table).or_default().restore(key, lsn, row);
        Ok(())
    }

    /// A checksum of all rows that a snapshot at `snapshot` sees, with their keys and LSNs: replicas that applied the
    /// same records have the same. Reads everything.
    pub fn checksum_at(&self, snapshot: Lsn) -> u64 {
        let mut checksum = Hasher::new();
        for (table, rows) in self.tables.iter().filter(|(table, _)| !self.views.contains(**table)) {
            for (key, version) in rows.after(None) {
                let Some((lsn, row)) = version.at(snapshot) else {
                    continue;
                };
                checksum = add_row(checksum.u64(u64::from(*table)), lsn, key.as_bytes(), row);
            }
        }
        checksum.finish()
    }

    /// Adds about `max_bytes` of the rows that a pinned snapshot sees to their checksums, table by table; begin with the
    /// default. False: that were all.
    pub fn sum_chunk(&self, snapshot: Lsn, sums: &mut SnapshotSums, max_bytes: usize) -> bool {
        let mut bytes = 0;
        let (begun, after) = match sums.place.take() {
            None => (0, None),
            Some((table, key)) => (table, Some(key)),
        };
        for (&table, rows) in self.tables.range(begun..) {
            if self.views.contains(table) {
                continue;
            }
            let after = after.as_deref().filter(|_| begun == table);
            for (key, version) in rows.after(after) {
                let Some((lsn, row)) = version.at(snapshot) else {
                    continue;
                };
                sums.add(table, lsn, key.as_bytes(), row);
                bytes += key.as_bytes().len() + row.len();
                if bytes >= max_bytes {
                    sums.place = Some((table, key.as_bytes().to_vec()));
                    return true;
                }
            }
        }
        false
    }
}

fn header(snapshot: Lsn) -> Vec<u8> {
    let mut out = vec![LAYOUT];
    out.extend_from_slice(&snapshot.to_le_bytes());
    out
}

fn put_row(out: &mut Vec<u8>, table: TableId, lsn: Lsn, key: &[u8], row: &[u8]) {
    out.push(ROW);
    out.extend_from_slice(&table.to_le_bytes());
    out.extend_from_slice(&lsn.to_le_bytes());
    put_counted(out, key);
    put_counted(out, row);
}

/// The lengths, too, so that no byte can move from the key to the row unseen.
fn add_row(checksum: Hasher, lsn: Lsn, key: &[u8], row: &[u8]) -> Hasher {
    let lengths = (key.len() as u64) << 32 | row.len() as u64;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), row);
    checksum.u64(lsn).u64(lengths).u64(u64::from(crc))
}

/// The rows of one table, in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSum {
    /// How many.
    pub rows: u64,
    /// Of their keys, LSNs and bytes.
    pub checksum: u64,
}

/// The checksums of a snapshot's tables, as far as they have come. A table without rows has none.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSums {
    place: Option<(TableId, Vec<u8>)>,
    tables: BTreeMap<TableId, (u64, Hasher)>,
}

impl SnapshotSums {
    fn add(&mut self, table: TableId, lsn: Lsn, key: &[u8], row: &[u8]) {
        let (rows, checksum) = self.tables.entry(table).or_insert_with(|| (0, Hasher::new()));
        *rows += 1;
        *checksum = add_row(*checksum, lsn, key, row);
    }

    /// The tables that have rows.
    pub fn finish(self) -> BTreeMap<TableId, TableSum> {
        let sum = |(table, (rows, checksum)): (TableId, (u64, Hasher))| {
            let checksum = checksum.finish();
            (table, TableSum { rows, checksum })
        };
        self.tables.into_iter().map(sum).collect()
    }
}

#[cfg(test)]
pub(super) mod tests;
