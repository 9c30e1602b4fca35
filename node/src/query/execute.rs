//! Running a planned statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use volt_engine::PartitionId;
use volt_engine::idempotency::Keyed;
use volt_engine::placement::partition_index;
use volt_engine::plan::eval::{Scope, cast_value};
use volt_engine::plan::{Action, Expr, Program, StatementContext};
use volt_engine::value::{DataType, Value, ValueRef};

use super::compile::Route;
use super::errors::from_datafusion;
use super::now;
use super::planned::{Plan, Planned, ProgramPlan};
use super::seek::with_seeks;
use super::sequence::with_session;
use super::standby::runs_on_standby;
use super::tables::Reading;
use super::types::{give_batch, to_scalar};
use super::{SqlEngine, is_moving, is_planned_too_early};
use crate::error::SqlError;
use crate::metadata::command::Command;
use crate::recovery::rejoin::recover_node;
use crate::statement::{Completion, Prepared, ResultColumn, RowSink, SessionValues};

/// A query whose snapshot was lost with a primary is run again so often, as long as it has returned nothing.
const QUERY_TRIES: u32 = 5;

/// As in `Completion`.
pub(super) type Notices = Vec<(&'static str, &'static str, String)>;

impl SqlEngine {
    /// Runs a program here and now, if its partition is here.
    pub(super) fn try_here(
        &self,
        planned: &Planned,
        parameters: &[Value],
        session: &SessionValues,
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>> {
        let map = self.metadata.map();
        let runs_here = map.standby.is_none() || runs_on_standby(planned, false);
        if planned.catalog_version != map.catalog_version || planned.is_of_its_moment || !runs_here {
            return None;
        }
        if planned.only_reads() && session.reads.are_from_backups() {
            return None;
        }
        if planned.calls().0.is_empty() {
            return self.try_with(planned, parameters, sink);
        }
        let at_hand = match self.values_at_hand(planned, parameters, session)? {
            Ok(at_hand) => at_hand,
            Err(error) => return Some(Err(error)),
        };
        let done = self.try_with(planned, &at_hand.parameters, sink);
        match &done {
            None => self.give_back(at_hand),
            Some(_) => self.note_taken(at_hand, session),
        }
        done
    }

    fn try_with(
        &self,
        planned: &Planned,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>> {
        let plan = match &planned.plan {
            Plan::Program(plan) => plan,
            Plan::Call(plan) => return self.try_call(plan, parameters, sink),
            Plan::Constants(row) => return Some(self.constants(planned, row, parameters, sink)),
            _ => return None,
        };
        let partition = match self.only_partition(plan, parameters)? {
            Ok(partition) => partition,
            Err(error) => return Some(Err(error)),
        };
        let executed = self.coordinator.try_local(partition, &plan.program, parameters, sink)?;
        let again = |error| planned.is_query_after(error) || is_planned_too_early(error);
        if executed.as_ref().is_err_and(again) {
            return None;
        }
        Some(executed.map(|executed| Completion {
            tag: plan.tag,
            rows: Some(executed.affected),
            notices: Vec::new(),
            wait: executed.wait,
        }))
    }

    /// The partition, when it is one for sure.
    fn only_partition(&self, plan: &ProgramPlan, parameters: &[Value]) -> Option<Result<PartitionId, SqlError>> {
        let key = match (&plan.route, &plan.program.action) {
            (Route::Single(key), _) => key,
            (Route::Rows, Action::Insert { rows }) if rows.len() == 1 => &rows[0][plan.table.partition_column?],
            (Route::Any, _) => return self.coordinator.nearest(&plan.partitions).map(Ok),
            _ => return None,
        };
        Some(partition_of(plan, key, parameters))
    }

    pub(super) async fn run(
        &self,
        planned: &Planned,
        parameters: &[Value],
        key: Option<Keyed>,
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        self.check_standby(planned, false)?;
        let parameters = &*self.with_values(planned, parameters, session).await?;
        let done = |tag| Completion {
            tag,
            ..Completion::default()
        };
        let told = |tag, notices| Completion { notices, ..done(tag) };
        match &planned.plan {
            Plan::Empty => Ok(done("")),
            Plan::Control(_) => Err(SqlError::internal("a statement about the session's transaction")),
            Plan::Set => Ok(done("SET")),
            Plan::Show(value) => {
                sink.row(&[ValueRef::Text(value)]);
                Ok(done("SHOW"))
            }
            Plan::Explain(lines) => {
                lines.iter().for_each(|line| sink.row(&[ValueRef::Text(line)]));
                Ok(done("EXPLAIN"))
            }
            Plan::Program(plan) => {
                let rows = match self.run_program(planned, plan, (parameters, session), key, sink).await {
                    Err(error) if planned.is_query_after(&error) => {
                        self.run_query(planned, parameters, session, sink).await?
                    }
                    rows => rows?,
                };
                Ok(Completion {
                    rows: Some(rows),
                    ..done(plan.tag)
                })
            }
            Plan::Query { .. } => {
                let rows = self.run_query(planned, parameters, session, sink).await?;
                Ok(Completion {
                    rows: Some(rows),
                    ..done("SELECT")
                })
            }
            Plan::InsertQuery(insert) => {
                let inserted = self.insert_query(planned, insert, (parameters, session), key, sink);
                inserted.await
            }
            Plan::Constants(row) => self.constants(planned, row, parameters, sink),
            Plan::Sequence(plan) => {
                let notices = self.run_sequence_plan(plan, &planned.sql, sink).await?;
                let rows = planned.returns_rows().then_some(1);
                Ok(Completion {
                    notices,
                    rows,
                    ..done(plan.tag())
                })
            }
            Plan::Call(plan) => {
                if key.is_some() && planned.takes_values() {
                    return Err(SqlError::unsupported(
                        "an idempotency key for a CALL with nextval among its arguments",
                    ));
                }
                self.run_call(plan, parameters, key, session, sink).await
            }
            Plan::Procedure(plan) => {
                let notices = self.run_procedure_plan(plan).await?;
                Ok(told(plan.tag(), notices))
            }
            Plan::AlterTable(plan) => {
                let notices = self.alter_table(plan, &planned.sql).await?;
                Ok(told("ALTER TABLE", notices))
            }
            Plan::Copies(plan) => {
                let notices = self.set_copies(plan, &planned.sql).await?;
                Ok(told("ALTER TABLE", notices))
            }
            Plan::Ttl(plan) => {
                let notices = self.alter_ttl(plan, &planned.sql).await?;
                Ok(told("ALTER TABLE", notices))
            }
            Plan::Index(plan) => {
                let notices = self.run_index_plan(plan, &planned.sql).await?;
                Ok(told(plan.tag(), notices))
            }
            Plan::View(plan) => {
                let notices = self.run_view_plan(plan, &planned.sql).await?;
                Ok(told(plan.tag(), notices))
            }
            Plan::CreateTable {
                table,
                copies,
                if_not_exists,
            } => {
                let notices = self.create_table(table.clone(), *copies, *if_not_exists).await?;
                Ok(told("CREATE TABLE", notices))
            }
            Plan::DropTable { names, if_exists } => {
                let notices = self.drop_tables(names, *if_exists, &planned.sql).await?;
                Ok(told("DROP TABLE", notices))
            }
            Plan::Truncate { names, restarts } => {
                self.truncate((names, *restarts), &planned.sql, key).await?;
                Ok(done("TRUNCATE TABLE"))
            }
            Plan::Link(plan) => {
                let notices = self.run_link_plan(plan, &planned.sql).await?;
                Ok(told(plan.tag(), notices))
            }
            Plan::ApplyChanges => {
                self.apply_changes(parameters.first(), sink).await?;
                Ok(done("APPLY REPLICATION CHANGES"))
            }
            Plan::RecoverNode(recover) => {
                let (node, order) = (recover.node, recover.order);
                for step in recover_node(&self.coordinator.participant.replicas, node, order, sink).await? {
                    sink.row(&[ValueRef::Text(&step)]);
                }
                Ok(done("RECOVER NODE"))
            }
            Plan::Promote { is_immediate } => Ok(told("PROMOTE", self.promote(*is_immediate).await?)),
            Plan::DrainNode(node) => {
                self.metadata.propose(Command::Drain { node_id: *node }).await?;
                sink.row(&[ValueRef::Text(&format!(
                    "node {node} is being drained; see system.nodes"
                ))]);
                Ok(done("DRAIN NODE"))
            }
        }
    }

    // ---- Row programs

    async fn run_program(
        &self,
        planned: &Planned,
        plan: &ProgramPlan,
        (parameters, session): (&[Value], &SessionValues),
        key: Option<Keyed>,
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        if planned.only_reads()
            && let Some(rows) = self.read_backup(plan, parameters, session, sink).await?
        {
            return Ok(rows);
        }
        let key = key.filter(|_| !plan.program.is_read_only());
        let mut parts = self.parts(plan, parameters)?;
        if planned.takes_values()
            && let Some(keyed) = key
        {
            // The next time it has other values, and other partitions. Its key stays where it is.
            let at = at_index(plan, ValueRef::Text(keyed.key.as_str()));
            return self.coordinator.run_keyed_at(at, keyed, parts, parameters, sink).await;
        }
        match parts.len() {
            0 => Ok(0),
            1 => {
                let (partition, program) = parts.remove(0);
                self.coordinator
                    .run_single(partition, &program, parameters, key, sink)
                    .await
            }
            _ => self.coordinator.run_multi(parts, parameters, key, sink).await,
        }
    }

    /// Where a program runs, and what of it in each place.
    pub(super) fn parts(
        &self,
        plan: &ProgramPlan,
        parameters: &[Value],
    ) -> Result<Vec<(PartitionId, Arc<Program>)>, SqlError> {
        let whole = |partition| (partition, Arc::clone(&plan.program));
        if let Some(partition) = self.only_partition(plan, parameters) {
            return Ok(vec![whole(partition?)]);
        }
        match (&plan.route, &plan.program.action) {
            (Route::Rows, Action::Insert { rows }) => by_partition(plan, rows, parameters),
            (Route::All, _) if plan.table.is_replicated() => Ok(in_each(plan)),
            _ => Ok(plan.partitions.iter().copied().map(whole).collect()),
        }
    }

    /// The one row of a query without tables.
    pub(super) fn constants(
        &self,
        planned: &Planned,
        row: &[Expr],
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let context = self.coordinator.context();
        let scope = Scope {
            row: None,
            lsn: 0,
            parameters,
            context: &context,
        };
        let value = |(expr, column): (&Expr, &ResultColumn)| cast_value(expr.eval(&scope)?, column.data_type);
        let values = row
            .iter()
            .zip(planned.columns())
            .map(value)
            .collect::<Result<Vec<_>, _>>()?;
        sink.row(&values.iter().map(Value::as_ref).collect::<Vec<_>>());
        Ok(Completion {
            tag: "SELECT",
            rows: Some(1),
            ..Completion::default()
        })
    }

    // ---- Queries

    async fn run_query(
        &self,
        planned: &Planned,
        parameters: &[Value],
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut given = 0;
            let reading = match self.reads_of_backups(session) {
                Some(settings) => self.reading_backups(planned, &settings, session).await,
                None => self.reading(planned).await,
            };
            let result = match reading {
                Ok(reading) => {
                    self.query(planned, reading, (parameters, session), sink, &mut given)
                        .await
                }
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.sqlstate == "57P03" && given == 0 && tries < QUERY_TRIES => {
                    tracing::debug!(%error, "a query is run again");
                }
                Err(error) if is_planned_too_early(&error) && given > 0 => {
                    let message = match is_moving(&error) {
                        true => "a table was moved to other partitions while the query ran",
                        false => "a column of a table was dropped while the query ran",
                    };
                    return Err(SqlError::new("40001", message).hint("Run the query again."));
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(given),
            }
        }
    }

    /// Runs a query over what `reading` shows; None: it reads no table of ours.
    pub(super) async fn query(
        &self,
        planned: &Planned,
        reading: Option<Reading>,
        (parameters, session): (&[Value], &Arc<SessionValues>),
        sink: &mut dyn RowSink,
        given: &mut u64,
    ) -> Result<(), SqlError> {
        let Some((plan, planned_in, _)) = planned.as_query() else {
            return Err(SqlError::internal("not a query"));
        };
        let failed = |error| from_datafusion(error, &planned.sql);
        let mut plan = plan.clone();
        if !parameters.is_empty() {
            let scalars = parameters.iter().zip(planned.types());
            let scalars = scalars
                .map(|(value, data_type)| to_scalar(value, *data_type))
                .collect::<Result<Vec<_>, _>>()?;
            plan = plan.with_param_values(ParamValues::from(scalars)).map_err(failed)?;
        }
        if planned.has_function {
            let sequences = &self.coordinator.participant.sequences;
            plan = with_session(plan, sequences, &self.metadata, session).map_err(failed)?;
        }
        let context = reading.as_ref().map(|reading| reading.snapshot.context());
        let context = context.unwrap_or_else(|| self.coordinator.context());
        plan = now::at(plan, &context).map_err(failed)?;
        plan = with_seeks(plan).map_err(failed)?;
        // A builder that makes a default catalog would put an empty one in the place of the session's.
        let mut config = planned_in
            .config()
            .clone()
            .with_create_default_catalog_and_schema(false);
        if let Some(reading) = reading {
            config = config.with_extension(Arc::new(reading));
        }
        let state = SessionStateBuilder::new_from_existing(planned_in.clone())
            .with_config(config)
            .with_execution_props(now::properties(planned_in, &context))
            .with_optimizer_rule(Arc::new(CommonSubexprEliminate::new()))
            .build();
        let physical = state.create_physical_plan(&plan).await.map_err(failed)?;
        let mut batches = execute_stream(physical, state.task_ctx()).map_err(failed)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(failed)?;
            give_batch(&batch, sink)?;
            *given += batch.num_rows() as u64;
            sink.flow().await?;
        }
        Ok(())
    }
}

/// The partition of a key expression's value.
fn partition_of(plan: &ProgramPlan, key: &Expr, parameters: &[Value]) -> Result<PartitionId, SqlError> {
    let direct = match key {
        Expr::Parameter(place) => parameters.get(*place).map(Value::as_ref),
        Expr::Literal(value) => Some(value.as_ref()),
        _ => None,
    };
    let place = plan.table.partition_column.ok_or_else(no_partition_key)?;
    let column = &plan.table.columns[place];
    if let Some(value) = direct
        && matches!(
            (value, column.data_type),
            (ValueRef::Int(_) | ValueRef::BigInt(_), DataType::Int | DataType::BigInt)
                | (ValueRef::Text(_), DataType::Text)
        )
    {
        return Ok(at_index(plan, value));
    }
    let context = StatementContext { now_micros: 0 };
    let scope = Scope {
        row: None,
        lsn: 0,
        parameters,
        context: &context,
    };
    let value = cast_value(key.eval(&scope)?, column.data_type)?;
    Ok(at_index(plan, value.as_ref()))
}

fn at_index(plan: &ProgramPlan, value: ValueRef<'_>) -> PartitionId {
    plan.partitions[partition_index(value, plan.partitions.len() as u32) as usize]
}

fn no_partition_key() -> SqlError {
    SqlError::internal("the partition of a replicated table's row")
}

/// A write to a replicated table: the same in each partition, and one of them counts and returns the rows.
fn in_each(plan: &ProgramPlan) -> Vec<(PartitionId, Arc<Program>)> {
    let again = Arc::new(Program {
        returning: None,
        repeats: true,
        ..Program::clone(&plan.program)
    });
    let first = std::iter::once(Arc::clone(&plan.program));
    let programs = first.chain(std::iter::repeat(again));
    plan.partitions.iter().copied().zip(programs).collect()
}

/// The rows of an INSERT, each with its partition's.
fn by_partition(
    plan: &ProgramPlan,
    rows: &[Vec<Expr>],
    parameters: &[Value],
) -> Result<Vec<(PartitionId, Arc<Program>)>, SqlError> {
    let place = plan.table.partition_column.ok_or_else(no_partition_key)?;
    let mut parts: BTreeMap<PartitionId, Vec<Vec<Expr>>> = BTreeMap::new();
    for row in rows {
        let partition = partition_of(plan, &row[place], parameters)?;
        parts.entry(partition).or_default().push(row.clone());
    }
    let program = |rows| {
        Arc::new(Program {
            action: Action::Insert { rows },
            ..Program::clone(&plan.program)
        })
    };
    Ok(parts
        .into_iter()
        .map(|(partition, rows)| (partition, program(rows)))
        .collect())
}
