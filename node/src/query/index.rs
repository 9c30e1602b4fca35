//! Secondary indexes: CREATE INDEX, DROP INDEX, and UNIQUE in CREATE TABLE.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CreateIndex, Expr as AstExpr, Ident, IndexColumn as AstColumn, ObjectName, Query, Visit, Visitor,
};
use volt_engine::catalog::{Column, IndexColumn, IndexState, Table};
use volt_engine::plan::{Expr, Function};
use volt_engine::{IndexId, TableId};

use super::SqlEngine;
use super::compile::{compile_condition, refused};
use super::ddl::{check_name, name_of, table_name};
use super::errors::from_datafusion;
use super::execute::Notices;
use super::syntax::position_of;
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{Applied, Command, NewIndex, Refusal};
use crate::metadata::map::ClusterMap;

/// Columns of an index, at most: PostgreSQL's bound.
const MAX_INDEX_COLUMNS: usize = 32;

/// What is to be done.
pub(super) enum IndexPlan {
    /// CREATE INDEX.
    Create {
        table: TableId,
        index: Box<NewIndex>,
        if_not_exists: bool,
    },
    /// DROP INDEX.
    Drop { names: Vec<String>, if_exists: bool },
}

impl IndexPlan {
    /// The command tag.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE INDEX",
            Self::Drop { .. } => "DROP INDEX",
        }
    }
}

impl SqlEngine {
    pub(super) async fn plan_index(
        &self,
        create: &CreateIndex,
        sql: &str,
        map: &ClusterMap,
    ) -> Result<IndexPlan, SqlError> {
        refuse_clauses(create)?;
        let on = table_name(&create.table_name)?;
        if map.views.contains_key(&on) {
            return Err(SqlError::unsupported("an index of a view"));
        }
        let table = map.table(&on).ok_or_else(|| {
            let error = SqlError::new("42P01", format!("relation \"{on}\" does not exist"));
            at(error, sql, &on)
        })?;
        let columns = columns(&table.columns, &create.columns, sql)?;
        if create.unique {
            check_unique(
                &table.name,
                &table.columns,
                table.partition_column,
                &columns,
                "unique index",
            )?;
        }
        let predicate = match &create.predicate {
            Some(predicate) => Some(self.predicate(table, predicate, sql, map).await?),
            None => None,
        };
        let is_taken = |name: &str| map.has_relation(name);
        let name = match &create.name {
            Some(name) => table_name(name)?,
            None if create.if_not_exists => {
                return Err(SqlError::new("42601", "an index that may exist needs a name"));
            }
            None => generated_name(table, &columns, is_taken),
        };
        check_name(&name, sql)?;
        let written = CreateIndex {
            name: Some(ObjectName::from(vec![written_name(&name)])),
            ..create.clone()
        };
        let index = NewIndex {
            name,
            columns,
            predicate,
            unique: create.unique,
            constraint: false,
            source: written.to_string(),
        };
        Ok(IndexPlan::Create {
            table: table.id,
            index: Box::new(index),
            if_not_exists: create.if_not_exists,
        })
    }

    /// WHERE, as a condition of a row alone: compiled as that of a DELETE.
    async fn predicate(
        &self,
        table: &Table,
        predicate: &AstExpr,
        sql: &str,
        map: &ClusterMap,
    ) -> Result<Expr, SqlError> {
        if let ControlFlow::Break(refused) = predicate.visit(&mut Immutable) {
            return Err(refused);
        }
        let unsupported = || SqlError::unsupported(format!("the predicate {predicate} in an index"));
        let session = self.session(map, false)?;
        let failed = |error| from_datafusion(error, sql);
        let statement = format!("DELETE FROM \"{}\" WHERE {predicate}", table.name.replace('"', "\"\""));
        let plan = session.create_logical_plan(&statement).await.map_err(failed)?;
        let plan = session.optimize(&plan).map_err(failed)?;
        let condition = compile_condition(&plan, table)
            .map_err(refused)?
            .ok_or_else(unsupported)?;
        if depends_on_more(&condition) {
            return Err(mutable());
        }
        Ok(condition)
    }

