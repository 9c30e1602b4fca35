//! Stored procedures: from `CREATE PROCEDURE` to compiled code in the catalog, and from `CALL` to its execution.
//!
//! `header` and `parse` read the text, `compile` and `emit` make the code (volt_engine::procedure), `module` takes in a
//! WebAssembly module (volt_wasm), `call` runs either: a partitioned procedure inside its partition, any other in a
//! transaction whose coordinator is this node.

mod body;
mod call;
mod compile;
mod emit;
#[cfg(feature = "simulation")]
pub(super) mod fuzzing;
mod header;
mod loops;
mod module;
mod parse;
mod raise;
mod rewrite;
mod scope;
mod statistics;
mod tokens;

use std::collections::BTreeSet;

use volt_engine::procedure::{Body, Into, Op, Parameter, PartitionBy, Procedure};
use volt_engine::value::DataType;

use super::SqlEngine;
use super::ddl::{check_name, type_named};
use super::execute::Notices;
use crate::error::SqlError;
use crate::metadata::ProposeError;
use crate::metadata::command::{Command, Refusal};
use crate::metadata::map::ClusterMap;
pub(super) use call::CallPlan;
use compile::{Compiler, Returns};
use emit::{Emitter, Home};
use header::{Header, HeaderPartition};
pub(super) use scope::sql_type;
use scope::{Slot, Variable};
pub(super) use statistics::{Counts, Statistics};
pub(super) use tokens::Tokens;

/// Bytes of a procedure's text, at most: it lies in the catalog, on every node.
const MAX_SOURCE_BYTES: usize = 64 << 10;

/// A statement about procedures, planned.
pub(super) enum ProcedurePlan {
    /// CREATE PROCEDURE.
    Create { procedure: Box<Procedure>, replace: bool },
    /// DROP PROCEDURE.
    Drop { names: Vec<String>, if_exists: bool },
    /// ALTER PROCEDURE ... RENAME TO.
    Rename { name: String, to: String },
}

impl ProcedurePlan {
    /// The command tag.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE PROCEDURE",
            Self::Drop { .. } => "DROP PROCEDURE",
            Self::Rename { .. } => "ALTER PROCEDURE",
        }
    }
}

impl SqlEngine {
    /// Plans CREATE, ALTER and DROP PROCEDURE.
    pub(super) async fn plan_procedure(&self, sql: &str, map: &ClusterMap) -> Result<ProcedurePlan, SqlError> {
        match Tokens::of(sql)?.peek(0) {
            "DROP" => {
                let (names, if_exists) = header::parse_drop(sql)?;
                Ok(ProcedurePlan::Drop { names, if_exists })
            }
            "ALTER" => {
                let (name, to) = header::parse_alter(sql)?;
                check_name(&to, sql)?;
                Ok(ProcedurePlan::Rename { name, to })
            }
            _ => {
                let header = header::parse_create(sql)?;
                let replace = header.replace;
                let procedure = Box::new(self.compile_procedure(header, sql, map).await?);
                Ok(ProcedurePlan::Create { procedure, replace })
            }
        }
    }

    async fn compile_procedure(&self, header: Header, sql: &str, map: &ClusterMap) -> Result<Procedure, SqlError> {
        check_name(&header.name, sql)?;
        if header.language.as_deref() == Some("wasm") {
            return self.compile_module(header, sql, map).await;
        }
        check_length(sql.len())?;
        let is_block = is_block(&header.body);
        let language = match header.language.as_deref() {
            None if is_block => "plpgsql",
            None => "sql",
            Some(language @ ("plpgsql" | "sql")) => language,
            Some(other) => {
                let message = format!("language \"{other}\" does not exist");
                return Err(SqlError::new("42704", message).hint("Procedures are written in plpgsql, sql or wasm."));
            }
        };
        let mut emit = Emitter::new(self, map, &header.name);
        let parameters = declare_parameters(&mut emit, &header)?;
        emit.code.found = emit.slot(DataType::Boolean)?;
        emit.code.row_count = emit.slot(DataType::BigInt)?;
        let found = Variable::Slot(Slot {
            fixed: Some("is set by statements"),
            ..Slot::plain(emit.code.found)
        });
        emit.scopes.declare("found", found)?;
        let (returns, mut columns) = declare_results(&mut emit, &header, &parameters)?;
        if is_block || language == "plpgsql" {
            let block = parse::parse_body(&header.body).map_err(|error| in_text(error, &header))?;
            Compiler::new(&mut emit, returns).body(&block).await?;
        } else {
            columns = one_statement(&mut emit, &header, columns).await?;
        }
        let mut code = emit.code;
        code.simplify();
        let procedure = Procedure {
            id: 0,
            name: header.name,
            language: language.to_owned(),
            source: sql.trim().trim_end_matches(';').to_owned(),
            parameters,
            columns,
            partition_by: emit.home.map(|home| home.by),
            body: Body::Code(code),
            statements: emit.statements,
        };
        procedure.validate()?;
        Ok(procedure)
    }

