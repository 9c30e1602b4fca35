//! Views. A plain one is its query, planned into the statements that read it. A materialized one's rows are made by the
//! partitions (`volt_engine::catalog::ViewShape`); in a statement it is what its query makes of them.

mod materialize;
mod read;
mod total;

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    CreateTableOptions, CreateView, FromTable, Statement, TableFactor, TableObject, TableWithJoins,
};
use volt_engine::TableId;
use volt_engine::value::DataType;

use super::SqlEngine;
use super::complexity::{MAX_DEPTH, MAX_NESTED_QUERIES, check_scans, depth_and_queries, too_complex};
use super::ddl::{check_name, name_of, table_name};
use super::errors::from_datafusion;
use super::execute::Notices;
use super::literals::write_out_exponents;
use super::names::output_names;
use super::syntax::{position_of, tokenize};
use super::types::from_arrow;
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{Applied, Command, NewView, Refusal};
use crate::metadata::map::{ClusterMap, ViewWeight};
pub(super) use read::register;

/// Bytes of a view's query, at most: the catalog lies on every node.
const MAX_VIEW_BYTES: usize = 16 << 10;

/// What is to be done.
pub(super) enum ViewPlan {
    /// CREATE VIEW and CREATE MATERIALIZED VIEW.
    Create {
        view: Box<NewView>,
        replace: bool,
        if_not_exists: bool,
    },
    /// DROP VIEW and DROP MATERIALIZED VIEW.
    Drop {
        names: Vec<String>,
        if_exists: bool,
        materialized: bool,
    },
}

impl ViewPlan {
    /// The command tag.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Create { view, .. } if view.materialized.is_some() => "CREATE MATERIALIZED VIEW",
            Self::Create { .. } => "CREATE VIEW",
            Self::Drop { materialized: true, .. } => "DROP MATERIALIZED VIEW",
            Self::Drop { .. } => "DROP VIEW",
        }
    }
}

impl SqlEngine {
    pub(super) async fn plan_view(
        &self,
        create: &CreateView,
        sql: &str,
        map: &ClusterMap,
    ) -> Result<ViewPlan, SqlError> {
        refuse_clauses(create)?;
        let name = table_name(&create.name)?;
        check_name(&name, sql)?;
        let query = create.query.to_string();
        if query.len() > MAX_VIEW_BYTES {
            let message = format!(
                "a view's query can have at most {MAX_VIEW_BYTES} bytes, not {}",
                query.len()
            );
            return Err(SqlError::new("54000", message));
        }
        let mut statement = Statement::Query(create.query.clone());
        write_out_exponents(&mut statement);
        let failed = |error| from_datafusion(error, sql);
        let session = self.session(map, false)?;
        let parsed = DfStatement::Statement(Box::new(statement.clone()));
        let plan = session.statement_to_plan(parsed).await.map_err(failed);
        let plan = plan.map_err(|error| unready(error, map))?;
        let relations = check_scans(&plan)?;
        if let Some(name) = plan.get_parameter_types().map_err(failed)?.into_keys().next() {
            return Err(SqlError::new("42P02", format!("there is no parameter {name}")));
        }
        // What can't be run is refused now.
        let optimised = session.optimize(&plan).map_err(failed)?;
        let reads = Reads::of(&statement, &plan, map);
        let fields = field_names(&statement, &plan);
        let names = column_names(create, &fields, sql)?;
        let types = optimised.schema().fields().iter();
        let types: Vec<DataType> = types.map(|field| from_arrow(field.data_type())).collect();
        let materialized = match create.materialized {
            true => Some(materialize::shape(&session, &plan, &name, map, sql)?),
            false => None,
        };
        let view = NewView {
            name,
            weight: weight(&query, relations, &reads, map)?,
            query,
            columns: names.into_iter().zip(types).collect(),
            tables: reads.tables,
            views: reads.views,
            fields,
            materialized,
        };
        Ok(ViewPlan::Create {
            view: Box::new(view),
            replace: create.or_replace,
            if_not_exists: create.if_not_exists,
        })
    }

    /// Does it, and waits until it is so.
    pub(super) async fn run_view_plan(&self, plan: &ViewPlan, sql: &str) -> Result<Notices, SqlError> {
        match plan {
            ViewPlan::Create {
                view,
                replace,
                if_not_exists,
            } => self.create_view(view, *replace, *if_not_exists).await,
            ViewPlan::Drop {
                names,
                if_exists,
                materialized,
            } => self.drop_views(names, *if_exists, *materialized, sql).await,
        }
    }

