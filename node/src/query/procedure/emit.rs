//! What a procedure's code is made of: expressions and SQL statements, planned; slots and jumps.

use datafusion::sql::sqlparser::ast::Statement as Ast;
use volt_engine::plan::{Action, Expr};
use volt_engine::procedure::{Code, Into, MAX_PARTS, Op, PartitionBy, Statement};
use volt_engine::value::DataType;
use volt_engine::{GroupId, SequenceId, TableId};

use super::body::Text;
use super::rewrite::{Subquery, put_parameters, take_subqueries};
use super::scope::{Scopes, Variable};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::query::SqlEngine;
use crate::query::compile::{Route, compile_constants};
use crate::query::planned::{Plan, Planned, ProgramPlan};
use crate::query::sequence::Call;
use crate::query::syntax::{Parsed, parse};
use crate::statement::{Prepared, ResultColumn};

/// Where a partitioned procedure runs.
pub(super) struct Home {
    pub(super) by: PartitionBy,
    pub(super) table_name: String,
    pub(super) column_name: String,
    pub(super) group: GroupId,
}

/// A procedure's code while it is made.
pub(super) struct Emitter<'e> {
    engine: &'e SqlEngine,
    pub(super) map: &'e ClusterMap,
    pub(super) home: Option<Home>,
    pub(super) scopes: Scopes,
    pub(super) code: Code,
    pub(super) statements: Vec<Statement>,
}

/// A statement that was planned.
pub(super) struct Made {
    /// Its place among the procedure's.
    pub(super) place: usize,
    pub(super) columns: Vec<ResultColumn>,
    pub(super) returns_rows: bool,
    pub(super) writes: bool,
}

impl<'e> Emitter<'e> {
    pub(super) fn new(engine: &'e SqlEngine, map: &'e ClusterMap, name: &str) -> Self {
        Self {
            engine,
            map,
            home: None,
            scopes: Scopes::new(name),
            code: Code::default(),
            statements: Vec::new(),
        }
    }

    pub(super) fn slot(&mut self, data_type: DataType) -> Result<usize, SqlError> {
        if self.code.slots.len() >= MAX_PARTS {
            let message = format!("a procedure has at most {MAX_PARTS} variables");
            return Err(SqlError::new("54000", message));
        }
        self.code.slots.push(data_type);
        Ok(self.code.slots.len() - 1)
    }

    /// Appends an instruction: its place.
    pub(super) fn op(&mut self, op: Op) -> usize {
        self.code.ops.push(op);
        self.code.ops.len() - 1
    }

    pub(super) fn assign(&mut self, slot: usize, value: Expr) {
        self.op(Op::Assign { slot, value });
    }

    /// The place of the next instruction.
    pub(super) fn here(&self) -> usize {
        self.code.ops.len()
    }

    /// Sends a jump here.
    pub(super) fn land(&mut self, jump: usize) {
        let here = self.here();
        match self.code.ops.get_mut(jump) {
            Some(Op::Jump(target) | Op::JumpUnless { target, .. } | Op::NextRow { done: target, .. }) => {
                *target = here;
            }
            _ => unreachable!("only jumps are sent somewhere"),
        }
    }

    pub(super) fn jump_unless(&mut self, condition: Expr) -> usize {
        self.op(Op::JumpUnless { condition, target: 0 })
    }

    // ---- Expressions

    /// An expression; the queries inside it run before, here.
    pub(super) async fn expression(&mut self, text: &Text) -> Result<Expr, SqlError> {
        self.try_expression(text)
            .await
            .map_err(|error| located(error, text.line))
    }

    async fn try_expression(&mut self, text: &Text) -> Result<Expr, SqlError> {
        let mut statement = parsed(&format!("SELECT {}", text.sql))?;
        put_parameters(&mut statement, &self.scopes, &self.code.slots, self.map)?;
        let subqueries = take_subqueries(&mut statement);
        self.scopes.open();
        for subquery in subqueries {
            self.subquery(subquery).await?;
        }
        // Now the names that stand for the queries have their slots.
        let put = put_parameters(&mut statement, &self.scopes, &self.code.slots, self.map);
        self.scopes.close();
        put?;
        let planned = self.plan(&statement.to_string()).await?;
        let mut exprs = match &planned.plan {
            Plan::Query { plan, .. } => compile_constants(plan)?,
            Plan::Constants(row) => row.clone(),
            _ => return Err(SqlError::new("42601", "an expression is expected")),
        };
        for (sequence, slot) in self.value_slots(&planned)? {
            self.op(Op::NextValue { slot, sequence });
        }
        match exprs.len() {
            1 => Ok(exprs.remove(0)),
            _ => Err(SqlError::new("42601", "one expression is expected")),
        }
    }

