//! Replicas that meet at an LSN to be compared, and what a primary sends to one in doubt.

use std::collections::BTreeSet;

use bytes::Bytes;
use volt_engine::effects::LogPayload;
use volt_engine::partition::SnapshotSums;
use volt_engine::{Lsn, NodeId};

use super::comparison::Sums;
use super::replica::{Answer, Batch, Kept, LagLimits, NoAppointment, Received, Replica, Why};

/// Bytes of a batch: all there is.
const ALL: usize = 1 << 20;

fn write(key: u8) -> LogPayload {
    LogPayload::Write(super::replica_tests::effects(u32::from(key)))
}

/// A primary with these other nodes, and so many records.
fn primary(members: &[NodeId], learners: &[NodeId], records: u8) -> Replica {
    let mut primary = Replica::new(7);
    primary.reign_in(1, members, learners);
    primary.append(&LogPayload::EpochStart);
    (1..records).for_each(|key| _ = primary.append(&write(key)));
    let appended = primary.appended;
    primary.made_durable(1, appended);
    primary
}

/// Sends what there is to a follower, and takes its answer, once.
fn exchange(primary: &mut Replica, node: NodeId, follower: &mut Replica) -> (Answer, Received) {
    let batch = primary.batch_for(node, ALL).expect("something to send");
    let epoch = batch.epoch;
    let (answer, received) = follower.receive(batch);
    primary.answered(node, epoch, answer).expect("a sound answer");
    (answer, received)
}

/// Until the follower has all, and knows that it is committed.
fn catch_up(primary: &mut Replica, node: NodeId, follower: &mut Replica) {
    for _ in 0..10 {
        if follower.engine.applied() == primary.appended {
            return;
        }
        if primary.is_behind(node) {
            exchange(primary, node, follower);
        }
    }
    panic!("{} of {}", follower.engine.applied(), primary.appended);
}

fn sums(replica: &Replica, chunk: usize) -> Sums {
    let mut sums = SnapshotSums::default();
    while replica.sum_appointed(&mut sums, chunk).expect("it is pinned") {}
    sums.finish()
}

#[test]
fn replicas_meet_at_an_lsn_and_are_the_same_there() {
    let mut primary = primary(&[2], &[], 10);
    let mut backup = Replica::new(7);
    catch_up(&mut primary, 2, &mut backup);
    let lsn: Lsn = primary.appended + 3;
    primary.appoint(lsn).expect("it is not there yet");
    backup.appoint(lsn).expect("nor is this");
    assert_eq!(primary.appoint(lsn), Err(NoAppointment::Busy));
    assert_eq!(backup.appointment_kept(), Kept::NotYet);
    // Records go on beyond it, also over the rows that there are.
    for key in [1, 2, 3, 4, 1, 2, 3, 4] {
        primary.append(&write(key));
    }
    let appended = primary.appended;
    primary.made_durable(1, appended);
    catch_up(&mut primary, 2, &mut backup);
    assert_eq!(
        (primary.appointment_kept(), backup.appointment_kept()),
        (Kept::Pinned, Kept::Pinned)
    );
    let at_lsn = sums(&primary, ALL);
    assert_eq!(at_lsn[&1].rows, 5);
    // Row by row, so that every place to go on from is tried.
    assert_eq!(at_lsn, sums(&backup, 1));
    primary.end_appointment();
    backup.end_appointment();
    assert!(!primary.engine.is_pinned(lsn) && !backup.engine.is_pinned(lsn));
    // What came after makes a difference, and what is past can't be met at.
    assert_eq!(primary.appoint(lsn), Err(NoAppointment::Passed(appended)));
    primary.appoint(appended).expect("it is there");
    assert_ne!(sums(&primary, ALL), at_lsn);
}

#[test]
fn an_appointment_is_void_when_the_state_is_replaced() {
    let mut backup = Replica::new(7);
    let mut primary = primary(&[2], &[], 3);
    catch_up(&mut primary, 2, &mut backup);
    let lsn = primary.appended;
    backup.appoint(lsn).expect("it is there");
    backup.begin_fill();
    assert_eq!(backup.appointment_kept(), Kept::Void);
    backup.end_appointment();
    assert_eq!(
        backup.appoint(lsn),
        Err(NoAppointment::Busy),
        "there is nothing to be read"
    );
}

#[test]
fn one_in_doubt_must_fill_whatever_it_holds() {
    let mut primary = primary(&[2, 3], &[], 5);
    let (mut second, mut third) = (Replica::new(7), Replica::new(7));
    catch_up_both(&mut primary, &mut second, &mut third);
    // Node 3 is found to differ, and holds the very same records.
    primary.reign_in(2, &[2], &[3]);
    primary.doubt(&BTreeSet::from([3]));
    let (answer, received) = exchange(&mut primary, 3, &mut third);
    assert!(matches!(answer, Answer::Gap { .. }) && received.fill, "{answer:?}");
    // An acknowledgement that was on its way says nothing.
    let matched = third.appended;
    primary
        .answered(3, 2, Answer::Accepted { matched })
        .expect("it is ignored");
    assert_eq!(primary.learner_to_propose(100), None);
    assert!(primary.batch_for(3, ALL).is_some_and(|batch: Batch| batch.anew));
    // It fills; from the end of that on it is a learner like any.
    let source = primary.begin_serving_fill(3).expect("it is its learner");
    let (mut engine, mut after) = (volt_engine::partition::Partition::new(), None);
    loop {
        let (chunk, more): (Bytes, _) = primary.fill_chunk(source, after, ALL).expect("the reign goes on");
        engine.load_chunk(&chunk).expect("a sound chunk");
        after = more;
        if after.is_none() {
            break;
        }
    }
    third.begin_fill();
    third.filled(engine, primary.history.until(source.snapshot), source.snapshot);
    primary.fill_ends(3);
    exchange(&mut primary, 3, &mut third);
    assert_eq!(primary.learner_to_propose(100), Some(3));
    // Its stream breaks before it is a member: nobody knows any more what it holds.
    primary.stream_broke(3);
    assert!(primary.batch_for(3, ALL).is_some_and(|batch| batch.anew));
}

fn catch_up_both(primary: &mut Replica, second: &mut Replica, third: &mut Replica) {
    for _ in 0..10 {
        for (node, follower) in [(2, &mut *second), (3, &mut *third)] {
            if primary.is_behind(node) {
                exchange(primary, node, follower);
            }
        }
    }
    assert_eq!(primary.committed, primary.appended);
}

#[test]
fn a_member_that_lags_for_too_long_is_late_though_it_acknowledges() {
    let mut primary = primary(&[2], &[], 20);
    let limits = LagLimits {
        silent_looks: 1_000,
        records: Some((5, 3)),
    };
    let mut acked = 1;
    let mut look = |primary: &mut Replica| {
        primary
            .answered(2, 1, Answer::Accepted { matched: acked })
            .expect("sound");
        acked += 1;
        primary.members_to_drop(limits, &BTreeSet::new())
    };
    assert!(look(&mut primary).is_empty() && look(&mut primary).is_empty());
    let late = look(&mut primary);
    assert_eq!((late[0].node, late[0].looks, late[0].why), (2, 3, Why::Lags));
    assert_eq!(late[0].missing, 17);
    // Within its bound again in between: it is counted from the beginning.
    primary.drop_answered(1);
    primary.answered(2, 1, Answer::Accepted { matched: 15 }).expect("sound");
    assert!((0..10).all(|_| primary.members_to_drop(limits, &BTreeSet::new()).is_empty()));
}
