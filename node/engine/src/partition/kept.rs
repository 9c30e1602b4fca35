//! What requests with idempotency keys came to; see `idempotency`.

use std::ops::Bound;

use super::Partition;
use crate::Lsn;
use crate::effects::{Effects, EffectsBuilder, MAX_EFFECTS_BYTES};
use crate::error::StatementError;
use crate::idempotency::{KEY_LIMITS, KEYS, KEYS_BY_TIME, KeptRows, KeyLimits, Keyed, MAX_RECORD_BYTES, kept_rows};
use crate::key::{Key, KeyBuffer};
use crate::row::{RowRef, encode_row};
use crate::table::{Stats, Table};
use crate::value::ValueRef;

/// Keys that are due go with a new one, so many at a time.
const REMOVED_AT_ONCE: usize = 16;
/// To find them, no more entries are looked at: those that went and are not committed are still there.
const MAX_ENTRIES_SEEN: usize = 4_096;
const _: () = assert!(
    REMOVED_AT_ONCE * 2 * (2 * crate::idempotency::MAX_KEY_BYTES + 64) < MAX_RECORD_BYTES,
    "a key's record has room for what goes with it"
);

/// What a request came to.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The record that did it: to be committed before anyone hears of this.
    pub lsn: Lsn,
    row: RowRef<'a>,
}

impl<'a> Kept<'a> {
    /// Rows returned or changed; an error if the key was given for something else.
    pub fn affected(&self, keyed: &Keyed) -> Result<u64, StatementError> {
        match (self.row.get(0), self.row.get(2)) {
            (ValueRef::BigInt(fingerprint), ValueRef::BigInt(affected)) if fingerprint as u64 == keyed.fingerprint => {
                Ok(affected as u64)
            }
            _ => Err(StatementError::KeyInUse {
                key: keyed.key.as_str().to_owned(),
            }),
        }
    }

    /// The rows that it returned.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'a>> + use<'a> {
        kept_rows(match self.row.get(3) {
            ValueRef::Bytea(rows) => rows,
            _ => &[],
        })
    }
}

impl Partition {
    /// What the request with this key came to, committed or not; None: it has not happened, or is forgotten.
    pub fn find_kept(&self, keyed: &Keyed) -> Option<Kept<'_>> {
        self.kept_at(&by_key(keyed.key.as_str()))
    }

    fn kept_at(&self, key: &Key) -> Option<Kept<'_>> {
        let version = self.tables.get(&KEYS)?.get(key)?;
        let row = RowRef::new(version.row()?);
        let lsn = version.lsn();
        Some(Kept { lsn, row })
    }

    /// How many keys are kept.
    pub fn keys_kept(&self) -> u64 {
        self.tables.get(&KEYS).map_or(0, |keys| keys.stats().rows)
    }

    /// The effects of a request whose key is not kept, with what keeps it, and without the oldest keys that are due.
    pub fn keep(
        &self,
        keyed: &Keyed,
        affected: u64,
        rows: &KeptRows,
        now_micros: i64,
        effects: Option<Effects>,
    ) -> Result<Effects, StatementError> {
        self.keep_within(&KEY_LIMITS, keyed, affected, rows, now_micros, effects)
    }

    /// An error if there is no room to keep a key with these effects.
    pub fn check_room_to_keep(&self, effects: &Effects) -> Result<(), StatementError> {
        if effects.0.len() > MAX_EFFECTS_BYTES - MAX_RECORD_BYTES {
            return Err(StatementError::TooManyEffects);
        }
        self.check_limits(&KEY_LIMITS)
    }

    fn check_limits(&self, limits: &KeyLimits) -> Result<(), StatementError> {
        let full =
            self.keys_kept() >= limits.keys * KeyLimits::SLACK || self.key_bytes() >= limits.bytes * KeyLimits::SLACK;
        if full { Err(StatementError::TooManyKeys) } else { Ok(()) }
    }

    fn key_bytes(&self) -> u64 {
        let tables = [KEYS, KEYS_BY_TIME].into_iter();
        let stats = tables.filter_map(|table| self.tables.get(&table).map(Table::stats));
        stats.fold(Stats::default(), Stats::plus).bytes
    }

    fn keep_within(
        &self,
        limits: &KeyLimits,
        keyed: &Keyed,
        affected: u64,
        rows: &KeptRows,
        now_micros: i64,
        effects: Option<Effects>,
    ) -> Result<Effects, StatementError> {
        assert!(self.find_kept(keyed).is_none(), "a key is kept once");
        rows.check()?;
        self.check_limits(limits)?;
        let mut effects = EffectsBuilder::after(effects);
        for (by_time, key) in self.due(limits, now_micros) {
            effects.remove(KEYS_BY_TIME, by_time.as_bytes());
            effects.remove(KEYS, key.as_bytes());
        }
        let text = keyed.key.as_str();
        let row = encode_row(&[
            ValueRef::BigInt(keyed.fingerprint as i64),
            ValueRef::Timestamp(now_micros),
            ValueRef::BigInt(affected as i64),
            ValueRef::Bytea(rows.as_bytes()),
        ]);
        effects.put(KEYS, by_key(text).as_bytes(), &row);
        let time = by_time(now_micros, text);
        effects.put(KEYS_BY_TIME, time.as_bytes(), &encode_row(&[ValueRef::Text(text)]));
        effects.check_size()?;
        Ok(effects.finish())
    }

    /// The oldest keys that are due, a few: their places by time and by key.
    fn due(&self, limits: &KeyLimits, now_micros: i64) -> Vec<(Key, Key)> {
        let Some(times) = self.tables.get(&KEYS_BY_TIME) else {
            return Vec::new();
        };
        let too_old = by_time(now_micros.saturating_sub(limits.kept_for_micros), "");
        // One more is about to come.
        let too_many = (self.keys_kept() + 1).saturating_sub(limits.keys);
        let too_large = self.key_bytes() > limits.bytes;
        let mut due = Vec::new();
        for (time, version) in times.range(Bound::Unbounded).take(MAX_ENTRIES_SEEN) {
            let Some(row) = version.row() else { continue };
            let is_due = time < too_old || (due.len() as u64) < too_many || too_large;
            if !is_due || due.len() == REMOVED_AT_ONCE {
                break;
            }
            if let ValueRef::Text(key) = RowRef::new(row).get(0) {
                due.push((time, by_key(key)));
            }
        }
        due
    }
}

fn by_key(key: &str) -> Key {
    let mut buffer = KeyBuffer::new();
    buffer.push_value(ValueRef::Text(key));
    buffer.to_key()
}

fn by_time(micros: i64, key: &str) -> Key {
    let mut buffer = KeyBuffer::new();
    buffer.push_value(ValueRef::Timestamp(micros));
    buffer.push_value(ValueRef::Text(key));
    buffer.to_key()
}

#[cfg(test)]
mod tests;
