use proptest::prelude::*;
use rust_decimal::Decimal;
use volt_engine::value::{DataType, Value, ValueRef};

use super::*;

const NUMERIC_TYPE: DataType = DataType::Numeric {
    precision: 28,
    scale: 10,
};

fn text(value: ValueRef<'_>) -> String {
    let mut out = Vec::new();
    text::put(&mut out, value);
    String::from_utf8(out).unwrap()
}

fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    binary::put(&mut out, value);
    out
}

#[test]
fn numbers_as_text() {
    assert_eq!(text(ValueRef::Int(i32::MIN)), "-2147483648");
    assert_eq!(text(ValueRef::BigInt(0)), "0");
    assert_eq!(text(ValueRef::BigInt(i64::MIN)), "-9223372036854775808");
    for (number, expected) in [
        (0.1, "0.1"),
        (100.0, "100"),
        (-0.0, "-0"),
        (1e15, "1e+15"),
        (123_456_789_012_345.0, "123456789012345"),
        (1.5e-5, "1.5e-05"),
        (0.0001, "0.0001"),
        (1e300, "1e+300"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ] {
        assert_eq!(text(ValueRef::Double(number)), expected);
    }
}

#[test]
fn timestamps_as_text() {
    for (written, read) in [
        ("1970-01-01 00:00:00", "epoch"),
        ("2026-02-28 23:59:59.5", "2026-02-28T23:59:59.500"),
        ("2024-02-29 00:00:00", "2024-02-29"),
        ("1999-12-31 23:00:00.000001", "2000-01-01 00:00:00.000001+01"),
        ("0044-03-15 12:00:00 BC", "0044-03-15 12:00 BC"),
        ("12026-01-01 00:00:00", "12026-01-01"),
    ] {
        let value = parameter(read.as_bytes(), 0, TIMESTAMP, DataType::Timestamp).unwrap();
        assert_eq!(text(value.as_ref()), written);
    }
    for wrong in [
        "",
        "2023-02-29",
        "2026-13-01",
        "2026-01-01 25:00",
        "x",
        "2026-01-01 é",
        "infinity",
        "0000-01-01",
    ] {
        let error = parameter(wrong.as_bytes(), 0, TIMESTAMP, DataType::Timestamp).unwrap_err();
        assert_eq!(error.sqlstate, "22007", "{wrong}");
    }
}

#[test]
fn numeric_in_binary_is_postgres_own() {
    // As PostgreSQL sends them: SELECT 12345.678::numeric, -0.00012, 0, 10000, 0.10.
    for (number, words) in [
        ("12345.678", &[3, 1, 0, 3, 1, 2345, 6780][..]),
        ("-0.00012", &[2, 0xffff, 0x4000, 5, 1, 2000]),
        ("0", &[0, 0, 0, 0]),
        ("10000", &[1, 1, 0, 0, 1]),
        ("0.10", &[1, 0xffff, 0, 2, 1000]),
    ] {
        let expected: Vec<u8> = words.iter().flat_map(|word: &u16| word.to_be_bytes()).collect();
        assert_eq!(bytes(ValueRef::Numeric(number.parse().unwrap())), expected, "{number}");
        let read = parameter(&expected, 1, NUMERIC, NUMERIC_TYPE).unwrap();
        assert_eq!(text(read.as_ref()), number);
    }
    let nan: Vec<u8> = [0u16, 0, 0xc000, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    assert_eq!(parameter(&nan, 1, NUMERIC, NUMERIC_TYPE).unwrap_err().sqlstate, "22003");
}

#[test]
fn parameters_of_kindred_types() {
    let small = 7i16.to_be_bytes();
    assert_eq!(parameter(&small, 1, INT2, DataType::BigInt), Ok(Value::BigInt(7)));
    assert_eq!(parameter(&small, 1, INT2, DataType::Double), Ok(Value::Double(7.0)));
    let large = i64::MAX.to_be_bytes();
    assert_eq!(parameter(&large, 1, INT8, DataType::Int).unwrap_err().sqlstate, "22003");
    assert_eq!(
        parameter(&1i32.to_be_bytes(), 1, DATE, DataType::Timestamp).map(|v| text(v.as_ref())),
        Ok("2000-01-02 00:00:00".to_owned())
    );
    for days in [i32::MIN, -106_751_992, 106_751_992, i32::MAX] {
        let day = parameter(&days.to_be_bytes(), 1, DATE, DataType::Timestamp);
        assert_eq!(day.unwrap_err().sqlstate, "22003", "{days}");
    }
    assert_eq!(parameter(b"12", 1, TEXT, DataType::Int), Ok(Value::Int(12)));
    assert_eq!(parameter(&small, 1, INT4, DataType::Int).unwrap_err().sqlstate, "22P03");
    assert_eq!(
        parameter(b"\x01", 1, BOOL, DataType::Int).unwrap_err().sqlstate,
        "42804"
    );
    assert_eq!(
        parameter(b"a\0b", 0, TEXT, DataType::Text).unwrap_err().sqlstate,
        "22021"
    );
    assert_eq!(
        parameter(b"\xff", 0, TEXT, DataType::Text).unwrap_err().sqlstate,
        "22021"
    );
    assert_eq!(parameter(b"yes", 0, BOOL, DataType::Boolean), Ok(Value::Boolean(true)));
    assert_eq!(
        parameter(b"o", 0, BOOL, DataType::Boolean).unwrap_err().sqlstate,
        "22P02"
    );
    assert_eq!(
        parameter(b"\\x00fF", 0, BYTEA, DataType::Bytea),
        Ok(Value::Bytea(vec![0, 255]))
    );
    assert_eq!(
        parameter(b"a\\\\\\101", 0, BYTEA, DataType::Bytea),
        Ok(Value::Bytea(b"a\\A".to_vec()))
    );
    assert_eq!(
        parameter(b"1e2", 0, NUMERIC, NUMERIC_TYPE).map(|v| text(v.as_ref())),
        Ok("100".to_owned())
    );
    assert_eq!(
        parameter(b"1_0", 0, NUMERIC, NUMERIC_TYPE).unwrap_err().sqlstate,
        "22P02"
    );
}

fn any_type() -> impl Strategy<Value = DataType> {
    prop_oneof![
        Just(DataType::Boolean),
        Just(DataType::Int),
        Just(DataType::BigInt),
        Just(DataType::Double),
        Just(NUMERIC_TYPE),
        Just(DataType::Varchar(10)),
        Just(DataType::Text),
        Just(DataType::Timestamp),
        Just(DataType::Bytea),
    ]
}

fn any_value() -> impl Strategy<Value = (Value, DataType)> {
    // PostgreSQL's range of timestamps, as far as its text form goes.
    let micros = -200_000_000_000_000_000i64..9_000_000_000_000_000_000i64;
    prop_oneof![
        any::<bool>().prop_map(|v| (Value::Boolean(v), DataType::Boolean)),
        any::<i32>().prop_map(|v| (Value::Int(v), DataType::Int)),
        any::<i64>().prop_map(|v| (Value::BigInt(v), DataType::BigInt)),
        any::<f64>()
            .prop_filter("NaN differs from itself", |v| !v.is_nan())
            .prop_map(|v| (Value::Double(v), DataType::Double)),
        (any::<i64>(), 0u32..28).prop_map(|(v, scale)| (Value::Numeric(Decimal::new(v, scale)), NUMERIC_TYPE)),
        "[^\0]*".prop_map(|v| (Value::Text(v), DataType::Text)),
        micros.prop_map(|v| (Value::Timestamp(v), DataType::Timestamp)),
        any::<Vec<u8>>().prop_map(|v| (Value::Bytea(v), DataType::Bytea)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((value, data_type) in any_value()) {
        let number = oid(data_type);
        prop_assert_eq!(parameter(text(value.as_ref()).as_bytes(), 0, number, data_type).unwrap(), value.clone());
        prop_assert_eq!(parameter(&bytes(value.as_ref()), 1, number, data_type).unwrap(), value);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(
        bytes: Vec<u8>,
        format in 0i16..2,
        number in prop::sample::select(vec![16u32, 17, 19, 20, 21, 23, 25, 700, 701, 705, 1042, 1043, 1082, 1114, 1184, 1700, 600]),
        target in any_type(),
    ) {
        let _ = parameter(&bytes, format, number, target);
    }

    #[test]
    fn any_text_is_a_value_or_an_error(text in "\\PC*|[-0-9:+ .TZBCeE]*", target in any_type()) {
        let _ = parameter(text.as_bytes(), 0, 25, target);
    }
}
