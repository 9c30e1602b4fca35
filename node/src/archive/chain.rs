//! How a partition's state at an LSN is made of what an archive holds, and from where on its log is still to be archived: pure.
//!
//! Two primaries, one of them deposed, may have archived different records of the same LSNs: those of an asynchronous group
//! that were lost with the first. An LSN and its epoch name a record for good, and with it all that is before it, for no primary writes the
//! same LSN twice in an epoch. So the way is sought backwards from the record that is wanted: through any segment that has it, to the record
//! before that segment, whose epoch its name says.

use volt_engine::{Epoch, Lsn};

use super::layout::{Base, Segment};
use crate::replication::epochs::EpochHistory;

/// What there is of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) bases: Vec<Base>,
    pub(crate) segments: Vec<Segment>,
}

/// A base, or nothing, and records behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// None: the partition as it began, empty.
    pub(crate) base: Option<Base>,
    /// Oldest first; of each the records from the first that is still lacking to the last that is wanted.
    pub(crate) segments: Vec<(Segment, Lsn)>,
}

/// What must be known of a segment to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) segment: Segment,
    pub(crate) lsn: Lsn,
}

/// Whether there is a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Chain(Chain),
    /// Not without the epoch of this record, which `epochs` did not know.
    Unknown(Question),
    /// Records are missing.
    None,
}

impl Chain {
    /// From the segments as they are found, newest first.
    fn of(base: Option<Base>, mut segments: Vec<(Segment, Lsn)>) -> Self {
        segments.reverse();
        Self { base, segments }
    }
}

impl Segment {
    fn has(&self, lsn: Lsn) -> bool {
        (self.first..=self.last).contains(&lsn)
    }
}

impl Contents {
    /// Whether anything of it is of that record or later.
    pub(crate) fn reach(&self, lsn: Lsn) -> bool {
        self.segments.iter().any(|segment| segment.last >= lsn) || self.bases.iter().any(|base| base.lsn >= lsn)
    }

    /// Where what may lie behind this record begins, as far as it is known: the first segment that goes on behind it does.
    pub(crate) fn first_behind(&self, lsn: Lsn) -> Lsn {
        let behind = self.segments.iter().filter(|segment| segment.last > lsn);
        behind.map(|segment| segment.first).min().unwrap_or(lsn).min(lsn)
    }

    /// What begins at `first` or later is `newer`.
    pub(crate) fn renew(&mut self, first: Lsn, newer: Self) {
        self.segments.retain(|segment| segment.first < first);
        self.segments.extend(newer.segments);
        self.bases.retain(|base| base.lsn < first);
        self.bases.extend(newer.bases);
    }

    /// The way to a record, of an LSN and an epoch. `epochs` knows those of some records within segments.
    pub(crate) fn chain_to(&self, wanted: (Lsn, Epoch), epochs: impl Fn(Question) -> Option<Epoch>) -> Found {
        let epoch_at = |segment: &Segment, lsn| {
            let question = Question { segment: *segment, lsn };
            let known = match lsn {
                lsn if lsn == segment.first => Some(segment.first_epoch),
                lsn if lsn == segment.last => Some(segment.last_epoch),
                _ if segment.first_epoch == segment.last_epoch => Some(segment.first_epoch),
                _ => epochs(question),
            };
            known.ok_or(question)
        };
        let ((mut end, mut epoch), mut behind) = (wanted, Vec::new());
        loop {
            if end == 0 {
                return Found::Chain(Chain::of(None, behind));
            }
            let base = Base { lsn: end, epoch };
            if self.bases.contains(&base) {
                return Found::Chain(Chain::of(Some(base), behind));
            }
            // What has this record has the same before it, too: the one that reaches farthest back.
            let mut best: Option<Segment> = None;
            for segment in self.segments.iter().filter(|segment| segment.has(end)) {
                match epoch_at(segment, end) {
                    Ok(its) if its != epoch || best.is_some_and(|known| known.first <= segment.first) => {}
                    Ok(_) => best = Some(*segment),
                    Err(question) => return Found::Unknown(question),
                }
            }
            let Some(segment) = best else {
                return Found::None;
            };
            behind.push((segment, end));
            // The nearest base within it spares what is before.
            let within = self.bases.iter().filter(|base| segment.has(base.lsn) && base.lsn < end);
            let mut nearest: Option<Base> = None;
            for base in within {
                match epoch_at(&segment, base.lsn) {
                    Ok(its) if its == base.epoch => nearest = nearest.max(Some(*base)),
                    Ok(_) => {}
                    Err(question) => return Found::Unknown(question),
                }
            }
            (end, epoch) = match nearest {
                Some(base) => (base.lsn, base.epoch),
                None => (segment.first - 1, segment.previous_epoch),
            };
        }
    }

