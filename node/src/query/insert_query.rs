//! INSERT of a query's rows: a transaction that reads them, then puts them in one statement. It is serializable as any:
//! what it has read still stands when it commits, or it is done again.

use std::sync::Arc;
use std::time::Duration;

use datafusion::logical_expr::{LogicalPlan, WriteOp};
use volt_engine::catalog::Table;
use volt_engine::idempotency::Keyed;
use volt_engine::plan::{Action, Expr, Program};
use volt_engine::value::{Value, ValueRef};

use super::compile::{NotCompiled, Route, program};
use super::planned::{Plan, Planned, ProgramPlan};
use super::{SqlEngine, is_planned_too_early};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::statement::{Completion, RowSink, SessionValues, TransactionModes};
use crate::txn::Interactive;

/// What a query's rows may take before they are put.
const MAX_ROWS_BYTES: usize = 64 << 20;
/// What a value is counted as, beside its text.
const VALUE_BYTES: usize = size_of::<Value>();
/// An INSERT is done again so often when others come in between.
const MAX_TRIES: u32 = 10;
/// Pause before the second try; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// See the module.
pub(super) struct InsertQuery {
    /// What gives the rows.
    pub(super) query: Box<Plan>,
    /// Of each column its place in them, or what it has without.
    places: Vec<Result<usize, Expr>>,
    /// What puts them; it has none yet.
    pub(super) target: ProgramPlan,
}

/// The rows' plan and their table, if an INSERT is no row program because of them.
pub(super) fn of(plan: &LogicalPlan, why: &NotCompiled, map: &ClusterMap) -> Option<(LogicalPlan, Arc<Table>)> {
    let LogicalPlan::Dml(dml) = plan else { return None };
    let is_of_query = matches!(dml.op, WriteOp::Insert(_)) && matches!(why, NotCompiled::RowsOfQuery);
    let table = map.rows(dml.table_name.table()).filter(|_| is_of_query)?;
    Some((LogicalPlan::clone(&dml.input), Arc::clone(table)))
}

/// A program that puts no rows.
pub(super) fn target(table: &Table) -> Program {
    program(table, Action::Insert { rows: Vec::new() })
}

impl InsertQuery {
    pub(super) fn new(
        query: Plan,
        places: Vec<Result<usize, Expr>>,
        program: Program,
        table: Arc<Table>,
        map: &ClusterMap,
    ) -> Result<Self, SqlError> {
        program.validate()?;
        let group = map.groups.get(&table.group);
        let target = ProgramPlan {
            program: Arc::new(program),
            route: match table.is_replicated() {
                true => Route::All,
                false => Route::Rows,
            },
            partitions: group.map_or_else(Vec::new, |group| group.partitions.clone()),
            table,
            tag: "INSERT 0",
            otherwise: None,
        };
        Ok(Self {
            query: Box::new(query),
            places,
            target,
        })
    }

    /// What puts these rows.
    fn put(&self, rows: Vec<Vec<Value>>) -> ProgramPlan {
        let row = |row: Vec<Value>| {
            let value = |place: &Result<usize, Expr>| match place {
                Ok(place) => Expr::Literal(row.get(*place).cloned().unwrap_or(Value::Null)),
                Err(default) => default.clone(),
            };
            self.places.iter().map(value).collect()
        };
        let rows = rows.into_iter().map(row).collect();
        let target = &self.target;
        ProgramPlan {
            program: Arc::new(Program {
                action: Action::Insert { rows },
                ..Program::clone(&target.program)
            }),
            route: target.route.clone(),
            table: Arc::clone(&target.table),
            partitions: target.partitions.clone(),
            tag: target.tag,
            otherwise: None,
        }
    }
}

/// Rows that are kept until all are there.
#[derive(Default)]
struct Kept {
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Kept {
    fn is_full(&self) -> bool {
        self.bytes > MAX_ROWS_BYTES
    }

    fn check(&self) -> Result<(), SqlError> {
        if !self.is_full() {
            return Ok(());
        }
        let message = format!(
            "an INSERT of a query's rows takes at most {} MiB of them",
            MAX_ROWS_BYTES >> 20
        );
        Err(SqlError::new("54000", message).hint("Insert them in parts."))
    }
}

#[async_trait::async_trait]
impl RowSink for Kept {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        if self.is_full() {
            return;
        }
        let bytes = |value: &ValueRef<'_>| match value {
            ValueRef::Text(text) => text.len(),
            ValueRef::Bytea(bytes) => bytes.len(),
            _ => 0,
        };
        self.bytes += values.iter().map(|value| VALUE_BYTES + bytes(value)).sum::<usize>();
        self.rows.push(values.iter().map(|value| value.to_value()).collect());
    }

    async fn flow(&mut self) -> Result<(), SqlError> {
        self.check()
    }
}

impl SqlEngine {
    /// As a transaction of its own.
    pub(super) async fn insert_query(
        &self,
        planned: &Planned,
        insert: &InsertQuery,
        parameters: (&[Value], &Arc<SessionValues>),
        key: Option<Keyed>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        if key.is_some() {
            let hint = "Put it between BEGIN and COMMIT: the key is then that of the transaction.";
            return Err(SqlError::unsupported("an idempotency key for an INSERT of a query's rows").hint(hint));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let mut transaction = Interactive::begin(&self.coordinator, TransactionModes::default());
            let mut returned = Kept::default();
            let inserted = self.insert_query_in(&mut transaction, planned, insert, parameters, &mut returned);
            let ended = match inserted.await {
                Ok(rows) => transaction.commit(None).await.map(|wait| (rows, wait)),
                Err(error) => Err(error),
            };
            match ended {
                // It is to be planned anew first.
                Err(error) if is_planned_too_early(&error) => return Err(error),
                Err(error) if error.sqlstate == "40001" && tries < MAX_TRIES => {
                    tracing::debug!(%error, "an INSERT of a query's rows is done again");
                    let pause = FIRST_PAUSE * (1 << tries.min(6));
                    tokio::time::sleep(self.coordinator.jitter(pause)).await;
                }
                Err(error) => return Err(error),
                Ok((rows, wait)) => {
                    for row in returned.rows {
                        sink.row(&row.iter().map(Value::as_ref).collect::<Vec<_>>());
                    }
                    return Ok(Completion {
                        tag: insert.target.tag,
                        rows: Some(rows),
                        wait,
                        ..Completion::default()
                    });
                }
            }
        }
    }

    /// Inside a transaction that is open: how many rows were put.
    pub(super) async fn insert_query_in(
        &self,
        transaction: &mut Interactive,
        planned: &Planned,
        insert: &InsertQuery,
        parameters: (&[Value], &Arc<SessionValues>),
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        let mut kept = Kept::default();
        self.query_in(transaction, planned, parameters, &mut kept).await?;
        kept.check()?;
        if kept.rows.is_empty() {
            return Ok(0);
        }
        let put = insert.put(kept.rows);
        let parts = self.parts(&put, &[])?;
        transaction.run(parts, &[], sink).await
    }
}
