use proptest::prelude::*;

use super::*;

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<i32>().prop_map(Value::Int),
        any::<i64>().prop_map(Value::BigInt),
        (-1e12f64..1e12).prop_map(Value::Double),
        (-(1i128 << 95)..(1i128 << 95), 0u32..=28)
            .prop_map(|(mantissa, scale)| Value::Numeric(Decimal::from_i128_with_scale(mantissa, scale))),
        ".{0,20}".prop_map(Value::Text),
        any::<i64>().prop_map(Value::Timestamp),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Value::Bytea),
    ]
}

fn encode(values: &[Value]) -> Vec<u8> {
    encode_row(&values.iter().map(Value::as_ref).collect::<Vec<_>>())
}

#[test]
fn a_row_is_compact() {
    assert_eq!(
        encode(&[Value::BigInt(5), Value::Text("ab".into()), Value::Null]),
        [3, BIGINT, 10, TEXT, 2, b'a', b'b', NULL]
    );
    let numeric = encode(&[Value::Numeric("12.50".parse().unwrap())]);
    assert_eq!(numeric.len(), 5);
    assert_eq!(
        RowRef::parse(&numeric).unwrap().to_values(),
        [Value::Numeric("12.50".parse().unwrap())]
    );
}

proptest! {
    #[test]
    fn a_changed_row_is_what_its_values_make(
        old in prop::collection::vec(any_value(), 0..12), columns in 0usize..16,
        changed in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 0..6),
        missing in prop::collection::vec(any_value(), 0..14),
    ) {
        let width = columns.max(old.len());
        let changed: std::collections::BTreeMap<usize, Value> = match width {
            0 => Default::default(),
            _ => changed.into_iter().map(|(place, value)| (place.index(width), value)).collect(),
        };
        let mut values = old.clone();
        values.extend((old.len()..width).map(|lacking| missing.get(lacking).cloned().unwrap_or(Value::Null)));
        changed.iter().for_each(|(&place, value)| values[place] = value.clone());
        let changed: Vec<_> = changed.iter().map(|(&place, value)| (place, value.as_ref())).collect();
        let (bytes, mut out) = (encode(&old), Vec::new());
        encode_changed_into(&mut out, RowRef::new(&bytes).with_missing(&missing), columns, &changed);
        prop_assert_eq!(out, encode(&values));
    }
}

#[test]
fn a_column_that_a_row_lacks_is_null_or_what_it_was_added_with() {
    let bytes = encode(&[Value::Int(1)]);
    let row = RowRef::parse(&bytes).unwrap();
    let missing = [Value::Int(7), Value::Int(8), Value::Null, Value::Text("x".into())];
    let with = row.with_missing(&missing);
    let mut walk = with.walk();
    let by_walk = [3, 0, 1, 4].map(|column| walk.get(column));
    let of_it = [ValueRef::Text("x"), ValueRef::Int(1), ValueRef::Int(8), ValueRef::Null];
    assert_eq!(([3, 0, 1, 4].map(|column| with.get(column)), by_walk), (of_it, of_it));
    assert_eq!((with.len(), with.get(2)), (1, ValueRef::Null));
    assert_eq!(
        (row.get(0), row.get(1), row.walk().get(7)),
        (ValueRef::Int(1), ValueRef::Null, ValueRef::Null)
    );
}

#[test]
fn a_count_that_lies_is_refused_without_allocating() {
    for bytes in [
        &[0xFF; 9][..],
        &[200, 1, 0, 0],
        &[1],
        &[],
        &[0, 0],
        &[1, 77],
        &[1, TEXT, 1, 0xFF],
    ] {
        assert!(RowRef::parse(bytes).is_err(), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn a_row_comes_back(values in prop::collection::vec(any_value(), 0..20), order in prop::collection::vec(0usize..22, 0..10)) {
        let bytes = encode(&values);
        let row = RowRef::parse(&bytes).unwrap();
        prop_assert_eq!(row.to_values(), values.clone());
        let mut walk = row.walk();
        for column in order {
            let expected = values.get(column).map_or(ValueRef::Null, Value::as_ref);
            prop_assert_eq!(row.get(column), expected);
            prop_assert_eq!(walk.get(column), expected);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), column in 0usize..10) {
        let row = RowRef::new(&bytes);
        let _ = (row.get(column), row.values().count(), row.walk().get(column));
        if let Ok(row) = RowRef::parse(&bytes) {
            prop_assert!(row.len() < bytes.len());
        }
    }

    #[test]
    fn a_damaged_row_is_read_or_refused(values in prop::collection::vec(any_value(), 1..6), at: prop::sample::Index, byte: u8) {
        let mut bytes = encode(&values);
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = RowRef::parse(&bytes).map(|row| row.to_values());
        let _ = RowRef::new(&bytes).to_values();
    }
}
