//! NUMERIC's binary format: a count of base-10,000 digits, the first one's weight, sign, scale shown, the digits.

use rust_decimal::Decimal;

use super::binary::wrong_size;
use super::out_of_range;
use crate::error::SqlError;

const NEGATIVE: u16 = 0x4000;
const POSITIVE: u16 = 0;
const BASE: u128 = 10_000;
/// The most digits behind the point that `Decimal` has.
const MAX_SCALE: i32 = 28;
/// Base-10,000 digits that a `Decimal` can come from: 29 decimal digits before the point, 28 behind it.
const MAX_DIGITS: usize = 16;

/// Appends a NUMERIC.
pub(super) fn put(out: &mut Vec<u8>, value: Decimal) {
    let scale = value.scale();
    // Whole groups of four digits behind the point.
    let padding = (4 - scale % 4) % 4;
    let groups_behind = scale.div_ceil(4) as i32;
    let mut mantissa = value.mantissa().unsigned_abs() * 10u128.pow(padding);
    let mut digits = [0u16; MAX_DIGITS];
    let mut first = digits.len();
    while mantissa > 0 {
        first -= 1;
        digits[first] = (mantissa % BASE) as u16;
        mantissa /= BASE;
    }
    let all = &digits[first..];
    let weight = all.len() as i32 - groups_behind - 1;
    let kept = all.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
    let sign = if value.is_sign_negative() && kept > 0 {
        NEGATIVE
    } else {
        POSITIVE
    };
    out.extend_from_slice(&(kept as u16).to_be_bytes());
    out.extend_from_slice(&(if kept == 0 { 0 } else { weight as i16 }).to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&(scale as u16).to_be_bytes());
    for digit in &all[..kept] {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Reads a NUMERIC.
pub(super) fn read(bytes: &[u8]) -> Result<Decimal, SqlError> {
    let (header, digits) = bytes.split_first_chunk::<8>().ok_or_else(wrong_size)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (count, weight, sign, scale) = (usize::from(word(0)), word(2) as i16, word(4), i32::from(word(6)));
    if digits.len() != count * 2 {
        return Err(wrong_size());
    }
    if sign != POSITIVE && sign != NEGATIVE {
        return Err(out_of_range("numeric")); // NaN and the infinities
    }
    if count > MAX_DIGITS || scale > MAX_SCALE {
        return Err(out_of_range("numeric"));
    }
    let mut mantissa: i128 = 0;
    for pair in digits.chunks_exact(2) {
        let digit = u16::from_be_bytes([pair[0], pair[1]]);
        if u128::from(digit) >= BASE {
            return Err(wrong_size());
        }
        let shifted = mantissa.checked_mul(BASE as i128);
        mantissa = shifted
            .and_then(|m| m.checked_add(i128::from(digit)))
            .ok_or_else(|| out_of_range("numeric"))?;
    }
    // The mantissa's unit is 10^exponent; it becomes 10^-scale.
    let exponent = 4 * (i32::from(weight) + 1 - count as i32);
    let mantissa = if mantissa == 0 {
        Some(0)
    } else {
        rescale(mantissa, exponent + scale)
    };
    let mantissa = mantissa.ok_or_else(|| out_of_range("numeric"))?;
    let signed = if sign == NEGATIVE { -mantissa } else { mantissa };
    Decimal::try_from_i128_with_scale(signed, scale as u32).map_err(|_| out_of_range("numeric"))
}

/// `mantissa * 10^power`; digits below the scale are dropped, as a conforming sender has none there.
fn rescale(mantissa: i128, power: i32) -> Option<i128> {
    let factor = 10i128.checked_pow(power.unsigned_abs());
    if power >= 0 {
        return mantissa.checked_mul(factor?);
    }
    Some(factor.map_or(0, |factor| mantissa / factor))
}
