use super::*;
use crate::plan::BinaryOp;
use crate::plan::eval::cast_value;
use crate::plan::operators::arithmetic;
use crate::value::Value;

const NUMERIC_6_2: DataType = DataType::Numeric { precision: 6, scale: 2 };

fn text(text: &str, to: DataType) -> Result<String, &'static str> {
    match cast_value(Value::Text(text.to_owned()), to) {
        Ok(value) => Ok(value.as_ref().to_text()),
        Err(error) => Err(error.sqlstate()),
    }
}

fn numeric(text: &str) -> Value {
    Value::Numeric(text.parse().unwrap())
}

#[test]
fn texts_become_what_postgresql_makes_of_them() {
    let cases = [
        ("42", DataType::Int, Ok("42")),
        (" -7\n", DataType::Int, Ok("-7")),
        ("+7", DataType::BigInt, Ok("7")),
        ("", DataType::Int, Err("22P02")),
        ("4x", DataType::Int, Err("22P02")),
        ("1.5", DataType::Int, Err("22P02")),
        ("2147483648", DataType::Int, Err("22003")),
        ("99999999999999999999", DataType::BigInt, Err("22003")),
        ("--1", DataType::Int, Err("22P02")),
        ("-9223372036854775808", DataType::BigInt, Ok("-9223372036854775808")),
        ("1e3", DataType::Double, Ok("1000")),
        ("nan", DataType::Double, Ok("NaN")),
        ("1e400", DataType::Double, Err("22003")),
        ("-inf", DataType::Double, Ok("-Infinity")),
        ("1e-400", DataType::Double, Err("22003")),
        ("0e5", DataType::Double, Ok("0")),
        ("1e15", DataType::Double, Ok("1e+15")),
        ("123456789012345", DataType::Double, Ok("123456789012345")),
        ("0.0001", DataType::Double, Ok("0.0001")),
        ("0.00001", DataType::Double, Ok("1e-05")),
        ("x", DataType::Double, Err("22P02")),
        ("1.005", NUMERIC_6_2, Ok("1.01")),
        ("-1.005", NUMERIC_6_2, Ok("-1.01")),
        ("1.5", NUMERIC_6_2, Ok("1.50")),
        (".5", NUMERIC_6_2, Ok("0.50")),
        ("5.", NUMERIC_6_2, Ok("5.00")),
        ("9999.995", NUMERIC_6_2, Err("22003")),
        ("9999.99", NUMERIC_6_2, Ok("9999.99")),
        ("1e2", NUMERIC_6_2, Ok("100.00")),
        ("1.5", PLAIN_NUMERIC, Ok("1.5")),
        ("1.50", PLAIN_NUMERIC, Ok("1.50")),
        ("7", PLAIN_NUMERIC, Ok("7")),
        ("1.12345678905", PLAIN_NUMERIC, Ok("1.1234567891")),
        ("1e50", PLAIN_NUMERIC, Err("22003")),
        ("1_0", PLAIN_NUMERIC, Err("22P02")),
        (".", PLAIN_NUMERIC, Err("22P02")),
        ("1e", PLAIN_NUMERIC, Err("22P02")),
        ("123456789012345678901234567890123", PLAIN_NUMERIC, Err("22003")),
        ("-0", PLAIN_NUMERIC, Ok("0")),
        ("yes", DataType::Boolean, Ok("true")),
        ("F", DataType::Boolean, Ok("false")),
        ("o", DataType::Boolean, Err("22P02")),
        ("of", DataType::Boolean, Ok("false")),
        ("", DataType::Boolean, Err("22P02")),
        ("2", DataType::Boolean, Err("22P02")),
        ("2026-01-31", DataType::Timestamp, Ok("2026-01-31 00:00:00")),
        (
            "2026-01-31T23:59:58.50",
            DataType::Timestamp,
            Ok("2026-01-31 23:59:58.5"),
        ),
        (
            "1969-12-31 23:59:59.999999",
            DataType::Timestamp,
            Ok("1969-12-31 23:59:59.999999"),
        ),
        ("2026-02-29", DataType::Timestamp, Err("22007")),
        ("2024-02-29", DataType::Timestamp, Ok("2024-02-29 00:00:00")),
        ("soon", DataType::Timestamp, Err("22007")),
        ("2026-01-01 1:2", DataType::Timestamp, Ok("2026-01-01 01:02:00")),
        ("\\x00fF", DataType::Bytea, Ok("\\x00ff")),
        ("\\x0", DataType::Bytea, Err("22023")),
        ("\\xzz", DataType::Bytea, Err("22023")),
        ("\\x+f", DataType::Bytea, Err("22023")),
        ("ab", DataType::Bytea, Ok("\\x6162")),
        ("äöü", DataType::Varchar(2), Ok("äö")),
        ("äö", DataType::Varchar(2), Ok("äö")),
    ];
    for (given, to, expected) in cases {
        assert_eq!(text(given, to), expected.map(str::to_owned), "{given:?} to {to:?}");
    }
}