    async fn create_view(&self, view: &NewView, replace: bool, if_not_exists: bool) -> Result<Notices, SqlError> {
        let command = Command::CreateView {
            view: Box::new(view.clone()),
            replace,
        };
        match self.metadata.propose(command).await {
            Ok(Applied::ViewCreated(None)) => Ok(Vec::new()),
            Ok(Applied::ViewCreated(Some(table))) => {
                self.await_view(table).await?;
                let built = self.metadata.propose(Command::ViewBuilt { table }).await;
                built.map_err(|error| SqlError::from(error).after_change())?;
                Ok(Vec::new())
            }
            Ok(other) => Err(SqlError::internal(format!("unexpected answer {other:?}"))),
            Err(ProposeError::Refused(Refusal::TableExists(name))) if if_not_exists => {
                let message = format!("relation \"{name}\" already exists, skipping");
                Ok(vec![("NOTICE", "42P07", message)])
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Until the primary of every partition has made its rows.
    async fn await_view(&self, table: TableId) -> Result<(), SqlError> {
        let map = self.metadata.map();
        let group = map.tables.get(&table).and_then(|table| map.groups.get(&table.group));
        let dropped = || SqlError::new("42P01", "the materialized view was dropped while it was built");
        let partitions = &group.ok_or_else(dropped)?.partitions;
        let built = self
            .coordinator
            .await_index(partitions, (table, None), map.catalog_version, false);
        built.await.map(drop).map_err(SqlError::after_change)
    }

    async fn drop_views(
        &self,
        names: &[String],
        if_exists: bool,
        materialized: bool,
        sql: &str,
    ) -> Result<Notices, SqlError> {
        self.metadata.refresh().await?;
        let map = self.metadata.map();
        let what = if materialized { "materialized view" } else { "view" };
        let (mut notices, mut views) = (Vec::new(), BTreeSet::new());
        for name in names {
            match map.views.get(name) {
                Some(view) if view.materialized.is_some() == materialized => drop(views.insert(name.clone())),
                Some(_) => {
                    return Err(is_other(
                        name,
                        what,
                        if materialized { "VIEW" } else { "MATERIALIZED VIEW" },
                    ));
                }
                None if map.table(name).is_some() => return Err(is_other(name, what, "TABLE")),
                None if map.index(name).is_some() => return Err(is_other(name, what, "INDEX")),
                None if if_exists => {
                    notices.push(("NOTICE", "00000", format!("{what} \"{name}\" does not exist, skipping")));
                }
                None => {
                    let error = SqlError::new("42P01", format!("{what} \"{name}\" does not exist"));
                    return Err(at(error, sql, name));
                }
            }
        }
        if views.is_empty() {
            return Ok(notices);
        }
        match self.metadata.propose(Command::DropViews { views }).await {
            // Somebody else has dropped it meanwhile.
            Err(ProposeError::Refused(Refusal::NoSuchView(_))) if if_exists => Ok(notices),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(notices),
        }
    }
}

fn is_other(name: &str, what: &str, is: &str) -> SqlError {
    let article = if is == "INDEX" { "an" } else { "a" };
    SqlError::new("42809", format!("\"{name}\" is not a {what}"))
        .hint(format!("Use DROP {is} to remove {article} {}.", is.to_lowercase()))
}

/// The error of a statement that takes a view for a table.
pub(super) fn not_a_table(map: &ClusterMap, name: &str) -> SqlError {
    let view = map.views.get(name);
    let materialized = view.is_some_and(|view| view.materialized.is_some());
    is_other(name, "table", if materialized { "MATERIALIZED VIEW" } else { "VIEW" })
}

fn at(error: SqlError, sql: &str, name: &str) -> SqlError {
    match position_of(sql, name) {
        Some(position) => error.at(position),
        None => error,
    }
}

/// A materialized view is not read before all its rows are there: an error that says so, in the place of one that it does
/// not exist.
pub(super) fn unready(error: SqlError, map: &ClusterMap) -> SqlError {
    if error.sqlstate != "42P01" {
        return error;
    }
    let is_unready = |name: &&String| {
        let view = map.views.get(*name).and_then(|view| view.materialized.as_ref());
        view.is_some_and(|view| !view.is_ready) && error.message.contains(&format!("\"{name}\""))
    };
    match map.views.keys().find(is_unready) {
        Some(name) => SqlError::new("55000", format!("materialized view \"{name}\" has not been populated"))
            .hint("It is being built: system.views tells when it is ready."),
        None => error,
    }
}

/// Refuses to write to a view.
pub(super) fn check_target(statement: &Statement, map: &ClusterMap) -> Result<(), SqlError> {
    let of = |tables: &[TableWithJoins]| match tables.first().map(|first| &first.relation) {
        Some(TableFactor::Table { name, .. }) => table_name(name).ok(),
        _ => None,
    };
    let (target, verb) = match statement {
        Statement::Insert(insert) => match &insert.table {
            TableObject::TableName(name) => (table_name(name).ok(), "insert into"),
            _ => return Ok(()),
        },
        Statement::Update(update) => (of(std::slice::from_ref(&update.table)), "update"),
        Statement::Delete(delete) => match &delete.from {
            FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables) => (of(tables), "delete from"),
        },
        _ => return Ok(()),
    };
    let Some(view) = target.and_then(|name| map.views.get(&name)) else {
        return Ok(());
    };
    let name = &view.name;
    Err(match view.materialized {
        Some(_) => SqlError::new("42809", format!("cannot change materialized view \"{name}\"")),
        None => {
            SqlError::new("55000", format!("cannot {verb} view \"{name}\"")).hint("Write to the tables that it reads.")
        }
    })
}

fn refuse_clauses(create: &CreateView) -> Result<(), SqlError> {
    let clause = match create {
        create if create.temporary => "a TEMPORARY view",
        create if create.options != CreateTableOptions::None => "an option of a view",
        create if create.if_not_exists && !create.materialized => {
            return Err(SqlError::new(
                "42601",
                "CREATE VIEW has OR REPLACE in the place of IF NOT EXISTS",
            ));
        }
        create if create.or_replace && create.materialized => {
            return Err(SqlError::new("42601", "CREATE OR REPLACE takes no MATERIALIZED VIEW"));
        }
        _ => return Ok(()),
    };
    Err(SqlError::unsupported(clause))
}

/// What a query's columns are called.
fn field_names(statement: &Statement, plan: &LogicalPlan) -> Vec<String> {
    let fields = plan.schema().fields();
    let names = output_names(statement, fields.len()).into_iter();
    let named = names.zip(fields);
    named
        .map(|(name, field)| name.unwrap_or_else(|| field.name().clone()))
        .collect()
}

/// Those of the query, or as many as the statement names.
fn column_names(create: &CreateView, fields: &[String], sql: &str) -> Result<Vec<String>, SqlError> {
    if create.columns.len() > fields.len() {
        return Err(SqlError::new(
            "42601",
            "CREATE VIEW specifies more column names than columns",
        ));
    }
    let written = create.columns.iter().map(|column| name_of(&column.name));
    let mut names: Vec<String> = written.collect();
    names.extend_from_slice(&fields[names.len()..]);
    let mut known = BTreeSet::new();
    for name in &names {
        check_name(name, sql)?;
        if !known.insert(name) {
            return Err(SqlError::new(
                "42701",
                format!("column \"{name}\" specified more than once"),
            ));
        }
    }
    Ok(names)
}

/// What a query reads.
struct Reads {
    tables: BTreeSet<TableId>,
    views: BTreeSet<String>,
}

impl Reads {
    /// The views' names are taken from the text: in the plan there is nothing left of them.
    fn of(statement: &Statement, plan: &LogicalPlan, map: &ClusterMap) -> Self {
        let mut views = BTreeSet::new();
        let _: std::ops::ControlFlow<()> = datafusion::sql::sqlparser::ast::visit_relations(statement, |relation| {
            let name = table_name(relation).ok();
            views.extend(name.filter(|name| map.views.contains_key(name)));
            std::ops::ControlFlow::Continue(())
        });
        let mut tables = BTreeSet::new();
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && scan.table_name.schema().is_none_or(|schema| schema == "public")
                && let Some(table) = map.table(scan.table_name.table())
            {
                tables.insert(table.id);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        Self { tables, views }
    }
}

fn weight(query: &str, relations: usize, reads: &Reads, map: &ClusterMap) -> Result<ViewWeight, SqlError> {
    let (mut depth, mut queries) = depth_and_queries(&tokenize(query)?);
    let read = || reads.views.iter().filter_map(|name| Some(map.views.get(name)?.weight));
    depth += read().map(|weight| weight.depth).max().unwrap_or(0);
    queries += 1 + read().map(|weight| weight.queries).max().unwrap_or(0);
    if depth > MAX_DEPTH || queries > MAX_NESTED_QUERIES {
        return Err(too_complex(format_args!("with the views that it reads")));
    }
    Ok(ViewWeight {
        depth,
        queries,
        relations,
    })
}
