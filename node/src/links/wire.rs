//! Changes as one VoltCluster tells them to another: the parameter of `APPLY REPLICATION CHANGES $1`. Tables and columns have their names, so the
//! two catalogs need not have come about alike.
//!
//! Layout: `VERSION`, one byte; then `Told`, postcard-encoded. Rows have the columns that the message names, in that order.

use serde::{Deserialize, Serialize};
use volt_engine::catalog::{ColumnDefault, Table};
use volt_engine::changes::{Change, ConflictRule, RowVersion};
use volt_engine::key::{decode_key, encode_key};
use volt_engine::placement::partition_index;
use volt_engine::plan::eval::assign_value;
use volt_engine::row::{RowRef, encode_row};
use volt_engine::value::{Value, ValueRef};

use super::postgres::columns;
use crate::error::SqlError;

/// Of the layout.
const VERSION: u8 = 1;

/// Changes of tables of another cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The other cluster's UUID.
    pub(crate) cluster_uuid: String,
    /// The link, as the other cluster calls it.
    pub(crate) link: String,
    /// The tables.
    pub(crate) tables: Vec<ToldTable>,
    /// Their changes, in order.
    pub(crate) changes: Vec<ToldChange>,
}

/// A table, as the other cluster has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToldTable {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    /// Names of its primary key's columns.
    pub(crate) key: Vec<String>,
    /// The column by which conflicts are resolved; None: the last writer's change stays.
    pub(crate) greatest: Option<String>,
}

/// A change of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToldChange {
    /// Its table's place in the message.
    pub(crate) table: u32,
    pub(crate) key: Vec<u8>,
    pub(crate) row: Option<Vec<u8>>,
    pub(crate) version: RowVersion,
    pub(crate) replaced: RowVersion,
    pub(crate) rank: Vec<u8>,
}

impl Told {
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("it has nothing that can't be encoded")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SqlError> {
        let wrong = |why: &str| SqlError::new("22023", format!("these are no replication changes: {why}"));
        let (version, rest) = bytes.split_first().ok_or_else(|| wrong("nothing"))?;
        if *version != VERSION {
            return Err(wrong("they are of another version"));
        }
        postcard::from_bytes(rest).map_err(|error| wrong(&error.to_string()))
    }
}

/// A table as it is told.
pub(super) fn told_table(table: &Table) -> ToldTable {
    let name = |place: usize| table.columns[place].name.clone();
    ToldTable {
        name: table.name.clone(),
        columns: columns(table).map(|(_, name)| name.to_owned()).collect(),
        key: table.primary_key.iter().map(|&place| name(place)).collect(),
        greatest: match table.tracking {
            Some(ConflictRule::Greatest(place)) => Some(name(place)),
            _ => None,
        },
    }
}

/// A change of a table, as it is told.
pub(super) fn told_change(place: u32, table: &Table, missing: &[Value], change: &Change) -> ToldChange {
    let row = change.row.as_ref().map(|row| {
        let row = RowRef::new(row).with_missing(missing);
        let values: Vec<ValueRef<'_>> = columns(table).map(|(place, _)| row.get(place)).collect();
        encode_row(&values)
    });
    ToldChange {
        table: place,
        key: change.key.clone(),
        row,
        version: change.version,
        replaced: change.replaced,
        rank: change.rank.clone(),
    }
}

/// How a told table's rows become rows of the table here that has its name.
pub(crate) struct Reader<'a> {
    table: &'a Table,
    /// By column here: its place there; None: there is none.
    places: Vec<Option<usize>>,
}

impl<'a> Reader<'a> {
    /// An error when the two tables don't fit.
    pub(crate) fn new(table: &'a Table, told: &ToldTable) -> Result<Self, SqlError> {
        let misfit = |why: String| SqlError::new("42804", format!("table \"{}\" {why}", table.name));
        if table.is_replicated() || table.view.is_some() {
            return Err(misfit(
                "can't take another cluster's changes: it is replicated, or a view".to_owned(),
            ));
        }
        let key = table.primary_key.iter().map(|&place| &table.columns[place].name);
        if !key.eq(&told.key) {
            return Err(misfit("has another primary key than there".to_owned()));
        }
        let unknown = told.columns.iter().find(|name| table.place_of(name).is_none());
        if let Some(name) = unknown {
            return Err(misfit(format!("has no column \"{name}\"")));
        }
        let place = |name: &String| told.columns.iter().position(|told| told == name);
        let places = table.columns.iter().map(|column| match column.is_dropped {
            true => None,
            false => place(&column.name),
        });
        Ok(Self {
            table,
            places: places.collect(),
        })
    }

    /// The rule under which the table here must be tracked.
    pub(crate) fn rule(table: &Table, told: &ToldTable) -> Result<ConflictRule, SqlError> {
        let Some(name) = &told.greatest else {
            return Ok(ConflictRule::LastWriter);
        };
        let place = table.place_of(name);
        let place = place.ok_or_else(|| SqlError::new("42703", format!("column \"{name}\" does not exist")))?;
        Ok(ConflictRule::Greatest(place))
    }

    /// The change here, and the place of its partition among `partitions`.
    pub(crate) fn read(&self, told: ToldChange, partitions: u32) -> Result<(u32, Change), SqlError> {
        let row = told.row.map(|row| self.row(&row)).transpose()?;
        let key = match &row {
            Some(row) => self.table.primary_key.iter().map(|&place| row[place].clone()).collect(),
            None => self.key(&told.key)?,
        };
        let by = self
            .table
            .primary_key
            .iter()
            .position(|&place| Some(place) == self.table.partition_column);
        let by = by.ok_or_else(|| SqlError::internal("a partitioned table without a partition key"))?;
        let index = partition_index(key[by].as_ref(), partitions);
        let change = Change {
            table: self.table.id,
            key: encode_key(key.iter().map(Value::as_ref)),
            row: row.map(|row| encode_row(&row.iter().map(Value::as_ref).collect::<Vec<_>>())),
            version: told.version,
            replaced: told.replaced,
            rank: told.rank,
        };
        Ok((index, change))
    }

    fn row(&self, row: &[u8]) -> Result<Vec<Value>, SqlError> {
        let row =
            RowRef::parse(row).map_err(|error| SqlError::new("22023", format!("a row can't be read: {error}")))?;
        let value = |(column, place): (&volt_engine::catalog::Column, &Option<usize>)| {
            let value = match place {
                Some(place) => assign_value(row.get(*place).to_value(), column.data_type)?,
                None => match &column.default {
                    Some(ColumnDefault::Value(value)) if !column.is_dropped => value.clone(),
                    _ => Value::Null,
                },
            };
            if value == Value::Null && !column.nullable && !column.is_dropped {
                let message = format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, self.table.name
                );
                return Err(SqlError::new("23502", message));
            }
            Ok(value)
        };
        self.table.columns.iter().zip(&self.places).map(value).collect()
    }

    fn key(&self, key: &[u8]) -> Result<Vec<Value>, SqlError> {
        let values =
            decode_key(key).map_err(|error| SqlError::new("22023", format!("a key can't be read: {error}")))?;
        if values.len() != self.table.primary_key.len() {
            return Err(SqlError::new("22023", "a key has another number of columns"));
        }
        let columns = self
            .table
            .primary_key
            .iter()
            .map(|&place| self.table.columns[place].data_type);
        let value = |(value, data_type)| Ok(assign_value(value, data_type)?);
        values.into_iter().zip(columns).map(value).collect()
    }
}

#[cfg(test)]
mod tests;
