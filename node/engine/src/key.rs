//! Memcomparable keys: comparing the bytes compares the values, column by column.
//!
//! Each value is a tag and a self-delimiting body, so the encoding of the first columns is a prefix of the whole key.
//!
//! | value | bytes |
//! | --- | --- |
//! | BOOLEAN | 0x10 false, 0x11 true |
//! | INT, BIGINT (one encoding) | not negative: 0x20 + n, then its n significant bytes, big endian; negative: 0x1F - n, then the n significant bytes of -v-1, inverted |
//! | DOUBLE PRECISION | 0x30, 8 bytes big endian, sign flipped (all inverted if negative); -0 is 0, NaN is greatest |
//! | NUMERIC | 0x40; then 1 negative, 2 zero, 3 positive; exponent + 64; digits by twos + 1; 0 (negative: these inverted); 1.0 and 1.00 are equal |
//! | VARCHAR, TEXT | 0x50, the bytes with 0x00 as 0x00 0xFF, 0x00 0x00 |
//! | TIMESTAMP | 0x60, 8 bytes big endian, sign flipped |
//! | BYTEA | 0x70, as text |
//! | NULL | 0xFF: last, as PostgreSQL sorts |

mod decode;

use std::cmp::Ordering;

use rust_decimal::Decimal;

use crate::value::ValueRef;
pub use decode::decode_key;

// The tags; see the table above.
const BOOLEAN: u8 = 0x10;
const POSITIVE_INTEGER: u8 = 0x20;
const NEGATIVE_INTEGER: u8 = 0x1F;
const DOUBLE: u8 = 0x30;
const NUMERIC: u8 = 0x40;
const TEXT: u8 = 0x50;
const TIMESTAMP: u8 = 0x60;
const BYTEA: u8 = 0x70;
const NULL: u8 = 0xFF;

/// Encodes the values of a key's columns, or of its first ones.
pub fn encode_key<'a>(values: impl IntoIterator<Item = ValueRef<'a>>) -> Vec<u8> {
    let mut buffer = KeyBuffer::new();
    for value in values {
        buffer.push_value(value);
    }
    buffer.as_bytes().to_vec()
}

/// Keys up to this long lie in the tree itself.
const INLINE: usize = 22;

/// A stored key. Most are short and lie inline, so that a search touches only the tree's own nodes.
#[derive(Clone)]
pub(crate) struct Key(Place);

