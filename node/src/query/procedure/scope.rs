//! The variables of a procedure while it is compiled: which name means which slot.

use std::collections::BTreeMap;

use volt_engine::value::DataType;

use super::body::Target;
use crate::error::SqlError;

/// What a name means.
#[derive(Clone, Debug)]
pub(super) enum Variable {
    /// A value.
    Slot(Slot),
    /// A record: its fields, once a query has said which.
    Record(Option<Vec<(String, usize)>>),
}

/// A variable of one value.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) slot: usize,
    /// Why it can't be assigned, if it can't.
    pub(super) fixed: Option<&'static str>,
    pub(super) not_null: bool,
}

impl Slot {
    pub(super) fn plain(slot: usize) -> Self {
        Self {
            slot,
            fixed: None,
            not_null: false,
        }
    }
}

/// Names in the blocks that are open, the innermost last.
#[derive(Debug)]
pub(super) struct Scopes {
    blocks: Vec<BTreeMap<String, Variable>>,
    /// The procedure's own name, by which its parameters can be called too.
    procedure: String,
}

impl Scopes {
    pub(super) fn new(procedure: &str) -> Self {
        Self {
            blocks: vec![BTreeMap::new()],
            procedure: procedure.to_owned(),
        }
    }

    pub(super) fn open(&mut self) {
        self.blocks.push(BTreeMap::new());
    }

    pub(super) fn close(&mut self) {
        self.blocks.pop();
    }

    /// A new name in the innermost block.
    pub(super) fn declare(&mut self, name: &str, variable: Variable) -> Result<(), SqlError> {
        let Some(block) = self.blocks.last_mut() else {
            return Err(SqlError::internal("no block is open"));
        };
        if block.insert(name.to_owned(), variable).is_some() {
            return Err(SqlError::new("42601", format!("duplicate declaration of \"{name}\"")));
        }
        Ok(())
    }

    /// What a name, or `procedure.name`, or `record.field` means as a value.
    pub(super) fn value(&self, names: &[String]) -> Option<usize> {
        match names {
            [name] => match self.find(name)? {
                Variable::Slot(slot) => Some(slot.slot),
                Variable::Record(_) => None,
            },
            [of, name] => match self.find(of) {
                Some(Variable::Record(fields)) => field(fields.as_deref()?, name),
                _ if *of == self.procedure => self.value(std::slice::from_ref(name)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The record of this name, if it is one.
    pub(super) fn record(&mut self, name: &str) -> Option<&mut Option<Vec<(String, usize)>>> {
        let block = self.blocks.iter_mut().rev().find(|block| block.contains_key(name))?;
        match block.get_mut(name)? {
            Variable::Record(fields) => Some(fields),
            Variable::Slot(_) => None,
        }
    }

    /// What is to be assigned.
    pub(super) fn target(&self, target: &Target) -> Result<Slot, SqlError> {
        let name = target.join(".");
        let unknown = || SqlError::new("42601", format!("\"{name}\" is not a known variable"));
        if let [name] = target.as_slice() {
            return match self.find(name).ok_or_else(unknown)? {
                Variable::Slot(slot) => match slot.fixed {
                    None => Ok(slot.clone()),
                    Some(why) => Err(SqlError::new("22005", format!("variable \"{name}\" {why}"))),
                },
                Variable::Record(_) => Err(SqlError::unsupported("assigning a whole record")),
            };
        }
        self.value(target).map(Slot::plain).ok_or_else(unknown)
    }

    fn find(&self, name: &str) -> Option<&Variable> {
        self.blocks.iter().rev().find_map(|block| block.get(name))
    }
}

fn field(fields: &[(String, usize)], name: &str) -> Option<usize> {
    fields.iter().find(|(field, _)| field == name).map(|(_, slot)| *slot)
}

/// A type as SQL writes it.
pub(in crate::query) fn sql_type(data_type: DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int => "INTEGER".to_owned(),
        DataType::BigInt => "BIGINT".to_owned(),
        DataType::Double => "DOUBLE PRECISION".to_owned(),
        DataType::Numeric { precision, scale } => format!("NUMERIC({precision}, {scale})"),
        DataType::Text | DataType::Varchar(_) => "TEXT".to_owned(),
        DataType::Timestamp => "TIMESTAMP".to_owned(),
        DataType::Bytea => "BYTEA".to_owned(),
    }
}
