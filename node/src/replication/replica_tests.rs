//! Single rules of a replica: who is late, who is added, what an epoch ends.

use volt_engine::NodeId;
use volt_engine::catalog::ViewShape;
use volt_engine::effects::{Effects, EffectsBuilder, LogPayload};
use volt_engine::plan::Expr;
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;

use super::replica::{Answer, Batch, LagLimits, Replica};
use crate::metadata::map::ReplicationMode;

pub(super) fn effects(number: u32) -> Effects {
    let mut builder = EffectsBuilder::default();
    builder.put(1, &[(number % 5) as u8], &encode_row(&[ValueRef::Int(number as i32)]));
    builder.finish()
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut primary = Replica::new(7);
    primary.reign_in(1, &[2], &[]);
    primary.append(&LogPayload::EpochStart);
    assert!(primary.answered(2, 1, Answer::Accepted { matched: 2 }).is_err());
    assert_eq!(primary.reign().unwrap().followers[&2].acked, 0);
    assert!(primary.answered(2, 1, Answer::Accepted { matched: 1 }).is_ok());
}

/// Looks that a member is given.
const LATE: u32 = 3;

/// A primary of members 2 and 3 that have acknowledged all but its newest record.
fn one_record_ahead() -> Replica {
    let mut primary = Replica::new(7);
    primary.reign_in(1, &[2, 3], &[]);
    primary.append(&LogPayload::EpochStart);
    for node in [2, 3] {
        primary.answered(node, 1, Answer::Accepted { matched: 1 }).unwrap();
    }
    primary.made_durable(1, 1);
    primary.append(&LogPayload::Write(effects(1)));
    primary.made_durable(1, 2);
    primary
}

fn late(primary: &mut Replica, gone: &[NodeId]) -> Vec<NodeId> {
    let limits = LagLimits {
        silent_looks: LATE,
        records: None,
    };
    let late = primary.members_to_drop(limits, &gone.iter().copied().collect());
    late.into_iter().map(|late| late.node).collect()
}

fn looks(primary: &mut Replica, count: u32) -> Vec<Vec<NodeId>> {
    (0..count).map(|_| late(primary, &[])).collect()
}

fn nobody(count: u32) -> Vec<Vec<NodeId>> {
    (0..count).map(|_| Vec::new()).collect()
}

#[test]
fn a_member_that_does_not_acknowledge_is_dropped_and_commits_go_on() {
    let mut primary = one_record_ahead();
    primary.answered(2, 1, Answer::Accepted { matched: 2 }).unwrap();
    // The first look only sees where it stands.
    assert_eq!(looks(&mut primary, LATE + 1), [vec![], vec![], vec![], vec![3]]);
    assert_eq!(looks(&mut primary, LATE + 1), nobody(LATE + 1), "it is proposed once");
    assert_eq!(primary.committed, 1, "the entry has not been seen");
    primary.reign_in(2, &[2], &[3]);
    primary.append(&LogPayload::EpochStart);
    primary.advance_commit();
    assert_eq!(primary.committed, 2);
    // Nothing waits for it before it has answered anew.
    assert_eq!(primary.learner_to_propose(64), None);
    primary.made_durable(2, 3);
    primary.answered(2, 2, Answer::Accepted { matched: 3 }).unwrap();
    assert_eq!(primary.committed, 3);
    primary.answered(3, 2, Answer::Accepted { matched: 3 }).unwrap();
    assert_eq!(primary.learner_to_propose(64), Some(3));
}

#[test]
fn who_advances_or_lacks_nothing_is_not_late() {
    let mut primary = one_record_ahead();
    for lsn in 2..20 {
        for node in [2, 3] {
            primary.answered(node, 1, Answer::Accepted { matched: lsn }).unwrap();
        }
        primary.append(&LogPayload::Write(effects(lsn as u32)));
        assert_eq!(looks(&mut primary, LATE), nobody(LATE));
    }
    for node in [2, 3] {
        primary.answered(node, 1, Answer::Accepted { matched: 20 }).unwrap();
    }
    assert_eq!(looks(&mut primary, 10), nobody(10));
}

#[test]
fn a_primary_without_contact_calls_nobody_late_and_asks_again_what_was_not_answered() {
    let mut primary = one_record_ahead();
    looks(&mut primary, LATE);
    primary.forgive_late();
    assert_eq!(looks(&mut primary, LATE), [vec![], vec![], vec![2, 3]]);
    primary.drop_answered(1);
    assert_eq!(looks(&mut primary, LATE), [vec![], vec![], vec![2, 3]]);
    primary.drop_answered(99);
    assert_eq!(
        looks(&mut primary, 10),
        nobody(10),
        "another epoch's answer says nothing"
    );
}

#[test]
fn a_new_epoch_ends_a_handover_of_the_one_before() {
    let mut primary = one_record_ahead();
    primary.reign_mut().unwrap().relinquishing = true;
    primary.reign_in(1, &[2, 3], &[]);
    assert!(primary.reign().unwrap().relinquishing);
    primary.reign_in(2, &[2, 3], &[]);
    assert!(!primary.reign().unwrap().relinquishing);
}

