//! Planning a statement: what it is, what parameters it takes, what it returns, and how it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::FieldRef;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use volt_engine::catalog::{ColumnDefault, Table};
use volt_engine::idempotency::IdempotencyKey;
use volt_engine::plan::Program;
use volt_engine::value::DataType;
use volt_engine::{NodeId, PartitionId, TableId};

use super::SqlEngine;
use super::alter::AlterPlan;
use super::compile::{Route, compile, explain, refused};
use super::complexity::check_scans;
use super::control::control;
use super::ddl;
use super::errors::from_datafusion;
use super::index::IndexPlan;
use super::insert::name_columns;
use super::literals::write_out_exponents;
use super::names::output_names;
use super::procedure::{CallPlan, ProcedurePlan};
use super::syntax::{DEFAULT_REPLICATION, Parsed, parse};
use super::types::{from_arrow, to_arrow};
use super::version;
use super::views::{self, ViewPlan};
use crate::error::SqlError;
use crate::metadata::command::NewTable;
use crate::metadata::map::ClusterMap;
use crate::statement::{Control, Prepared, ResultColumn};

/// A statement with its plan.
pub(super) struct Planned {
    pub(super) sql: String,
    /// The catalog that it was planned with.
    pub(super) catalog_version: u64,
    parameters: Vec<DataType>,
    columns: Vec<ResultColumn>,
    pub(super) plan: Plan,
}

/// How a statement runs.
pub(super) enum Plan {
    /// Nothing to do.
    Empty,
    /// A row program.
    Program(ProgramPlan),
    /// A query, by DataFusion over a snapshot of these tables' partitions.
    Query {
        plan: Box<LogicalPlan>,
        session: Box<SessionState>,
        tables: Vec<(TableId, Vec<PartitionId>)>,
    },
    /// CALL.
    Call(CallPlan),
    /// CREATE, ALTER and DROP PROCEDURE.
    Procedure(ProcedurePlan),
    /// CREATE TABLE.
    CreateTable {
        table: NewTable,
        replication: u32,
        if_not_exists: bool,
    },
    /// ALTER TABLE.
    AlterTable(AlterPlan),
    /// DROP TABLE.
    DropTable { names: Vec<String>, if_exists: bool },
    /// CREATE INDEX and DROP INDEX.
    Index(IndexPlan),
    /// CREATE VIEW and DROP VIEW, materialized or not.
    View(ViewPlan),
    /// TRUNCATE.
    Truncate { names: Vec<String> },
    /// RECOVER NODE.
    RecoverNode(NodeId),
    /// DRAIN NODE.
    DrainNode(NodeId),
    /// SET and RESET: nothing here depends on them.
    Set,
    /// SHOW: its one row.
    Show(String),
    /// EXPLAIN of a row program: its rows. Of a query, EXPLAIN is one itself.
    Explain(Vec<String>),
    /// Something to the session's transaction.
    Control(Control),
}

/// A query's plan, its session, and the tables that it reads with their partitions.
pub(super) type QueryPlan<'a> = (&'a LogicalPlan, &'a SessionState, &'a [(TableId, Vec<PartitionId>)]);

/// A row program and where it runs.
pub(super) struct ProgramPlan {
    pub(super) program: Arc<Program>,
    pub(super) route: Route,
    pub(super) table: Arc<Table>,
    /// The table's partitions, by index.
    pub(super) partitions: Vec<PartitionId>,
    /// The command tag's words.
    pub(super) tag: &'static str,
    /// The same as a query (`Plan::Query`), for when there is more to look at than a program may.
    pub(super) otherwise: Option<Box<Plan>>,
}

impl Prepared for Planned {
    fn parameters(&self) -> &[DataType] {
        &self.parameters
    }

    fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    fn returns_rows(&self) -> bool {
        match &self.plan {
            Plan::Query { .. } | Plan::Show(_) | Plan::Explain(_) | Plan::RecoverNode(_) | Plan::DrainNode(_) => true,
            Plan::Control(control) => matches!(control, Control::Show(_)),
            Plan::Program(program) => program.program.is_read_only(),
            Plan::Call(call) => call.returns_rows(),
            _ => false,
        }
    }

    fn control(&self) -> Option<&Control> {
        match &self.plan {
            Plan::Control(control) => Some(control),
            _ => None,
        }
    }

