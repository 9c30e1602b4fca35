//! CALL: its arguments, and the execution of the procedure.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::sql::sqlparser::ast::{
    Expr as AstExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value as AstValue,
};
use tokio::time::Instant;
use volt_engine::PartitionId;
use volt_engine::idempotency::Keyed;
use volt_engine::placement::partition_index;
use volt_engine::plan::eval::{Scope, cast_value};
use volt_engine::plan::{Expr, StatementContext};
use volt_engine::procedure::{Collector, Level, Next, Notice, Parameter, Procedure, RowsTaken};
use volt_engine::value::{DataType, Value, ValueRef};

use super::no_procedure;
use super::scope::sql_type;
use super::statistics::Counts;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::query::SqlEngine;
use crate::query::compile::compile_constants;
use crate::query::ddl::table_name;
use crate::query::execute::Notices;
use crate::query::planned::Plan;
use crate::query::sequence::Call;
use crate::statement::{Completion, Prepared, ResultColumn, RowSink, SessionValues, TransactionModes};
use crate::txn::Interactive;

/// A call that runs as a transaction over several partitions is tried so often when others come in between.
const MAX_TRIES: u32 = 10;
/// The pause before the second try; it doubles each time, less a random part.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// A planned CALL.
pub(in crate::query) struct CallPlan {
    procedure: Arc<Procedure>,
    /// One a parameter that is given.
    arguments: Vec<Expr>,
    /// Of a partitioned procedure: its table's partitions, and the argument that chooses one.
    route: Option<(Vec<PartitionId>, usize)>,
    counts: Arc<Counts>,
}

impl CallPlan {
    pub(in crate::query) fn columns(&self) -> Vec<ResultColumn> {
        let column = |(name, data_type): &(String, DataType)| ResultColumn {
            name: name.clone(),
            data_type: *data_type,
        };
        self.procedure.columns.iter().map(column).collect()
    }

    pub(in crate::query) fn returns_rows(&self) -> bool {
        !self.procedure.columns.is_empty()
    }

    fn arguments(&self, parameters: &[Value]) -> Result<Vec<Value>, SqlError> {
        let context = StatementContext { now_micros: 0 };
        let scope = Scope {
            row: None,
            lsn: 0,
            parameters,
            context: &context,
        };
        let given = self.procedure.parameters.iter().filter(|parameter| parameter.is_input);
        let argument = |(expr, parameter): (&Expr, &Parameter)| match parameter.data_type {
            // Too long a text is the procedure's to refuse.
            DataType::Varchar(_) => cast_value(expr.eval(&scope)?, DataType::Text),
            data_type => cast_value(expr.eval(&scope)?, data_type),
        };
        let arguments = self.arguments.iter().zip(given).map(argument);
        Ok(arguments.collect::<Result<_, _>>()?)
    }

    /// Where a partitioned procedure runs with these arguments; None: it isn't partitioned.
    fn partition(&self, arguments: &[Value]) -> Result<Option<PartitionId>, SqlError> {
        let (Some((partitions, argument)), Some(by)) = (&self.route, &self.procedure.partition_by) else {
            return Ok(None);
        };
        let key = arguments.get(*argument).cloned().unwrap_or(Value::Null);
        let key = cast_value(key, by.data_type)?;
        let index = partition_index(key.as_ref(), partitions.len() as u32);
        match partitions.get(index as usize) {
            Some(partition) => Ok(Some(*partition)),
            None => Err(SqlError::internal("a partition that its group has not")),
        }
    }
}

fn done(notices: Vec<Notice>) -> Completion {
    Completion {
        tag: "CALL",
        notices: told(notices),
        ..Completion::default()
    }
}

fn told(notices: Vec<Notice>) -> Notices {
    let one = |notice: Notice| {
        let (severity, sqlstate) = match notice.level {
            Level::Info => ("INFO", "00000"),
            Level::Notice | Level::Exception => ("NOTICE", "00000"),
            Level::Warning => ("WARNING", "01000"),
        };
        (severity, sqlstate, notice.message)
    };
    notices.into_iter().map(one).collect()
}