    /// Makes, drops or renames; what is to be told.
    pub(super) async fn run_procedure_plan(&self, plan: &ProcedurePlan) -> Result<Notices, SqlError> {
        match plan {
            ProcedurePlan::Create { procedure, replace } => {
                let command = Command::CreateProcedure {
                    procedure: procedure.clone(),
                    replace: *replace,
                };
                self.metadata.propose(command).await?;
                Ok(Vec::new())
            }
            ProcedurePlan::Rename { name, to } => {
                let procedure = self.metadata.map().procedure(name).map(|procedure| procedure.id);
                let procedure = procedure.ok_or_else(|| no_procedure(name))?;
                let name = to.clone();
                self.metadata
                    .propose(Command::RenameProcedure { procedure, name })
                    .await?;
                Ok(Vec::new())
            }
            ProcedurePlan::Drop { names, if_exists } => self.drop_procedures(names, *if_exists).await,
        }
    }

    async fn drop_procedures(&self, names: &[String], if_exists: bool) -> Result<Notices, SqlError> {
        self.metadata.refresh().await?;
        let map = self.metadata.map();
        let (mut notices, mut procedures) = (Vec::new(), BTreeSet::new());
        for name in names {
            match map.procedure(name) {
                Some(procedure) => drop(procedures.insert(procedure.id)),
                None if if_exists => {
                    let message = format!("procedure {name} does not exist, skipping");
                    notices.push(("NOTICE", "00000", message));
                }
                None => return Err(no_procedure(name)),
            }
        }
        if procedures.is_empty() {
            return Ok(notices);
        }
        match self.metadata.propose(Command::DropProcedures { procedures }).await {
            // Somebody else has dropped it meanwhile.
            Err(ProposeError::Refused(Refusal::NoSuchProcedure(_))) if if_exists => Ok(notices),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(notices),
        }
    }
}

fn check_length(bytes: usize) -> Result<(), SqlError> {
    if bytes <= MAX_SOURCE_BYTES {
        return Ok(());
    }
    let message = format!("a procedure's text can have at most {} KiB", MAX_SOURCE_BYTES >> 10);
    Err(SqlError::new("54000", message))
}

/// The body is a block, and no statement of SQL.
fn is_block(body: &str) -> bool {
    let first = Tokens::of(body).map(|tokens| tokens.peek(0).to_owned());
    first.is_ok_and(|word| word == "BEGIN" || word == "DECLARE")
}

/// An error in the body with its place in the whole text, or at least its line.
fn in_text(error: SqlError, header: &Header) -> SqlError {
    match header.body_at {
        Some(before) => error.shifted(before),
        None => {
            let line = error.position.map_or(1, |position| {
                let before = header.body.chars().take(position as usize);
                before.filter(|character| *character == '\n').count() + 1
            });
            emit::located(error, line)
        }
    }
}

fn declare_parameters(emit: &mut Emitter<'_>, header: &Header) -> Result<Vec<Parameter>, SqlError> {
    let mut parameters = Vec::new();
    for parameter in &header.parameters {
        let data_type = type_named(&parameter.data_type)?;
        emit.slot(data_type)?;
        parameters.push(Parameter {
            name: parameter.name.clone(),
            data_type,
            is_input: parameter.is_input,
            is_output: parameter.is_output,
        });
    }
    if let Some(partition) = &header.partition {
        emit.home = Some(home(emit.map, partition, &parameters)?);
    }
    for (slot, parameter) in parameters.iter().enumerate() {
        let decides = emit.home.as_ref().is_some_and(|home| home.by.parameter == slot);
        let variable = Variable::Slot(Slot {
            fixed: decides.then_some("decides the partition"),
            ..Slot::plain(slot)
        });
        if !parameter.name.is_empty() {
            emit.scopes.declare(&parameter.name, variable)?;
        }
    }
    Ok(parameters)
}