    fn writes(&self) -> bool {
        match &self.plan {
            Plan::Program(plan) => !plan.program.is_read_only(),
            // Whether it does is not known before.
            Plan::Call(_) => true,
            Plan::Truncate { .. } => true,
            _ => false,
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A statement with a hint.
pub(super) struct Hinted {
    pub(super) planned: Arc<Planned>,
    pub(super) key: IdempotencyKey,
}

impl Prepared for Hinted {
    fn parameters(&self) -> &[DataType] {
        self.planned.parameters()
    }

    fn columns(&self) -> &[ResultColumn] {
        self.planned.columns()
    }

    fn returns_rows(&self) -> bool {
        self.planned.returns_rows()
    }

    fn control(&self) -> Option<&Control> {
        self.planned.control()
    }

    fn writes(&self) -> bool {
        self.planned.writes()
    }

    fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        Some(&self.key)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Planned {
    /// What DataFusion runs, if this fails with `error`: there was more to look at than a program may.
    pub(super) fn is_query_after(&self, error: &SqlError) -> bool {
        matches!(&self.plan, Plan::Program(plan) if plan.otherwise.is_some()) && error.sqlstate == "54000"
    }

    /// This as a query: what DataFusion runs, and over which tables.
    pub(super) fn as_query(&self) -> Option<QueryPlan<'_>> {
        let query = match &self.plan {
            Plan::Program(plan) => plan.otherwise.as_deref()?,
            other => other,
        };
        match query {
            Plan::Query { plan, session, tables } => Some((plan, session, tables)),
            _ => None,
        }
    }

    /// Only what will be asked for again with the same text.
    pub(super) fn is_cacheable(&self) -> bool {
        matches!(self.plan, Plan::Program(_) | Plan::Query { .. } | Plan::Call(_))
    }
}

pub(super) fn text_column(name: &str) -> Vec<ResultColumn> {
    vec![ResultColumn {
        name: name.to_owned(),
        data_type: DataType::Text,
    }]
}

impl SqlEngine {
    pub(super) async fn plan(
        &self,
        sql: &str,
        types: &[Option<DataType>],
        map: &ClusterMap,
    ) -> Result<Planned, SqlError> {
        let simple = |plan, columns| Planned {
            sql: sql.to_owned(),
            catalog_version: map.catalog_version,
            parameters: Vec::new(),
            columns,
            plan,
        };
        let mut statement = match parse(sql)? {
            Parsed::Empty => return Ok(simple(Plan::Empty, Vec::new())),
            Parsed::RecoverNode(node) => return Ok(simple(Plan::RecoverNode(node), text_column("recovery"))),
            Parsed::DrainNode(node) => return Ok(simple(Plan::DrainNode(node), text_column("drain"))),
            Parsed::CreateTable(statement, clauses) => {
                let Statement::CreateTable(create) = &*statement else {
                    return Err(SqlError::unsupported("this CREATE TABLE"));
                };
                let mut table = ddl::new_table(create, &clauses, sql)?;
                table.checks = self.checks(create, &table, sql, map).await?;
                let replication = clauses.replication.unwrap_or(DEFAULT_REPLICATION);
                let plan = Plan::CreateTable {
                    table,
                    replication,
                    if_not_exists: create.if_not_exists,
                };
                return Ok(simple(plan, Vec::new()));
            }
            Parsed::Procedure => {
                let plan = Plan::Procedure(self.plan_procedure(sql, map).await?);
                return Ok(simple(plan, Vec::new()));
            }
            Parsed::Sql(statement) => *statement,
        };
        if let Some(control) = control(&statement)? {
            let columns = match control {
                Control::Show(setting) => text_column(setting),
                _ => Vec::new(),
            };
            return Ok(simple(Plan::Control(control), columns));
        }
        write_out_exponents(&mut statement);
        if let Statement::Call(call) = &statement {
            let (plan, parameters) = self.plan_call(call, types, map).await?;
            let columns = plan.columns();
            return Ok(Planned {
                parameters,
                ..simple(Plan::Call(plan), columns)
            });
        }
        let has_versions = version::prepare(&mut statement, sql, map)?;
        if let Statement::Insert(insert) = &mut statement {
            name_columns(insert, map)?;
        }
        refuse_clauses(&statement)?;
        views::check_target(&statement, map)?;
        match &statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                self.plan_by_datafusion(sql, statement, types, map, has_versions).await
            }
            Statement::Explain { .. } => self.plan_by_datafusion(sql, statement, types, map, has_versions).await,
            other => {
                let (plan, columns) = self.plan_definition(other, sql, map).await?;
                Ok(simple(plan, columns))
            }
        }
    }

    async fn plan_by_datafusion(
        &self,
        sql: &str,
        statement: Statement,
        types: &[Option<DataType>],
        map: &ClusterMap,
        has_versions: bool,
    ) -> Result<Planned, SqlError> {
        let failed = |error| from_datafusion(error, sql);
        let session = self.session(map, has_versions)?;
        let names = |width| output_names(&statement, width);
        let parsed = DfStatement::Statement(Box::new(statement.clone()));
        let plan = session.statement_to_plan(parsed).await.map_err(failed);
        let plan = plan.map_err(|error| views::unready(error, map))?;
        check_scans(&plan)?;
        let parameters = parameters(&plan, types).map_err(failed)?;
        let plan = session.optimize(&plan).map_err(failed)?;
        let find = |name: &str| map.rows(name).cloned();
        if let LogicalPlan::Explain(explained) = &plan
            && let Ok((program, route)) = compile(&explained.plan, find)
        {
            return Ok(Planned {
                sql: sql.to_owned(),
                catalog_version: map.catalog_version,
                parameters,
                columns: text_column("QUERY PLAN"),
                plan: Plan::Explain(explain(&program, &route)),
            });
        }
        let columns: Vec<ResultColumn> = match &plan {
            LogicalPlan::Dml(_) => Vec::new(),
            plan => {
                let fields = plan.schema().fields();
                let column = |(field, name): (&FieldRef, Option<String>)| ResultColumn {
                    name: name.unwrap_or_else(|| field.name().clone()),
                    data_type: from_arrow(field.data_type()),
                };
                fields.iter().zip(names(fields.len())).map(column).collect()
            }
        };
        let compiled = compile(&plan, find);
        let plan = match compiled {
            Ok((program, route)) => {
                let table = map.tables.get(&program.table).cloned();
                let table = table.ok_or_else(|| SqlError::internal("a program without its table"))?;
                let partitions = map
                    .groups
                    .get(&table.group)
                    .map_or_else(Vec::new, |group| group.partitions.clone());
                let otherwise = has_no_bound(&program).then(|| Box::new(query(plan, session, map)));
                Plan::Program(ProgramPlan {
                    otherwise,
                    tag: tag(&program),
                    program: Arc::new(program),
                    route,
                    table,
                    partitions,
                })
            }
            Err(why) if matches!(plan, LogicalPlan::Dml(_)) => return Err(refused(why)),
            Err(_) => query(plan, session, map),
        };
        Ok(Planned {
            sql: sql.to_owned(),
            catalog_version: map.catalog_version,
            parameters,
            columns,
            plan,
        })
    }
}

fn query(plan: LogicalPlan, session: SessionState, map: &ClusterMap) -> Plan {
    let tables = tables_read(&plan, map);
    Plan::Query {
        plan: Box::new(plan),
        session: Box::new(session),
        tables,
    }
}

/// A read of more than one row.
fn has_no_bound(program: &Program) -> bool {
    use volt_engine::plan::{Access, Action};
    match &program.action {
        Action::Select { access, .. } => !matches!(access, Access::Point(_)),
        _ => false,
    }
}

/// Clauses of writes that are not there. INSERT's are `name_columns`' to refuse.
fn refuse_clauses(statement: &Statement) -> Result<(), SqlError> {
    let clause = match statement {
        Statement::Update(update) if update.returning.is_some() => "RETURNING",
        Statement::Update(update) if update.from.is_some() => "UPDATE ... FROM",
        Statement::Delete(delete) if delete.returning.is_some() => "RETURNING",
        Statement::Delete(delete) if delete.using.is_some() => "DELETE ... USING",
        _ => return Ok(()),
    };
    Err(SqlError::unsupported(clause))
}

fn tag(program: &Program) -> &'static str {
    use volt_engine::plan::Action;
    match program.action {
        Action::Select { .. } => "SELECT",
        Action::Insert { .. } => "INSERT 0",
        Action::Update { .. } => "UPDATE",
        Action::Delete { .. } => "DELETE",
        Action::Truncate { .. } => "TRUNCATE TABLE",
    }
}

