//! Tracked tables: every change of their rows is kept with its version (`changes`), to be told to other clusters.

use std::collections::{BTreeMap, BTreeSet};

use super::{Partition, RowsCursor};
use crate::changes::{Change, ConflictRule, Kept, RowVersion, place_of, rank_of, split_place};
use crate::effects::{Effects, EffectsBuilder};
use crate::error::StatementError;
use crate::idempotency::ROW_VERSIONS;
use crate::key::Key;
use crate::table::Version;
use crate::{Lsn, TableId};

/// No table has this number: how far tombstones were forgotten lies at its place.
const NO_TABLE: TableId = 0;

/// What a step of telling a partition's rows came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Rows and tombstones, in order of table and key.
    pub changes: Vec<Change>,
    /// Where the next step goes on; None: that was all.
    pub more: Option<RowsCursor>,
}

/// Which tombstones are forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Changed before this, in microseconds since 1970,
    pub before_micros: i64,
    /// and told on by every link up to here;
    pub told: Lsn,
    /// or changed before this, told on or not.
    pub surely_before_micros: i64,
}

impl Partition {
    /// The tracked tables, and their rules; no others are.
    pub fn set_tracked(&mut self, tracked: impl IntoIterator<Item = (TableId, ConflictRule)>) {
        self.tracked = tracked.into_iter().collect();
    }

    /// True when a table is tracked.
    pub fn tracks_any(&self) -> bool {
        !self.tracked.is_empty()
    }

    /// What a transaction does, with the versions of the tracked rows that it changes; `origin` is this cluster.
    pub fn track(&self, effects: Effects, now_micros: i64, origin: u64) -> Result<Effects, StatementError> {
        if self.tracked.is_empty() {
            return Ok(effects);
        }
        let mut changed: BTreeMap<(TableId, &[u8]), bool> = BTreeMap::new();
        for effect in effects.iter_checked() {
            if self.tracked.contains_key(&effect.table) {
                let key = effect.key.ok_or(StatementError::TrackedTruncated)?;
                changed.insert((effect.table, key), effect.row.is_some());
            }
        }
        if changed.is_empty() {
            return Ok(effects);
        }
        let mut tracked = EffectsBuilder::after(Some(effects.clone()));
        for ((table, key), stays) in changed {
            let before = self.kept_change(table, key).unwrap_or_default();
            let version = RowVersion {
                micros: now_micros.max(before.clock.saturating_add(1)),
                origin,
            };
            let gone = self.newest_row(table, key).filter(|_| !stays);
            let rank = gone.map(|row| self.rank(table, row)).unwrap_or_default();
            let kept = Kept {
                version,
                replaced: before.version,
                rank,
                clock: version.micros,
            };
            tracked.put(ROW_VERSIONS, &place_of(table, key), &kept.encode());
        }
        tracked.check_size()?;
        Ok(tracked.finish())
    }

    /// What a row is ranked by under its table's rule.
    pub(super) fn rank(&self, table: TableId, row: &[u8]) -> Vec<u8> {
        match self.tracked.get(&table) {
            Some(ConflictRule::Greatest(column)) => rank_of(row, *column),
            _ => Vec::new(),
        }
    }

    pub(crate) fn newest_row(&self, table: TableId, key: &[u8]) -> Option<&[u8]> {
        self.tables.get(&table)?.get(&Key::new(key))?.row()
    }

    pub(super) fn kept_change(&self, table: TableId, key: &[u8]) -> Option<Kept> {
        let row = self.newest_row(ROW_VERSIONS, &place_of(table, key))?;
        Some(Kept::decode(row))
    }

    /// Rows and tombstones of `tables` at a snapshot, which must be pinned, that were written after `since`: about `max_bytes` of them, having
    /// looked at no more than `max_rows`.
    pub fn tell_rows(
        &self,
        tables: &BTreeSet<TableId>,
        (since, snapshot): (Lsn, Lsn),
        after: Option<&RowsCursor>,
        (max_rows, max_bytes): (usize, usize),
    ) -> Told {
        let (mut told, mut looked, mut bytes) = (Told::default(), 0, 0);
        let first = after.map_or(0, |(table, _)| *table);
        let of_rows = tables
            .iter()
            .copied()
            .chain([ROW_VERSIONS])
            .filter(|&table| table >= first);
        for table in of_rows {
            let after = after
                .filter(|(begun, _)| *begun == table)
                .map(|(_, key)| key.as_slice());
            let rows = self.tables.get(&table).into_iter().flat_map(|rows| rows.after(after));
            for (key, version) in rows {
                let change = match table {
                    ROW_VERSIONS => self.tombstone_at(tables, &key, version, (since, snapshot)),
                    _ => self.change_at(table, &key, version, (since, snapshot)),
                };
                looked += 1;
                if let Some(change) = change {
                    bytes += change.key.len() + change.row.as_ref().map_or(0, Vec::len);
                    told.changes.push(change);
                }
                if looked >= max_rows || bytes >= max_bytes {
                    told.more = Some((table, key.as_bytes().to_vec()));
                    return told;
                }
            }
        }
        told
    }

