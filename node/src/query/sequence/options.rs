//! The options of a sequence, with PostgreSQL's defaults and errors.

use crate::error::SqlError;
use crate::metadata::sequence::{Sequence, SequenceType};
use crate::query::procedure::Tokens;

/// Values that a node takes at a time, at most, however great CACHE is.
const MAX_CACHE: u32 = 1 << 20;

/// What is said of a sequence.
#[derive(Debug, Default)]
pub(super) struct Options {
    data_type: Option<SequenceType>,
    increment: Option<i64>,
    /// `Some(None)`: NO MINVALUE.
    min: Option<Option<i64>>,
    max: Option<Option<i64>>,
    start: Option<i64>,
    cache: Option<i64>,
    no_cycle: Option<bool>,
}

impl Options {
    /// Those of a text that is nothing else.
    pub(super) fn of(text: &str) -> Result<Self, SqlError> {
        let mut tokens = Tokens::of(text)?;
        let mut options = Self::default();
        while !tokens.is_at_end() {
            options.read(&mut tokens)?;
        }
        Ok(options)
    }

    /// Reads one.
    pub(super) fn read(&mut self, tokens: &mut Tokens<'_>) -> Result<(), SqlError> {
        match tokens.peek(0) {
            "AS" => {
                tokens.skip();
                let data_type = match tokens.peek(0) {
                    "SMALLINT" | "INT2" => SequenceType::SmallInt,
                    "INTEGER" | "INT" | "INT4" => SequenceType::Integer,
                    "BIGINT" | "INT8" => SequenceType::BigInt,
                    _ => {
                        let message = "sequence type must be smallint, integer, or bigint";
                        return Err(SqlError::new("22023", message));
                    }
                };
                tokens.skip();
                once(&mut self.data_type, data_type)?;
            }
            "INCREMENT" => {
                tokens.skip();
                tokens.take(&["BY"]);
                once(&mut self.increment, number(tokens)?)?;
            }
            "MINVALUE" => {
                tokens.skip();
                once(&mut self.min, Some(number(tokens)?))?;
            }
            "MAXVALUE" => {
                tokens.skip();
                once(&mut self.max, Some(number(tokens)?))?;
            }
            "START" => {
                tokens.skip();
                tokens.take(&["WITH"]);
                once(&mut self.start, number(tokens)?)?;
            }
            "CACHE" => {
                tokens.skip();
                once(&mut self.cache, number(tokens)?)?;
            }
            "CYCLE" => return Err(SqlError::unsupported("a sequence that is a CYCLE")),
            "OWNED" => {
                if !tokens.take(&["OWNED", "BY", "NONE"]) {
                    return Err(SqlError::unsupported("OWNED BY")
                        .hint("A SERIAL or IDENTITY column has a sequence that goes with its table."));
                }
            }
            "NO" => match tokens.peek(1) {
                "MINVALUE" => {
                    tokens.take(&["NO", "MINVALUE"]);
                    once(&mut self.min, None)?;
                }
                "MAXVALUE" => {
                    tokens.take(&["NO", "MAXVALUE"]);
                    once(&mut self.max, None)?;
                }
                "CYCLE" => {
                    tokens.take(&["NO", "CYCLE"]);
                    once(&mut self.no_cycle, true)?;
                }
                _ => return Err(tokens.unexpected()),
            },
            _ => return Err(tokens.unexpected()),
        }
        Ok(())
    }