/// The types of `$1`, `$2` and so on: what the client says, else what the plan infers, else text.
fn parameters(
    plan: &LogicalPlan,
    types: &[Option<DataType>],
) -> Result<Vec<DataType>, datafusion::common::DataFusionError> {
    let inferred: BTreeMap<usize, DataType> = plan
        .get_parameter_types()?
        .into_iter()
        .filter_map(|(id, data_type)| {
            let number = id.trim_start_matches('$').parse::<usize>().ok()?;
            Some((
                number,
                data_type.map_or(DataType::Text, |data_type| from_arrow(&data_type)),
            ))
        })
        .collect();
    let count = inferred.keys().last().copied().unwrap_or(0).max(types.len());
    let of = |number: usize| {
        let said = types.get(number - 1).copied().flatten();
        inferred.get(&number).copied().or(said).unwrap_or(DataType::Text)
    };
    Ok((1..=count).map(of).collect())
}

/// Every table of ours that a plan scans, with its partitions.
fn tables_read(plan: &LogicalPlan, map: &ClusterMap) -> Vec<(TableId, Vec<PartitionId>)> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut tables = BTreeMap::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.schema().is_none_or(|schema| schema == "public")
            && let Some(table) = map.rows(scan.table_name.table())
            && let Some(group) = map.groups.get(&table.group)
        {
            tables.insert(table.id, group.partitions.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    tables.into_iter().collect()
}

/// What a column without a value becomes, for the planner.
pub(super) fn default_expr(default: &ColumnDefault, data_type: DataType) -> Option<datafusion::logical_expr::Expr> {
    match default {
        ColumnDefault::Value(value) => {
            let scalar = super::types::to_scalar(value, data_type).ok()?;
            Some(datafusion::logical_expr::Expr::Literal(scalar, None))
        }
        ColumnDefault::Now => {
            let now = datafusion::functions::datetime::expr_fn::now();
            Some(datafusion::logical_expr::cast(now, to_arrow(data_type)))
        }
    }
}