    async fn subquery(&mut self, subquery: Subquery) -> Result<(), SqlError> {
        // The queries inside it have their slots already.
        let mut statement = Ast::Query(subquery.query.clone());
        put_parameters(&mut statement, &self.scopes, &self.code.slots, self.map)?;
        let mut sql = statement.to_string();
        if subquery.exists && subquery.query.limit_clause.is_none() && subquery.query.fetch.is_none() {
            sql.push_str(" LIMIT 1");
        }
        let made = self.make(sql).await?;
        let slot = match (subquery.exists, made.columns.as_slice()) {
            (true, _) => self.slot(DataType::Boolean)?,
            (false, [column]) => self.slot(column.data_type)?,
            (false, _) => return Err(SqlError::new("42601", "subquery must return only one column")),
        };
        let into = match subquery.exists {
            true => Into::Exists(slot),
            false => Into::Slots {
                slots: vec![slot],
                strict: false,
                at_most_one: false,
                is_statement: false,
            },
        };
        let statement = made.place;
        self.op(Op::Execute { statement, into });
        let variable = Variable::Slot(super::scope::Slot::plain(slot));
        self.scopes.declare(&subquery.name, variable)
    }

    /// Where the next values of the sequences that it calls go to: its parameters behind the slots that there are.
    fn value_slots(&mut self, planned: &Planned) -> Result<Vec<(SequenceId, usize)>, SqlError> {
        let (calls, types) = planned.calls();
        let slot = |(call, data_type): (&Call, &DataType)| match call {
            Call::Next(sequence) => Ok((*sequence, self.slot(*data_type)?)),
            Call::Current(_) | Call::Last => {
                let name = if *call == Call::Last { "lastval" } else { "currval" };
                Err(SqlError::unsupported(format!("{name} in a procedure"))
                    .hint("Put the value of nextval into a variable."))
            }
        };
        calls.iter().zip(types).map(slot).collect()
    }

    // ---- Statements

    /// A SQL statement, its variables parameters.
    pub(super) async fn statement(&mut self, text: &Text) -> Result<Made, SqlError> {
        let made = async {
            let mut statement = parsed(&text.sql)?;
            put_parameters(&mut statement, &self.scopes, &self.code.slots, self.map)?;
            self.make(statement.to_string()).await
        };
        made.await.map_err(|error| located(error, text.line))
    }

    /// A SQL statement with parameters of its own, whose types follow from it.
    pub(super) async fn own_statement(&mut self, sql: &str) -> Result<(), SqlError> {
        let sql = parsed(sql)?.to_string();
        let planned = self.plan_with(&sql, &[]).await?;
        let parameters = planned.parameters().to_vec();
        self.add(sql, planned, Some(parameters))?;
        Ok(())
    }

    async fn make(&mut self, sql: String) -> Result<Made, SqlError> {
        let planned = self.plan(&sql).await?;
        self.add(sql, planned, None)
    }

    /// `own`: the types of its parameters, unless they are the slots.
    fn add(&mut self, sql: String, planned: Planned, own: Option<Vec<DataType>>) -> Result<Made, SqlError> {
        let columns = planned.columns().to_vec();
        let (returns_rows, writes) = (planned.returns_rows(), planned.writes());
        let mut statement = Statement {
            sql,
            parameters: own.clone().unwrap_or_default(),
            tables: Vec::new(),
            program: None,
            keys: Vec::new(),
            sequences: Vec::new(),
        };
        statement.sequences = self.value_slots(&planned)?;
        // A parameter of its own is never the procedure's key, whatever its number.
        let slots = if own.is_some() { &[][..] } else { &self.code.slots };
        match planned.plan {
            Plan::Program(plan) => {
                statement.tables.push(plan.table.id);
                if let Some(home) = &self.home {
                    if planned.is_of_its_moment {
                        let what = "a calculation with now() in a write of a partitioned procedure";
                        return Err(SqlError::unsupported(what));
                    }
                    statement.keys = keys_at_home(home, &plan, slots)?;
                    let mut program = volt_engine::plan::Program::clone(&plan.program);
                    program.simplify(slots);
                    statement.program = Some(program);
                }
            }
            Plan::Query { tables, .. } => {
                if let Some(home) = &self.home {
                    return Err(self.not_at_home(home, &tables));
                }
                statement.tables.extend(tables.iter().map(|(table, _)| *table));
            }
            Plan::InsertQuery(insert) => {
                if self.home.is_some() {
                    let what = "an INSERT of a query's rows in a partitioned procedure";
                    return Err(SqlError::unsupported(what));
                }
                statement.tables.push(insert.target.table.id);
                if let Plan::Query { tables, .. } = &*insert.query {
                    statement.tables.extend(tables.iter().map(|(table, _)| *table));
                }
            }
            _ => return Err(SqlError::unsupported("this statement in a procedure")),
        }
        self.statements.push(statement);
        Ok(Made {
            place: self.statements.len() - 1,
            columns,
            returns_rows,
            writes,
        })
    }

