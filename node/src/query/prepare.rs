//! Planning a statement: what it is, what parameters it takes, what it returns, and how it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::FieldRef;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use volt_engine::catalog::ColumnDefault;
use volt_engine::plan::Program;
use volt_engine::value::DataType;
use volt_engine::{PartitionId, TableId};

use super::SqlEngine;
use super::compile::{compile, compile_constants, explain, places_of_query, refused};
use super::complexity::check_scans;
use super::conflict;
use super::control::control;
use super::ddl;
use super::errors::from_datafusion;
use super::insert::name_columns;
use super::insert_query::{self, InsertQuery};
use super::literals::write_out_exponents;
use super::names::output_names;
use super::now;
use super::parameters::{self, Said};
use super::planned::{Plan, Planned, ProgramPlan};
use super::returning::{Returning, check_returning, take_returning};
use super::sequence::{Call, Calls, SequencePlan, take_calls};
use super::syntax::{DEFAULT_REPLICATION, Parsed, parse};
use super::types::{from_arrow, to_arrow};
use super::version;
use super::views;
use crate::error::SqlError;
use crate::metadata::map::{ClusterMap, ReplicationMode};
use crate::statement::{Control, ResultColumn};

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
            types: Vec::new(),
            calls: Vec::new(),
            has_function: false,
            is_of_its_moment: false,
            columns,
            plan,
        };
        let mut overriding = None;
        let mut statement = match parse(sql)? {
            Parsed::Empty => return Ok(simple(Plan::Empty, Vec::new())),
            Parsed::RecoverNode(node) => return Ok(simple(Plan::RecoverNode(node), text_column("recovery"))),
            Parsed::Link(plan) => return Ok(simple(Plan::Link(plan), Vec::new())),
            Parsed::ApplyChanges => {
                return Ok(Planned {
                    types: vec![DataType::Bytea],
                    ..simple(Plan::ApplyChanges, super::links::applied_columns())
                });
            }
            Parsed::DrainNode(node) => return Ok(simple(Plan::DrainNode(node), text_column("drain"))),
            Parsed::Promote { is_immediate } => return Ok(simple(Plan::Promote { is_immediate }, Vec::new())),
            Parsed::CreateTable(statement, clauses) => {
                let Statement::CreateTable(create) = &*statement else {
                    return Err(SqlError::unsupported("this CREATE TABLE"));
                };
                let mut table = ddl::new_table(create, &clauses, sql, map)?;
                table.checks = self.checks(create, &table, sql, map).await?;
                let replication = clauses.replication.unwrap_or(DEFAULT_REPLICATION);
                let plan = Plan::CreateTable {
                    table,
                    copies: (replication, clauses.mode.unwrap_or(ReplicationMode::Sync)),
                    if_not_exists: create.if_not_exists,
                };
                return Ok(simple(plan, Vec::new()));
            }
            Parsed::Ttl(plan) => return Ok(simple(Plan::Ttl(plan), Vec::new())),
            Parsed::Procedure => {
                let plan = Plan::Procedure(self.plan_procedure(sql, map).await?);
                return Ok(simple(plan, Vec::new()));
            }
            Parsed::Sequence => {
                let plan = Plan::Sequence(SequencePlan::parse(sql)?);
                return Ok(simple(plan, Vec::new()));
            }
            Parsed::Overriding(statement, words) => {
                overriding = Some(words);
                *statement
            }
            Parsed::Sql(statement) => *statement,
        };
        if let Some(control) = control(&statement)? {
            let columns = match control {
                Control::Show(setting) => text_column(setting),
                Control::ShowReading(setting) => text_column(setting.name()),
                _ => Vec::new(),
            };
            return Ok(simple(Plan::Control(control), columns));
        }
        write_out_exponents(&mut statement);
        if let Statement::Call(call) = &statement {
            let (plan, types, calls) = self.plan_call(call, types, map).await?;
            let columns = plan.columns();
            return Ok(Planned {
                types,
                calls,
                ..simple(Plan::Call(plan), columns)
            });
        }
        let has_versions = version::prepare(&mut statement, sql, map)?;
        let written = match &mut statement {
            Statement::Explain { statement, .. } => &mut **statement,
            statement => statement,
        };
        if let Statement::Insert(insert) = written {
            name_columns(insert, map)?;
        }
        refuse_clauses(&statement)?;
        views::check_target(&statement, map)?;
        if let Some(plan) = SequencePlan::set_value(&statement)? {
            let column = ResultColumn {
                name: "setval".to_owned(),
                data_type: DataType::BigInt,
            };
            return Ok(simple(Plan::Sequence(plan), vec![column]));
        }
        match &statement {
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Explain { .. } => {
                check_returning(&statement)?;
                conflict::check(&statement)?;
                let calls = take_calls(&mut statement, types.len(), overriding, map)?;
                let source = Source {
                    sql,
                    statement,
                    has_versions,
                };
                self.plan_by_datafusion(source, types, calls, map).await
            }
            other => {
                let (plan, columns) = self.plan_definition(other, sql, map).await?;
                Ok(simple(plan, columns))
            }
        }
    }

    async fn plan_by_datafusion(
        &self,
        source: Source<'_>,
        types: &[Option<DataType>],
        (own, calls): (usize, Calls),
        map: &ClusterMap,
    ) -> Result<Planned, SqlError> {
        let Source {
            sql,
            mut statement,
            has_versions,
        } = source;
        let Calls {
            taken: calls,
            has_function,
        } = calls;
        let mut types = types.to_vec();
        types.resize(own, None);
        types.extend(calls.iter().map(|_| Some(DataType::BigInt)));
        let failed = |error| from_datafusion(error, sql);
        let returning = take_returning(&mut statement)?;
        let on_conflict = conflict::take(&mut statement, sql, map)?;
        forget_alias(&mut statement);
        let session = self.session(map, has_versions)?;
        let names = |width| output_names(&statement, width);
        let parsed = DfStatement::Statement(Box::new(statement.clone()));
        let plan = session.statement_to_plan(parsed).await.map_err(failed);
        let plan = plan.map_err(|error| views::unready(error, map))?;
        check_scans(&plan)?;
        let mut said = Said {
            before: &[],
            declared: &types,
        };
        let plan = parameters::settle(plan, said).map_err(failed)?;
        let known = parameters::known(std::iter::once(&plan)).map_err(failed)?;
        said.before = &known;
        let on_conflict = match on_conflict {
            Some(conflict) => Some(self.plan_on_conflict(conflict, sql, said, map).await?),
            None => None,
        };
        let returning = match returning {
            Some(select) => Some(self.plan_returning(select, sql, said, map).await?),
            None => None,
        };
        let in_conflict = |program: &mut Program| {
            program.on_conflict = on_conflict.as_ref().map(|planned| planned.on_conflict.clone());
        };
        let plans = [
            Some(&plan),
            on_conflict.as_ref().and_then(|planned| planned.plan.as_ref()),
            returning.as_ref().map(Returning::plan),
        ];
        let known = parameters::known(plans.into_iter().flatten()).map_err(failed)?;
        let types = parameters::types(&known, &types);
        let plan = session.optimize(&plan).map_err(failed)?;
        let find = |name: &str| map.rows(name).cloned();
        if let LogicalPlan::Explain(explained) = &plan
            && let Ok((mut program, route)) = compile(&explained.plan, find)
        {
            in_conflict(&mut program);
            return Ok(Planned {
                sql: sql.to_owned(),
                catalog_version: map.catalog_version,
                // It takes no values of sequences.
                types: types[..own].to_vec(),
                calls: Vec::new(),
                has_function: false,
                is_of_its_moment: false,
                columns: text_column("QUERY PLAN"),
                plan: Plan::Explain(explain(&program, &route)),
            });
        }
        let columns: Vec<ResultColumn> = match &plan {
            LogicalPlan::Dml(_) => returning
                .as_ref()
                .map_or_else(Vec::new, |returning| returning.columns.clone()),
            plan => {
                let fields = plan.schema().fields();
                let column = |(field, name): (&FieldRef, Option<String>)| ResultColumn {
                    name: name.unwrap_or_else(|| field.name().clone()),
                    data_type: from_arrow(field.data_type()),
                };
                fields.iter().zip(names(fields.len())).map(column).collect()
            }
        };
        let mut is_of_its_moment = false;
        let compiled = compile(&plan, find).or_else(|why| {
            if !matches!(plan, LogicalPlan::Dml(_)) {
                return Err(why);
            }
            // It may be one that only the time as a constant makes a program.
            is_of_its_moment = true;
            let timed = now::at(plan.clone(), &self.coordinator.context());
            let timed = timed.and_then(|plan| session.optimize(&plan)).map_err(|_| why)?;
            compile(&timed, find)
        });
        let plan = match compiled {
            Ok((mut program, route)) => {
                check_calls(&program, &calls)?;
                let table = map.tables.get(&program.table).cloned();
                let table = table.ok_or_else(|| SqlError::internal("a program without its table"))?;
                in_conflict(&mut program);
                if let Some(returning) = &returning {
                    program.returning = Some(returning.compile(&table)?);
                }
                program.validate()?;
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
            Err(why) if matches!(plan, LogicalPlan::Dml(_)) => {
                let Some((input, table)) = insert_query::of(&plan, &why, map) else {
                    return Err(refused(why));
                };
                let mut target = insert_query::target(&table);
                in_conflict(&mut target);
                if let Some(returning) = &returning {
                    target.returning = Some(returning.compile(&table)?);
                }
                let places = places_of_query(&input, &table)?;
                let query = query(input, session, map);
                Plan::InsertQuery(InsertQuery::new(query, places, target, table, map)?)
            }
            // Mostly `SELECT nextval('s')`.
            Err(_)
                if !calls.is_empty()
                    && let Ok(row) = compile_constants(&plan) =>
            {
                Plan::Constants(row)
            }
            Err(_) => query(plan, session, map),
        };
        Ok(Planned {
            sql: sql.to_owned(),
            catalog_version: map.catalog_version,
            types,
            calls,
            has_function,
            is_of_its_moment,
            columns,
            plan,
        })
    }
}

