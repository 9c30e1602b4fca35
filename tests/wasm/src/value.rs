//! SQL values and the Rust types that they are taken for.

/// A SQL value. One that is given for another type is cast to it, as in SQL.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Int(i32),
    BigInt(i64),
    Double(f64),
    /// `digits` divided by 10 to the power of `scale`; at most 28 digits.
    Numeric {
        digits: i128,
        scale: u8,
    },
    /// TEXT and VARCHAR; without zero bytes.
    Text(String),
    /// Microseconds since 1970.
    Timestamp(i64),
    Bytea(Vec<u8>),
}

/// A Rust type that SQL values can be taken for.
pub trait FromValue: Sized {
    /// None: it is of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! conversions {
    ($($rust:ty: $($variant:ident)|+, $own:ident;)*) => {$(
        impl FromValue for $rust {
            #[allow(clippy::useless_conversion)]
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $(Value::$variant(value) => Some(value.clone().into()),)+
                    _ => None,
                }
            }
        }

        impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Self::$own(value)
            }
        }
    )*};
}

conversions! {
    bool: Boolean, Boolean;
    i32: Int, Int;
    i64: Int | BigInt, BigInt;
    f64: Double, Double;
    String: Text, Text;
    Vec<u8>: Bytea, Bytea;
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl FromValue for Value {
    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
