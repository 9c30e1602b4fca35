//! A client's transaction of several statements.

use std::sync::Arc;

use async_trait::async_trait;
use volt_engine::idempotency::Keyed;
use volt_engine::value::Value;

use super::prepare::{Plan, Planned};
use super::tables::Reading;
use super::{SqlEngine, planned_of};
use crate::error::SqlError;
use crate::statement::{CommitWait, Completion, Options, Prepared, RowSink, Transaction, TransactionModes};
use crate::txn::Interactive;

/// See the module.
pub(super) struct SqlTransaction {
    engine: Arc<SqlEngine>,
    interactive: Interactive,
}

impl SqlTransaction {
    pub(super) fn begin(engine: Arc<SqlEngine>, modes: TransactionModes) -> Self {
        let interactive = Interactive::begin(&engine.coordinator, modes);
        Self { engine, interactive }
    }

    async fn run(
        &mut self,
        planned: &Planned,
        parameters: &[Value],
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let (tag, rows) = match &planned.plan {
            Plan::Program(plan) => {
                if self.interactive.modes().read_only && !plan.program.is_read_only() {
                    let statement = plan.tag.split(' ').next().unwrap_or_default();
                    let message = format!("cannot execute {statement} in a read-only transaction");
                    return Err(SqlError::new("25006", message));
                }
                let parts = self.engine.parts(plan, parameters)?;
                (plan.tag, self.interactive.run(parts, parameters, sink).await?)
            }
            Plan::Query { tables, .. } => {
                let reading = match tables.as_slice() {
                    [] => None,
                    tables => Some(Reading {
                        coordinator: Arc::clone(&self.engine.coordinator),
                        snapshot: self.interactive.read_tables(tables).await?,
                        writes: self.interactive.writes(),
                    }),
                };
                let mut given = 0;
                let queried = self.engine.query(planned, reading, parameters, sink, &mut given);
                queried.await?;
                ("SELECT", given)
            }
            Plan::CreateTable { .. } => return Err(not_inside("CREATE TABLE")),
            Plan::DropTable { .. } => return Err(not_inside("DROP TABLE")),
            Plan::RecoverNode(_) => return Err(not_inside("RECOVER NODE")),
            Plan::DrainNode(_) => return Err(not_inside("DRAIN NODE")),
            Plan::Empty | Plan::Set | Plan::Show(_) | Plan::Control(_) => {
                return self.engine.run(planned, parameters, None, sink).await;
            }
        };
        Ok(Completion {
            tag,
            rows: Some(rows),
            ..Completion::default()
        })
    }
}

fn not_inside(statement: &str) -> SqlError {
    SqlError::new("25001", format!("{statement} cannot run inside a transaction block"))
}

#[async_trait]
impl Transaction for SqlTransaction {
    async fn execute(
        &mut self,
        prepared: Arc<dyn Prepared>,
        parameters: Vec<Value>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let planned = planned_of(&*prepared)?;
        match self.engine.planned_anew(planned).await? {
            Some(again) => self.run(&again, &parameters, sink).await,
            None => self.run(planned, &parameters, sink).await,
        }
    }

    fn savepoint(&self) -> usize {
        self.interactive.savepoint()
    }

    fn rewind(&mut self, savepoint: usize) -> Result<(), SqlError> {
        self.interactive.rewind(savepoint)
    }

    async fn commit(self: Box<Self>, options: Options) -> Result<Option<CommitWait>, SqlError> {
        self.interactive.commit(options.idempotency_key.map(Keyed::block)).await
    }
}