    /// The sequence, if it can be, with PostgreSQL's defaults and words.
    pub(super) fn sequence(self, name: String, data_type: SequenceType) -> Result<Sequence, SqlError> {
        let wrong = |message: String| Err(SqlError::new("22023", message));
        let data_type = self.data_type.unwrap_or(data_type);
        let (least, greatest) = data_type.bounds();
        let increment = self.increment.unwrap_or(1);
        if increment == 0 {
            return wrong("INCREMENT must not be zero".to_owned());
        }
        let ascends = increment > 0;
        let max = self.max.flatten().unwrap_or(if ascends { greatest } else { -1 });
        let min = self.min.flatten().unwrap_or(if ascends { 1 } else { least });
        for (word, value) in [("MAXVALUE", max), ("MINVALUE", min)] {
            if !(least..=greatest).contains(&value) {
                let type_name = data_type.name();
                return wrong(format!(
                    "{word} ({value}) is out of range for sequence data type {type_name}"
                ));
            }
        }
        if min >= max {
            return wrong(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})"));
        }
        let start = self.start.unwrap_or(if ascends { min } else { max });
        if start < min {
            return wrong(format!("START value ({start}) cannot be less than MINVALUE ({min})"));
        }
        if start > max {
            return wrong(format!("START value ({start}) cannot be greater than MAXVALUE ({max})"));
        }
        let cache = self.cache.unwrap_or(1);
        if cache < 1 {
            return wrong(format!("CACHE ({cache}) must be greater than zero"));
        }
        Ok(Sequence {
            id: 0,
            name,
            data_type,
            increment,
            min,
            max,
            start,
            cache: u32::try_from(cache).unwrap_or(MAX_CACHE).min(MAX_CACHE),
            owner: None,
            next: Some(start),
            generation: 0,
        })
    }
}

fn once<T>(option: &mut Option<T>, value: T) -> Result<(), SqlError> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(SqlError::new("42601", "conflicting or redundant options")),
    }
}

/// A number with its sign.
pub(super) fn number(tokens: &mut Tokens<'_>) -> Result<i64, SqlError> {
    let negative = tokens.take(&["-"]);
    let place = tokens.place();
    let digits: i128 = tokens.number()?;
    let number = if negative { -digits } else { digits };
    i64::try_from(number).map_err(|_| {
        tokens.go_back_to(place);
        SqlError::new("22003", format!("value \"{number}\" is out of range for type bigint"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(options: &str) -> Result<Sequence, String> {
        let options = Options::of(options).map_err(|error| error.message)?;
        let made = options.sequence("s".to_owned(), SequenceType::BigInt);
        made.map_err(|error| format!("{} {}", error.sqlstate, error.message))
    }

    #[test]
    fn options_come_in_any_order_and_have_postgresqls_defaults() {
        let bounds = |options: &str| made(options).map(|made| (made.min, made.max, made.start, made.increment));
        assert_eq!(bounds(""), Ok((1, i64::MAX, 1, 1)));
        assert_eq!(bounds("INCREMENT -1"), Ok((i64::MIN, -1, -1, -1)));
        assert_eq!(bounds("START 5 INCREMENT BY 10 AS SMALLINT"), Ok((1, 32_767, 5, 10)));
        assert_eq!(
            bounds("NO CYCLE MINVALUE -9 NO MAXVALUE CACHE 4"),
            Ok((-9, i64::MAX, -9, 1))
        );
        assert_eq!(
            bounds("MINVALUE -9223372036854775808 MAXVALUE 0 START WITH -1"),
            Ok((i64::MIN, 0, -1, 1))
        );
    }

    #[test]
    fn what_can_not_be_is_refused_in_postgresqls_words() {
        let refused = |options: &str| made(options).unwrap_err();
        assert_eq!(refused("INCREMENT 0"), "22023 INCREMENT must not be zero");
        assert_eq!(
            refused("MAXVALUE 1"),
            "22023 MINVALUE (1) must be less than MAXVALUE (1)"
        );
        assert_eq!(
            refused("START 0"),
            "22023 START value (0) cannot be less than MINVALUE (1)"
        );
        assert_eq!(
            refused("MAXVALUE 5 START 6"),
            "22023 START value (6) cannot be greater than MAXVALUE (5)"
        );
        assert_eq!(refused("CACHE 0"), "22023 CACHE (0) must be greater than zero");
        assert_eq!(
            refused("AS INT MAXVALUE 3000000000"),
            "22023 MAXVALUE (3000000000) is out of range for sequence data type integer"
        );
        assert_eq!(refused("START 1 START 1"), "conflicting or redundant options");
        assert_eq!(
            refused("START 99999999999999999999"),
            "value \"99999999999999999999\" is out of range for type bigint"
        );
    }
}