impl SqlEngine {
    /// Plans a CALL: the plan, and the types of the statement's parameters.
    pub(in crate::query) async fn plan_call(
        &self,
        call: &Function,
        types: &[Option<DataType>],
        map: &ClusterMap,
    ) -> Result<(CallPlan, Vec<DataType>, Vec<Call>), SqlError> {
        let name = table_name(&call.name)?;
        let procedure = map.procedure(&name).cloned().ok_or_else(|| no_procedure(&name))?;
        let given = given_arguments(call, &procedure)?;
        let mut parameters: Vec<Option<DataType>> = types.to_vec();
        let mut casts = Vec::new();
        for (argument, parameter) in &given {
            if let AstExpr::Value(value) = argument
                && let AstValue::Placeholder(id) = &value.value
                && let Some(number @ 1..=65_535) = id.trim_start_matches('$').parse::<usize>().ok()
            {
                parameters.resize(parameters.len().max(number), None);
                parameters[number - 1].get_or_insert(parameter.data_type);
            }
            // Two arguments may look alike, and the planner wants two names.
            let place = casts.len();
            casts.push(format!(
                "CAST({argument} AS {}) AS a{place}",
                sql_type(parameter.data_type)
            ));
        }
        let (mut arguments, mut calls) = (Vec::new(), (Vec::new(), Vec::new()));
        if !casts.is_empty() {
            let sql = format!("SELECT {}", casts.join(", "));
            // A CALL's arguments are planned while the CALL is.
            let planned = Box::pin(self.plan(&sql, &parameters, map)).await?;
            let inferred = Prepared::parameters(&planned);
            let count = parameters.len().max(inferred.len());
            parameters.resize(count, None);
            for (said, inferred) in parameters.iter_mut().zip(inferred) {
                said.get_or_insert(*inferred);
            }
            arguments = match &planned.plan {
                Plan::Query { plan, .. } => compile_constants(plan)?,
                Plan::Constants(row) => row.clone(),
                _ => return Err(SqlError::internal("arguments that are no query")),
            };
            let (of, types) = planned.calls();
            calls = (of.to_vec(), types.to_vec());
        }
        let route = procedure.partition_by.as_ref().and_then(|by| {
            let group = map.groups.get(&map.tables.get(&by.table)?.group)?;
            let before = &procedure.parameters[..by.parameter];
            let argument = before.iter().filter(|parameter| parameter.is_input).count();
            Some((group.partitions.clone(), argument))
        });
        let counts = self.procedures.of(procedure.id, |id| map.procedures.contains_key(&id));
        let plan = CallPlan {
            procedure,
            arguments,
            route,
            counts,
        };
        let (calls, types) = calls;
        let parameters = parameters.into_iter().map(|said| said.unwrap_or(DataType::Text));
        Ok((plan, parameters.chain(types).collect(), calls))
    }

    /// Runs a call here and now, if its partition is here.
    pub(in crate::query) fn try_call(
        &self,
        plan: &CallPlan,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>> {
        plan.route.as_ref()?;
        let begun = Instant::now();
        let arguments = match plan.arguments(parameters) {
            Ok(arguments) => arguments,
            Err(error) => return Some(Err(error)),
        };
        let partition = match plan.partition(&arguments) {
            Ok(partition) => partition?,
            Err(error) => return Some(Err(error)),
        };
        let called = self
            .coordinator
            .try_call(partition, &plan.procedure, &arguments, sink)?;
        plan.counts.called(micros(begun), called.is_err());
        Some(called.map(|(executed, notices)| Completion {
            wait: executed.wait,
            ..done(notices)
        }))
    }

    /// Runs a call that is a transaction of its own.
    pub(in crate::query) async fn run_call(
        &self,
        plan: &CallPlan,
        parameters: &[Value],
        key: Option<Keyed>,
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        if key.is_some() && plan.route.is_none() {
            let what = format!(
                "an idempotency key for procedure {}, which has no PARTITION ON,",
                plan.procedure.name
            );
            return Err(SqlError::unsupported(what)
                .hint("Call it between BEGIN and COMMIT: the key is then that of the transaction."));
        }
        let begun = Instant::now();
        let arguments = plan.arguments(parameters)?;
        let called = match plan.partition(&arguments)? {
            Some(partition) => {
                let call = self.coordinator.call(partition, &plan.procedure, &arguments, key, sink);
                call.await.map(done)
            }
            None => self.call_as_transaction(plan, &arguments, session, sink).await,
        };
        plan.counts.called(micros(begun), called.is_err());
        called
    }

    /// Runs a call as a transaction, again and again while others come in between: nobody has been answered.
    async fn call_as_transaction(
        &self,
        plan: &CallPlan,
        arguments: &[Value],
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut transaction = Interactive::begin(&self.coordinator, TransactionModes::default());
            let mut rows = Rows(Collector::new(usize::MAX));
            let called = self.call_within(&mut transaction, &plan.procedure, arguments, session, &mut rows);
            let called = called.await;
            rows.0.check(&plan.procedure)?;
            let ended = match called {
                Ok(notices) => transaction
                    .commit(None)
                    .await
                    .map(|wait| Completion { wait, ..done(notices) }),
                Err(error) => Err(error),
            };
            match ended {
                Err(error) if error.sqlstate == "40001" && tries < MAX_TRIES => {
                    tracing::debug!(%error, procedure = plan.procedure.name, "a call is run again");
                    let pause = FIRST_PAUSE * (1 << tries.min(6));
                    tokio::time::sleep(self.coordinator.jitter(pause)).await;
                }
                Err(error) => return Err(error),
                Ok(completion) => {
                    for row in rows.0.take_rows() {
                        sink.row(&row.iter().map(Value::as_ref).collect::<Vec<_>>());
                    }
                    return Ok(completion);
                }
            }
        }
    }

