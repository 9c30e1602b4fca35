//! Keys against a list of what should be kept, through commits and cuts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::effects::LogPayload;
use crate::idempotency::{IdempotencyKey, MAX_KEPT_RESULT_BYTES, MAX_KEY_BYTES};
use crate::value::Value;

const LIMITS: KeyLimits = KeyLimits {
    kept_for_micros: 100,
    keys: 8,
    bytes: 1 << 20,
};

fn keyed(key: &str, statement: &str) -> Keyed {
    let key = IdempotencyKey::try_from(key.to_owned()).unwrap();
    Keyed::statement(key, statement, &[])
}

fn own_effects(number: u8) -> Effects {
    let mut effects = EffectsBuilder::default();
    effects.put(1, &[number], &encode_row(&[ValueRef::Int(1)]));
    effects.finish()
}

fn write(partition: &mut Partition, effects: Effects) -> Lsn {
    let lsn = partition.applied() + 1;
    partition.apply_record(lsn, &LogPayload::Write(effects)).unwrap();
    lsn
}

#[derive(Clone, Debug)]
enum Step {
    /// This key, for this statement, so many microseconds later.
    Request(u8, bool, i64),
    CommitAll,
    /// Back to what is committed.
    Cut,
}

/// Key: (record, time, statement, rows affected).
type Model = BTreeMap<u8, (Lsn, i64, bool, u64)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = (0..20_u8, any::<bool>(), 0..30_i64).prop_map(|(key, which, later)| Step::Request(key, which, later));
    prop::collection::vec(
        prop_oneof![8 => request, 1 => Just(Step::CommitAll), 1 => Just(Step::Cut)],
        0..120,
    )
}

/// The oldest go: those that are too old, and those that are too many with one more.
fn forget(model: &mut Model, now: i64) {
    let mut by_age: Vec<(i64, String, u8)> = model
        .iter()
        .map(|(key, kept)| (kept.1, key.to_string(), *key))
        .collect();
    by_age.sort();
    let too_many = (model.len() as u64 + 1).saturating_sub(LIMITS.keys);
    for (place, (at, _, key)) in by_age.into_iter().enumerate().take(REMOVED_AT_ONCE) {
        if at < now - LIMITS.kept_for_micros || (place as u64) < too_many {
            model.remove(&key);
        }
    }
}

fn check(partition: &Partition, model: &Model) {
    for key in 0..20 {
        let found = partition.find_kept(&keyed(&key.to_string(), "true"));
        let expected = model.get(&key);
        assert_eq!(found.map(|kept| kept.lsn), expected.map(|kept| kept.0), "key {key}");
        let (Some(found), Some(&(_, at, which, affected))) = (found, expected) else {
            continue;
        };
        assert_eq!(found.row.get(1), ValueRef::Timestamp(at));
        assert_eq!(
            found.affected(&keyed(&key.to_string(), &which.to_string())),
            Ok(affected)
        );
        let other = keyed(&key.to_string(), &(!which).to_string());
        assert!(matches!(found.affected(&other), Err(StatementError::KeyInUse { .. })));
        let rows: Vec<Value> = found.rows().map(|row| row.get(0).to_value()).collect();
        assert_eq!(rows, [Value::Int(i32::from(key)), Value::Null]);
    }
    assert_eq!(partition.keys_kept(), model.len() as u64);
}

proptest! {
    #[test]
    fn what_is_kept_is_what_should_be(steps in steps()) {
        let (mut partition, mut model, mut committed) = (Partition::new(), Model::new(), Model::new());
        let mut now = 0;
        for step in steps {
            match step {
                Step::Request(key, which, later) => {
                    now += later;
                    let keyed = keyed(&key.to_string(), &which.to_string());
                    if partition.find_kept(&keyed).is_none() {
                        let mut rows = KeptRows::default();
                        rows.push(&[ValueRef::Int(i32::from(key))]);
                        rows.push(&[ValueRef::Null]);
                        let own = (key % 2 == 0).then(|| own_effects(key));
                        let kept = partition.keep_within(&LIMITS, &keyed, u64::from(key), &rows, now, own).unwrap();
                        let lsn = write(&mut partition, kept);
                        forget(&mut model, now);
                        model.insert(key, (lsn, now, which, u64::from(key)));
                    }
                }
                Step::CommitAll => {
                    partition.commit_to(partition.applied());
                    committed = model.clone();
                }
                Step::Cut => {
                    let to = partition.committed;
                    partition.undo_after(to);
                    model = committed.clone();
                }
            }
            check(&partition, &model);
        }
        // What the system keeps for itself is not counted among the rows.
        prop_assert!(partition.stats().rows <= 10);
    }
}

