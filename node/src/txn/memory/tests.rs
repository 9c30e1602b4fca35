use futures::FutureExt;
use proptest::prelude::*;
use volt_engine::effects::EffectsBuilder;

use super::*;
use crate::world::simulated::SimulatedMemory;

const LIMIT: u64 = 1_000;

/// A guard over memory that a test sets.
fn guard(limit: Option<u64>) -> (MemoryGuard, Arc<SimulatedMemory>) {
    let memory = Arc::new(SimulatedMemory::default());
    let mut config = NodeConfig::new(1, "");
    config.memory_limit = limit;
    let guard = MemoryGuard::new(Arc::clone(&memory) as Arc<dyn Memory>, &config);
    (guard, memory)
}

fn put(bytes: usize) -> Effects {
    let mut effects = EffectsBuilder::default();
    effects.put(1, b"key", &vec![0; bytes]);
    effects.finish()
}

fn removal() -> Effects {
    let mut effects = EffectsBuilder::default();
    effects.remove(1, b"key");
    effects.finish()
}

#[test]
fn what_is_admitted_between_two_looks_counts() {
    let (guard, memory) = guard(Some(LIMIT));
    memory.resident.store(500, Relaxed);
    guard.look(100);
    let mut admitted = 0;
    while guard.admit(Some(&put(10))).is_ok() {
        admitted += put(10).size() as u64;
        assert!(admitted < LIMIT, "it never ends");
    }
    assert!(admitted * BYTES_AN_EFFECT_BYTE > 400, "{admitted}");
    let error = guard.admit(Some(&put(10))).unwrap_err();
    assert_eq!(error.sqlstate, "53200");
    assert!(error.detail.is_some() && error.hint.is_some());
    assert_eq!(guard.figures().refused, 2);
    // Seen by the next look, it counts once.
    memory.resident.store(600, Relaxed);
    guard.look(200);
    assert_eq!(guard.admit(Some(&put(10))), Ok(()));
}

#[test]
fn it_is_time_to_look_when_much_was_admitted() {
    let (guard, memory) = guard(Some(LIMIT * LOOK_AFTER_PART));
    memory.resident.store(LIMIT * LOOK_AFTER_PART / 2, Relaxed);
    guard.look(100);
    let asked = || guard.much.notified().now_or_never().is_some();
    let mut admitted = 0;
    while !asked() {
        assert!(admitted <= LIMIT, "{admitted} and nobody looks");
        guard.admit(Some(&put(10))).unwrap();
        admitted += put(10).size() as u64 * BYTES_AN_EFFECT_BYTE;
    }
    assert!(admitted > LIMIT, "{admitted}");
    guard.look(110);
    assert!(!asked());
    guard.admit(Some(&put(10))).unwrap();
    assert!(!asked(), "what was seen counts again");
}

#[test]
fn a_refusal_is_a_reason_to_look() {
    let (guard, memory) = guard(Some(LIMIT));
    memory.resident.store(LIMIT, Relaxed);
    guard.look(100);
    assert!(guard.check(Some(&put(10))).is_err());
    assert!(guard.much.notified().now_or_never().is_some());
}

#[test]
fn removing_goes_on_and_makes_room() {
    let (guard, memory) = guard(Some(LIMIT));
    memory.resident.store(900, Relaxed);
    guard.look(700);
    memory.resident.store(1_050, Relaxed);
    guard.look(800);
    assert!(guard.admit(Some(&put(10))).is_err());
    assert_eq!(guard.admit(Some(&removal())), Ok(()));
    assert_eq!(guard.admit(None), Ok(()));
    // The allocator keeps what the rows took; new ones take it again, up to what there was.
    guard.look(600);
    assert_eq!(guard.admit(Some(&put(10))), Ok(()));
    assert!(guard.check(Some(&put(60))).is_err());
    // A look that finds it within its limit by chance takes nothing of that back.
    memory.resident.store(990, Relaxed);
    guard.look(600);
    memory.resident.store(1_050, Relaxed);
    guard.look(600);
    assert_eq!(guard.admit(Some(&put(10))), Ok(()));
    // Something else has grown: that the rows are fewer doesn't help the machine.
    memory.resident.store(LIMIT + BEYOND_LEAST + 1, Relaxed);
    guard.look(100);
    assert!(guard.admit(Some(&put(10))).is_err());
}

#[test]
fn without_a_limit_everything_goes() {
    let (guard, memory) = guard(None);
    memory.resident.store(u64::MAX, Relaxed);
    guard.look(u64::MAX);
    assert_eq!(guard.admit(Some(&put(10))), Ok(()));
    assert_eq!(guard.figures().limit, 0);
}

#[test]
fn the_default_is_a_share_of_what_there_is() {
    let memory = SimulatedMemory {
        available: Some(1_000_000),
        ..SimulatedMemory::default()
    };
    assert_eq!(default_limit(&memory, 1), Some(800_000));
    assert_eq!(default_limit(&memory, 4), Some(200_000));
    assert_eq!(default_limit(&SimulatedMemory::default(), 1), None);
}

/// An eighth of it is more than what it may always be beyond.
const LARGE: u64 = 16 * BEYOND_LEAST;

proptest! {
    /// Never beyond the limit and an eighth; always within the limit; less is admitted whenever more is.
    #[test]
    fn the_decision(
        resident in 0..2 * LARGE,
        admitted in 0..LARGE,
        rows in 0..LARGE,
        rows_within in 0..LARGE,
        more in 0..LARGE,
    ) {
        let known = Known { resident, admitted, rows, rows_within };
        let coming = resident + admitted + more;
        let is_admitted = admits(LARGE, known, more);
        prop_assert!(is_admitted || coming > LARGE);
        prop_assert!(!is_admitted || coming <= LARGE + LARGE / BEYOND_PART);
        prop_assert!(!is_admitted || coming <= LARGE || rows + admitted + more <= rows_within);
        prop_assert!(!is_admitted || admits(LARGE, known, more / 2));
    }
}
