use super::*;
use crate::changes::changes_of;
use crate::effects::LogPayload;
use crate::row::encode_row;
use crate::value::ValueRef;

const TABLE: TableId = 3;
const OTHER: TableId = 4;
const HERE: u64 = 7;

fn row(number: i32) -> Vec<u8> {
    encode_row(&[ValueRef::Int(number)])
}

fn tracked() -> Partition {
    let mut partition = Partition::new();
    partition.set_tracked([(TABLE, ConflictRule::Greatest(0))]);
    partition
}

/// Writes rows, or removes them, at a time.
fn write(partition: &mut Partition, micros: i64, rows: &[(TableId, u8, Option<i32>)]) -> Effects {
    let mut effects = EffectsBuilder::default();
    for &(table, key, value) in rows {
        match value {
            Some(value) => effects.put(table, &[key], &row(value)),
            None => effects.remove(table, &[key]),
        }
    }
    let effects = partition.track(effects.finish(), micros, HERE).expect("it fits");
    let lsn = partition.applied() + 1;
    let write = LogPayload::Write(effects.clone());
    partition.apply_record(lsn, &write).expect("it is sound");
    partition.commit_to(lsn);
    effects
}

fn told(partition: &mut Partition, since: Lsn, step: (usize, usize)) -> Vec<Change> {
    let snapshot = partition.applied();
    assert!(partition.pin(snapshot));
    let (mut changes, mut after) = (Vec::new(), None);
    loop {
        let told = partition.tell_rows(&BTreeSet::from([TABLE]), (since, snapshot), after.as_ref(), step);
        changes.extend(told.changes);
        after = told.more;
        if after.is_none() {
            partition.unpin(snapshot);
            return changes;
        }
    }
}

fn version(micros: i64) -> RowVersion {
    RowVersion { micros, origin: HERE }
}

#[test]
fn effects_carry_the_versions_of_tracked_rows_and_of_no_others() {
    let mut partition = tracked();
    let effects = write(&mut partition, 100, &[(TABLE, 1, Some(5)), (OTHER, 1, Some(6))]);
    let change = |row, version, replaced, rank| Change {
        table: TABLE,
        key: vec![1],
        row,
        version,
        replaced,
        rank,
    };
    let first = change(Some(row(5)), version(100), RowVersion::UNTRACKED, Vec::new());
    assert_eq!(changes_of(&effects), [first]);
    // A clock that went back: later all the same. And what the row was is what ranks its removal.
    let effects = write(&mut partition, 40, &[(TABLE, 1, None)]);
    let rank = rank_of(&row(5), 0);
    let second = change(None, version(101), version(100), rank);
    assert_eq!(changes_of(&effects), [second]);
    let effects = write(&mut partition, 200, &[(OTHER, 1, None)]);
    assert_eq!(changes_of(&effects), []);
}

#[test]
fn all_rows_at_once_are_refused() {
    let mut effects = EffectsBuilder::default();
    effects.clear(TABLE);
    let refused = tracked().track(effects.finish(), 1, HERE);
    assert_eq!(refused, Err(StatementError::TrackedTruncated));
}

#[test]
fn what_changed_since_is_told_in_steps_with_what_is_gone() {
    let mut partition = tracked();
    partition.set_tracked([]);
    write(&mut partition, 1, &[(TABLE, 0, Some(0))]);
    partition.set_tracked([(TABLE, ConflictRule::LastWriter)]);
    write(&mut partition, 100, &[(TABLE, 1, Some(1)), (TABLE, 2, Some(2))]);
    write(&mut partition, 200, &[(TABLE, 2, None), (TABLE, 3, Some(3))]);
    for step in [(1, 1), (2, 1000), (1000, 1), (1000, 1000)] {
        let all = told(&mut partition, 0, step);
        let short = |change: &Change| (change.key[0], change.row.is_some(), change.version.micros);
        let all: Vec<(u8, bool, i64)> = all.iter().map(short).collect();
        assert_eq!(all, [(0, true, 0), (1, true, 100), (3, true, 200), (2, false, 200)]);
        let since: Vec<u8> = told(&mut partition, 2, step)
            .iter()
            .map(|change| change.key[0])
            .collect();
        assert_eq!(since, [3, 2]);
    }
}

#[test]
fn tombstones_go_when_they_are_told_or_too_old_and_that_is_remembered() {
    let mut partition = tracked();
    write(
        &mut partition,
        100,
        &[(TABLE, 1, Some(1)), (TABLE, 2, Some(2)), (TABLE, 3, Some(3))],
    );
    write(&mut partition, 200, &[(TABLE, 1, None)]);
    write(&mut partition, 300, &[(TABLE, 2, None)]);
    let step = |partition: &mut Partition, before_micros, told, surely_before_micros| {
        let forget = Forget {
            before_micros,
            told,
            surely_before_micros,
        };
        let (mut after, mut forgotten) = (None, 0);
        loop {
            let (effects, more) = partition.forget_changes(&forget, after.as_deref(), 1);
            if let Some(effects) = effects {
                forgotten += 1;
                let lsn = partition.applied() + 1;
                partition.apply_record(lsn, &LogPayload::Write(effects)).expect("sound");
                partition.commit_to(lsn);
            }
            after = more;
            if after.is_none() {
                return (forgotten, partition.forgotten());
            }
        }
    };
    assert_eq!(step(&mut partition, 200, 10, 0), (0, 0), "too young");
    assert_eq!(step(&mut partition, 400, 2, 0), (1, 0), "the first is told");
    assert_eq!(step(&mut partition, 400, 2, 0), (0, 0), "the second isn't");
    assert_eq!(step(&mut partition, 400, 2, 400), (1, 3), "and goes untold");
    assert_eq!(told(&mut partition, 0, (10, 1000)).len(), 1, "rows stay");
    partition.set_tracked([]);
    step(&mut partition, 0, 0, 0);
    assert_eq!(partition.forgotten(), 0, "nothing is kept of what is tracked no more");
}
