//! TTL: which rows of a partition have expired, and the effects that remove some of them.
//!
//! The rows are looked at in the step that removes them, so one that has got a later time meanwhile stays. Only what is found by
//! the TTL's own index counts: while a partition builds that, nothing expires there. Time comes in as an argument.

use super::Partition;
use super::run::{MAX_ENTRIES_READ, Outcome};
use crate::TableId;
use crate::catalog::Ttl;
use crate::effects::{EffectsBuilder, MAX_EFFECTS_BYTES};
use crate::span::after_prefix;
use crate::table::{Entry, values_of};
use crate::value::DataType;

/// Once effects have so many bytes, no more rows are added: the rest has its turn in the next step.
const ENOUGH_BYTES: usize = MAX_EFFECTS_BYTES / 2;

/// How far a step has come in the TTL's index; the next one goes on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached(Entry);

/// What has expired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// The removal of some of it: `affected` rows.
    pub outcome: Outcome,
    /// There may be more behind this; None: that was all.
    pub reached: Option<Reached>,
}

impl Partition {
    /// What has expired of a table's rows at this time, at most `ttl.batch_size` of them, from where an earlier step has
    /// come on. Looks at no more entries of the index than a read may.
    pub fn expire(
        &self,
        (table, ttl, data_type): (TableId, &Ttl, DataType),
        now_micros: i64,
        after: Option<&Reached>,
    ) -> Expired {
        let mut expired = Expired::default();
        let rows = self.tables.get(&table);
        let index = rows.and_then(|rows| rows.index(ttl.index));
        let last = ttl.last_expired(data_type, now_micros);
        let (Some(rows), Some(index), Some(last)) = (rows, index, last) else {
            return expired;
        };
        let to = after_prefix(&last);
        let mut effects = EffectsBuilder::default();
        let entries = index.entries_after(after.map(|reached| &reached.0), to.as_ref());
        let mut last_seen = None;
        for (looked, entry) in entries.enumerate() {
            let is_enough = expired.outcome.affected >= u64::from(ttl.batch_size)
                || looked >= MAX_ENTRIES_READ
                || effects.len() >= ENOUGH_BYTES;
            if is_enough {
                expired.reached = last_seen.map(|entry: &Entry| Reached(entry.clone()));
                break;
            }
            last_seen = Some(entry);
            let (values, key) = entry;
            let Some(version) = rows.get(key) else { continue };
            expired.outcome.observed = expired.outcome.observed.max(version.lsn());
            // An older version's values keep an entry while somebody reads that.
            let is_current = |row| values_of(index.shape(), row).as_ref() == Some(values);
            if version.row().is_some_and(is_current) {
                expired.outcome.affected += 1;
                effects.remove(table, key.as_bytes());
            }
        }
        expired.outcome.effects = effects.finish_if_any();
        expired
    }
}

#[cfg(test)]
mod tests;