    /// Does it, and waits until it is so.
    pub(super) async fn run_index_plan(&self, plan: &IndexPlan, sql: &str) -> Result<Notices, SqlError> {
        match plan {
            IndexPlan::Create {
                table,
                index,
                if_not_exists,
            } => self.create_index(*table, index, *if_not_exists).await,
            IndexPlan::Drop { names, if_exists } => self.drop_indexes(names, *if_exists, sql).await,
        }
    }

    async fn create_index(&self, id: TableId, index: &NewIndex, if_not_exists: bool) -> Result<Notices, SqlError> {
        let command = Command::CreateIndex {
            table: id,
            index: Box::new(index.clone()),
        };
        let number = match self.metadata.propose(command).await {
            Ok(Applied::IndexCreated(number)) => number,
            Ok(other) => return Err(SqlError::internal(format!("unexpected answer {other:?}"))),
            Err(ProposeError::Refused(Refusal::TableExists(name))) if if_not_exists => {
                let message = format!("relation \"{name}\" already exists, skipping");
                return Ok(vec![("NOTICE", "42P07", message)]);
            }
            Err(error) => return Err(error.into()),
        };
        if !index.unique {
            self.await_new_index((id, number)).await?;
            return Ok(Vec::new());
        }
        self.await_index((id, number), false).await?;
        self.set_index_state((id, number), IndexState::Checking).await?;
        if let Some(values) = self.await_index((id, number), true).await? {
            self.remove_indexes(BTreeSet::from([number])).await??;
            return Err(self.duplicated(id, index, &values));
        }
        self.set_index_state((id, number), IndexState::Ready).await?;
        Ok(Vec::new())
    }

    /// Returns when an index that isn't unique is ready.
    pub(super) async fn await_new_index(&self, index: (TableId, IndexId)) -> Result<(), SqlError> {
        self.await_index(index, false).await?;
        self.set_index_state(index, IndexState::Ready).await
    }

    async fn set_index_state(&self, (table, index): (TableId, IndexId), state: IndexState) -> Result<(), SqlError> {
        let command = Command::SetIndexState { table, index, state };
        let set = self.metadata.propose(command).await;
        set.map(drop).map_err(|error| SqlError::from(error).after_change())
    }

    async fn await_index(
        &self,
        (table, index): (TableId, IndexId),
        looks: bool,
    ) -> Result<Option<Vec<String>>, SqlError> {
        let map = self.metadata.map();
        let group = map.tables.get(&table).and_then(|table| map.groups.get(&table.group));
        let dropped = || SqlError::new("42P01", "the table was dropped while its index was built");
        let partitions = &group.ok_or_else(dropped)?.partitions;
        let built = self
            .coordinator
            .await_index(partitions, (table, Some(index)), map.catalog_version, looks);
        built.await.map_err(SqlError::after_change)
    }

    fn duplicated(&self, table: TableId, index: &NewIndex, values: &[String]) -> SqlError {
        let map = self.metadata.map();
        let columns = map.tables.get(&table).map_or(&[][..], |table| &table.columns);
        let names = index.columns.iter().filter_map(|column| columns.get(column.place));
        let names: Vec<&str> = names.map(|column| column.name.as_str()).collect();
        let message = format!("could not create unique index \"{}\"", index.name);
        SqlError::new("23505", message).detail(format!(
            "Key ({})=({}) is duplicated.",
            names.join(", "),
            values.join(", ")
        ))
    }

