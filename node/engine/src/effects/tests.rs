use proptest::prelude::*;

use super::*;
use crate::row::encode_row;
use crate::value::ValueRef;

fn effects(changes: &[(u32, Vec<u8>, Option<i64>)]) -> Effects {
    let mut builder = EffectsBuilder::default();
    for (table, key, row) in changes {
        match row {
            Some(number) => builder.put(*table, key, &encode_row(&[ValueRef::BigInt(*number)])),
            None => builder.remove(*table, key),
        }
    }
    builder.finish()
}

fn any_effects() -> impl Strategy<Value = Effects> {
    let change = (
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..200),
        any::<Option<i64>>(),
    );
    prop::collection::vec(change, 0..5).prop_map(|changes| effects(&changes))
}

fn any_payload() -> impl Strategy<Value = LogPayload> {
    let transaction = || {
        (any::<i64>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(began_micros, node, boot, sequence)| {
            TransactionId {
                began_micros,
                node,
                boot,
                sequence,
            }
        })
    };
    prop_oneof![
        any_effects().prop_map(LogPayload::Write),
        (transaction(), any::<u32>(), any_effects()).prop_map(|(transaction, home, effects)| LogPayload::Prepared {
            transaction,
            home,
            effects
        }),
        transaction().prop_map(LogPayload::Commit),
        transaction().prop_map(LogPayload::Abort),
        Just(LogPayload::EpochStart),
    ]
}

#[test]
fn the_layout_is_as_written_above() {
    let effects = effects(&[(7, b"k".to_vec(), Some(1)), (7, b"k".to_vec(), None)]);
    assert_eq!(
        effects.0[..],
        [1, 7, 0, 0, 0, 1, b'k', 3, 1, 4, 2, 2, 7, 0, 0, 0, 1, b'k'][..]
    );
}

#[test]
fn a_row_that_is_none_is_refused_before_it_is_stored() {
    let mut builder = EffectsBuilder::default();
    builder.put(1, b"k", &[1, 99]);
    let effects = builder.finish();
    assert_eq!(effects.check(), Err(CorruptError::UnknownTag(99)));
    assert!(LogPayload::decode(&LogPayload::Write(effects).encode()).is_err());
}

proptest! {
    #[test]
    fn a_payload_comes_back(payload in any_payload()) {
        prop_assert_eq!(LogPayload::decode(&payload.encode()), Ok(payload));
    }

    #[test]
    fn a_shortened_or_damaged_payload_is_read_or_refused(payload in any_payload(), at: prop::sample::Index, byte: u8) {
        let mut bytes = payload.encode().to_vec();
        let place = at.index(bytes.len());
        let _ = LogPayload::decode(&Bytes::copy_from_slice(&bytes[..place]));
        bytes[place] = byte;
        let _ = LogPayload::decode(&bytes.into());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let effects = Effects(Bytes::from(bytes.clone()));
        prop_assert!(effects.iter().count() <= bytes.len());
        prop_assert!(effects.iter_checked().count() <= bytes.len());
        let _ = LogPayload::decode(&bytes.into());
    }
}