#[test]
fn a_keys_effects_come_after_its_requests() {
    let mut partition = Partition::new();
    let kept = partition
        .keep(&keyed("a", "x"), 1, &KeptRows::default(), 5, Some(own_effects(7)))
        .unwrap();
    write(&mut partition, kept);
    assert_eq!(partition.stats().rows, 1);
    assert_eq!(
        partition
            .find_kept(&keyed("a", "x"))
            .unwrap()
            .affected(&keyed("a", "x")),
        Ok(1)
    );
}

#[test]
fn a_learner_and_a_dropped_table_leave_them() {
    let mut partition = Partition::new();
    for number in 0..5_u8 {
        let key = keyed(&number.to_string(), "x");
        let kept = partition
            .keep(&key, 1, &KeptRows::default(), 5, Some(own_effects(number)))
            .unwrap();
        write(&mut partition, kept);
    }
    partition.commit_to(5);
    partition.pin(5);
    let (chunk, None) = partition.dump_chunk(5, None, usize::MAX) else {
        panic!("one chunk");
    };
    let mut learner = Partition::new();
    learner.load_chunk(&chunk).unwrap();
    learner.retain_tables(|table| table != 1);
    assert_eq!((learner.keys_kept(), learner.stats().rows), (5, 0));
    assert_eq!(learner.find_kept(&keyed("3", "x")).unwrap().lsn, 4);
}

#[test]
fn bounds() {
    let text = |bytes: usize| IdempotencyKey::try_from("k".repeat(bytes));
    assert_eq!(text(0), Err(StatementError::InvalidKey));
    assert!(text(MAX_KEY_BYTES).is_ok());
    assert_eq!(text(MAX_KEY_BYTES + 1), Err(StatementError::InvalidKey));

    let partition = Partition::new();
    let mut rows = KeptRows::default();
    rows.push(&[ValueRef::Bytea(&vec![0; MAX_KEPT_RESULT_BYTES])]);
    assert_eq!(
        partition.keep(&keyed("a", "x"), 1, &rows, 0, None),
        Err(StatementError::TooLargeToKeep)
    );
    let nearly_all = |free: usize| Effects(vec![0; MAX_EFFECTS_BYTES - free].into());
    assert!(partition.check_room_to_keep(&nearly_all(MAX_RECORD_BYTES)).is_ok());
    assert_eq!(
        partition.check_room_to_keep(&nearly_all(MAX_RECORD_BYTES - 1)),
        Err(StatementError::TooManyEffects)
    );
}

/// However many are under way: new ones are refused when what is due can't be found for those that went.
#[test]
fn too_many_are_refused() {
    let mut partition = Partition::new();
    let limits = KeyLimits { bytes: 4_096, ..LIMITS };
    let mut refused = 0;
    for number in 0..400 {
        let mut rows = KeptRows::default();
        rows.push(&[ValueRef::Bytea(&[7; 1_000])]);
        match partition.keep_within(&limits, &keyed(&number.to_string(), "x"), 1, &rows, number, None) {
            Ok(kept) => drop(write(&mut partition, kept)),
            Err(error) => {
                assert_eq!(error, StatementError::TooManyKeys);
                refused += 1;
            }
        }
        assert!(partition.key_bytes() < limits.bytes * KeyLimits::SLACK + 2_000);
    }
    assert!(refused > 0, "nothing was committed, so that nothing could go");
    partition.commit_to(partition.applied());
    assert!(
        partition
            .keep_within(&limits, &keyed("after", "x"), 1, &KeptRows::default(), 500, None)
            .is_ok()
    );
}