    async fn drop_indexes(&self, names: &[String], if_exists: bool, sql: &str) -> Result<Notices, SqlError> {
        self.metadata.refresh().await?;
        let map = self.metadata.map();
        let (mut notices, mut indexes) = (Vec::new(), BTreeSet::new());
        for name in names {
            match map.index(name) {
                Some((_, index)) => drop(indexes.insert(index.shape.id)),
                None if map.table(name).is_some() => {
                    let error = SqlError::new("42809", format!("\"{name}\" is not an index"));
                    return Err(error.hint("Use DROP TABLE to remove a table."));
                }
                None if if_exists => {
                    let message = format!("index \"{name}\" does not exist, skipping");
                    notices.push(("NOTICE", "00000", message));
                }
                None => {
                    let error = SqlError::new("42704", format!("index \"{name}\" does not exist"));
                    return Err(at(error, sql, name));
                }
            }
        }
        if indexes.is_empty() {
            return Ok(notices);
        }
        match self.remove_indexes(indexes).await? {
            // Somebody else has dropped it meanwhile.
            Err(ProposeError::Refused(Refusal::NoSuchIndex(_))) if if_exists => Ok(notices),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(notices),
        }
    }

    /// Returns when no primary holds rows to them any more: a row that they alone forbade may come next.
    async fn remove_indexes(&self, indexes: BTreeSet<IndexId>) -> Result<Result<(), ProposeError>, SqlError> {
        if let Err(error) = self.metadata.propose(Command::DropIndexes { indexes }).await {
            return Ok(Err(error));
        }
        let version = self.metadata.map().version;
        self.coordinator.wait_until_all_know(version).await.map(Ok)
    }
}

fn at(error: SqlError, sql: &str, name: &str) -> SqlError {
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}

fn refuse_clauses(create: &CreateIndex) -> Result<(), SqlError> {
    let using = create.using.as_ref().map(|using| using.to_string().to_lowercase());
    let clause = match create {
        _ if using.is_some_and(|using| using != "btree") => "an index of another kind than btree",
        create if !create.include.is_empty() => "INCLUDE in an index",
        create if create.nulls_distinct == Some(false) => "NULLS NOT DISTINCT",
        create if !create.with.is_empty() => "WITH in an index",
        create if !create.index_options.is_empty() || !create.alter_options.is_empty() => "this option of an index",
        _ => return Ok(()),
    };
    Err(SqlError::unsupported(clause))
}

/// The columns of an index as they are written.
fn columns(of_table: &[Column], written: &[AstColumn], sql: &str) -> Result<Vec<IndexColumn>, SqlError> {
    if written.len() > MAX_INDEX_COLUMNS {
        let message = format!("cannot use more than {MAX_INDEX_COLUMNS} columns in an index");
        return Err(SqlError::new("54011", message));
    }
    let mut columns = Vec::with_capacity(written.len());
    for column in written {
        let AstExpr::Identifier(ident) = &column.column.expr else {
            return Err(SqlError::unsupported(format!("the expression {column} in an index")));
        };
        let name = name_of(ident);
        let place = of_table.iter().position(|known| known.name == name);
        let place = place.ok_or_else(|| {
            let error = SqlError::new("42703", format!("column \"{name}\" does not exist"));
            at(error, sql, &name)
        })?;
        let options = &column.column.options;
        let descending = options.asc == Some(false);
        if column.operator_class.is_some() || options.nulls_first.is_some_and(|first| first != descending) {
            return Err(SqlError::unsupported(format!("{column} in an index"))
                .hint("NULL is the greatest value of an index: last if it goes up, first if it goes down."));
        }
        columns.push(IndexColumn { place, descending });
    }
    if let Some(twice) = (1..columns.len()).find(|&at| columns[..at].iter().any(|one| one.place == columns[at].place)) {
        let name = &of_table[columns[twice].place].name;
        let message = format!("column \"{name}\" appears twice in an index");
        return Err(at(SqlError::new("42701", message), sql, name));
    }
    Ok(columns)
}

/// Rows of other partitions are not looked at when a row is written.
fn check_unique(
    table: &str,
    of_table: &[Column],
    partition_column: Option<usize>,
    columns: &[IndexColumn],
    what: &str,
) -> Result<(), SqlError> {
    let Some(partition_column) = partition_column else {
        return Ok(());
    };
    if columns.iter().any(|column| column.place == partition_column) {
        return Ok(());
    }
    let message = format!("{what} on partitioned table must include all partitioning columns");
    let name = of_table
        .get(partition_column)
        .map_or("?", |column| column.name.as_str());
    Err(SqlError::new("0A000", message)
        .detail(format!(
            "{} on table \"{table}\" lacks column \"{name}\" which is part of the partition key.",
            if what == "unique index" {
                "The index"
            } else {
                "UNIQUE constraint"
            }
        ))
        .hint("A row is compared with the rows of its own partition only: others may lie on another node."))
}

