//! Changes of rows as links between clusters carry them.
//!
//! A table that is tracked has a version for each row that was changed since: when, and in which cluster. It lies in a reserved
//! table of the row's partition and is written by the same effects as the row, so it is logged, replicated, filled and restored
//! with it. Of a row that was removed it stays behind, as a tombstone, until every link has told it on.
//!
//! The time is a hybrid one (Kulkarni et al., "Logical Physical Clocks", 2014), kept by each row for itself: a change is later than the
//! one that it replaces, whatever the clocks say. So a row's versions are in one order on all clusters, and each change says which
//! version it replaced: who has another one by then has changed the row at the same time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TableId;
use crate::effects::Effects;
use crate::hash::Hasher;
use crate::key::encode_key;
use crate::row::{RowRef, encode_row};
use crate::value::ValueRef;

/// A row's version: the later one is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowVersion {
    /// When it was changed, in microseconds since 1970, and later than what it replaced.
    pub micros: i64,
    /// The cluster in which it was changed, as `origin_of` says.
    pub origin: u64,
}

impl RowVersion {
    /// Of a row that nobody has changed since its table is tracked.
    pub const UNTRACKED: Self = Self { micros: 0, origin: 0 };
}

/// What stands for a cluster in versions, made of its UUID.
pub fn origin_of(cluster_uuid: &str) -> u64 {
    // Never that of no cluster.
    Hasher::new().bytes(cluster_uuid.as_bytes()).finish().max(1)
}

/// Which of two concurrent changes of a row stays, on all clusters the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConflictRule {
    /// The later one.
    LastWriter,
    /// The one with the greater value in this column, NULL being the least; of equal ones the later. It must grow with each change
    /// of a row.
    Greatest(usize),
}

/// A row that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its table.
    pub table: TableId,
    /// Its key, encoded.
    pub key: Vec<u8>,
    /// What it is, encoded; None: it was removed.
    pub row: Option<Vec<u8>>,
    /// The version that it has.
    pub version: RowVersion,
    /// The version that it had.
    pub replaced: RowVersion,
    /// Of a row that was removed, under `ConflictRule::Greatest`: the value that it had, as a key.
    pub rank: Vec<u8>,
}

/// What is kept of a row's last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) version: RowVersion,
    pub(crate) replaced: RowVersion,
    pub(crate) rank: Vec<u8>,
    /// The latest time of any version that the row had here: what a column prefers may be earlier than what it takes the place of, and the next
    /// change is later than both.
    pub(crate) clock: i64,
}

impl Kept {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_row(&[
            ValueRef::BigInt(self.version.micros),
            ValueRef::BigInt(self.version.origin.cast_signed()),
            ValueRef::BigInt(self.replaced.micros),
            ValueRef::BigInt(self.replaced.origin.cast_signed()),
            ValueRef::Bytea(&self.rank),
            ValueRef::BigInt(self.clock),
        ])
    }

    pub(crate) fn decode(row: &[u8]) -> Self {
        let row = RowRef::new(row);
        let number = |column| match row.get(column) {
            ValueRef::BigInt(number) => number,
            _ => 0,
        };
        let version = |column| RowVersion {
            micros: number(column),
            origin: number(column + 1).cast_unsigned(),
        };
        Self {
            version: version(0),
            replaced: version(2),
            rank: match row.get(4) {
                ValueRef::Bytea(rank) => rank.to_vec(),
                _ => Vec::new(),
            },
            clock: number(5),
        }
    }
}

/// A row's place among the versions: the table, big-endian, and the row's key.
pub(crate) fn place_of(table: TableId, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(size_of::<TableId>() + key.len());
    place.extend_from_slice(&table.to_be_bytes());
    place.extend_from_slice(key);
    place
}

/// The same, read.
pub(crate) fn split_place(place: &[u8]) -> Option<(TableId, &[u8])> {
    let (table, key) = place.split_first_chunk()?;
    Some((TableId::from_be_bytes(*table), key))
}

/// The value of a column as what rows are ranked by; empty for NULL.
pub(crate) fn rank_of(row: &[u8], column: usize) -> Vec<u8> {
    match RowRef::new(row).get(column) {
        ValueRef::Null => Vec::new(),
        value => encode_key([value]),
    }
}

/// The changes of tracked tables that a transaction's effects are, in order of their places.
pub fn changes_of(effects: &Effects) -> Vec<Change> {
    let mut rows: BTreeMap<(TableId, &[u8]), Option<&[u8]>> = BTreeMap::new();
    let mut kept: BTreeMap<(TableId, &[u8]), Kept> = BTreeMap::new();
    for effect in effects.iter_checked() {
        match (effect.table, effect.key, effect.row) {
            (crate::idempotency::ROW_VERSIONS, Some(place), Some(row)) => {
                if let Some(of) = split_place(place) {
                    kept.insert(of, Kept::decode(row));
                }
            }
            (table, Some(key), row) => drop(rows.insert((table, key), row)),
            (_, None, _) => {}
        }
    }
    let change = |((table, key), kept): ((TableId, &[u8]), Kept)| {
        let row = rows.get(&(table, key))?;
        Some(Change {
            table,
            key: key.to_vec(),
            row: row.map(<[u8]>::to_vec),
            version: kept.version,
            replaced: kept.replaced,
            rank: kept.rank,
        })
    };
    kept.into_iter().filter_map(change).collect()
}
