//! CREATE, ALTER and DROP SEQUENCE, and `SELECT setval('sequence', number)`.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    Expr as AstExpr, SelectItem, SetExpr, Statement, UnaryOperator, Value as AstValue,
};
use volt_engine::value::ValueRef;

use super::calls::{arguments, constant_name, function_name};
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{Applied, Command, Refusal};
use crate::metadata::map::ClusterMap;
use crate::metadata::sequence::{Sequence, SequenceType};
use crate::query::SqlEngine;
use crate::query::ddl::check_name;
use crate::query::execute::Notices;
use crate::query::procedure::Tokens;
use crate::query::syntax::position_of;
use crate::statement::RowSink;

/// Values that a node takes at a time, at most, however great CACHE is.
const MAX_CACHE: u32 = 1 << 20;

/// A statement about sequences, planned.
#[derive(Debug)]
pub(in crate::query) enum SequencePlan {
    /// CREATE SEQUENCE.
    Create {
        sequence: Box<Sequence>,
        if_not_exists: bool,
    },
    /// ALTER SEQUENCE ... RESTART; without a value: with the first one.
    Restart {
        name: String,
        if_exists: bool,
        with: Option<i64>,
    },
    /// setval: the value, and whether it counts as taken.
    SetValue { name: String, value: i64, is_taken: bool },
    /// DROP SEQUENCE.
    Drop { names: Vec<String>, if_exists: bool },
}

impl SequencePlan {
    /// The command tag.
    pub(in crate::query) fn tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE SEQUENCE",
            Self::Restart { .. } => "ALTER SEQUENCE",
            Self::SetValue { .. } => "SELECT",
            Self::Drop { .. } => "DROP SEQUENCE",
        }
    }

    /// CREATE and ALTER SEQUENCE.
    pub(in crate::query) fn parse(sql: &str) -> Result<Self, SqlError> {
        let mut tokens = Tokens::of(sql)?;
        let creates = tokens.take(&["CREATE", "SEQUENCE"]);
        if !creates {
            tokens.expect(&["ALTER", "SEQUENCE"])?;
            return alter(tokens);
        }
        let if_not_exists = tokens.take(&["IF", "NOT", "EXISTS"]);
        let name = name(&mut tokens)?;
        check_name(&name, sql)?;
        let mut options = Options::default();
        while !tokens.is_at_end() && !tokens.is(&[";"]) {
            if !options.read(&mut tokens)? {
                return Err(tokens.unexpected());
            }
        }
        let sequence = Box::new(options.sequence(name, SequenceType::BigInt)?);
        Ok(Self::Create {
            sequence,
            if_not_exists,
        })
    }

    /// `SELECT setval('sequence', number [, boolean])`, and nothing else.
    pub(in crate::query) fn set_value(statement: &Statement) -> Result<Option<Self>, SqlError> {
        let Statement::Query(query) = statement else {
            return Ok(None);
        };
        let SetExpr::Select(select) = &*query.body else {
            return Ok(None);
        };
        let [SelectItem::UnnamedExpr(AstExpr::Function(function))] = select.projection.as_slice() else {
            return Ok(None);
        };
        let is_plain = select.from.is_empty() && select.selection.is_none();
        if !is_plain || function_name(function).as_deref() != Some("setval") {
            return Ok(None);
        }
        let arguments = arguments(function).unwrap_or_default();
        let (sequence, number, is_taken) = match arguments.as_slice() {
            [sequence, number] => (sequence, number, Some(true)),
            [sequence, number, taken] => (sequence, number, boolean(taken)),
            _ => return Ok(None),
        };
        let (Some(name), Some(value), Some(is_taken)) = (constant_name(sequence)?, integer(number), is_taken) else {
            return Ok(None);
        };
        Ok(Some(Self::SetValue { name, value, is_taken }))
    }
}

fn alter(mut tokens: Tokens<'_>) -> Result<SequencePlan, SqlError> {
    let if_exists = tokens.take(&["IF", "EXISTS"]);
    let name = name(&mut tokens)?;
    if !tokens.take(&["RESTART"]) {
        let what = format!("ALTER SEQUENCE ... {}", tokens.peek(0));
        return Err(SqlError::unsupported(what).hint("ALTER SEQUENCE has RESTART [WITH number]."));
    }
    tokens.take(&["WITH"]);
    let with = match tokens.is_at_end() || tokens.is(&[";"]) {
        true => None,
        false => Some(number(&mut tokens)?),
    };
    tokens.take(&[";"]);
    if !tokens.is_at_end() {
        return Err(tokens.unexpected());
    }
    Ok(SequencePlan::Restart { name, if_exists, with })
}

/// A name in `public`.
fn name(tokens: &mut Tokens<'_>) -> Result<String, SqlError> {
    let name = tokens.name()?;
    if !tokens.take(&["."]) {
        return Ok(name);
    }
    match name.as_str() {
        "public" => tokens.name(),
        _ => Err(SqlError::new("3F000", format!("schema \"{name}\" does not exist"))),
    }
}

fn number(tokens: &mut Tokens<'_>) -> Result<i64, SqlError> {
    let negative = tokens.take(&["-"]);
    let place = tokens.place();
    let digits: i128 = tokens.number()?;
    let number = if negative { -digits } else { digits };
    i64::try_from(number).map_err(|_| {
        tokens.go_back_to(place);
        SqlError::new("22003", format!("value \"{number}\" is out of range for type bigint"))
    })
}

fn integer(expr: &AstExpr) -> Option<i64> {
    let digits = |expr: &AstExpr| match expr {
        AstExpr::Value(value) => match &value.value {
            AstValue::Number(digits, _) => digits.to_string().parse::<i128>().ok(),
            _ => None,
        },
        _ => None,
    };
    let number = match expr {
        AstExpr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => -digits(expr)?,
        expr => digits(expr)?,
    };
    i64::try_from(number).ok()
}