    fn kept_change_at(&self, place: &[u8], snapshot: Lsn) -> Option<(Lsn, Kept)> {
        let version = self.tables.get(&ROW_VERSIONS)?.get(&Key::new(place))?;
        let (lsn, row) = version.at(snapshot)?;
        Some((lsn, Kept::decode(row)))
    }

    fn change_at(&self, table: TableId, key: &Key, version: &Version, (since, snapshot): (Lsn, Lsn)) -> Option<Change> {
        let (_, row) = version.at(snapshot).filter(|(lsn, _)| *lsn > since)?;
        let kept = self.kept_change_at(&place_of(table, key.as_bytes()), snapshot);
        let kept = kept.map(|(_, kept)| kept).unwrap_or_default();
        Some(Change {
            table,
            key: key.as_bytes().to_vec(),
            row: Some(row.to_vec()),
            version: kept.version,
            replaced: kept.replaced,
            rank: Vec::new(),
        })
    }

    fn tombstone_at(
        &self,
        tables: &BTreeSet<TableId>,
        place: &Key,
        version: &Version,
        (since, snapshot): (Lsn, Lsn),
    ) -> Option<Change> {
        let (_, kept) = version.at(snapshot).filter(|(lsn, _)| *lsn > since)?;
        let (table, key) = split_place(place.as_bytes())?;
        let rows = self.tables.get(&table);
        let is_there = rows.and_then(|rows| rows.get(&Key::new(key))?.at(snapshot)).is_some();
        if is_there || !tables.contains(&table) {
            return None;
        }
        let kept = Kept::decode(kept);
        Some(Change {
            table,
            key: key.to_vec(),
            row: None,
            version: kept.version,
            replaced: kept.replaced,
            rank: kept.rank,
        })
    }

    /// Up to here tombstones may have been forgotten that were not told on: who has been told no more must copy all rows.
    pub fn forgotten(&self) -> Lsn {
        let place = place_of(NO_TABLE, &[]);
        let version = self
            .tables
            .get(&ROW_VERSIONS)
            .and_then(|rows| rows.get(&Key::new(&place)));
        version
            .and_then(|version| version.row())
            .map_or(0, |row| Kept::decode(row).version.origin)
    }

    /// What forgets tombstones, and versions of tables that are tracked no more: of `max_rows` that are looked at, from a place on. The next
    /// step goes on behind the place in the answer; None: that was all.
    pub fn forget_changes(
        &self,
        forget: &Forget,
        after: Option<&[u8]>,
        max_rows: usize,
    ) -> (Option<Effects>, Option<Vec<u8>>) {
        let mut effects = EffectsBuilder::default();
        let mut untold = 0;
        let rows = self
            .tables
            .get(&ROW_VERSIONS)
            .into_iter()
            .flat_map(|rows| rows.after(after));
        let mut more = None;
        for (looked, (place, version)) in rows.enumerate() {
            if looked >= max_rows {
                break;
            }
            more = (looked + 1 == max_rows).then(|| place.as_bytes().to_vec());
            let (Some(row), Some((table, key))) = (version.row(), split_place(place.as_bytes())) else {
                continue;
            };
            if table == NO_TABLE && !self.tracked.is_empty() {
                continue;
            }
            if !self.tracked.contains_key(&table) {
                effects.remove(ROW_VERSIONS, place.as_bytes());
                continue;
            }
            let micros = Kept::decode(row).version.micros;
            let is_told = version.lsn() <= forget.told && micros < forget.before_micros;
            let is_old = micros < forget.surely_before_micros;
            if (is_told || is_old) && self.newest_row(table, key).is_none() {
                effects.remove(ROW_VERSIONS, place.as_bytes());
                if !is_told {
                    untold = untold.max(version.lsn());
                }
            }
        }
        if untold > self.forgotten() {
            let horizon = Kept {
                version: RowVersion {
                    micros: 0,
                    origin: untold,
                },
                ..Kept::default()
            };
            effects.put(ROW_VERSIONS, &place_of(NO_TABLE, &[]), &horizon.encode());
        }
        (effects.finish_if_any(), more)
    }
}

#[cfg(test)]
mod tests;
