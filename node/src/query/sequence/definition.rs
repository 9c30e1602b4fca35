//! CREATE, ALTER and DROP SEQUENCE, and `SELECT setval('sequence', number)`.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    Expr as AstExpr, SelectItem, SetExpr, Statement, UnaryOperator, Value as AstValue,
};
use volt_engine::value::ValueRef;

use super::calls::{arguments, constant_name, function_name};
use super::options::{Options, number};
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
            options.read(&mut tokens)?;
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