    async fn plan(&self, sql: &str) -> Result<Planned, SqlError> {
        let types: Vec<Option<DataType>> = self.code.slots.iter().copied().map(Some).collect();
        self.plan_with(sql, &types).await
    }

    async fn plan_with(&self, sql: &str, types: &[Option<DataType>]) -> Result<Planned, SqlError> {
        // A procedure's statement is planned while its CREATE PROCEDURE is.
        Box::pin(self.engine.plan(sql, types, self.map)).await
    }

    /// Why a query can't run inside the procedure's partition.
    fn not_at_home(&self, home: &Home, tables: &[(TableId, Vec<u32>)]) -> SqlError {
        let name = |(id, _): &(TableId, Vec<u32>)| self.map.tables.get(id).map(|table| table.name.clone());
        let names: Vec<String> = tables.iter().filter_map(name).collect();
        let message = match names.as_slice() {
            [] => "a query without a table in a partitioned procedure".to_owned(),
            names => format!("this query of {} in a partitioned procedure", names.join(", ")),
        };
        SqlError::unsupported(message).hint(format!(
            "In the partition of {}.{} a query reads one table, with its partition column bound to a value. \
             Without PARTITION ON the procedure may run any query.",
            home.table_name, home.column_name
        ))
    }
}

fn parsed(sql: &str) -> Result<Ast, SqlError> {
    match parse(sql)? {
        Parsed::Sql(statement) => Ok(*statement),
        _ => Err(SqlError::unsupported("this statement in a procedure")),
    }
}

/// The partition keys that must be checked before the statement runs: all but those that are the procedure's own.
fn keys_at_home(home: &Home, plan: &ProgramPlan, slots: &[DataType]) -> Result<Vec<Expr>, SqlError> {
    if plan.table.group != home.group {
        let message = format!(
            "table \"{}\" is replicated otherwise than \"{}\", so that rows of equal keys lie in different partitions",
            plan.table.name, home.table_name
        );
        return Err(SqlError::new("0A000", message).hint("Give both the same REPLICATION."));
    }
    let Some(place) = plan.table.partition_column else {
        if plan.program.is_read_only() {
            return Ok(Vec::new());
        }
        let message = format!(
            "a write to the replicated table \"{}\" in a partitioned procedure is not supported",
            plan.table.name
        );
        return Err(SqlError::new("0A000", message)
            .hint("All partitions have its rows. Without PARTITION ON the procedure may write them."));
    };
    let column = &plan.table.columns[place];
    let keys: Vec<Expr> = match (&plan.route, &plan.program.action) {
        (Route::Single(key), _) => vec![key.clone()],
        (Route::Rows, Action::Insert { rows }) => {
            let key = |row: &Vec<Expr>| row.get(place).cloned();
            rows.iter().filter_map(key).collect()
        }
        _ => {
            let message = format!(
                "a statement that reaches all partitions of \"{}\" in a partitioned procedure is not supported",
                plan.table.name
            );
            let hint = format!("Bind its partition column to a value: WHERE {} = ...", column.name);
            return Err(SqlError::new("0A000", message).hint(hint));
        }
    };
    let same_hash = is_integer(column.data_type) == is_integer(home.by.data_type)
        && is_text(column.data_type) == is_text(home.by.data_type)
        && (is_integer(column.data_type) || is_text(column.data_type) || column.data_type == home.by.data_type);
    let own = |key: &Expr| {
        let mut key = key;
        while let Expr::Cast { operand, to } = key
            && (is_integer(*to) || is_text(*to))
        {
            key = operand;
        }
        let of_key_type = slots.get(home.by.parameter).is_some_and(|slot| {
            (is_integer(*slot) && is_integer(column.data_type)) || (is_text(*slot) && is_text(column.data_type))
        });
        same_hash && of_key_type && *key == Expr::Parameter(home.by.parameter)
    };
    Ok(keys.into_iter().filter(|key| !own(key)).collect())
}

fn is_integer(data_type: DataType) -> bool {
    matches!(data_type, DataType::Int | DataType::BigInt)
}

fn is_text(data_type: DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_))
}

/// An error with the line of the body where it is; places in a rewritten text mean nothing to its author.
pub(super) fn located(mut error: SqlError, line: usize) -> SqlError {
    error.position = None;
    let place = format!("In line {line} of the procedure's body.");
    error.detail = Some(match error.detail {
        Some(detail) if detail.contains("of the procedure's body.") => detail,
        Some(detail) => format!("{detail} {place}"),
        None => place,
    });
    error
}
