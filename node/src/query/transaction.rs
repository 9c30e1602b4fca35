//! A client's transaction of several statements.

use std::sync::Arc;

use async_trait::async_trait;
use volt_engine::idempotency::Keyed;
use volt_engine::value::Value;

use super::planned::{Plan, Planned};
use super::sequence::SequencePlan;
use super::tables::Reading;
use super::{SqlEngine, is_planned_too_early, planned_of};
use crate::error::SqlError;
use crate::statement::{
    CommitWait, Completion, Options, Prepared, RowSink, SessionValues, Transaction, TransactionModes,
};
use crate::txn::Interactive;

/// See the module.
pub(super) struct SqlTransaction {
    engine: Arc<SqlEngine>,
    interactive: Interactive,
    session: Arc<SessionValues>,
}

impl SqlTransaction {
    pub(super) fn begin(engine: Arc<SqlEngine>, modes: TransactionModes, session: Arc<SessionValues>) -> Self {
        let interactive = Interactive::begin(&engine.coordinator, modes);
        Self {
            engine,
            interactive,
            session,
        }
    }
}

impl SqlEngine {
    /// Runs a statement inside a transaction that is open.
    pub(super) async fn run_in(
        &self,
        transaction: &mut Interactive,
        planned: &Planned,
        parameters: &[Value],
        session: &Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        self.check_standby(planned, true)?;
        let is_read_only = transaction.modes().read_only;
        if is_read_only && planned.takes_values() && !planned.writes() {
            let message = "cannot execute nextval() in a read-only transaction";
            return Err(SqlError::new("25006", message));
        }
        let own = parameters;
        let parameters = &*self.with_values(planned, parameters, session).await?;
        let (tag, rows) = match &planned.plan {
            Plan::Program(plan) => {
                if is_read_only && !plan.program.is_read_only() {
                    let statement = plan.tag.split(' ').next().unwrap_or_default();
                    let message = format!("cannot execute {statement} in a read-only transaction");
                    return Err(SqlError::new("25006", message));
                }
                let parts = self.parts(plan, parameters)?;
                let rows = match transaction.run(parts, parameters, sink).await {
                    Err(error) if planned.is_query_after(&error) => {
                        self.query_in(transaction, planned, (parameters, session), sink).await?
                    }
                    rows => rows?,
                };
                (plan.tag, rows)
            }
            Plan::Query { .. } => {
                let rows = self.query_in(transaction, planned, (parameters, session), sink).await?;
                ("SELECT", rows)
            }
            Plan::InsertQuery(insert) => {
                if is_read_only {
                    let message = "cannot execute INSERT in a read-only transaction";
                    return Err(SqlError::new("25006", message));
                }
                let inserted = self.insert_query_in(transaction, planned, insert, (parameters, session), sink);
                (insert.target.tag, inserted.await?)
            }
            Plan::Constants(row) => return self.constants(planned, row, parameters, sink),
            // A procedure's statements run in the transaction too.
            Plan::Call(plan) => return Box::pin(self.call_in(transaction, plan, parameters, session, sink)).await,
            Plan::Procedure(plan) => return Err(not_inside(plan.tag())),
            Plan::AlterTable(_) | Plan::Ttl(_) | Plan::Copies(_) => return Err(not_inside("ALTER TABLE")),
            Plan::Sequence(SequencePlan::SetValue { .. }) => {
                return Err(SqlError::unsupported("setval inside a transaction block"));
            }
            Plan::Sequence(plan) => return Err(not_inside(plan.tag())),
            Plan::Index(plan) => return Err(not_inside(plan.tag())),
            Plan::CreateTable { .. } => return Err(not_inside("CREATE TABLE")),
            Plan::DropTable { .. } => return Err(not_inside("DROP TABLE")),
            Plan::View(plan) => return Err(not_inside(plan.tag())),
            Plan::Truncate { .. } => return Err(SqlError::unsupported("TRUNCATE inside a transaction block")),
            Plan::Link(plan) => return Err(not_inside(plan.tag())),
            Plan::ApplyChanges => return Err(not_inside("APPLY REPLICATION CHANGES")),
            Plan::RecoverNode(_) => return Err(not_inside("RECOVER NODE")),
            Plan::DrainNode(_) => return Err(not_inside("DRAIN NODE")),
            Plan::Promote { .. } => return Err(not_inside("PROMOTE")),
            Plan::Empty | Plan::Set | Plan::Show(_) | Plan::Explain(_) | Plan::Control(_) => {
                return Box::pin(self.run(planned, own, None, session, sink)).await;
            }
        };
        Ok(Completion {
            tag,
            rows: Some(rows),
            ..Completion::default()
        })
    }

    /// Runs a query of DataFusion at the transaction's snapshot.
    pub(super) async fn query_in(
        &self,
        transaction: &mut Interactive,
        planned: &Planned,
        parameters: (&[Value], &Arc<SessionValues>),
        sink: &mut dyn RowSink,
    ) -> Result<u64, SqlError> {
        let tables = planned.as_query().map_or(&[][..], |(_, _, tables)| tables);
        let reading = match tables {
            [] => None,
            tables => Some(Reading {
                coordinator: Arc::clone(&self.coordinator),
                snapshot: transaction.read_tables(tables).await?,
                writes: transaction.writes(),
            }),
        };
        let mut given = 0;
        self.query(planned, reading, parameters, sink, &mut given).await?;
        Ok(given)
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
        let again = self.engine.planned_anew(planned).await?;
        let planned = again.as_deref().unwrap_or(planned);
        let (engine, session) = (&self.engine, &self.session);
        let ran = engine.run_in(&mut self.interactive, planned, &parameters, session, sink);
        match ran.await {
            // What was read before counts, and this statement is not what it was.
            Err(error) if is_planned_too_early(&error) => Err(error.hint("The transaction might succeed if retried.")),
            ran => ran,
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