    /// Runs a call inside a transaction that is open.
    pub(in crate::query) async fn call_in(
        &self,
        transaction: &mut Interactive,
        plan: &CallPlan,
        parameters: &[Value],
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let begun = Instant::now();
        let arguments = plan.arguments(parameters)?;
        let called = self.call_within(transaction, &plan.procedure, &arguments, session, sink);
        let called = called.await;
        plan.counts.called(micros(begun), called.is_err());
        called.map(done)
    }

    async fn call_within(
        &self,
        transaction: &mut Interactive,
        procedure: &Procedure,
        arguments: &[Value],
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Vec<Notice>, SqlError> {
        let runnable = self.coordinator.runnable(procedure)?;
        let mut machine = runnable.start(procedure, arguments, &self.coordinator.context())?;
        let mut kept = Rows(Collector::default());
        loop {
            let (statement, rows) = match machine.advance()? {
                Next::Execute { statement, rows } => (statement, rows),
                Next::Value { sequence, slot } => {
                    let value = self.coordinator.participant.sequences.take(sequence, 1).await?;
                    machine.put(slot, value)?;
                    continue;
                }
                Next::Row => {
                    machine.give_row(&mut |row| sink.row(row))?;
                    continue;
                }
                Next::Pause => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Next::Done => return Ok(machine.take_notices()),
            };
            let statement = procedure.statements.get(statement);
            let statement = statement.ok_or_else(|| SqlError::internal("a procedure without its statement"))?;
            let types: Vec<Option<DataType>> = procedure.types_of(statement).iter().copied().map(Some).collect();
            let planned = self.planned(&statement.sql, &types).await?;
            let values = planned.parameters().iter().zip(machine.frame());
            let values = values.map(|(data_type, value)| cast_value(value.clone(), *data_type));
            let values = values.collect::<Result<Vec<_>, _>>()?;
            let affected = match rows {
                RowsTaken::Caller => self.run_in(transaction, &planned, &values, session, sink).await?,
                RowsTaken::Kept(limit) => {
                    kept.0.begin(limit);
                    let affected = self.run_in(transaction, &planned, &values, session, &mut kept).await?;
                    kept.0.check(procedure)?;
                    affected
                }
            };
            machine.executed(affected.rows.unwrap_or(0), &mut kept.0)?;
        }
    }
}

fn micros(begun: Instant) -> u64 {
    begun.elapsed().as_micros() as u64
}

/// Keeps the rows of a statement inside a procedure.
struct Rows(Collector);

#[async_trait]
impl RowSink for Rows {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        self.0.row(values);
    }
}

/// The arguments with their parameters: as many as there are parameters that are given, or as there are parameters, those
/// of OUT being ignored as in PostgreSQL.
fn given_arguments<'a>(
    call: &'a Function,
    procedure: &'a Procedure,
) -> Result<Vec<(&'a AstExpr, &'a Parameter)>, SqlError> {
    let arguments: Vec<&FunctionArg> = match &call.args {
        FunctionArguments::None => Vec::new(),
        FunctionArguments::List(list) if list.clauses.is_empty() => list.args.iter().collect(),
        _ => return Err(SqlError::unsupported("these arguments of a CALL")),
    };
    let plain = |argument: &&'a FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(SqlError::unsupported("an argument by name in a CALL")),
    };
    let arguments = arguments.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    let inputs = procedure.parameters.iter().filter(|parameter| parameter.is_input);
    if arguments.len() == inputs.clone().count() {
        return Ok(arguments.into_iter().zip(inputs).collect());
    }
    if arguments.len() == procedure.parameters.len() {
        let all = arguments.into_iter().zip(&procedure.parameters);
        return Ok(all.filter(|(_, parameter)| parameter.is_input).collect());
    }
    let name = &procedure.name;
    let types: Vec<&str> = procedure
        .parameters
        .iter()
        .map(|parameter| parameter.data_type.name())
        .collect();
    let message = format!("procedure {name} does not exist with {} arguments", arguments.len());
    Err(SqlError::new("42883", message).hint(format!("It is {name}({}).", types.join(", "))))
}
