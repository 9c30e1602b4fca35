//! The newest records of a partition, in memory: what is not applied or not committed yet, and a margin for backups
//! that come back soon.

use std::collections::VecDeque;

use bytes::Bytes;
use volt_engine::{Epoch, Lsn};

/// One record as it lies in the log and on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its place.
    pub(crate) lsn: Lsn,
    /// The epoch of the primary that made it.
    pub(crate) epoch: Epoch,
    /// An encoded `LogPayload`.
    pub(crate) payload: Bytes,
}

/// Bytes of records that are kept at most for a learner that is still being filled; beyond, it starts again.
pub(crate) const TAIL_LIMIT_BYTES: usize = 64 << 20;

/// What a record costs beside its payload.
const RECORD_OVERHEAD_BYTES: usize = 48;

/// Consecutive records, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    /// Adds the next record.
    pub(crate) fn push(&mut self, record: Record) {
        if let Some(last) = self.records.back() {
            assert_eq!(record.lsn, last.lsn + 1, "the tail has no gaps");
        }
        self.bytes += record.payload.len() + RECORD_OVERHEAD_BYTES;
        self.records.push_back(record);
    }

    /// The records beyond `lsn`, if none of them has been dropped.
    pub(crate) fn after(&self, lsn: Lsn) -> Option<impl DoubleEndedIterator<Item = &Record>> {
        let first = self.records.front().map_or(lsn + 1, |record| record.lsn);
        let skip = (lsn + 1).checked_sub(first)?;
        Some(self.records.range((skip as usize).min(self.records.len())..))
    }

    /// True when every record beyond `lsn` up to `appended` is here.
    pub(crate) fn covers(&self, lsn: Lsn, appended: Lsn) -> bool {
        lsn >= appended || self.records.front().is_some_and(|first| first.lsn <= lsn + 1)
    }

    /// Takes away the records beyond `lsn`.
    pub(crate) fn cut(&mut self, lsn: Lsn) {
        while let Some(record) = self.records.pop_back_if(|record| record.lsn > lsn) {
            self.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
        }
    }

    /// Drops the oldest records while more than `limit` bytes are held; never one beyond `keep_after`.
    pub(crate) fn trim(&mut self, keep_after: Lsn, limit: usize) {
        while self.bytes > limit && self.records.front().is_some_and(|record| record.lsn <= keep_after) {
            if let Some(record) = self.records.pop_front() {
                self.bytes -= record.payload.len() + RECORD_OVERHEAD_BYTES;
            }
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lsns: std::ops::RangeInclusive<Lsn>) -> Tail {
        let mut tail = Tail::default();
        for lsn in lsns {
            tail.push(Record {
                lsn,
                epoch: 1,
                payload: Bytes::from_static(b"x"),
            });
        }
        tail
    }

    fn lsns(tail: &Tail, after: Lsn) -> Option<Vec<Lsn>> {
        tail.after(after)
            .map(|records| records.map(|record| record.lsn).collect())
    }

    #[test]
    fn gives_what_comes_after_unless_it_was_dropped() {
        let mut tail = tail(5..=8);
        assert_eq!(lsns(&tail, 6), Some(vec![7, 8]));
        assert_eq!(lsns(&tail, 8), Some(vec![]));
        assert_eq!(lsns(&tail, 3), None);
        tail.trim(6, 0);
        assert_eq!(lsns(&tail, 6), Some(vec![7, 8]));
        assert_eq!(lsns(&tail, 5), None);
    }

    #[test]
    fn a_cut_takes_the_newest() {
        let mut tail = tail(1..=4);
        tail.cut(2);
        assert_eq!(lsns(&tail, 0), Some(vec![1, 2]));
    }
}
