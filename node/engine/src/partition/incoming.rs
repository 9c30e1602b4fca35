//! Changes that come from another cluster: each is taken, known already, or met by another change of the same row, of which the
//! table's rule then lets one stay. All clusters decide alike, whatever comes first, for what they decide by is in the changes: so they come
//! to the same rows.
//!
//! A change may come twice, and older ones after newer ones: what a version has replaced does nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Partition;
use super::run::Outcome;
use crate::TableId;
use crate::changes::{Change, Kept, RowVersion, place_of, split_place};
use crate::effects::EffectsBuilder;
use crate::error::StatementError;
use crate::idempotency::CONFLICTS;
use crate::row::{RowRef, encode_row};
use crate::value::ValueRef;

/// Conflicts that a partition keeps; beyond, the oldest go.
pub const MAX_CONFLICTS_KEPT: u64 = 10_000;

/// What became of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incorporated {
    /// What it does here; `affected` are the rows that changed.
    pub outcome: Outcome,
    /// Changes that met others.
    pub conflicts: u64,
}

/// Two changes of a row that did not know of each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The row's table.
    pub table: TableId,
    /// Its key, encoded.
    pub key: Vec<u8>,
    /// When they met here, in microseconds since 1970.
    pub met_micros: i64,
    /// The link that brought the other one, as its cluster calls it.
    pub link: String,
    /// What it was here; None: removed.
    pub local: Option<Vec<u8>>,
    /// And its version.
    pub local_version: RowVersion,
    /// What it was there; None: removed.
    pub remote: Option<Vec<u8>>,
    /// And its version.
    pub remote_version: RowVersion,
    /// The other cluster's stayed.
    pub remote_stays: bool,
}

/// A row as it is here, before a change.
#[derive(Clone, Debug, Default)]
struct Local {
    row: Option<Vec<u8>>,
    version: RowVersion,
    rank: Vec<u8>,
    /// As `Kept` has it.
    clock: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    Leave,
    Conflict { remote_stays: bool },
}

fn judge(local: &Local, change: &Change, remote_rank: &[u8]) -> Verdict {
    if change.version == RowVersion::UNTRACKED {
        // A copy of what was there before anybody kept versions.
        return match &local.row {
            _ if local.version != RowVersion::UNTRACKED => Verdict::Leave,
            None => Verdict::Take,
            Some(_) if local.row == change.row => Verdict::Leave,
            Some(_) => Verdict::Conflict {
                remote_stays: change.row > local.row,
            },
        };
    }
    if change.version == local.version {
        return Verdict::Leave;
    }
    if local.version == change.replaced || local.version == RowVersion::UNTRACKED {
        return Verdict::Take;
    }
    if local.version.origin == change.version.origin {
        // One cluster's changes of a row know of each other.
        return match change.version > local.version {
            true => Verdict::Take,
            false => Verdict::Leave,
        };
    }
    Verdict::Conflict {
        remote_stays: (remote_rank, change.version) > (&local.rank, local.version),
    }
}

impl Partition {
    /// What changes of another cluster do here, in their order. Unique indexes hold for them, too.
    pub fn incorporate(&self, link: &str, changes: &[Change], now_micros: i64) -> Result<Incorporated, StatementError> {
        let mut rows: BTreeMap<(TableId, &[u8]), Local> = BTreeMap::new();
        let mut effects = EffectsBuilder::default();
        let mut done = Incorporated::default();
        let mut conflicts = BTreeMap::new();
        for change in changes {
            let local = rows
                .entry((change.table, &change.key))
                .or_insert_with(|| self.local(change.table, &change.key));
            let remote_rank = match &change.row {
                Some(row) => self.rank(change.table, row),
                None => change.rank.clone(),
            };
            let verdict = judge(local, change, &remote_rank);
            if let Verdict::Conflict { remote_stays } = verdict {
                let conflict = Conflict {
                    table: change.table,
                    key: change.key.clone(),
                    met_micros: now_micros,
                    link: link.to_owned(),
                    local: local.row.clone(),
                    local_version: local.version,
                    remote: change.row.clone(),
                    remote_version: change.version,
                    remote_stays,
                };
                conflicts.insert(conflict.place(), conflict.encode());
            }
            if !matches!(verdict, Verdict::Take | Verdict::Conflict { remote_stays: true }) {
                continue;
            }
            match &change.row {
                Some(row) => effects.put(change.table, &change.key, row),
                None if local.row.is_some() => effects.remove(change.table, &change.key),
                None => {}
            }
            let clock = local.clock.max(change.version.micros);
            let kept = Kept {
                version: change.version,
                replaced: change.replaced,
                rank: change.rank.clone(),
                clock,
            };
            if change.version != RowVersion::UNTRACKED {
                effects.put(
                    crate::idempotency::ROW_VERSIONS,
                    &place_of(change.table, &change.key),
                    &kept.encode(),
                );
            }
            *local = Local {
                row: change.row.clone(),
                version: change.version,
                rank: remote_rank,
                clock,
            };
            done.outcome.affected += 1;
        }
        done.conflicts = conflicts.len() as u64;
        for place in self.conflicts_in_the_way(done.conflicts) {
            effects.remove(CONFLICTS, &place);
        }
        for (place, row) in conflicts {
            effects.put(CONFLICTS, &place, &row);
        }
        effects.check_size()?;
        done.outcome.observed = self.applied;
        done.outcome.effects = effects.finish_if_any();
        if let Some(effects) = &done.outcome.effects
            && !self.keeps_unique(effects)?
        {
            return Err(StatementError::IncomingDuplicate);
        }
        Ok(done)
    }

