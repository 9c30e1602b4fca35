//! What a standby does next: pure.

use std::collections::BTreeMap;

use volt_engine::PartitionId;
use volt_engine::followed::Position;

use super::super::layout::Cut;
use crate::metadata::standby::Standby;
use crate::txn::{FollowWork, Needs};

/// Where each partition is; None: it is new, and has nothing.
pub(super) type Positions = BTreeMap<PartitionId, Option<Position>>;

/// The cut behind which a standby never falls: no older one is of use.
pub(super) fn floor(standby: &Standby, positions: &Positions) -> i64 {
    let known = positions.values().flatten();
    let newest = known
        .map(|position| position.toward_micros.unwrap_or(position.at_micros))
        .max();
    newest.unwrap_or(standby.at_micros)
}

/// The partitions that are not at this cut.
pub(super) fn behind(positions: &Positions, cut: &Cut) -> Vec<PartitionId> {
    let is_there = |position: &Option<Position>| {
        position.is_some_and(|position| position.at_micros == cut.at_micros && position.toward_micros.is_none())
    };
    let behind = positions.iter().filter(|(_, position)| !is_there(position));
    behind
        .map(|(partition, _)| *partition)
        .filter(|partition| cut.partitions.contains_key(partition))
        .collect()
}

/// The moment that all partitions are of, if they are of one; without partitions that of the catalog.
pub(super) fn as_of(standby: &Standby, positions: &Positions) -> Option<i64> {
    let mut moments = positions
        .values()
        .map(|position| position.and_then(|position| position.toward_micros.is_none().then_some(position.at_micros)));
    let Some(first) = moments.next() else {
        return Some(standby.at_micros);
    };
    first.filter(|first| moments.all(|other| other == Some(*first)))
}

/// A step of all partitions that are behind, each a part of one transaction.
pub(super) type Step = BTreeMap<PartitionId, FollowWork>;

/// How partitions come to a cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// By one transaction: who reads sees the cut before it or this one.
    Atomic(Step),
    /// It is too much for one. Nobody reads from `mark` on until `finish`; in between each of them is filled.
    Long { mark: Step, finish: Step },
}

/// The plan for partitions of which it is known whether they lack too much for one record.
pub(super) fn plan(positions: &Positions, is_large: &BTreeMap<PartitionId, bool>, cut: &Cut) -> Plan {
    let position = |partition: &PartitionId| positions.get(partition).copied().flatten();
    let arrived = |partition: &PartitionId| {
        let (lsn, epoch) = cut.partitions.get(partition).copied().unwrap_or_default();
        Position {
            at_micros: cut.at_micros,
            lsn,
            epoch,
            toward_micros: None,
            is_end: false,
        }
    };
    let is_marked = |partition| position(partition).is_some_and(|position| position.toward_micros.is_some());
    let is_long = is_large
        .iter()
        .any(|(partition, is_large)| *is_large || is_marked(partition));
    if !is_long {
        let work = |partition: &PartitionId| {
            let work = FollowWork {
                expect: position(partition),
                put: arrived(partition),
                needs: Needs::Staged,
            };
            (*partition, work)
        };
        return Plan::Atomic(is_large.keys().map(work).collect());
    }
    let marked = |partition: &PartitionId| marked(position(partition), cut);
    let finish = |partition: &PartitionId| {
        let work = FollowWork {
            expect: Some(marked(partition)),
            put: arrived(partition),
            needs: Needs::Poured,
        };
        (*partition, work)
    };
    let staged_at = is_large.keys().map(|partition| (*partition, position(partition)));
    Plan::Long {
        mark: mark(staged_at, cut),
        finish: is_large.keys().map(finish).collect(),
    }
}

/// Hides all partitions until they are at a cut: its catalog has tables elsewhere, where not all of their rows are yet.
pub(super) fn hide(positions: &Positions, cut: &Cut) -> Step {
    mark(
        positions.iter().map(|(partition, position)| (*partition, *position)),
        cut,
    )
}

