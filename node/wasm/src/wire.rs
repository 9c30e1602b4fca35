//! How values pass between a module and its host: a row is a count of values, 4 bytes, then each value behind its tag. All
//! numbers are little-endian. It is for a module's author to read and write by hand, so nothing is packed.

use rust_decimal::Decimal;
use volt_engine::value::{Value, ValueRef};

const NULL: u8 = 0;
/// Then one byte, 0 or 1.
const BOOLEAN: u8 = 1;
/// Then 4 bytes.
const INT: u8 = 2;
/// Then 8 bytes.
const BIGINT: u8 = 3;
/// Then 8 bytes.
const DOUBLE: u8 = 4;
/// Then the digits after the point, one byte, and the number without its point, 16 bytes.
const NUMERIC: u8 = 5;
/// Then the length, 4 bytes, and UTF-8.
const TEXT: u8 = 6;
/// Then microseconds since 1970, 8 bytes.
const TIMESTAMP: u8 = 7;
/// Then the length, 4 bytes, and the bytes.
const BYTEA: u8 = 8;

/// 0001-01-01 and the end of 9999, in microseconds since 1970.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// A row's bytes.
pub(crate) fn encode(row: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + row.len() * 9);
    out.extend_from_slice(&(row.len() as u32).to_le_bytes());
    for value in row {
        put(&mut out, value.as_ref());
    }
    out
}

fn put(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Boolean(value) => out.extend_from_slice(&[BOOLEAN, u8::from(value)]),
        ValueRef::Int(value) => tagged(out, INT, &value.to_le_bytes()),
        ValueRef::BigInt(value) => tagged(out, BIGINT, &value.to_le_bytes()),
        ValueRef::Double(value) => tagged(out, DOUBLE, &value.to_bits().to_le_bytes()),
        ValueRef::Numeric(value) => {
            out.extend_from_slice(&[NUMERIC, value.scale() as u8]);
            out.extend_from_slice(&value.mantissa().to_le_bytes());
        }
        ValueRef::Text(value) => counted(out, TEXT, value.as_bytes()),
        ValueRef::Timestamp(value) => tagged(out, TIMESTAMP, &value.to_le_bytes()),
        ValueRef::Bytea(value) => counted(out, BYTEA, value),
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn counted(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    tagged(out, tag, &(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a row; what is wrong with it, if it is none.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Value>, &'static str> {
    let mut rest = Rest(bytes);
    let count = u32::from_le_bytes(rest.take()?);
    // No count makes room for values that aren't there: each has a byte at least.
    if count as usize > rest.0.len() {
        return Err("a row that ends too early");
    }
    let row = (0..count).map(|_| rest.value()).collect::<Result<Vec<_>, _>>()?;
    match rest.0 {
        [] => Ok(row),
        _ => Err("a row with bytes left over at its end"),
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("a row that ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn counted(&mut self) -> Result<&'a [u8], &'static str> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (taken, rest) = self.0.split_at_checked(length).ok_or("a row that ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn value(&mut self) -> Result<Value, &'static str> {
        let [tag] = self.take()?;
        Ok(match tag {
            NULL => Value::Null,
            BOOLEAN => match self.take()? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                _ => return Err("a BOOLEAN that is neither 0 nor 1"),
            },
            INT => Value::Int(i32::from_le_bytes(self.take()?)),
            BIGINT => Value::BigInt(i64::from_le_bytes(self.take()?)),
            DOUBLE => Value::Double(f64::from_bits(u64::from_le_bytes(self.take()?))),
            NUMERIC => {
                let [scale] = self.take()?;
                let digits = i128::from_le_bytes(self.take()?);
                let value = Decimal::try_from_i128_with_scale(digits, u32::from(scale));
                Value::Numeric(value.map_err(|_| "a NUMERIC of more than 28 digits")?)
            }
            TEXT => {
                let text = std::str::from_utf8(self.counted()?).map_err(|_| "a TEXT that is not UTF-8")?;
                if text.contains('\0') {
                    return Err("a TEXT with a zero byte in it");
                }
                Value::Text(text.to_owned())
            }
            TIMESTAMP => {
                let micros = i64::from_le_bytes(self.take()?);
                if !TIMESTAMPS.contains(&micros) {
                    return Err("a TIMESTAMP outside of the years 1 to 9999");
                }
                Value::Timestamp(micros)
            }
            BYTEA => Value::Bytea(self.counted()?.to_vec()),
            _ => return Err("a value with an unknown tag"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i32>().prop_map(Value::Int),
            any::<i64>().prop_map(Value::BigInt),
            any::<f64>().prop_map(Value::Double),
            (-(10_i128.pow(28) - 1)..10_i128.pow(28), 0_u32..=28)
                .prop_map(|(digits, scale)| Value::Numeric(Decimal::from_i128_with_scale(digits, scale))),
            "[^\0]{0,9}".prop_map(Value::Text),
            TIMESTAMPS.prop_map(Value::Timestamp),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytea),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(row in prop::collection::vec(values(), 0..6)) {
            prop_assert_eq!(decode(&encode(&row)), Ok(row));
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(row) = decode(&bytes) {
                prop_assert_eq!(encode(&row).len(), bytes.len());
            }
        }

        #[test]
        fn a_row_cut_short_is_an_error(row in prop::collection::vec(values(), 1..6), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&row);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    /// As docs/procedures.md has it.
    #[test]
    fn the_bytes_are_those_of_the_page() {
        let row = [
            Value::Null,
            Value::Boolean(true),
            Value::Int(-2),
            Value::Text("hi".to_owned()),
        ];
        let bytes = b"\x04\0\0\0\x00\x01\x01\x02\xfe\xff\xff\xff\x06\x02\0\0\0hi";
        assert_eq!(encode(&row), bytes);
        let row = [Value::Numeric(Decimal::new(-1205, 2)), Value::Bytea(vec![9])];
        let mut bytes = b"\x02\0\0\0\x05\x02".to_vec();
        bytes.extend((-1205_i128).to_le_bytes());
        bytes.extend(b"\x08\x01\0\0\0\x09");
        assert_eq!(encode(&row), bytes);
    }

    #[test]
    fn wrong_values_are_named() {
        let row = |value: &[u8]| decode(&[b"\x01\0\0\0", value].concat()).unwrap_err();
        assert_eq!(row(b"\x01\x02"), "a BOOLEAN that is neither 0 nor 1");
        assert_eq!(row(b"\x09"), "a value with an unknown tag");
        assert_eq!(row(b"\x06\x01\0\0\0\xff"), "a TEXT that is not UTF-8");
        assert_eq!(row(b"\x06\x01\0\0\0\0"), "a TEXT with a zero byte in it");
        assert_eq!(row(b"\x06\xff\xff\xff\xffabc"), "a row that ends too early");
        assert_eq!(row(b"\0\0"), "a row with bytes left over at its end");
        assert_eq!(
            row(&[&[7_u8][..], &i64::MAX.to_le_bytes()].concat()),
            "a TIMESTAMP outside of the years 1 to 9999"
        );
        assert_eq!(
            row(&[&[5_u8, 29][..], &1_i128.to_le_bytes()].concat()),
            "a NUMERIC of more than 28 digits"
        );
        assert_eq!(decode(b"\xff\xff\xff\xff\0"), Err("a row that ends too early"));
    }
}