fn boolean(expr: &AstExpr) -> Option<bool> {
    match expr {
        AstExpr::Value(value) => match value.value {
            AstValue::Boolean(value) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

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
            if !options.read(&mut tokens)? {
                return Err(tokens.unexpected());
            }
        }
        Ok(options)
    }

    /// Reads one; false: what comes is none.
    fn read(&mut self, tokens: &mut Tokens<'_>) -> Result<bool, SqlError> {
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
                _ => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
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

fn missing(name: &str, sql: &str) -> SqlError {
    let error = SqlError::new("42P01", format!("sequence \"{name}\" does not exist"));
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}

impl SqlEngine {
    /// Makes, restarts or drops; what is to be told.
    pub(in crate::query) async fn run_sequence_plan(
        &self,
        plan: &SequencePlan,
        sql: &str,
        sink: &mut dyn RowSink,
    ) -> Result<Notices, SqlError> {
        match plan {
            SequencePlan::Create {
                sequence,
                if_not_exists,
            } => {
                let name = &sequence.name;
                let sequence = sequence.clone();
                match self.metadata.propose(Command::CreateSequence { sequence }).await {
                    Ok(Applied::SequenceCreated(_)) => Ok(Vec::new()),
                    Ok(other) => Err(SqlError::internal(format!("unexpected answer {other:?}"))),
                    Err(ProposeError::Refused(Refusal::TableExists(_))) if *if_not_exists => {
                        let message = format!("relation \"{name}\" already exists, skipping");
                        Ok(vec![("NOTICE", "42P07", message)])
                    }
                    Err(error) => Err(error.into()),
                }
            }
            SequencePlan::Restart { name, if_exists, with } => {
                let map = self.newest_map_if(|map| map.sequence(name).is_none()).await?;
                let Some(sequence) = map.sequence(name) else {
                    if *if_exists {
                        let message = format!("relation \"{name}\" does not exist, skipping");
                        return Ok(vec![("NOTICE", "00000", message)]);
                    }
                    return Err(map.sequence_named(name).err().unwrap_or_else(|| missing(name, sql)));
                };
                let value = with.unwrap_or(sequence.start);
                let (side, bound, limit) = match value < sequence.min {
                    true => ("less", "MINVALUE", sequence.min),
                    false => ("greater", "MAXVALUE", sequence.max),
                };
                if !(sequence.min..=sequence.max).contains(&value) {
                    let message = format!("RESTART value ({value}) cannot be {side} than {bound} ({limit})");
                    return Err(SqlError::new("22023", message));
                }
                self.restart(sequence, value, false).await?;
                Ok(Vec::new())
            }
            SequencePlan::SetValue { name, value, is_taken } => {
                self.set_sequence_value(name, *value, *is_taken).await?;
                sink.row(&[ValueRef::BigInt(*value)]);
                Ok(Vec::new())
            }
            SequencePlan::Drop { names, if_exists } => self.drop_sequences(names, *if_exists, sql).await,
        }
    }

    /// The newest map, if this node's lacks something: another node may have made it a moment ago.
    async fn newest_map_if(&self, lacks: impl Fn(&ClusterMap) -> bool) -> Result<std::sync::Arc<ClusterMap>, SqlError> {
        let map = self.metadata.map();
        if !lacks(&map) {
            return Ok(map);
        }
        self.metadata.refresh().await?;
        Ok(self.metadata.map())
    }

    async fn set_sequence_value(&self, name: &str, value: i64, is_taken: bool) -> Result<(), SqlError> {
        let map = self.newest_map_if(|map| map.sequence(name).is_none()).await?;
        let sequence = map.sequence_named(name)?;
        let (min, max) = (sequence.min, sequence.max);
        if !(min..=max).contains(&value) {
            let message = format!("setval: value {value} is out of bounds for sequence \"{name}\" ({min}..{max})");
            return Err(SqlError::new("22003", message));
        }
        self.restart(sequence, value, is_taken).await
    }

    /// Returns when no node that lives gives values of before.
    async fn restart(&self, sequence: &Sequence, value: i64, is_taken: bool) -> Result<(), SqlError> {
        let command = Command::RestartSequence {
            sequence: sequence.id,
            value,
            is_taken,
        };
        self.metadata.propose(command).await?;
        self.coordinator.wait_until_all_know(self.metadata.map().version).await
    }

    async fn drop_sequences(&self, names: &[String], if_exists: bool, sql: &str) -> Result<Notices, SqlError> {
        let lacks = |map: &ClusterMap| names.iter().any(|name| map.sequence(name).is_none());
        let map = self.newest_map_if(lacks).await?;
        let (mut notices, mut sequences) = (Vec::new(), BTreeSet::new());
        for name in names {
            match map.sequence(name) {
                Some(sequence) => drop(sequences.insert(sequence.id)),
                None if if_exists => {
                    let message = format!("sequence \"{name}\" does not exist, skipping");
                    notices.push(("NOTICE", "00000", message));
                }
                None if map.has_relation(name) => {
                    return Err(SqlError::new("42809", format!("\"{name}\" is not a sequence")));
                }
                None => return Err(missing(name, sql)),
            }
        }
        if sequences.is_empty() {
            return Ok(notices);
        }
        match self.metadata.propose(Command::DropSequences { sequences }).await {
            // Somebody else has dropped it meanwhile.
            Err(ProposeError::Refused(Refusal::NoSuchSequence(_))) if if_exists => Ok(notices),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(notices),
        }
    }
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