/// A statement to be planned.
struct Source<'s> {
    sql: &'s str,
    statement: Statement,
    has_versions: bool,
}

/// Each row that an INSERT puts has its own value of a sequence; of other writes one row at most.
fn check_calls(program: &Program, calls: &[Call]) -> Result<(), SqlError> {
    use volt_engine::plan::{Access, Action};
    let is_of_one_row = match &program.action {
        Action::Insert { .. } => true,
        Action::Update { access, .. } => matches!(access, Access::Point(_)),
        Action::Select { .. } | Action::Delete { .. } | Action::Truncate { .. } => false,
    };
    if is_of_one_row || !calls.iter().any(|call| matches!(call, Call::Next(_))) {
        return Ok(());
    }
    Err(
        SqlError::unsupported("nextval in a statement that changes several rows")
            .hint("Bind the whole primary key, or take the values first."),
    )
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

/// An INSERT's name for its table, which nothing uses but RETURNING and ON CONFLICT.
fn forget_alias(statement: &mut Statement) {
    match statement {
        Statement::Insert(insert) => insert.table_alias = None,
        Statement::Explain { statement, .. } => forget_alias(statement),
        _ => {}
    }
}

/// Clauses of writes that are not there. INSERT's are `name_columns`' to refuse.
fn refuse_clauses(statement: &Statement) -> Result<(), SqlError> {
    let clause = match statement {
        Statement::Update(update) if update.from.is_some() => "UPDATE ... FROM",
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

/// Every table of ours that a plan scans, with its partitions.
fn tables_read(plan: &LogicalPlan, map: &ClusterMap) -> Vec<(TableId, Vec<PartitionId>)> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut tables = BTreeMap::new();
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.schema().is_none_or(|schema| schema == "public")
            && let Some(table) = map.rows(scan.table_name.table())
        {
            tables.insert(table.id, map.partitions_read(table));
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
        ColumnDefault::Now => Some(datafusion::logical_expr::cast(now::call(), to_arrow(data_type))),
        // `take_calls` has put it into the statement.
        ColumnDefault::Sequence { .. } => None,
    }
}
