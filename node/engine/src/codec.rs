//! The pieces that every explicit layout is made of: fixed little-endian integers, varints, counted bytes.
//!
//! A `Reader` never panics and never allocates, whatever the bytes say.

use crate::error::CorruptError;

/// Appends `value`, seven bits a byte, the lowest first; the top bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The same for 128 bits.
pub(crate) fn put_varint128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the count of `bytes`, then them.
pub(crate) fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Small magnitudes of either sign become small numbers.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of `zigzag`.
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The same for 128 bits.
pub(crate) fn zigzag128(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

/// The inverse of `zigzag128`.
pub(crate) fn unzigzag128(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

/// Takes bytes from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, CorruptError> {
        let (&first, rest) = self.rest.split_first().ok_or(CorruptError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], CorruptError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CorruptError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CorruptError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CorruptError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CorruptError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CorruptError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, CorruptError> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7F);
        for shift in (7..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return Err(CorruptError::TooLarge);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CorruptError::TooLarge)
    }

    pub(crate) fn varint128(&mut self) -> Result<u128, CorruptError> {
        let mut value = 0u128;
        // 98 bits hold every decimal's mantissa with its sign; nothing longer is ever written.
        for shift in (0..98).step_by(7) {
            let byte = self.u8()?;
            value |= u128::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CorruptError::TooLarge)
    }

    /// Bytes behind their count.
    #[inline]
    pub(crate) fn counted(&mut self) -> Result<&'a [u8], CorruptError> {
        let count = self.varint()?;
        let count = usize::try_from(count).map_err(|_| CorruptError::TooLarge)?;
        self.take(count)
    }

    /// Nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), CorruptError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CorruptError::TrailingBytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_varint_that_never_ends_is_refused() {
        assert_eq!(Reader::new(&[0xFF; 20]).varint(), Err(CorruptError::TooLarge));
        assert_eq!(Reader::new(&[0xFF; 40]).varint128(), Err(CorruptError::TooLarge));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(CorruptError::Truncated));
    }

    #[test]
    fn zigzag_is_its_own_inverse() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
        for value in [0, -1, 1, (1i128 << 96) - 1, -(1i128 << 96) + 1] {
            assert_eq!(unzigzag128(zigzag128(value)), value);
        }
    }
}