    /// The last record of this history, up to `committed`, to which there is a way: archiving goes on behind it. None: only with a new
    /// base.
    pub(crate) fn reaches(&self, history: &EpochHistory, committed: Lsn) -> Option<Lsn> {
        let is_own = |lsn: Lsn, epoch: Epoch| lsn <= committed && history.epoch_at(lsn) == epoch;
        let mut own: Vec<(Lsn, Lsn)> = self
            .segments
            .iter()
            .filter(|segment| is_own(segment.last, segment.last_epoch))
            .map(|segment| (segment.first, segment.last))
            .collect();
        own.sort_unstable();
        let bases = self.bases.iter().filter(|base| is_own(base.lsn, base.epoch));
        let starts = bases.map(|base| base.lsn).chain(std::iter::once(0));
        let reached = starts.map(|start| {
            let reach = |end: Lsn, &(first, last): &(Lsn, Lsn)| if first <= end + 1 { end.max(last) } else { end };
            own.iter().fold(start, reach)
        });
        reached.max().filter(|&lsn| lsn > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind a record of that epoch.
    fn behind(previous_epoch: Epoch, first: Lsn, last: Lsn, first_epoch: Epoch, last_epoch: Epoch) -> Segment {
        Segment {
            first,
            last,
            previous_epoch,
            first_epoch,
            last_epoch,
        }
    }

    /// Behind a record of epoch 1, or none.
    fn segment(first: Lsn, last: Lsn, first_epoch: Epoch, last_epoch: Epoch) -> Segment {
        behind(u64::from(first > 1), first, last, first_epoch, last_epoch)
    }

    fn contents(bases: &[(Lsn, Epoch)], segments: &[Segment]) -> Contents {
        Contents {
            bases: bases.iter().map(|&(lsn, epoch)| Base { lsn, epoch }).collect(),
            segments: segments.to_vec(),
        }
    }

    /// Base, and (first, last, up to) of each segment.
    type Parts = (Lsn, Vec<(Lsn, Lsn, Lsn)>);

    fn chain(contents: &Contents, to: (Lsn, Epoch)) -> Option<Parts> {
        match contents.chain_to(to, |_| None) {
            Found::Chain(chain) => Some((
                chain.base.map_or(0, |base| base.lsn),
                chain.segments.iter().map(|(s, to)| (s.first, s.last, *to)).collect(),
            )),
            Found::None => None,
            Found::Unknown(question) => panic!("{question:?}"),
        }
    }

    #[test]
    fn from_the_nearest_base_on_or_from_the_first_record() {
        let all = contents(
            &[(10, 1), (25, 1)],
            &[segment(1, 10, 1, 1), segment(11, 20, 1, 1), segment(21, 30, 1, 1)],
        );
        assert_eq!(chain(&all, (30, 1)), Some((25, vec![(21, 30, 30)])));
        assert_eq!(chain(&all, (22, 1)), Some((10, vec![(11, 20, 20), (21, 30, 22)])));
        assert_eq!(chain(&all, (10, 1)), Some((10, vec![])));
        assert_eq!(chain(&all, (7, 1)), Some((0, vec![(1, 10, 7)])));
        assert_eq!(chain(&all, (0, 0)), Some((0, vec![])));
    }

    #[test]
    fn a_gap_ends_it_unless_a_base_lies_behind() {
        let all = contents(&[(30, 1)], &[segment(1, 10, 1, 1), segment(21, 40, 1, 1)]);
        assert_eq!(chain(&all, (25, 1)), None);
        assert_eq!(chain(&all, (35, 1)), Some((30, vec![(21, 40, 35)])));
        assert_eq!(chain(&all, (41, 1)), None);
    }

    #[test]
    fn records_that_a_deposed_primary_had_alone_are_on_its_own_way_only() {
        // Epoch 1 came to 10; the next primary had 7 of these, and went on.
        let all = contents(&[(9, 1)], &[segment(1, 10, 1, 1), segment(8, 12, 2, 2)]);
        assert_eq!(chain(&all, (10, 1)), Some((9, vec![(1, 10, 10)])));
        assert_eq!(chain(&all, (12, 2)), Some((0, vec![(1, 10, 7), (8, 12, 12)])));
        assert_eq!(chain(&all, (9, 2)), Some((0, vec![(1, 10, 7), (8, 12, 9)])));
        assert_eq!(chain(&all, (9, 1)), Some((9, vec![])));
    }

    #[test]
    fn a_record_that_is_not_there_yet_is_no_other_one_of_its_lsn() {
        let all = contents(&[(9, 1)], &[segment(1, 10, 1, 1)]);
        assert_eq!(chain(&all, (9, 2)), None, "8 and 9 of epoch 2 are not archived yet");
        assert_eq!(chain(&all, (10, 2)), None);
    }

    #[test]
    fn what_was_lost_between_two_primaries_is_not_what_the_second_goes_on_from() {
        // 1 to 7 of epoch 1; a primary of epoch 2 had 6 of these and wrote 7 to 9, which the next, who had 7, knows nothing of.
        let all = contents(&[], &[segment(1, 7, 1, 1), segment(7, 9, 2, 2), behind(1, 8, 10, 3, 3)]);
        assert_eq!(chain(&all, (10, 3)), Some((0, vec![(1, 7, 7), (8, 10, 10)])));
        assert_eq!(chain(&all, (9, 2)), Some((0, vec![(1, 7, 6), (7, 9, 9)])));
    }

    #[test]
    fn what_is_new_begins_where_a_segment_goes_on_behind_where_one_is() {
        let mut all = contents(&[(10, 1)], &[segment(1, 10, 1, 1), segment(11, 20, 1, 1)]);
        assert_eq!(
            [0, 10, 15, 20, 25].map(|lsn| all.first_behind(lsn)),
            [0, 10, 11, 20, 25]
        );
        assert_eq!([10, 20, 21].map(|lsn| all.reach(lsn)), [true, true, false]);
        let newer = contents(&[(20, 1)], &[segment(11, 20, 1, 1), segment(21, 30, 1, 1)]);
        all.renew(11, newer);
        assert_eq!(chain(&all, (30, 1)), Some((20, vec![(21, 30, 30)])));
        assert_eq!((all.segments.len(), all.bases.len()), (3, 2));
    }

    #[test]
    fn what_names_do_not_say_is_asked_for() {
        let wide = segment(5, 12, 1, 2);
        let all = contents(&[], &[segment(1, 4, 1, 1), wide]);
        let question = Question { segment: wide, lsn: 7 };
        assert_eq!(all.chain_to((7, 1), |_| None), Found::Unknown(question));
        let found = |epoch| all.chain_to((7, 1), |_| Some(epoch));
        assert!(matches!(found(1), Found::Chain(_)));
        assert_eq!(found(2), Found::None);
    }

    #[test]
    fn archiving_goes_on_behind_what_is_of_this_history() {
        let mut history = EpochHistory::default();
        history.note(1, 1);
        history.note(2, 8);
        let all = contents(&[], &[segment(1, 5, 1, 1), segment(6, 10, 1, 1)]);
        assert_eq!(
            all.reaches(&history, 20),
            Some(5),
            "6 to 10 ends with a record that was lost"
        );
        let more = contents(
            &[(14, 2)],
            &[segment(1, 5, 1, 1), segment(6, 12, 1, 2), segment(15, 16, 2, 2)],
        );
        assert_eq!(more.reaches(&history, 20), Some(16));
        assert_eq!(more.reaches(&history, 15), Some(14), "16 is not committed here");
        assert_eq!(contents(&[], &[segment(3, 5, 1, 1)]).reaches(&history, 20), None);
    }
}
