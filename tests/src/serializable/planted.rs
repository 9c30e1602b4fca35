//! Each anomaly, planted by hand, is found and named; what only looks like one is not.

use super::*;

/// A transaction between these moments.
fn tx(began: u64, ended: u64, steps: Vec<Step>) -> Transaction {
    Transaction {
        client: 0,
        began,
        ended,
        level: Level::Serializable,
        outcome: Outcome::Committed,
        steps,
    }
}

fn with(outcome: Outcome, transaction: Transaction) -> Transaction {
    Transaction { outcome, ..transaction }
}

fn at_a_snapshot(transaction: Transaction) -> Transaction {
    Transaction {
        level: Level::Snapshot,
        ..transaction
    }
}

fn append(list: u64, value: u64) -> Step {
    Step::Append { list, value }
}

fn read(list: u64, values: &[u64]) -> Step {
    Step::Read {
        list,
        values: values.to_vec(),
    }
}

fn insert(value: u64) -> Step {
    Step::Insert { set: 1, value }
}

fn scan(found: &[u64]) -> Step {
    Step::Scan {
        sets: 0..9,
        values: 0..100,
        found: found.to_vec(),
    }
}

fn is_legal(history: &[Transaction]) {
    if let Err(anomalies) = check(history) {
        panic!("{}", explain(history, &anomalies));
    }
}