    fn local(&self, table: TableId, key: &[u8]) -> Local {
        let row = self.newest_row(table, key).map(<[u8]>::to_vec);
        let kept = self.kept_change(table, key).unwrap_or_default();
        let rank = match &row {
            Some(row) => self.rank(table, row),
            None => kept.rank,
        };
        Local {
            row,
            version: kept.version,
            rank,
            clock: kept.clock,
        }
    }

    /// The oldest ones that go when so many come.
    fn conflicts_in_the_way(&self, coming: u64) -> Vec<Vec<u8>> {
        let Some(kept) = self.tables.get(&CONFLICTS) else {
            return Vec::new();
        };
        let too_many = (kept.stats().rows + coming).saturating_sub(MAX_CONFLICTS_KEPT) as usize;
        let live = kept.after(None).filter(|(_, version)| version.row().is_some());
        live.take(too_many)
            .map(|(place, _)| place.as_bytes().to_vec())
            .collect()
    }

    /// The conflicts that are kept and committed, the oldest versions first.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let rows = self
            .tables
            .get(&CONFLICTS)
            .into_iter()
            .flat_map(|rows| rows.after(None));
        let committed = rows.filter_map(|(place, version)| {
            let (_, row) = version.at(self.committed)?;
            Conflict::decode(place.as_bytes(), row)
        });
        committed.collect()
    }
}

/// Bytes of a version in a conflict's place.
const VERSION_BYTES: usize = 16;

impl Conflict {
    /// The other cluster's version, big-endian, then the row's place: the same conflict is kept once, however often it is met.
    fn place(&self) -> Vec<u8> {
        let mut place = Vec::with_capacity(VERSION_BYTES + 4 + self.key.len());
        place.extend_from_slice(&self.remote_version.micros.cast_unsigned().to_be_bytes());
        place.extend_from_slice(&self.remote_version.origin.to_be_bytes());
        place.extend_from_slice(&place_of(self.table, &self.key));
        place
    }

    fn encode(&self) -> Vec<u8> {
        encode_row(&[
            ValueRef::Timestamp(self.met_micros),
            ValueRef::Text(&self.link),
            ValueRef::BigInt(self.local_version.micros),
            ValueRef::BigInt(self.local_version.origin.cast_signed()),
            self.local.as_deref().map_or(ValueRef::Null, ValueRef::Bytea),
            self.remote.as_deref().map_or(ValueRef::Null, ValueRef::Bytea),
            ValueRef::Boolean(self.remote_stays),
        ])
    }

    fn decode(place: &[u8], row: &[u8]) -> Option<Self> {
        let (micros, rest) = place.split_first_chunk()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let (table, key) = split_place(rest)?;
        let row = RowRef::new(row);
        let number = |column| match row.get(column) {
            ValueRef::BigInt(number) => Some(number),
            _ => None,
        };
        let bytes = |column| match row.get(column) {
            ValueRef::Bytea(bytes) => Some(bytes.to_vec()),
            _ => None,
        };
        let (ValueRef::Timestamp(met_micros), ValueRef::Text(link)) = (row.get(0), row.get(1)) else {
            return None;
        };
        Some(Self {
            table,
            key: key.to_vec(),
            met_micros,
            link: link.to_owned(),
            local: bytes(4),
            local_version: RowVersion {
                micros: number(2)?,
                origin: number(3)?.cast_unsigned(),
            },
            remote: bytes(5),
            remote_version: RowVersion {
                micros: u64::from_be_bytes(*micros).cast_signed(),
                origin: u64::from_be_bytes(*origin),
            },
            remote_stays: row.get(6) == ValueRef::Boolean(true),
        })
    }
}

#[cfg(test)]
mod tests;