fn mark(positions: impl Iterator<Item = (PartitionId, Option<Position>)>, cut: &Cut) -> Step {
    let unmarked = positions.filter(|(_, position)| *position != Some(marked(*position, cut)));
    let mark = |(partition, expect): (PartitionId, Option<Position>)| {
        let work = FollowWork {
            expect,
            put: marked(expect, cut),
            needs: Needs::Nothing,
        };
        (partition, work)
    };
    unmarked.map(mark).collect()
}

/// On its way to a cut.
fn marked(position: Option<Position>, cut: &Cut) -> Position {
    Position {
        toward_micros: Some(cut.at_micros),
        ..position.unwrap_or_default()
    }
}

/// What a promotion does, when nothing more is to be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Promotion {
    /// Says with which cut it begins.
    Settle(i64),
    /// Partitions are told that they follow no more: who thinks that he leads changes nothing there from then on.
    End(Step),
    /// All have been told.
    Done,
    /// Partitions are of different moments, or of none.
    NotWhole,
}

/// The next step of a promotion.
pub(super) fn promotion(standby: &Standby, positions: &Positions) -> Promotion {
    let is_settled = standby
        .promotion
        .is_some_and(|promotion| promotion.settled_micros.is_some());
    let is_end = |position: &Option<Position>| position.is_some_and(|position| position.is_end);
    if !is_settled {
        return as_of(standby, positions).map_or(Promotion::NotWhole, Promotion::Settle);
    }
    if positions
        .values()
        .flatten()
        .any(|position| position.toward_micros.is_some())
    {
        return Promotion::NotWhole;
    }
    let open = positions.iter().filter(|(_, position)| !is_end(position));
    let end = |(partition, position): (&PartitionId, &Option<Position>)| {
        let put = Position {
            is_end: true,
            ..position.unwrap_or_default()
        };
        let work = FollowWork {
            expect: *position,
            put,
            needs: Needs::Nothing,
        };
        (*partition, work)
    };
    let open: Step = open.map(end).collect();
    match open.is_empty() {
        true => Promotion::Done,
        false => Promotion::End(open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::standby::Promotion as Asked;

    fn at(at_micros: i64) -> Position {
        Position {
            at_micros,
            lsn: at_micros as u64,
            epoch: 1,
            ..Position::default()
        }
    }

    fn toward(from: i64, to: i64) -> Position {
        Position {
            toward_micros: Some(to),
            ..at(from)
        }
    }

    fn end(from: i64) -> Position {
        Position {
            is_end: true,
            ..at(from)
        }
    }

    fn positions(of: &[Option<Position>]) -> Positions {
        (1..).zip(of.iter().copied()).collect()
    }

    fn cut(at_micros: i64, partitions: u32) -> Cut {
        Cut {
            at_micros,
            map_version: 1,
            partitions: (1..=partitions).map(|id| (id, (at_micros as u64, 1))).collect(),
            sequences: BTreeMap::new(),
        }
    }

    fn standby(promotion: Option<Asked>) -> Standby {
        Standby {
            url: "file:///x".to_owned(),
            at_micros: 3,
            archived_version: 1,
            promotion,
        }
    }

    fn staged(of: &[bool]) -> BTreeMap<PartitionId, bool> {
        (1..).zip(of.iter().copied()).collect()
    }

    #[test]
    fn who_is_not_at_a_cut_is_behind_also_who_lost_it_or_is_new() {
        let of = positions(&[Some(at(5)), Some(at(4)), None, Some(toward(4, 5)), Some(at(5))]);
        assert_eq!(behind(&of, &cut(5, 4)), [2, 3, 4]);
        assert_eq!(behind(&of, &cut(5, 2)), [2], "those that the cut has");
        assert_eq!(as_of(&standby(None), &of), None);
        assert_eq!(as_of(&standby(None), &positions(&[Some(at(5)), Some(at(5))])), Some(5));
        assert_eq!(
            as_of(&standby(None), &positions(&[Some(at(5)), Some(toward(5, 6))])),
            None
        );
        assert_eq!(as_of(&standby(None), &positions(&[])), Some(3));
        assert_eq!(floor(&standby(None), &positions(&[Some(at(4)), Some(toward(2, 9))])), 9);
        assert_eq!(floor(&standby(None), &positions(&[None])), 3);
    }

    #[test]
    fn little_is_one_transaction() {
        let of = positions(&[Some(at(5)), None]);
        let Plan::Atomic(step) = plan(&of, &staged(&[false, false]), &cut(7, 2)) else {
            panic!("it is little");
        };
        let work = |expect| FollowWork {
            expect,
            put: at(7),
            needs: Needs::Staged,
        };
        assert_eq!(step, [(1, work(Some(at(5)))), (2, work(None))].into());
    }

    #[test]
    fn much_of_one_hides_all_until_all_are_through() {
        let of = positions(&[Some(at(5)), None, Some(toward(4, 7)), Some(toward(4, 6))]);
        let Plan::Long { mark, finish } = plan(&of, &staged(&[true, false, true, true]), &cut(7, 4)) else {
            panic!("it is much");
        };
        let expected = [(1, at(5)), (4, toward(4, 6))];
        for (partition, before) in expected {
            assert_eq!(mark[&partition].expect, Some(before));
            assert_eq!(mark[&partition].put, toward(before.at_micros, 7));
        }
        assert_eq!((mark[&2].expect, mark[&2].put.toward_micros), (None, Some(7)));
        assert!(!mark.contains_key(&3), "it is marked already");
        for (partition, work) in &finish {
            let marked = mark.get(partition).map_or(toward(4, 7), |mark| mark.put);
            assert_eq!((work.expect, work.put), (Some(marked), at(7)));
            assert_eq!(work.needs, Needs::Poured);
        }
        assert_eq!(finish.len(), 4);
        // One that was left half-way is no step of a transaction, however little it lacks.
        let half = positions(&[Some(at(5)), Some(toward(5, 7))]);
        assert!(matches!(
            plan(&half, &staged(&[false, false]), &cut(7, 2)),
            Plan::Long { .. }
        ));
    }

    #[test]
    fn while_tables_lie_elsewhere_than_their_rows_nobody_reads() {
        let of = positions(&[Some(at(5)), None, Some(toward(4, 7))]);
        let step = hide(&of, &cut(7, 3));
        assert_eq!(step.keys().collect::<Vec<_>>(), [&1, &2], "the third is hidden already");
        assert_eq!((step[&1].expect, step[&1].put), (Some(at(5)), toward(5, 7)));
        // However little they lack then, they come to light together.
        let hidden = positions(&[Some(toward(5, 7)), Some(toward(0, 7)), Some(toward(4, 7))]);
        let staged = staged(&[false, false, false]);
        assert!(matches!(plan(&hidden, &staged, &cut(7, 3)), Plan::Long { .. }));
    }

    #[test]
    fn a_promotion_settles_ends_all_and_is_done() {
        let asked = |settled_micros| {
            standby(Some(Asked {
                is_immediate: false,
                settled_micros,
            }))
        };
        let open = positions(&[Some(at(5)), Some(at(5))]);
        assert_eq!(promotion(&asked(None), &open), Promotion::Settle(5));
        let torn = positions(&[Some(at(5)), Some(at(4))]);
        assert_eq!(promotion(&asked(None), &torn), Promotion::NotWhole);
        let half = positions(&[Some(toward(5, 6)), Some(toward(5, 6))]);
        assert_eq!(promotion(&asked(None), &half), Promotion::NotWhole);
        assert_eq!(promotion(&asked(Some(5)), &half), Promotion::NotWhole);
        // Of an asynchronous group, one may lose that it was told.
        let one = positions(&[Some(end(5)), Some(at(5))]);
        let Promotion::End(step) = promotion(&asked(Some(5)), &one) else {
            panic!("one is open");
        };
        assert_eq!(step.keys().collect::<Vec<_>>(), [&2]);
        assert_eq!((step[&2].expect, step[&2].put), (Some(at(5)), end(5)));
        let all = positions(&[Some(end(5)), Some(end(5))]);
        assert_eq!(promotion(&asked(Some(5)), &all), Promotion::Done);
    }
}