/// The one cycle that is there: phenomenon, whether it needs the clock, its name.
fn cycle(history: &[Transaction]) -> (Phenomenon, bool, &'static str) {
    let anomalies = check(history).expect_err("an anomaly");
    match anomalies.as_slice() {
        [Anomaly::Cycle(cycle)] => (cycle.phenomenon, cycle.real_time, cycle.name()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dirty_write_is_g0() {
    let history = [
        tx(1, 9, vec![append(1, 10), append(2, 20)]),
        tx(1, 9, vec![append(1, 11), append(2, 21)]),
        tx(1, 9, vec![read(1, &[10, 11])]),
        tx(1, 9, vec![read(2, &[21, 20])]),
    ];
    assert_eq!(cycle(&history), (Phenomenon::G0, false, "dirty write"));
}

#[test]
fn dirty_reads_are_g1a() {
    let seen = |writer: Transaction| check(&[writer, tx(5, 6, vec![read(1, &[10])])]);
    let written = tx(1, 9, vec![append(1, 10)]);
    assert!(seen(written.clone()).is_ok());
    assert!(seen(with(Outcome::Unknown, written.clone())).is_ok());
    let undone = tx(1, 9, vec![Step::Savepoint, append(1, 10), Step::Undo]);
    let expected = Anomaly::AbortedRead {
        reader: 1,
        writer: 0,
        value: 10,
    };
    for void in [with(Outcome::Aborted, written), undone] {
        assert_eq!(seen(void), Err(vec![expected.clone()]));
    }
    // Also of a set, and also by one who was refused in the end.
    let inserted = with(Outcome::Aborted, tx(1, 9, vec![insert(10)]));
    let reader = with(Outcome::Aborted, tx(5, 6, vec![scan(&[10])]));
    assert_eq!(check(&[inserted, reader]), Err(vec![expected]));
}

#[test]
fn an_intermediate_read_is_g1b() {
    let history = [
        tx(1, 9, vec![append(1, 10), append(1, 11)]),
        tx(1, 9, vec![read(1, &[10])]),
    ];
    let anomalies = check(&history).expect_err("an anomaly");
    assert!(anomalies.contains(&Anomaly::IntermediateRead {
        reader: 1,
        writer: 0,
        value: 10
    }));
    assert!(anomalies.iter().any(|anomaly| anomaly.to_string().starts_with("G1b")));
}

#[test]
fn circular_information_flow_is_g1c() {
    let history = [
        tx(1, 9, vec![append(1, 10), read(2, &[20])]),
        tx(1, 9, vec![append(2, 20), read(1, &[10])]),
    ];
    assert_eq!(cycle(&history).0, Phenomenon::G1c);
}

#[test]
fn a_lost_update_is_named() {
    let history = [
        tx(1, 9, vec![read(1, &[]), append(1, 10)]),
        tx(1, 9, vec![read(1, &[]), append(1, 11)]),
        tx(10, 11, vec![read(1, &[10, 11])]),
    ];
    assert_eq!(cycle(&history), (Phenomenon::GSingle, false, "lost update"));
    // Overwritten: nobody will ever read it.
    let gone = [history[0].clone(), history[1].clone(), tx(10, 11, vec![read(1, &[11])])];
    assert!(check(&gone).is_err());
    let forked = [tx(1, 9, vec![append(1, 10)]), tx(1, 9, vec![append(1, 11)])];
    let readers = [tx(1, 9, vec![read(1, &[10])]), tx(1, 9, vec![read(1, &[11])])];
    let anomalies = check(&[forked, readers].concat()).expect_err("an anomaly");
    assert!(matches!(anomalies[0], Anomaly::IncompatibleOrder { list: 1, .. }));
}

#[test]
fn a_fractured_read_is_g_single() {
    let half = tx(1, 9, vec![read(1, &[10]), read(2, &[])]);
    let history = [tx(1, 9, vec![append(1, 10), append(2, 20)]), half];
    let both_read = tx(10, 11, vec![read(2, &[20])]);
    for history in [history.to_vec(), [history.to_vec(), vec![both_read]].concat()] {
        assert_eq!(cycle(&history), (Phenomenon::GSingle, false, "fractured read"));
    }
    let of_a_set = [tx(1, 9, vec![insert(10), insert(11)]), tx(1, 9, vec![scan(&[11])])];
    assert_eq!(cycle(&of_a_set).0, Phenomenon::GSingle);
}

#[test]
fn write_skew_is_g2_of_items() {
    let history = [
        tx(1, 9, vec![read(1, &[]), append(2, 20)]),
        tx(1, 9, vec![read(2, &[]), append(1, 10)]),
    ];
    assert_eq!(cycle(&history), (Phenomenon::G2Item, false, "write skew"));
}

#[test]
fn a_phantom_is_g2() {
    let history = [
        tx(1, 9, vec![scan(&[]), insert(10)]),
        tx(1, 9, vec![scan(&[]), insert(11)]),
    ];
    assert_eq!(cycle(&history), (Phenomenon::G2, false, "phantom"));
    // One of them saw the other; or nobody's insert was in the other's range.
    is_legal(&[history[0].clone(), tx(1, 9, vec![scan(&[10]), insert(11)])]);
    is_legal(&[history[0].clone(), tx(1, 9, vec![scan(&[]), insert(111)])]);
}

#[test]
fn a_stale_read_needs_the_clock() {
    let write = tx(1, 2, vec![append(1, 10)]);
    is_legal(&[write.clone(), tx(2, 3, vec![read(1, &[])])]);
    let stale = [write, tx(3, 4, vec![read(1, &[])])];
    assert_eq!(cycle(&stale), (Phenomenon::GSingle, true, "stale read"));
    // Of a set too; and acknowledged and lost is the same.
    let lost = [tx(1, 2, vec![insert(1)]), tx(3, 4, vec![scan(&[])])];
    assert_eq!(cycle(&lost), (Phenomenon::GSingle, true, "stale read"));
    // Two who each read what the other had not done, one after the other.
    let history = [
        tx(1, 2, vec![append(1, 10)]),
        tx(3, 4, vec![append(1, 11)]),
        tx(5, 6, vec![read(1, &[11, 10])]),
    ];
    assert_eq!(cycle(&history), (Phenomenon::G0, true, "dirty write"));
}

#[test]
fn who_does_not_see_himself_is_found() {
    let own = [append(1, 10), append(1, 11)];
    let sees = |step: Step| check(&[tx(1, 2, [own.to_vec(), vec![step]].concat())]);
    assert!(sees(read(1, &[10, 11])).is_ok());
    assert_eq!(
        sees(read(1, &[10])),
        Err(vec![Anomaly::Internal {
            transaction: 0,
            step: 2
        }])
    );
    assert!(check(&[tx(1, 2, vec![insert(1), scan(&[])])]).is_err());
    // What was undone is gone; what was written before the savepoint is not.
    let undone = |values: &[u64]| {
        let steps = vec![
            append(1, 10),
            Step::Savepoint,
            append(1, 11),
            Step::Undo,
            read(1, values),
        ];
        check(&[tx(1, 2, steps)])
    };
    assert!(undone(&[10]).is_ok());
    assert!(undone(&[10, 11]).is_err());
    assert!(undone(&[]).is_err());
    // Two reads of one transaction that don't agree.
    let twice = [
        tx(1, 9, vec![append(1, 10)]),
        tx(1, 9, vec![read(1, &[]), read(1, &[10])]),
    ];
    assert!(check(&twice).is_err());
}

#[test]
fn what_nobody_wrote_is_found() {
    let reads = |values: &[u64]| check(&[tx(1, 2, vec![append(1, 10)]), tx(3, 4, vec![read(1, values)])]);
    assert!(reads(&[10]).is_ok());
    assert!(reads(&[99]).is_err());
    assert!(reads(&[10, 10]).is_err());
    assert!(check(&[tx(1, 2, vec![scan(&[7])])]).is_err());
}

#[test]
fn who_knows_no_outcome_may_have_happened_late_or_never() {
    let lost = with(Outcome::Unknown, tx(1, 2, vec![read(2, &[]), append(1, 10)]));
    let empty = tx(3, 4, vec![read(1, &[])]);
    let late = tx(5, 6, vec![read(1, &[10])]);
    is_legal(&[lost.clone(), empty.clone()]);
    is_legal(&[lost.clone(), empty, late.clone()]);
    // It can't unhappen, nor happen before it was sent; and what it read counts once it has.
    assert!(check(&[lost.clone(), late.clone(), tx(7, 8, vec![read(1, &[])])]).is_err());
    let early = tx(1, 2, vec![read(1, &[10])]);
    assert!(check(&[with(Outcome::Unknown, tx(3, 4, vec![append(1, 10)])), early]).is_err());
    let before = tx(0, 0, vec![append(2, 20)]);
    assert!(check(&[before.clone(), lost.clone(), tx(3, 4, vec![read(1, &[])])]).is_ok());
    assert!(check(&[before, lost, late, tx(9, 9, vec![read(2, &[20])])]).is_err());
}

#[test]
fn a_snapshot_may_skew_and_nothing_else() {
    let skew = |level: fn(Transaction) -> Transaction| {
        [
            level(tx(1, 9, vec![read(1, &[]), append(2, 20)])),
            level(tx(1, 9, vec![read(2, &[]), append(1, 10)])),
        ]
    };
    is_legal(&skew(at_a_snapshot));
    assert!(check(&skew(|serializable| serializable)).is_err());
    // First committer wins.
    let lost = [
        at_a_snapshot(tx(1, 9, vec![read(1, &[]), append(1, 10)])),
        tx(1, 9, vec![read(1, &[]), append(1, 11)]),
        tx(10, 11, vec![read(1, &[10, 11])]),
    ];
    assert!(check(&lost).is_err());
    // One cut, not older than its beginning.
    let fractured = at_a_snapshot(tx(1, 9, vec![read(1, &[10]), read(2, &[])]));
    assert!(check(&[tx(1, 9, vec![append(1, 10), append(2, 20)]), fractured]).is_err());
    let stale = at_a_snapshot(tx(3, 4, vec![read(1, &[])]));
    assert!(check(&[tx(1, 2, vec![append(1, 10)]), stale]).is_err());
}
