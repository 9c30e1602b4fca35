//! Keys back to values.

use rust_decimal::Decimal;

use super::{BOOLEAN, BYTEA, DOUBLE, NEGATIVE_INTEGER, NULL, NUMERIC, POSITIVE_INTEGER, TEXT, TIMESTAMP};
use crate::codec::Reader;
use crate::error::CorruptError;
use crate::value::Value;

/// Bytes of the largest integer.
const MAX_INTEGER: u8 = 8;
/// Digits of the longest NUMERIC.
const MAX_DIGITS: i32 = 28;

/// The values of a key's columns. INT comes back as BIGINT, and a NUMERIC without the zeros at its end: keys don't tell these apart.
pub fn decode_key(key: &[u8]) -> Result<Vec<Value>, CorruptError> {
    let mut reader = Reader::new(key);
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(value(&mut reader)?);
    }
    Ok(values)
}

fn value(reader: &mut Reader<'_>) -> Result<Value, CorruptError> {
    let tag = reader.u8()?;
    Ok(match tag {
        NULL => Value::Null,
        BOOLEAN => Value::Boolean(false),
        tag if tag == BOOLEAN + 1 => Value::Boolean(true),
        tag if (POSITIVE_INTEGER..=POSITIVE_INTEGER + MAX_INTEGER).contains(&tag) => {
            Value::BigInt(integer(reader, tag - POSITIVE_INTEGER, 0)?)
        }
        tag if (NEGATIVE_INTEGER - MAX_INTEGER..=NEGATIVE_INTEGER).contains(&tag) => {
            Value::BigInt(integer(reader, NEGATIVE_INTEGER - tag, u8::MAX)?)
        }
        DOUBLE => {
            let ordered = eight(reader)?;
            let bits = if ordered >> 63 == 1 {
                ordered ^ (1 << 63)
            } else {
                !ordered
            };
            Value::Double(f64::from_bits(bits))
        }
        NUMERIC => Value::Numeric(numeric(reader)?),
        TEXT => {
            let text = String::from_utf8(escaped(reader)?);
            Value::Text(text.map_err(|_| CorruptError::UnknownTag(TEXT))?)
        }
        TIMESTAMP => Value::Timestamp((eight(reader)? ^ (1 << 63)).cast_signed()),
        BYTEA => Value::Bytea(escaped(reader)?),
        tag => return Err(CorruptError::UnknownTag(tag)),
    })
}

fn eight(reader: &mut Reader<'_>) -> Result<u64, CorruptError> {
    Ok(u64::from_be_bytes([
        reader.u8()?,
        reader.u8()?,
        reader.u8()?,
        reader.u8()?,
        reader.u8()?,
        reader.u8()?,
        reader.u8()?,
        reader.u8()?,
    ]))
}

/// So many bytes, behind bytes that are all `filler`.
fn integer(reader: &mut Reader<'_>, bytes: u8, filler: u8) -> Result<i64, CorruptError> {
    let mut whole = [filler; 8];
    let significant = &mut whole[8 - usize::from(bytes)..];
    significant.copy_from_slice(reader.take(usize::from(bytes))?);
    Ok(i64::from_be_bytes(whole))
}

fn escaped(reader: &mut Reader<'_>) -> Result<Vec<u8>, CorruptError> {
    let mut bytes = Vec::new();
    loop {
        match reader.u8()? {
            0 => match reader.u8()? {
                0 => return Ok(bytes),
                _ => bytes.push(0),
            },
            byte => bytes.push(byte),
        }
    }
}

fn numeric(reader: &mut Reader<'_>) -> Result<Decimal, CorruptError> {
    let wrong = || CorruptError::UnknownTag(NUMERIC);
    let is_negative = match reader.u8()? {
        2 => return Ok(Decimal::ZERO),
        1 => true,
        3 => false,
        _ => return Err(wrong()),
    };
    let mut next = || reader.u8().map(|byte| if is_negative { !byte } else { byte });
    let exponent = i32::from(next()?) - 64;
    let (mut mantissa, mut digits) = (0_i128, 0);
    loop {
        match next()? {
            0 => break,
            pair @ 1..=100 if digits < MAX_DIGITS + 2 => mantissa = mantissa * 100 + i128::from(pair - 1),
            _ => return Err(wrong()),
        }
        digits += 2;
    }
    // 0.DDDD * 10^exponent, and a zero behind an odd number of digits.
    let mut scale = digits - exponent;
    while mantissa % 10 == 0 && mantissa != 0 && scale > 0 {
        (mantissa, scale) = (mantissa / 10, scale - 1);
    }
    while scale < 0 {
        mantissa = mantissa.checked_mul(10).ok_or_else(wrong)?;
        scale += 1;
    }
    let mantissa = if is_negative { -mantissa } else { mantissa };
    let scale = u32::try_from(scale).map_err(|_| wrong())?;
    Decimal::try_from_i128_with_scale(mantissa, scale).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::encode_key;

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::BigInt),
            (-300_i64..300).prop_map(Value::BigInt),
            any::<f64>()
                .prop_filter("equal to itself", |double| !double.is_nan() && *double != 0.0)
                .prop_map(Value::Double),
            (-(10_i128.pow(27))..10_i128.pow(27), 0..=10_u32).prop_map(|(mantissa, scale)| Value::Numeric(
                Decimal::from_i128_with_scale(mantissa, scale).normalize()
            )),
            (-1000_i128..1000, 0..=10_u32).prop_map(|(mantissa, scale)| Value::Numeric(
                Decimal::from_i128_with_scale(mantissa, scale).normalize()
            )),
            any::<String>().prop_map(Value::Text),
            any::<i64>().prop_map(Value::Timestamp),
            proptest::collection::vec(0..3_u8, 0..9).prop_map(Value::Bytea),
        ]
    }

    proptest! {
        #[test]
        fn keys_come_back(values in proptest::collection::vec(values(), 0..5)) {
            let key = encode_key(values.iter().map(Value::as_ref));
            prop_assert_eq!(decode_key(&key).unwrap(), values);
        }

        #[test]
        fn bytes_of_any_kind_are_values_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_key(&bytes);
        }
    }
}