fn home(map: &ClusterMap, partition: &HeaderPartition, parameters: &[Parameter]) -> Result<Home, SqlError> {
    let HeaderPartition {
        table: table_name,
        column: column_name,
        parameter,
    } = partition;
    let table = map.table(table_name);
    let table = table.ok_or_else(|| SqlError::new("42P01", format!("relation \"{table_name}\" does not exist")))?;
    let Some(place) = table.partition_column else {
        let message = format!("table \"{table_name}\" is replicated: it has no partition column");
        return Err(SqlError::new("42P16", message));
    };
    let column = &table.columns[place];
    if column.name != *column_name {
        let message = format!(
            "table \"{table_name}\" is partitioned by \"{}\", not \"{column_name}\"",
            column.name
        );
        return Err(SqlError::new("42P16", message));
    }
    if !parameters.get(*parameter).is_some_and(|parameter| parameter.is_input) {
        let message = format!("PARAMETER {parameter} is not one of the procedure's arguments, which count from 0");
        return Err(SqlError::new("42P16", message));
    }
    Ok(Home {
        by: PartitionBy {
            table: table.id,
            data_type: column.data_type,
            parameter: *parameter,
        },
        table_name: table_name.clone(),
        column_name: column_name.clone(),
        group: table.group,
    })
}

type Columns = Vec<(String, DataType)>;

/// What is returned; RETURNS TABLE declares variables for its columns, as PostgreSQL does.
fn declare_results(
    emit: &mut Emitter<'_>,
    header: &Header,
    parameters: &[Parameter],
) -> Result<(Returns, Columns), SqlError> {
    let outputs: Vec<usize> = (0..parameters.len())
        .filter(|place| parameters[*place].is_output)
        .collect();
    let Some(returned) = &header.returns_table else {
        if outputs.is_empty() {
            return Ok((Returns::Nothing, Vec::new()));
        }
        let column = |place: &usize| {
            let parameter = &parameters[*place];
            let name = match parameter.name.as_str() {
                "" => format!("column{}", place + 1),
                name => name.to_owned(),
            };
            (name, parameter.data_type)
        };
        let columns = outputs.iter().map(column).collect();
        return Ok((Returns::Row(outputs), columns));
    };
    if !outputs.is_empty() {
        return Err(SqlError::new(
            "42P13",
            "OUT and INOUT arguments aren't allowed in TABLE procedures",
        ));
    }
    let (mut slots, mut columns) = (Vec::new(), Vec::new());
    for (name, written) in returned {
        let data_type = type_named(written)?;
        let slot = emit.slot(data_type)?;
        emit.scopes.declare(name, Variable::Slot(Slot::plain(slot)))?;
        slots.push(slot);
        columns.push((name.clone(), data_type));
    }
    let types = columns.iter().map(|(_, data_type)| *data_type).collect();
    Ok((Returns::Table(slots, types), columns))
}

/// A procedure of one statement, which returns what the statement does.
async fn one_statement(emit: &mut Emitter<'_>, header: &Header, declared: Columns) -> Result<Columns, SqlError> {
    let text = body::Text {
        sql: header.body.clone(),
        line: 1,
    };
    if super::syntax::split(&header.body)?.len() != 1 {
        return Err(SqlError::new(
            "42601",
            "a procedure of several statements has them between BEGIN and END",
        ));
    }
    let made = emit.statement(&text).await?;
    let columns: Columns = made
        .columns
        .into_iter()
        .map(|column| (column.name, column.data_type))
        .collect();
    if !declared.is_empty() && declared.len() != columns.len() {
        return Err(SqlError::new(
            "42804",
            "structure of query does not match procedure result type",
        ));
    }
    let into = if made.returns_rows { Into::Caller } else { Into::Nowhere };
    let statement = made.place;
    emit.op(Op::Execute { statement, into });
    Ok(columns)
}

pub(super) fn no_procedure(name: &str) -> SqlError {
    SqlError::new("42883", format!("procedure {name} does not exist"))
}