#[derive(Clone)]
enum Place {
    Inline { length: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Key {
    #[inline]
    pub(crate) fn new(key: &[u8]) -> Self {
        if key.len() > INLINE {
            return Self(Place::Heap(key.into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..key.len()].copy_from_slice(key);
        Self(Place::Inline {
            length: key.len() as u8,
            bytes,
        })
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Place::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Place::Heap(bytes) => bytes,
        }
    }

    /// The least key there is.
    pub(crate) fn least() -> Self {
        Self::new(&[])
    }

    /// A key of this length, from its head (`head`) and the bytes beyond the eighth.
    #[inline]
    pub(crate) fn from_parts(head: u64, length: usize, tail: &[u8]) -> Self {
        let head = head.to_be_bytes();
        if length > INLINE {
            return Self(Place::Heap([&head, tail].concat().into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..8].copy_from_slice(&head);
        bytes[8..8 + tail.len()].copy_from_slice(tail);
        Self(Place::Inline {
            length: length as u8,
            bytes,
        })
    }

    /// Bytes that it holds outside of itself.
    pub(crate) fn heap_size(&self) -> usize {
        match &self.0 {
            Place::Inline { .. } => 0,
            Place::Heap(bytes) => bytes.len(),
        }
    }
}

/// The first eight bytes as a number; the padding with zeros doesn't change the order, it only makes ties.
#[inline]
pub(crate) fn head(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(first)
}

impl Default for Key {
    fn default() -> Self {
        Self::least()
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Place::Inline { bytes: mine, .. }, Place::Inline { bytes: theirs, .. }) = (&self.0, &other.0) {
            let order = head(mine).cmp(&head(theirs));
            if order != Ordering::Equal {
                return order;
            }
        }
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// A key being written; allocates only when it gets longer than `INLINE`.
#[derive(Clone)]
pub(crate) struct KeyBuffer {
    length: usize,
    inline: [u8; INLINE],
    /// Holds everything once it holds anything.
    spill: Vec<u8>,
}

impl KeyBuffer {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            length: 0,
            inline: [0; INLINE],
            spill: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        if self.spill.is_empty() {
            &self.inline[..self.length]
        } else {
            &self.spill
        }
    }

    #[inline]
    pub(crate) fn to_key(&self) -> Key {
        Key::new(self.as_bytes())
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if self.spill.is_empty() && end <= INLINE {
            self.inline[self.length..end].copy_from_slice(bytes);
            self.length = end;
            return;
        }
        if self.spill.is_empty() {
            self.spill.reserve(end + 32);
            self.spill.extend_from_slice(&self.inline[..self.length]);
        }
        self.spill.extend_from_slice(bytes);
        self.length = end;
    }

    /// Appends a column.
    #[inline]
    pub(crate) fn push_value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.push(&[NULL]),
            ValueRef::Boolean(v) => self.push(&[BOOLEAN + u8::from(v)]),
            ValueRef::Int(v) => self.push_integer(i64::from(v)),
            ValueRef::BigInt(v) => self.push_integer(v),
            ValueRef::Double(v) => self.push_double(v),
            ValueRef::Numeric(v) => self.push_numeric(v),
            ValueRef::Text(v) => self.push_escaped(TEXT, v.as_bytes()),
            ValueRef::Timestamp(v) => {
                self.push(&[TIMESTAMP]);
                self.push(&(v as u64 ^ (1 << 63)).to_be_bytes());
            }
            ValueRef::Bytea(v) => self.push_escaped(BYTEA, v),
        }
    }

    #[inline]
    fn push_integer(&mut self, value: i64) {
        let magnitude = if value < 0 { !value } else { value } as u64;
        let significant = 8 - magnitude.leading_zeros() as usize / 8;
        let (tag, bits) = if value < 0 {
            (NEGATIVE_INTEGER - significant as u8, !magnitude)
        } else {
            (POSITIVE_INTEGER + significant as u8, magnitude)
        };
        let mut out = [0; 9];
        out[0] = tag;
        let bytes = bits.to_be_bytes();
        out[1..=significant].copy_from_slice(&bytes[8 - significant..]);
        self.push(&out[..=significant]);
    }

    fn push_double(&mut self, value: f64) {
        // One bit pattern for every NaN, one for both zeros.
        let value = if value.is_nan() {
            f64::NAN.abs()
        } else if value == 0.0 {
            0.0
        } else {
            value
        };
        let bits = value.to_bits();
        let ordered = if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) };
        self.push(&[DOUBLE]);
        self.push(&ordered.to_be_bytes());
    }

    fn push_numeric(&mut self, value: Decimal) {
        let mantissa = value.mantissa();
        if mantissa == 0 {
            return self.push(&[NUMERIC, 2]);
        }
        // value = 0.DDDD * 10^exponent, its digits without zeros at either end.
        let mut digits = [0u8; 32];
        let mut first = digits.len();
        let mut rest = mantissa.unsigned_abs();
        while rest > 0 {
            first -= 1;
            digits[first] = (rest % 10) as u8;
            rest /= 10;
        }
        let count = digits.len() - first;
        let exponent = count as i32 - value.scale() as i32;
        let mut end = digits.len();
        while digits[end - 1] == 0 {
            end -= 1;
        }
        let mut body = [0u8; 20];
        body[0] = (exponent + 64) as u8;
        let mut length = 1;
        for pair in digits[first..end].chunks(2) {
            body[length] = pair[0] * 10 + pair.get(1).copied().unwrap_or(0) + 1;
            length += 1;
        }
        length += 1; // the 0 at the end
        if mantissa < 0 {
            for byte in &mut body[..length] {
                *byte = !*byte;
            }
        }
        self.push(&[NUMERIC, if mantissa < 0 { 1 } else { 3 }]);
        self.push(&body[..length]);
    }

    fn push_escaped(&mut self, tag: u8, bytes: &[u8]) {
        self.push(&[tag]);
        let mut pieces = bytes.split(|byte| *byte == 0);
        if let Some(first) = pieces.next() {
            self.push(first);
        }
        for piece in pieces {
            self.push(&[0, 0xFF]);
            self.push(piece);
        }
        self.push(&[0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(value: ValueRef<'_>) -> Vec<u8> {
        encode_key([value])
    }

    #[test]
    fn small_integers_are_short_and_types_agree() {
        assert_eq!(key(ValueRef::Int(0)), [0x20]);
        assert_eq!(key(ValueRef::Int(5)), [0x21, 5]);
        assert_eq!(key(ValueRef::Int(5)), key(ValueRef::BigInt(5)));
        assert_eq!(key(ValueRef::Int(-7)), key(ValueRef::BigInt(-7)));
    }

    #[test]
    fn integers_keep_their_order_at_the_edges() {
        let values = [
            i64::MIN,
            i64::MIN + 1,
            -65537,
            -65536,
            -257,
            -256,
            -255,
            -2,
            -1,
            0,
            1,
            127,
            128,
            255,
            256,
            65535,
            65536,
            i64::MAX - 1,
            i64::MAX,
        ];
        for pair in values.windows(2) {
            assert!(
                key(ValueRef::BigInt(pair[0])) < key(ValueRef::BigInt(pair[1])),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn doubles_keep_their_order() {
        let values = [
            f64::NEG_INFINITY,
            -1e300,
            -1.5,
            -1e-300,
            0.0,
            1e-300,
            1.0,
            1.5,
            f64::INFINITY,
            f64::NAN,
        ];
        for pair in values.windows(2) {
            assert!(
                key(ValueRef::Double(pair[0])) < key(ValueRef::Double(pair[1])),
                "{pair:?}"
            );
        }
        assert_eq!(key(ValueRef::Double(0.0)), key(ValueRef::Double(-0.0)));
        assert_eq!(key(ValueRef::Double(f64::NAN)), key(ValueRef::Double(-f64::NAN)));
    }

    #[test]
    fn equal_numerics_of_different_scale_are_one_key() {
        let numeric = |text: &str| key(ValueRef::Numeric(text.parse().unwrap()));
        assert_eq!(numeric("1.0"), numeric("1.00"));
        assert_eq!(numeric("100"), numeric("100.000"));
        assert_eq!(numeric("0.0"), numeric("0"));
        assert_ne!(numeric("10"), numeric("1"));
    }

    #[test]
    fn null_is_last() {
        assert!(key(ValueRef::Null) > key(ValueRef::Bytea(&[0xFF; 4])));
        assert!(key(ValueRef::Null) > key(ValueRef::BigInt(i64::MAX)));
    }

    proptest! {
        #[test]
        fn integers_keep_their_order(a: i64, b: i64, shift in 0u32..64) {
            let (a, b) = (a >> shift, b >> shift);
            prop_assert_eq!(key(ValueRef::BigInt(a)).cmp(&key(ValueRef::BigInt(b))), a.cmp(&b));
        }

        #[test]
        fn doubles_of_any_bits_keep_their_order(a: f64, b: f64) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            let order = key(ValueRef::Double(a)).cmp(&key(ValueRef::Double(b)));
            prop_assert_eq!(Some(order), a.partial_cmp(&b));
        }

        #[test]
        fn numerics_keep_their_order(a in -(1i128 << 95)..(1i128 << 95), b in -(1i128 << 95)..(1i128 << 95),
                                     shift in 0u32..96, s in 0u32..=28, t in 0u32..=28) {
            let a = Decimal::from_i128_with_scale(a >> shift, s);
            let b = Decimal::from_i128_with_scale(b >> shift, t);
            prop_assert_eq!(key(ValueRef::Numeric(a)).cmp(&key(ValueRef::Numeric(b))), a.cmp(&b));
        }

        #[test]
        fn texts_keep_their_order_also_with_a_column_behind(a in "[\\x00-\\x02a]{0,5}", b in "[\\x00-\\x02a]{0,5}", x: i32, y: i32) {
            let one = encode_key([ValueRef::Text(&a), ValueRef::Int(x)]);
            let two = encode_key([ValueRef::Text(&b), ValueRef::Int(y)]);
            prop_assert_eq!(one.cmp(&two), (a, x).cmp(&(b, y)));
        }

        #[test]
        fn stored_keys_compare_as_their_bytes(a in prop::collection::vec(0u8..3, 0..30), b in prop::collection::vec(0u8..3, 0..30)) {
            prop_assert_eq!(Key::new(&a).cmp(&Key::new(&b)), a.cmp(&b));
            let stored = Key::new(&a);
            prop_assert_eq!(stored.as_bytes(), &a[..]);
        }
    }
}
