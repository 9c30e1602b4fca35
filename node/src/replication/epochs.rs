//! Where each epoch's records begin in a partition's log: enough to find the last record that two replicas share
//! (Kafka KIP-101 and KIP-279) and to know the epoch of any record without having it.

use serde::{Deserialize, Serialize};
use volt_engine::{Epoch, Lsn};

/// (epoch, its first LSN), both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochHistory(Vec<(Epoch, Lsn)>);

impl EpochHistory {
    /// As it is given, sound or not.
    #[cfg(test)]
    pub(crate) fn from_pairs(pairs: &[(Epoch, Lsn)]) -> Self {
        Self(pairs.to_vec())
    }

    /// Notes that `epoch` begins with the record `first`. The same epoch may go on; a lower one never comes.
    pub(crate) fn note(&mut self, epoch: Epoch, first: Lsn) {
        match self.0.last() {
            Some(&(last, _)) if last == epoch => {}
            Some(&(last, start)) => {
                assert!(
                    epoch > last && first > start,
                    "epoch {epoch} at {first} after {last} at {start}"
                );
                self.0.push((epoch, first));
            }
            None => self.0.push((epoch, first)),
        }
    }

    /// The epoch of the record `lsn`; 0 for LSN 0, before any record.
    pub(crate) fn epoch_at(&self, lsn: Lsn) -> Epoch {
        let after = self.0.partition_point(|&(_, start)| start <= lsn);
        if after == 0 { 0 } else { self.0[after - 1].0 }
    }

    /// The last record, up to `appended`, whose epoch is at most `epoch`.
    pub(crate) fn end_of(&self, epoch: Epoch, appended: Lsn) -> Lsn {
        let next = self.0.partition_point(|&(known, _)| known <= epoch);
        self.0.get(next).map_or(appended, |&(_, start)| appended.min(start - 1))
    }

    /// What `note` and `cut` keep true, asked of a history that came from elsewhere, of a log that ends at `lsn`.
    pub(crate) fn is_sound(&self, lsn: Lsn) -> bool {
        let ascends = self
            .0
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        ascends && self.0.iter().all(|&(_, start)| (1..=lsn).contains(&start))
    }

    /// Forgets every epoch that begins after `lsn`.
    pub(crate) fn cut(&mut self, lsn: Lsn) {
        self.0.retain(|&(_, start)| start <= lsn);
    }

    /// The history up to `lsn`.
    pub(crate) fn until(&self, lsn: Lsn) -> Self {
        let mut history = self.clone();
        history.cut(lsn);
        history
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(epochs: &[(Epoch, Lsn)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for &(epoch, first) in epochs {
            history.note(epoch, first);
        }
        history
    }

    #[test]
    fn each_record_has_the_epoch_that_began_last() {
        let history = history(&[(1, 1), (3, 10), (4, 12)]);
        assert_eq!(
            [0, 1, 9, 10, 11, 12, 99].map(|lsn| history.epoch_at(lsn)),
            [0, 1, 1, 3, 3, 4, 4]
        );
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let history = history(&[(1, 1), (3, 10), (4, 12)]);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|epoch| history.end_of(epoch, 20)),
            [0, 9, 9, 11, 20, 20]
        );
    }

    #[test]
    fn what_does_not_ascend_is_not_sound() {
        assert!(history(&[(1, 1), (3, 10)]).is_sound(10));
        assert!(!history(&[(1, 1), (3, 10)]).is_sound(9));
        for wrong in [vec![(1, 0)], vec![(3, 1), (1, 10)], vec![(1, 5), (3, 5)]] {
            assert!(!EpochHistory(wrong).is_sound(20));
        }
    }

    #[test]
    fn a_cut_forgets_what_began_after_it() {
        let mut history = history(&[(1, 1), (3, 10), (4, 12)]);
        history.cut(11);
        assert_eq!(history.epoch_at(12), 3);
    }
}