/// `table_column_column_idx`, with a number if that is taken.
fn generated_name(table: &Table, columns: &[IndexColumn], is_taken: impl Fn(&str) -> bool) -> String {
    let names = columns.iter().filter_map(|column| table.columns.get(column.place));
    let names: Vec<&str> = names.map(|column| column.name.as_str()).collect();
    free_name(&format!("{}_{}_idx", table.name, names.join("_")), is_taken)
}

pub(super) fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (1..).map(|number| format!("{name}{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// A UNIQUE constraint of a table that is being made: its name, or one made of its columns'.
pub(super) fn unique_constraint(
    table: &str,
    of_table: &[Column],
    partition_column: Option<usize>,
    (name, written): (Option<String>, &[AstColumn]),
    before: &[NewIndex],
    sql: &str,
) -> Result<NewIndex, SqlError> {
    let columns = columns(of_table, written, sql)?;
    check_unique(table, of_table, partition_column, &columns, "unique constraint")?;
    let names: Vec<&str> = columns
        .iter()
        .map(|column| of_table[column.place].name.as_str())
        .collect();
    let is_taken = |name: &str| before.iter().any(|index| index.name == name);
    let name = name.unwrap_or_else(|| free_name(&format!("{table}_{}_key", names.join("_")), is_taken));
    check_name(&name, sql)?;
    let list: Vec<String> = written.iter().map(ToString::to_string).collect();
    Ok(NewIndex {
        source: format!("UNIQUE ({})", list.join(", ")),
        name,
        columns,
        predicate: None,
        unique: true,
        constraint: true,
    })
}

/// Stops at what a row alone doesn't decide. The planner may replace it by a value before anybody sees it.
struct Immutable;

impl Visitor for Immutable {
    type Break = SqlError;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<SqlError> {
        ControlFlow::Break(SqlError::new("0A000", "cannot use subquery in index predicate"))
    }

    fn pre_visit_expr(&mut self, expr: &AstExpr) -> ControlFlow<SqlError> {
        match expr {
            AstExpr::Function(function) if MUTABLE.contains(&function.name.to_string().to_lowercase().as_str()) => {
                ControlFlow::Break(mutable())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Functions whose results are not of their arguments alone.
const MUTABLE: &[&str] = &[
    "now",
    "today",
    "random",
    "uuid",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

fn mutable() -> SqlError {
    SqlError::new("42P17", "functions in index predicate must be marked IMMUTABLE")
}

/// As it must be written to be read as this.
pub(super) fn written_name(name: &str) -> Ident {
    let is_plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    let starts = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    match starts && name.chars().all(is_plain) {
        true => Ident::new(name),
        false => Ident::with_quote('"', name),
    }
}

/// It looks at something beside the columns of a row.
fn depends_on_more(expr: &Expr) -> bool {
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::Parameter(_) | Expr::Version(_) => return true,
            Expr::Call {
                function: Function::Now,
                ..
            } => return true,
            Expr::Column(_) | Expr::Literal(_) => {}
            Expr::Binary { left, right, .. } => open.extend([&**left, &**right]),
            Expr::Unary { operand, .. } | Expr::Cast { operand, .. } => open.push(operand),
            Expr::InList { operand, list, .. } => {
                open.push(operand);
                open.extend(list);
            }
            Expr::Like { operand, pattern, .. } => open.extend([&**operand, &**pattern]),
            Expr::Case { arms, otherwise } => {
                open.extend(arms.iter().flat_map(|(condition, value)| [condition, value]));
                open.extend(otherwise.iter().map(|value| &**value));
            }
            Expr::Call { arguments, .. } => open.extend(arguments),
        }
    }
    false
}