#[test]
fn numbers_are_rounded_as_their_type_is() {
    assert_eq!(cast_value(Value::Double(2.5), DataType::Int), Ok(Value::Int(2)));
    assert_eq!(cast_value(numeric("2.5"), DataType::Int), Ok(Value::Int(3)));
    assert_eq!(cast_value(numeric("-2.5"), DataType::BigInt), Ok(Value::BigInt(-3)));
    assert_eq!(
        cast_value(Value::Double(f64::NAN), DataType::Int)
            .unwrap_err()
            .sqlstate(),
        "22003"
    );
    assert_eq!(
        cast_value(Value::Double(9.3e18), DataType::BigInt)
            .unwrap_err()
            .sqlstate(),
        "22003"
    );
    assert_eq!(
        cast_value(Value::BigInt(1 << 40), DataType::Int)
            .unwrap_err()
            .sqlstate(),
        "22003"
    );
    assert_eq!(cast_value(Value::Boolean(true), DataType::Int), Ok(Value::Int(1)));
    assert_eq!(
        cast_value(Value::Timestamp(0), DataType::Int).unwrap_err().sqlstate(),
        "42804"
    );
    assert_eq!(cast_value(Value::Null, DataType::Int), Ok(Value::Null));
}

#[test]
fn a_column_refuses_what_a_cast_cuts() {
    let assigned = |given: &str| {
        let text = ValueRef::Text(given);
        assign(Datum::Ref(text), DataType::Varchar(2))
            .map(Datum::into_value)
            .map_err(|error| error.sqlstate())
    };
    assert_eq!(assigned("äö"), Ok(Value::Text("äö".to_owned())));
    assert_eq!(assigned("äö  "), Ok(Value::Text("äö".to_owned())));
    assert_eq!(assigned("äöü"), Err("22001"));
    assert!(assign(Datum::Ref(ValueRef::Text("1")), DataType::Int).is_err());
}

#[test]
fn arithmetic_overflows_and_divides_as_postgresql() {
    let run = |op, left: Value, right: Value| {
        arithmetic(op, left.as_ref(), right.as_ref())
            .map(|value| value.as_ref().to_text())
            .map_err(|error| error.sqlstate())
    };
    let ok = |text: &str| Ok(text.to_owned());
    use BinaryOp::{Add, Divide, Modulo, Multiply, Subtract};
    assert_eq!(run(Add, Value::Int(i32::MAX), Value::Int(1)), Err("22003"));
    assert_eq!(run(Add, Value::Int(i32::MAX), Value::BigInt(1)), ok("2147483648"));
    assert_eq!(run(Subtract, Value::BigInt(i64::MIN), Value::BigInt(1)), Err("22003"));
    assert_eq!(run(Divide, Value::Int(-7), Value::Int(2)), ok("-3"));
    assert_eq!(run(Modulo, Value::Int(-7), Value::Int(2)), ok("-1"));
    assert_eq!(run(Divide, Value::Int(i32::MIN), Value::Int(-1)), Err("22003"));
    assert_eq!(run(Modulo, Value::BigInt(i64::MIN), Value::BigInt(-1)), ok("0"));
    assert_eq!(run(Divide, Value::Int(1), Value::Int(0)), Err("22012"));
    assert_eq!(run(Divide, Value::Double(1.0), Value::Double(0.0)), Err("22012"));
    assert_eq!(run(Multiply, Value::Double(1e200), Value::Double(1e200)), Err("22003"));
    assert_eq!(run(Divide, numeric("1"), numeric("3")), ok("0.33333333333333333333"));
    assert_eq!(run(Divide, numeric("10"), numeric("3")), ok("3.3333333333333333"));
    assert_eq!(run(Divide, numeric("6"), numeric("2")), ok("3.0000000000000000"));
    assert_eq!(
        run(Divide, numeric("1.00"), Value::Int(4)),
        ok("0.25000000000000000000")
    );
    assert_eq!(run(Multiply, numeric("1.50"), numeric("2.0")), ok("3.000"));
    assert_eq!(run(Modulo, numeric("5.5"), numeric("0")), Err("22012"));
    assert_eq!(
        run(Multiply, numeric("79228162514264337593543950335"), numeric("2")),
        Err("22003")
    );
    assert_eq!(run(Add, Value::Null, Value::Int(1)), ok(""));
}

#[test]
fn keys_are_found_across_number_types() {
    let key = |value: Value, column| {
        let found = as_key(Datum::Ref(value.as_ref()), column).map(|datum| datum.map(Datum::into_value));
        found.map_err(|error| error.sqlstate())
    };
    assert_eq!(key(Value::Int(5), DataType::BigInt), Ok(Some(Value::Int(5))));
    assert_eq!(key(numeric("5.00"), DataType::BigInt), Ok(Some(Value::BigInt(5))));
    assert_eq!(key(numeric("5.5"), DataType::BigInt), Ok(None));
    assert_eq!(key(Value::Int(5), NUMERIC_6_2), Ok(Some(numeric("5"))));
    assert_eq!(key(Value::Int(5), DataType::Double), Ok(Some(Value::Double(5.0))));
    assert_eq!(key(Value::Null, DataType::Int), Ok(None));
    assert_eq!(key(Value::Text("x".to_owned()), DataType::Int), Err("22P02"));
}