#[test]
fn who_came_back_takes_nothing_before_the_map_gives_it_a_role() {
    let from_epoch = |epoch, fill| {
        let mut primary = Replica::new(7);
        primary.reign_in(epoch, &[2], &[]);
        Batch {
            epoch,
            committed: 0,
            previous_lsn: 0,
            previous_epoch: 0,
            records: vec![primary.append(&LogPayload::EpochStart)],
            fill,
            anew: fill,
        }
    };
    let mut backup = Replica::new(7);
    backup.came_back();
    for fill in [false, true] {
        let (answer, received) = backup.receive(from_epoch(1, fill));
        assert_eq!(answer, Answer::NotYet);
        assert!(received.records.is_empty() && !received.fill);
    }
    assert_eq!((backup.appended, backup.epoch), (0, 0));
    // The process before it had promised so much.
    backup.awaits_role = false;
    backup.follow(2);
    let (answer, _) = backup.receive(from_epoch(1, false));
    assert_eq!(answer, Answer::Stale { epoch: 2 });
    let (answer, _) = backup.receive(from_epoch(2, false));
    assert_eq!(answer, Answer::Accepted { matched: 1 });
}

#[test]
fn a_view_that_was_completed_by_what_is_cut_is_built_again() {
    let shape = ViewShape {
        missing: Vec::new(),
        source: 1,
        filter: None,
        groups: vec![Expr::Column(0)],
        aggregates: Vec::new(),
    };
    let mut replica = one_record_ahead();
    replica.engine.set_views([(2, &shape)]);
    assert!(replica.engine.build_views(usize::MAX));
    (replica.is_building, replica.ready_views) = (false, vec![2]);
    assert!(!replica.lacks_view());
    replica.follow(9);
    let committed = replica.committed;
    assert!(replica.appended > committed);
    replica.cut(committed);
    assert!(replica.is_building && replica.lacks_view());
    assert!(replica.engine.build_views(usize::MAX));
    assert!(!replica.lacks_view());
}

/// A primary of members 2, 3 and 4, of whom 2 and 3 have acknowledged two records, and 4 the first.
fn majority_of_four() -> Replica {
    let mut primary = Replica::new(7);
    primary.mode = ReplicationMode::SemiSync;
    primary.reign_in(1, &[2, 3, 4], &[]);
    primary.append(&LogPayload::EpochStart);
    primary.append(&LogPayload::Write(effects(1)));
    primary.made_durable(1, 2);
    for (node, matched) in [(2, 2), (3, 2), (4, 1)] {
        primary.answered(node, 1, Answer::Accepted { matched }).unwrap();
    }
    assert_eq!(primary.committed, 2);
    primary
}

#[test]
fn a_majority_is_made_smaller_only_if_the_smaller_one_has_what_is_committed() {
    let mut primary = majority_of_four();
    // Of 1, 2 and 4 two have it; of 1 and 4 they don't.
    assert_eq!(late(&mut primary, &[2, 3]), Vec::<NodeId>::new());
    assert_eq!(late(&mut primary, &[3]), [3]);
    // Until it is known what became of that, both sets have what is committed.
    primary.append(&LogPayload::Write(effects(2)));
    primary.made_durable(1, 3);
    primary.answered(2, 1, Answer::Accepted { matched: 3 }).unwrap();
    assert_eq!(primary.committed, 2, "two of 1, 2 and 4 have it, and not three of all");
    primary.answered(3, 1, Answer::Accepted { matched: 3 }).unwrap();
    assert_eq!(primary.committed, 3);
    primary.drop_answered(1);
    assert_eq!(
        late(&mut primary, &[4]),
        [3],
        "it may still go through, and is asked for again"
    );
    primary.reign_in(2, &[2, 4], &[3]);
    assert_eq!(late(&mut primary, &[4]), [4], "another epoch has decided");
}

#[test]
fn a_member_is_not_filled_before_it_has_left_the_set() {
    let mut primary = majority_of_four();
    assert!(!primary.answered(4, 1, Answer::Ahead).unwrap());
    let batch = primary.batch_for(4, 1_000).expect("it is asked for its end");
    assert!(!batch.fill);
    assert_eq!(late(&mut primary, &[]), [4]);
    primary.reign_in(2, &[2, 3], &[4]);
    let gap = Answer::Gap {
        appended: 1,
        last_epoch: 1,
    };
    assert!(primary.answered(4, 2, gap).unwrap());
    assert!(primary.batch_for(4, 1_000).expect("it is asked to fill").fill);
}

#[test]
fn an_asynchronous_replica_cuts_nothing_that_it_told_its_clients() {
    let mut old = Replica::new(7);
    (old.mode, old.was_async) = (ReplicationMode::Async, true);
    old.reign_in(1, &[2], &[]);
    old.append(&LogPayload::EpochStart);
    old.append(&LogPayload::Write(effects(1)));
    old.made_durable(1, 2);
    assert_eq!(old.committed, 2, "nobody else has it");
    // The new primary never got the second record.
    let mut new = Replica::new(7);
    new.mode = ReplicationMode::Async;
    let first = old.batch_for(2, 1).unwrap();
    assert!(first.records.is_empty(), "a probe");
    old.answered(
        2,
        1,
        Answer::Gap {
            appended: 0,
            last_epoch: 0,
        },
    )
    .unwrap();
    new.receive(old.batch_for(2, 1).unwrap());
    assert_eq!(new.appended, 1);
    new.reign_in(2, &[], &[1]);
    new.append(&LogPayload::EpochStart);
    new.made_durable(2, 2);
    let gap = Answer::Gap {
        appended: 1,
        last_epoch: 1,
    };
    new.answered(1, 2, gap).unwrap();
    let (answer, received) = old.receive(new.batch_for(1, 1_000).unwrap());
    assert_eq!(answer, Answer::Ahead);
    assert!(received.cut.is_none() && old.committed == 2);
    assert!(new.answered(1, 2, answer).unwrap());
    assert!(new.batch_for(1, 1_000).unwrap().fill);
}
